"""What a fine-tuned model is worth: told by hand from outputs that were made up, and left beside the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subarch.errors import InvalidStudy, InvalidTask
from subarch.evaluation import evaluate as stage
from subarch.evaluation.evaluate import MISTAKES, assess, evaluate, gathered
from subarch.run.records import Evaluation
from subarch.tasks import TASKS, Examples
from subarch.tasks.examples import Example
from task_layouts import example

Logits = np.ndarray[Any, Any]


def part_of(task: str, labels: Sequence[float | None], part: str = "validation", **others: Any) -> Examples:
    rows = tuple(example(f"r{n}", label, texts=(f"text {n}", "b"), **others) for n, label in enumerate(labels))
    return Examples(TASKS[task], part, "here", rows)


RTE = part_of("rte", [0, 0, 1, 1, 0])
# log-odds of not_entailment: right, wrong and sure, right, wrong and less sure, wrong and as sure as row 1
OUTPUTS = np.array([[2, 0], [0, 3], [0, 1], [1, 0], [-2, 1]], np.float32)


def test_scores_confusion_and_the_surest_mistakes() -> None:
    found = assess(RTE, [OUTPUTS])
    assert found.scores.metrics["accuracy"].value == 0.4
    assert found.scores.metrics["accuracy"].low < 0.4 < found.scores.metrics["accuracy"].high
    # two of three entailments were taken for the other
    assert found.confusion.to_dict() == {"labels": ["entailment", "not_entailment"], "counts": [[1, 2], [1, 1]]}
    assert found.predicted.to_dict() == {"counts": {"entailment": 2, "not_entailment": 3}}
    mistakes = found.mistakes
    assert (mistakes.count, mistakes.rows) == (3, 5)
    assert [one.id for one in mistakes.shown] == ["r1", "r4", "r3"]
    first = mistakes.shown[0]
    assert first.texts == ("text 1", "b")
    assert (first.label, first.prediction) == ("entailment", "not_entailment")
    assert first.confidence == pytest.approx(1 / (1 + np.exp(-3)))
    assert found.comparison is None
    assert found.warnings == ()
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_worst_mistakes_of_a_regression_are_the_farthest_off() -> None:
    part = part_of("stsb", [1.0, 2.0, 3.0, 4.0])
    found = assess(part, [np.array([[1.0], [4.5], [2.0], [4.25]], np.float32)])
    assert [(one.id, one.label, one.prediction) for one in found.mistakes.shown] == [
        ("r1", 2.0, 4.5), ("r2", 3.0, 2.0), ("r3", 4.0, 4.25),
    ]  # fmt: skip
    assert found.mistakes.shown[0].confidence is None
    assert found.confusion is None
    assert found.predicted.to_dict() == {"mean": 2.9375, "deviation": pytest.approx((8.796875 / 4) ** 0.5)}


def test_choices_are_shown_by_their_text_and_all_right_answers_of_a_cloze_are_right() -> None:
    choices = ("Ann", "Bob", "Bob Ray")
    rows = tuple(Example(f"0-{n}", "g", ("t", "q"), choices, 1, ("Bob", "Bob Ray")) for n in range(3))
    part = Examples(TASKS["record"], "validation", "here", rows)
    logits = np.array([[0, 1, 0], [0, 0, 1], [1, 0, -np.inf]], np.float32)
    found = assess(part, [logits])
    assert found.scores.metrics["em"].value == pytest.approx(2 / 3)
    (only,) = found.mistakes.shown
    assert (only.id, only.label, only.prediction) == ("0-2", "Bob", "Ann")
    assert only.confidence == pytest.approx(np.e / (np.e + 1))


def test_race_by_part() -> None:
    rows = tuple(
        example(str(n), 1, group=f"{part}{n}", choices=tuple("abcd"))
        for n, part in enumerate(["middle", "high", "high"])
    )
    found = assess(Examples(TASKS["race"], "test", "here", rows), [np.eye(4, dtype=np.float32)[[1, 1, 0]]])
    values = {name: metric.value for name, metric in found.scores.metrics.items()}
    assert values == pytest.approx({"accuracy": 2 / 3, "accuracy_middle": 1.0, "accuracy_high": 0.5})


def test_a_part_without_labels_is_predicted_not_scored() -> None:
    found = assess(part_of("rte", [None] * 5, "test"), [OUTPUTS])
    assert [getattr(found, name) for name in ("scores", "confusion", "mistakes", "comparison")] == [None] * 4
    assert found.predicted.to_dict() == {"counts": {"entailment": 2, "not_entailment": 3}}


def test_a_score_that_is_not_defined_is_said() -> None:
    found = assess(part_of("cola", [0, 1, 1]), [np.eye(2, dtype=np.float32)[[1, 1, 1]]])
    assert found.scores.metrics["mcc"].value == 0
    assert len(found.warnings) == 1
    assert "all 3 predictions are equal" in found.warnings[0]


def test_no_more_mistakes_than_can_be_read() -> None:
    part = part_of("rte", [0] * (MISTAKES + 9))
    found = assess(part, [np.tile(OUTPUTS[1], (len(part), 1))]).mistakes
    assert found.count == MISTAKES + 9
    # equally sure: in the order of the data
    assert [one.id for one in found.shown] == [f"r{n}" for n in range(MISTAKES)]


class Models:
    """Outputs by folder, in place of `models.heads.predict`, for any examples that `run` is given."""

    def __init__(self, patch: pytest.MonkeyPatch, **outputs: Logits) -> None:
        self.outputs = outputs
        self.asked: list[str] = []
        self.patch = patch
        patch.setattr(stage, "predict", self.predict)

    def predict(self, model: Path, examples: Examples, **_: Any) -> Logits:
        self.asked.append(model.name)
        return self.outputs[model.name][: len(examples)]

    def run(self, folders: list[Path], examples: Examples, **options: Any) -> Evaluation:
        self.patch.setattr(stage, "read", lambda *_: examples)
        return evaluate(folders, {"task": examples.task.name, "data": "here"}, examples.part, **options)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    right = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]]
    return Models(monkeypatch, a=OUTPUTS, b=right, c=1 - right, d=right)


def test_what_is_left_beside_the_model(tmp_path: Path, models: Models) -> None:
    found = models.run([tmp_path / "a"], RTE, command="subarch evaluate 'a'")
    assert found.scores is not None
    assert found.scores.metrics["accuracy"].value == 0.4
    written = json.loads((tmp_path / "a" / "report.json").read_text())
    assert written == {"version": 1, "evaluations": [found.to_dict()]}
    lines = [
        json.loads(line) for line in (tmp_path / "a" / "predictions-rte-validation.jsonl").read_text().splitlines()
    ]
    assert [line["id"] for line in lines] == [f"r{n}" for n in range(5)]
    assert lines[1]["prediction"] == "not_entailment"
    assert lines[1]["confidence"] == pytest.approx(1 / (1 + np.exp(-3)))
    page = (tmp_path / "a" / "report.html").read_text()
    assert "rte, validation: accuracy 0.400" in page
    assert "subarch evaluate &#39;a&#39;" in page


def test_other_parts_are_kept_and_the_same_is_replaced(tmp_path: Path, models: Models) -> None:
    models.run([tmp_path / "a"], RTE)
    models.run([tmp_path / "a"], part_of("rte", [None] * 5, "test"))
    models.run([tmp_path / "a"], RTE[:4])
    (item,) = gathered([tmp_path / "a", tmp_path / "b"])  # b was not evaluated
    assert [(one.part, one.statistics.rows) for one in item.evaluations] == [("test", 5), ("validation", 4)]
    assert item.agora is None


def test_seeds_and_a_comparison(tmp_path: Path, models: Models) -> None:
    folders = {name: tmp_path / name for name in "abcd"}
    found = models.run([folders["b"], folders["a"]], RTE, against=[folders["c"], folders["d"]])
    assert models.asked == ["b", "a", "c", "d"]
    lines = (folders["b"] / "predictions-rte-validation.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [RTE.task.labels[n] for n in (0, 0, 1, 1, 0)]
    assert found.scores is not None
    assert found.scores.metrics["accuracy"].seeds == (1.0, 0.4)
    assert found.mistakes is not None
    assert found.mistakes.count == 0  # the first one's
    assert found.comparison is not None
    metric = found.comparison.metrics["accuracy"]
    assert (metric.ours, metric.theirs) == (0.7, 0.5)
    assert (found.models, found.against) == (
        (str(folders["b"]), str(folders["a"])),
        (str(folders["c"]), str(folders["d"])),
    )
    assert not (folders["a"] / "report.json").exists()


def test_refused_before_anything_is_predicted(tmp_path: Path, models: Models) -> None:
    folder = tmp_path / "a"
    with pytest.raises(InvalidTask, match="1 models against 2"):
        models.run([folder], RTE, against=[tmp_path / "b", tmp_path / "c"])
    with pytest.raises(InvalidTask, match="no labels to compare by"):
        models.run([folder], part_of("rte", [None], "test"), against=[tmp_path / "b"])
    with pytest.raises(InvalidTask, match="part validation of rte is empty"):
        models.run([folder], part_of("rte", []))
    (folder / "report.json").write_text("{")
    with pytest.raises(InvalidStudy, match=r"report\.json: damaged"):
        models.run([folder], RTE)
    assert models.asked == []
