"""When a teacher is good enough: cases by hand, for each type of task."""

from __future__ import annotations

from subarch.finetuning.adequacy import adequate
from subarch.tasks import Example, Examples, Task
from tasks_tiny import PRICE, QUIZ, SAME, TOPIC, examples


def part(of: Task, labels: list[float], choices: int = 0) -> Examples:
    texts = tuple(f"choice {n}" for n in range(choices))
    return examples(of, [Example(str(n), str(n), ("x",), texts, label) for n, label in enumerate(labels)], "validation")


def test_two_classes_need_two_thirds_of_balanced_accuracy() -> None:
    dev = part(SAME, [0, 0, 0, 1, 1, 1])
    assert adequate(dev, [0, 0, 1, 1, 1, 0]) is None  # 2/3 of both
    said = adequate(dev, [0, 0, 1, 1, 0, 0])
    assert said == "its balanced accuracy on 6 examples of same, validation, is 0.500; 0.667 is asked of a teacher"


def test_a_majority_vote_on_unbalanced_classes_teaches_nothing() -> None:
    dev = part(SAME, [0] * 9 + [1])
    assert "balanced accuracy" in str(adequate(dev, [0] * 10))
    # Balanced 0.83, but accuracy 0.7 under the 0.9 of the majority
    assert adequate(dev, [0] * 6 + [1] * 4) == (
        "its accuracy on 10 examples of same, validation, is 0.700; always to say 'different' has 0.900"
    )
    assert adequate(dev, [0] * 9 + [1]) is None


def test_more_classes_need_more_than_the_majority() -> None:
    dev = part(TOPIC, [0, 0, 1, 2])
    assert "always to say 'harbour' has 0.500" in str(adequate(dev, [0, 0, 0, 0]))
    assert adequate(dev, [0, 1, 1, 2]) is None


def test_choices_are_compared_with_the_most_frequent_position() -> None:
    two = part(QUIZ, [0, 0, 1, 1], choices=2)
    assert "balanced accuracy" in str(adequate(two, [0, 1, 0, 1]))
    assert adequate(two, [0, 0, 1, 1]) is None
    four = part(QUIZ, [0, 0, 1, 2, 3], choices=4)
    assert "always to say '0' has 0.400" in str(adequate(four, [0, 0, 3, 3, 1]))
    assert adequate(four, [0, 1, 1, 2, 1]) is None


def test_numbers_need_to_be_nearer_than_their_mean() -> None:
    dev = part(PRICE, [1.0, 2.0, 3.0, 6.0])
    assert "their mean has 3.5" in str(adequate(dev, [3.0] * 4))
    assert adequate(dev, [1.5, 2.0, 3.0, 5.0]) is None
