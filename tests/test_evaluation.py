"""What a fine-tuned model is worth: told by hand from outputs that were made up, and left beside the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subarch.errors import InvalidStudy, InvalidTask
from subarch.evaluation.assess import MISTAKES, appraise, assess, gathered
from subarch.tasks import TASKS, Examples, Task, score
from subarch.tasks.examples import Example
from task_layouts import example

Logits = np.ndarray[Any, Any]


def decide(task: Task, logits: Logits) -> list[float]:
    return [float(value) for value in (logits[:, 0] if task.head == "regression" else logits.argmax(1))]


def part_of(task: str, labels: Sequence[float | None], part: str = "validation", **others: Any) -> Examples:
    rows = tuple(example(f"r{n}", label, texts=(f"text {n}", "b"), **others) for n, label in enumerate(labels))
    return Examples(TASKS[task], part, "here", rows)


RTE = part_of("rte", [0, 0, 1, 1, 0])
# log-odds of not_entailment: right, wrong and sure, right, wrong and less sure, wrong and as sure as row 1
OUTPUTS = np.array([[2, 0], [0, 3], [0, 1], [1, 0], [-2, 1]], np.float32)


def test_scores_confusion_and_the_surest_mistakes() -> None:
    found = assess(RTE, [OUTPUTS], decide)
    assert found["scores"]["metrics"]["accuracy"]["value"] == 0.4
    assert found["scores"]["metrics"]["accuracy"]["low"] < 0.4 < found["scores"]["metrics"]["accuracy"]["high"]
    # two of three entailments were taken for the other
    assert found["confusion"] == {"labels": ["entailment", "not_entailment"], "counts": [[1, 2], [1, 1]]}
    assert found["predicted"] == {"counts": {"entailment": 2, "not_entailment": 3}}
    mistakes = found["mistakes"]
    assert (mistakes["count"], mistakes["rows"]) == (3, 5)
    assert [one["id"] for one in mistakes["shown"]] == ["r1", "r4", "r3"]
    first = mistakes["shown"][0]
    assert first["texts"] == ["text 1", "b"]
    assert (first["label"], first["prediction"]) == ("entailment", "not_entailment")
    assert first["confidence"] == pytest.approx(1 / (1 + np.exp(-3)))
    assert found["comparison"] is None
    assert found["warnings"] == []
    json.dumps(found, allow_nan=False)


def test_the_worst_mistakes_of_a_regression_are_the_farthest_off() -> None:
    part = part_of("stsb", [1.0, 2.0, 3.0, 4.0])
    found = assess(part, [np.array([[1.0], [4.5], [2.0], [4.25]], np.float32)], decide)
    assert [(one["id"], one["label"], one["prediction"]) for one in found["mistakes"]["shown"]] == [
        ("r1", 2.0, 4.5), ("r2", 3.0, 2.0), ("r3", 4.0, 4.25),
    ]  # fmt: skip
    assert found["mistakes"]["shown"][0]["confidence"] is None
    assert found["confusion"] is None
    assert found["predicted"] == {"mean": 2.9375, "deviation": pytest.approx((8.796875 / 4) ** 0.5)}


def test_choices_are_shown_by_their_text_and_all_right_answers_of_a_cloze_are_right() -> None:
    choices = ("Ann", "Bob", "Bob Ray")
    rows = tuple(Example(f"0-{n}", "g", ("t", "q"), choices, 1, ("Bob", "Bob Ray")) for n in range(3))
    part = Examples(TASKS["record"], "validation", "here", rows)
    logits = np.array([[0, 1, 0], [0, 0, 1], [1, 0, -np.inf]], np.float32)
    found = assess(part, [logits], decide)
    assert found["scores"]["metrics"]["em"]["value"] == pytest.approx(2 / 3)
    (only,) = found["mistakes"]["shown"]
    assert (only["id"], only["label"], only["prediction"]) == ("0-2", "Bob", "Ann")
    assert only["confidence"] == pytest.approx(np.e / (np.e + 1))


def test_race_by_part() -> None:
    rows = tuple(
        example(str(n), 1, group=f"{part}{n}", choices=tuple("abcd"))
        for n, part in enumerate(["middle", "high", "high"])
    )
    found = assess(Examples(TASKS["race"], "test", "here", rows), [np.eye(4, dtype=np.float32)[[1, 1, 0]]], decide)
    values = {name: metric["value"] for name, metric in found["scores"]["metrics"].items()}
    assert values == pytest.approx({"accuracy": 2 / 3, "accuracy_middle": 1.0, "accuracy_high": 0.5})


def test_a_part_without_labels_is_predicted_not_scored() -> None:
    found = assess(part_of("rte", [None] * 5, "test"), [OUTPUTS], decide)
    assert [found[name] for name in ("scores", "confusion", "mistakes", "comparison")] == [None] * 4
    assert found["predicted"] == {"counts": {"entailment": 2, "not_entailment": 3}}


def test_a_score_that_is_not_defined_is_said() -> None:
    found = assess(part_of("cola", [0, 1, 1]), [np.eye(2, dtype=np.float32)[[1, 1, 1]]], decide)
    assert found["scores"]["metrics"]["mcc"]["value"] == 0
    assert len(found["warnings"]) == 1
    assert "all 3 predictions are equal" in found["warnings"][0]


def test_no_more_mistakes_than_can_be_read() -> None:
    part = part_of("rte", [0] * (MISTAKES + 9))
    found = assess(part, [np.tile(OUTPUTS[1], (len(part), 1))], decide)["mistakes"]
    assert found["count"] == MISTAKES + 9
    # equally sure: in the order of the data
    assert [one["id"] for one in found["shown"]] == [f"r{n}" for n in range(MISTAKES)]


class Models:
    """Outputs by folder, in place of `finetuning.predict`."""

    def __init__(self, **outputs: Logits) -> None:
        self.outputs = outputs
        self.asked: list[str] = []

    def __call__(self, model: Path, examples: Examples) -> Logits:
        self.asked.append(model.name)
        return self.outputs[model.name][: len(examples)]


@pytest.fixture
def models(tmp_path: Path) -> Models:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    right = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]]
    return Models(a=OUTPUTS, b=right, c=1 - right, d=right)


def test_what_is_left_beside_the_model(tmp_path: Path, models: Models) -> None:
    found, predictions = appraise([tmp_path / "a"], RTE, models, decide, command="subarch evaluate 'a'")
    assert score(RTE, predictions) == {"accuracy": 0.4}
    written = json.loads((tmp_path / "a" / "report.json").read_text())
    assert written == {"version": 1, "evaluations": [json.loads(json.dumps(found))]}
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
    appraise([tmp_path / "a"], RTE, models, decide)
    appraise([tmp_path / "a"], part_of("rte", [None] * 5, "test"), models, decide)
    appraise([tmp_path / "a"], RTE[:4], models, decide)
    (item,) = gathered([tmp_path / "a", tmp_path / "b"])  # b was not evaluated
    assert [(one["part"], one["statistics"]["rows"]) for one in item["evaluations"]] == [("test", 5), ("validation", 4)]
    assert item["agora"] is None
    (tmp_path / "a" / "agora.json").write_text('{"iterations": []}')
    assert gathered([tmp_path / "a"])[0]["agora"] == {"iterations": []}


def test_seeds_and_a_comparison(tmp_path: Path, models: Models) -> None:
    folders = {name: tmp_path / name for name in "abcd"}
    found, predictions = appraise(
        [folders["b"], folders["a"]], RTE, models, decide, against=[folders["c"], folders["d"]]
    )
    assert models.asked == ["b", "a", "c", "d"]
    assert predictions == [0, 0, 1, 1, 0]
    assert found["scores"]["metrics"]["accuracy"]["seeds"] == [1.0, 0.4]
    assert found["mistakes"]["count"] == 0  # the first one's
    metric = found["comparison"]["metrics"]["accuracy"]
    assert (metric["ours"], metric["theirs"]) == (0.7, 0.5)
    assert (found["models"], found["against"]) == (
        [str(folders["b"]), str(folders["a"])],
        [str(folders["c"]), str(folders["d"])],
    )
    assert not (folders["a"] / "report.json").exists()


def test_refused_before_anything_is_predicted(tmp_path: Path, models: Models) -> None:
    folder = tmp_path / "a"
    with pytest.raises(InvalidTask, match="1 of one model against 2"):
        appraise([folder], RTE, models, decide, against=[tmp_path / "b", tmp_path / "c"])
    with pytest.raises(InvalidTask, match="no labels: there is nothing to compare"):
        appraise([folder], part_of("rte", [None], "test"), models, decide, against=[tmp_path / "b"])
    with pytest.raises(InvalidTask, match="no example"):
        appraise([folder], part_of("rte", []), models, decide)
    (folder / "report.json").write_text("{")
    with pytest.raises(InvalidStudy, match=r"report\.json: damaged"):
        appraise([folder], RTE, models, decide)
    assert models.asked == []
