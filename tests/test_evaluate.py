"""`subarch evaluate` on a tiny fine-tuned model: what is read, what is left, what is said of examples seen before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from subarch.cli import app as cli
from subarch.errors import InvalidConfig, InvalidTask
from subarch.evaluation.evaluate import evaluate
from subarch.finetuning.config import FinetuneConfig
from subarch.models.heads import labels_of, predict
from subarch.pipeline import write_report
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs
from subarch.tasks import read, score
from subarch.tasks.division import parts_of
from tasks_tiny import tiny_metrics
from tiny import tiny_sentences, tiny_teacher


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SST-2 as GLUE has it, of few sentences."""
    folder = tmp_path_factory.mktemp("glue") / "SST-2"
    folder.mkdir()
    sentences = tiny_sentences(70)
    for name, first, last in (("train", 0, 40), ("dev", 40, 60)):
        rows = [f"{text}\t{n % 3 % 2}" for n, text in enumerate(sentences[first:last])]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows, ""]))
    rows = [f"{n}\t{text}" for n, text in enumerate(sentences[60:])]
    (folder / "test.tsv").write_text("\n".join(["index\tsentence", *rows, ""]))
    return folder.parent


def fine_tuned(folder: Path, seed: int) -> Path:
    """A random classifier in stock format."""
    tiny_teacher(folder, modules=False, layers=1)
    torch.manual_seed(seed)
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    BertForSequenceClassification.from_pretrained(folder, **names).save_pretrained(folder)
    return folder


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    torch.set_num_threads(1)
    return [fine_tuned(tmp_path / "run" / "finetuned" / f"m{seed}", seed) for seed in range(3)]


def asked(data: Path, **others: Any) -> dict[str, Any]:
    return {"task": "sst2", "data": str(data), **others}


def test_a_labelled_part_is_scored(data: Path, models: list[Path]) -> None:
    found = evaluate(models[:1], asked(data), "validation")
    part = read("sst2", data, "validation")
    expected = score(part, labels_of(part.task, predict(models[0], part)))
    assert {name: metric.value for name, metric in found.scores.metrics.items()} == expected
    assert found.warnings == ()  # nobody knows what the model was trained on
    lines = (models[0] / "predictions-sst2-validation.jsonl").read_text().splitlines()
    assert len(lines) == 20
    assert json.loads((models[0] / "report.json").read_text())["evaluations"] == [found.to_dict()]


def test_a_part_without_labels_is_predicted_and_no_submission_of_a_few_rows_is_made(
    data: Path, models: list[Path], tmp_path: Path
) -> None:
    archive = tmp_path / "glue.zip"
    with pytest.raises(InvalidTask, match="10 predictions, the official test set has 1821 rows"):
        evaluate(models[:1], asked(data), "test", submission=archive)
    assert not archive.exists()
    # the predictions were paid for, and are kept
    assert len((models[0] / "predictions-sst2-test.jsonl").read_text().splitlines()) == 10
    assert json.loads((models[0] / "report.json").read_text())["evaluations"][0]["scores"] is None


def test_what_the_model_has_seen_is_said(data: Path, models: list[Path]) -> None:
    """The data of a fine-tuning is known from metrics.json, or for one of the fits from inputs.json beside it."""
    config = load(FinetuneConfig, None, asked(data))
    metrics = models[0] / "metrics.json"
    metrics.write_text(tiny_metrics(config).to_json())
    parts = parts_of(config)
    held = evaluate(models[:1], {}, "held-out")
    assert (held.part, held.statistics.rows, held.warnings) == ("held-out", 20, ())
    (chose,) = evaluate(models[:1], {}, "dev").warnings
    assert chose.startswith(f"{len(parts.dev)} of {len(parts.dev)} examples are also in the dev part")
    learnt, chose = evaluate(models[:1], asked(data), "train").warnings
    assert learnt.startswith(f"{len(parts.train)} of 40 examples are also in the training data: ")
    assert chose.startswith(f"{len(parts.dev)} of 40 examples are also in the dev part")
    metrics.write_text(tiny_metrics(config.model_copy(update={"data": "elsewhere"})).to_json())
    (unknown,) = evaluate(models[:1], asked(data), "validation").warnings
    assert "whether the model was trained on these examples is unknown: elsewhere" in unknown
    RunFolder(models[1].parent).write(StageInputs(config=config.model_dump(mode="json"), sources={}))
    assert evaluate(models[1:2], {}, "held-out").statistics.rows == 20


def test_refused(data: Path, models: list[Path]) -> None:
    with pytest.raises(InvalidConfig, match="no record of its fine-tuning; give --task"):
        evaluate(models[:1], {}, "validation")
    with pytest.raises(InvalidTask, match="sst2 has no part 'nonsense'"):
        evaluate(models[:1], asked(data), "nonsense")


def test_the_command(
    data: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", models[0], models[1], "--task", "sst2", "--data", data, "--against", models[2]]
    words += ["--against", models[1]]

    def run(*more: str) -> str:
        monkeypatch.setattr("sys.argv", ["subarch", *map(str, words), *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code
        return capsys.readouterr().out

    found = json.loads(run("--json"))
    metric, other = found["scores"]["metrics"]["accuracy"], found["comparison"]["metrics"]["accuracy"]
    assert len(metric["seeds"]) == 2
    assert found["against"] == [str(models[2]), str(models[1])]
    monkeypatch.setenv("COLUMNS", "200")
    shown = run()
    assert "sst2, validation: 20 examples in 20 groups" in shown
    figures = (f"{metric['value']:.3f}", f"{other['theirs']:.3f}", f"{other['difference']:+.3f}")
    assert [figure for figure in figures if figure not in shown] == []
    page = (models[0] / "report.html").read_text()
    assert "subarch evaluate" in page
    assert "--json" not in page  # the last command


def test_the_report_of_the_run_shows_what_was_evaluated(data: Path, models: list[Path]) -> None:
    evaluate(models[:1], asked(data), "validation")
    run = models[0].parents[1]
    page = write_report(run).read_text()
    assert "m0: sst2, validation: accuracy" in page
    assert "m1: " not in page
