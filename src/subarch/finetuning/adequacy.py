"""Whether a teacher is good enough to label data, or to be imitated.

Agora asks for a merely adequate teacher: better than 2/3 on a balanced binary task (arXiv 2010.07990, as the released
material tells it). The rest is ours: on unbalanced data a majority vote has 2/3 easily, so balanced accuracy is taken;
and whatever the task, a teacher that says no more than the most frequent class, the most frequent position of the right
choice or the mean of the targets teaches nothing.

    >>> adequate(dev, [0] * len(dev))
    'its balanced accuracy on 277 examples of rte, validation, is 0.500; 0.667 is asked of a teacher'
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subarch.tasks import Examples, balanced_accuracy, statistics
from subarch.tasks.metrics import checked

LEAST_BALANCED = 2 / 3


def adequate(examples: Examples, predictions: Sequence[float]) -> str | None:
    """What speaks against a teacher with these predictions of labelled examples, in words; None: nothing.

    Two classes, or two choices each: balanced accuracy (over classes, over positions) of at least 2/3. Always: a higher
    accuracy than that of the most frequent class or position, for regression a smaller squared error than the mean's.

    Raises:
        InvalidTask: as `tasks.score`.
    """
    predicted, known = checked(examples, predictions), statistics(examples)
    where = f"on {len(examples)} examples of {examples.task.name}, {examples.part},"
    if examples.task.head == "regression":
        assert examples.labels is not None
        error = float(np.mean((predicted - np.asarray(examples.labels)) ** 2))
        if error >= known["deviation"] ** 2:
            return (
                f"its squared error {where} is {error:.3g}; always to say their mean has {known['deviation'] ** 2:.3g}"
            )
        return None
    two = len(examples.task.labels) == 2 or all(len(example.choices) == 2 for example in examples)
    balanced = balanced_accuracy(examples, predictions)
    if two and balanced < LEAST_BALANCED:
        return f"its balanced accuracy {where} is {balanced:.3f}; {LEAST_BALANCED:.3f} is asked of a teacher"
    accuracy = float(np.mean(predicted == np.asarray(examples.labels)))
    share = known["majority_share"]
    if accuracy <= share:
        return f"its accuracy {where} is {accuracy:.3f}; always to say {known['majority']!r} has {share:.3f}"
    return None
