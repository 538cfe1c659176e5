"""Official scores on cases that were worked out by hand, and what is given where a score is not defined."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from subarch.errors import InvalidTask
from subarch.tasks import TASKS, Examples, balanced_accuracy, score
from subarch.tasks.examples import Example
from task_layouts import example


def labelled(task: str, labels: Sequence[float | None], part: str = "validation") -> Examples:
    rows = tuple(example(str(n), label, choices=tuple("abcd")) for n, label in enumerate(labels))
    return Examples(TASKS[task], part, "here", rows)


def scored(task: str, labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return score(labelled(task, labels), predictions)


def test_every_metric_has_a_task_and_every_task_a_metric() -> None:
    from subarch.tasks.metrics import METRICS

    assert {metric for task in TASKS.values() for metric in task.metrics} == set(METRICS)
    assert all(task.metrics for task in TASKS.values())


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "expected"),
    [
        ("sst2", [1, 0, 1, 0], [1, 0, 0, 0], {"accuracy": 0.75}),
        # TP 2, FN 1, TN 2, FP 0: (2 x 2 - 0) / sqrt(2 x 3 x 2 x 3)
        ("cola", [1, 1, 0, 0, 1], [1, 0, 0, 0, 1], {"mcc": 4 / 6}),
        # precision 1, recall 2/3
        ("mrpc", [1, 1, 0, 0, 1], [1, 0, 0, 0, 1], {"f1": 0.8, "accuracy": 0.8}),
        ("qqp", [1, 1, 0, 0], [0, 0, 1, 0], {"f1": 0.0, "accuracy": 0.25}),
        # three classes: (c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)) = (6 - 3) / sqrt(4 x 6)
        ("ax", [0, 1, 2], [0, 1, 1], {"mcc": 3 / 24**0.5}),
        # deviations (-1, 0, 1) and (-4/3, -1/3, 5/3): 3 / sqrt(2 x 42/9); the ranks are the same
        ("stsb", [1, 2, 3], [1, 2, 4], {"pearson": 3 / (2 * 42 / 9) ** 0.5, "spearman": 1.0}),
        # per class F1 1/2, 2/3, 0
        ("cb", [0, 0, 1, 2], [0, 1, 1, 0], {"macro_f1": 7 / 18, "accuracy": 0.5}),
        # neutral neither occurs nor is predicted: the mean of 2/3 and 0
        ("cb", [0, 0], [0, 1], {"macro_f1": 1 / 3, "accuracy": 0.5}),
        ("copa", [0, 1, 1], [0, 1, 0], {"accuracy": 2 / 3}),
        ("dream", [3, 2], [3, 2], {"accuracy": 1.0}),
        # both of the first pair alike, of the second not
        ("ax-g", [0, 0, 1, 1], [0, 0, 1, 0], {"gender_parity": 0.5, "accuracy": 0.75}),
        ("ax-b", [0, 0, 1, 1], [1, 1, 0, 0], {"mcc": -1.0}),
    ],
)
def test_scores_by_hand(task: str, labels: list[float], predictions: list[float], expected: dict[str, float]) -> None:
    found = scored(task, labels, predictions)
    assert found == pytest.approx(expected)
    assert list(found) == list(expected) == list(TASKS[task].metrics)  # the primary score first
    assert all(type(value) is float for value in found.values())


def multirc(*answers: tuple[str, int]) -> Examples:
    return Examples(TASKS["multirc"], "validation", "here", tuple(example(name, label) for name, label in answers))


def test_multirc_is_scored_by_answer_and_by_question() -> None:
    part = multirc(("0-0-0", 1), ("0-0-1", 0), ("0-1-2", 1), ("0-1-3", 1))
    predictions = [1, 0, 1, 0]
    # answers: TP 2, FN 1; questions: the first right, the second not
    assert score(part, predictions) == pytest.approx({"f1a": 0.8, "em": 0.5})
    # a bootstrap sample in which the first question stands twice: questions right 2 of 3
    rows = (*part.rows[:2], *part.rows)
    again = Examples(part.task, part.part, part.source, rows)
    assert score(again, [*predictions[:2], *predictions])["em"] == pytest.approx(2 / 3)
    # question 1 of passage 0 and question 1 of passage 1 are two questions
    assert score(multirc(("0-1-0", 1), ("1-1-0", 0)), [1, 1])["em"] == 0.5


def test_record_is_scored_by_the_text_of_the_answer() -> None:
    entities = ("The Bob, Ray", "Bob", "Ann")
    rows = tuple(Example(f"0-{n}", "g", ("t", "q"), entities, 0, ("Bob Ray", "Ray's son")) for n in range(3))
    part = Examples(TASKS["record"], "validation", "here", rows)
    # article and comma do not count; one of two words shared: 2 x 1 / (1 + 2); nothing shared
    assert score(part, [0, 1, 2]) == pytest.approx({"f1": (1 + 2 / 3) / 3, "em": 1 / 3})


def test_race_by_part() -> None:
    groups = ["middle1.txt", "middle1.txt", "high2.txt", "high3.txt", "high3.txt"]
    rows = tuple(example(str(n), 1, group=group, choices=tuple("abcd")) for n, group in enumerate(groups))
    part = Examples(TASKS["race"], "test", "here", rows)
    assert score(part, [1, 0, 1, 1, 3]) == pytest.approx(
        {"accuracy": 0.6, "accuracy_middle": 0.5, "accuracy_high": 2 / 3}
    )
    with pytest.warns(UserWarning, match="no passage of high"):
        assert score(part[:2], [1, 1])["accuracy_high"] == 0.0


def test_balanced_accuracy_of_a_majority_vote() -> None:
    part = labelled("sst2", [0, 0, 0, 1])
    assert balanced_accuracy(part, [0, 0, 0, 0]) == 0.5
    assert balanced_accuracy(part, [0, 0, 1, 1]) == pytest.approx((2 / 3 + 1) / 2)
    assert balanced_accuracy(labelled("mnli", [0, 0, 1, 2]), [0, 0, 0, 0]) == pytest.approx(1 / 3)
    # a prediction of a class that does not occur is wrong, no class of its own
    assert balanced_accuracy(labelled("mnli", [0, 1]), [0, 2]) == 0.5
    for unfit in (labelled("stsb", [1.0, 2.0]), labelled("sst2", [None, None], "test")):
        with pytest.raises(InvalidTask, match="needs labels that are classes"):
            balanced_accuracy(unfit, [0, 0])


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "why"),
    [
        ("cola", [1, 0, 1], [1, 1, 1], "Matthews correlation is not defined .all 3 predictions are equal"),
        ("cola", [1, 1], [0, 1], "all 2 labels are equal"),
        ("stsb", [1, 2, 3], [2.5, 2.5, 2.5], "Pearson correlation is not defined .all 3 predictions are equal"),
        ("stsb", [1, 2, 3], [0.1 + 0.2, 0.3, 0.3], "Spearman correlation is not defined"),
        ("stsb", [1], [2], "all 1 labels are equal"),
        ("mrpc", [0, 0], [0, 0], "f1 is not defined .no example is positive"),
    ],
)
def test_what_is_not_defined_is_zero_and_said(
    task: str, labels: list[float], predictions: list[float], why: str
) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = score(labelled(task, labels), predictions)
    assert found[TASKS[task].metrics[0]] == 0.0
    assert any(re.search(why, str(warning.message)) for warning in said)


@pytest.mark.parametrize(
    ("task", "labels", "predictions", "message"),
    [
        ("sst2", [0, 1], [0], r"predictions of shape \(1,\) for 2 examples"),
        ("sst2", [0, 1], [[0, 1]], r"shape \(1, 2\)"),
        ("sst2", [0, 1], [0, 2], "example '1' is 2, not 0 to 1"),
        ("sst2", [0, 1], [0.5, 1], "example '0' is 0.5, not 0 to 1"),
        ("stsb", [0, 1], [0, float("nan")], "example '1' is nan, not a number"),
        ("race", [0, 1], [4, 0], "is 4, not 0 to 3"),
        ("sst2", [], [], "there are no examples"),
        ("ax-g", [0, 1, 0], [0, 0, 0], "gender parity needs both examples"),
    ],
)
def test_predictions_that_are_refused(task: str, labels: list[float], predictions: Any, message: str) -> None:
    with pytest.raises(InvalidTask, match=message):
        score(labelled(task, labels), predictions)


def test_a_part_without_labels_is_predicted_not_scored() -> None:
    with pytest.raises(InvalidTask, match="test of rte has no labels, so it cannot be scored"):
        score(labelled("rte", [None, None], "test"), [0, 1])
