"""Plain fine-tuning as a stage: how data is divided, what is searched and kept, what a kill costs, what is refused."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForSequenceClassification

from subarch.errors import InvalidStudy, InvalidTask, TrainingDiverged
from subarch.finetuning import finetune as stage
from subarch.finetuning.config import FinetuneConfig
from subarch.finetuning.finetune import finetune
from subarch.models.heads import labels_of, predict
from subarch.run.configuration import load
from subarch.run.folder import places
from subarch.run.records import Metrics
from subarch.tasks import score
from subarch.tasks.division import parts_of
from tasks_tiny import LABELS, topics
from tiny import tiny_teacher, write_json

pytestmark = pytest.mark.usefixtures("quick_trainer")
SEARCH = {"learning_rate": [1e-3, 1e-2], "batch_size": [8], "epochs": 2, "dropout": 0.0, "max_length": 16, "threads": 1}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rows(count: int, seed: int, labelled: bool = True) -> list[dict[str, Any]]:
    found = []
    for n, one in enumerate(topics(count, seed)):
        row = {"text": one.texts[0], "page": f"{seed}-{n // 2}"}
        found.append(row | {"topic": LABELS[n % 3]} if labelled else row)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("model") / "tiny", layers=1, modules=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "train.csv", rows(40, 0))
    write_csv(folder / "dev.csv", rows(20, 1))
    write_csv(folder / "test.csv", rows(20, 2, labelled=False))
    return folder


def config(data: Path, **others: Any) -> FinetuneConfig:
    own = {"task": "topics", "data": str(data), "first": "text", "label": "topic", "group": "page"}
    return load(FinetuneConfig, None, own | SEARCH | {"seeds": [0, 1]} | others)


# How data is divided


def groups(config: FinetuneConfig) -> list[set[str]]:
    parts = parts_of(config)
    return [{one.group for one in part} for part in (parts.train, parts.dev, parts.heldout)]


def test_labelled_parts_are_taken_as_they_are(data: Path, tmp_path: Path) -> None:
    for name, count, seed in (("train", 12, 0), ("dev", 8, 1), ("test", 6, 2)):
        write_csv(tmp_path / f"{name}.csv", rows(count, seed))
    parts = parts_of(config(tmp_path))
    assert [len(part) for part in (parts.train, parts.dev, parts.heldout)] == [12, 8, 6]
    assert {one.group[0] for one in parts.heldout} == {"2"}
    assert parts.sentence == "the task's own parts"


def test_where_the_test_has_no_labels_the_validation_part_is_held_out(data: Path) -> None:
    parts = parts_of(config(data))
    assert {one.group[0] for one in parts.heldout} == {"1"}
    assert len(parts.heldout) == 20
    train, dev, _ = groups(config(data))
    assert not train & dev
    assert train | dev == {f"0-{n}" for n in range(20)}
    assert len(parts.train) + len(parts.dev) == 40
    assert "held out is the part validation" in parts.sentence


def test_a_training_part_alone_is_divided_in_three_by_group(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", rows(60, 0))
    train, dev, heldout = groups(config(tmp_path, heldout=0.3))
    assert not train & dev
    assert not train & heldout
    assert not dev & heldout
    assert len(train | dev | heldout) == 30


def test_named_parts_are_put_together_and_divided_anew(data: Path) -> None:
    parts = parts_of(config(data, parts=["train", "validation"]))
    everything = [*parts.train, *parts.dev, *parts.heldout]
    assert len({one.id for one in everything}) == 60
    assert {one.group[0] for one in parts.heldout} == {"0", "1"}
    assert not {one.group for one in parts.heldout} & {one.group for one in parts.train}
    only = parts_of(config(data, parts=["validation"], heldout=0.33))
    assert {one.group[0] for one in (*only.train, *only.dev, *only.heldout)} == {"1"}


def test_rows_limit_the_training_examples(data: Path) -> None:
    fewer, all_ = parts_of(config(data, rows=25)), parts_of(config(data))
    assert len(fewer.train) + len(fewer.dev) == 25
    assert {one.id for one in fewer.train} <= {one.id for one in all_.train}
    assert fewer.heldout == all_.heldout


def test_what_has_no_labels_is_not_learnt(data: Path) -> None:
    with pytest.raises(InvalidTask, match="part test of topics has no labels"):
        parts_of(config(data, parts=["train", "test"]))
    with pytest.raises(InvalidTask, match="'stars'"):
        parts_of(config(data, label="stars"))


def test_diagnostic_sets_are_learnt_by_another_task() -> None:
    with pytest.raises(InvalidTask, match="evaluate that model on"):
        parts_of(load(FinetuneConfig, None, {"task": "ax", "data": "somewhere"}))


# The search


@pytest.fixture(scope="module")
def done(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    run = tmp_path_factory.mktemp("run")
    return run, finetune(model, config(data), run, command="subarch finetune")


def test_all_settings_are_tried_and_the_best_repeated(done: tuple[Path, Metrics]) -> None:
    _, found = done
    tried = [(row.learning_rate, row.seed) for row in found.fits]
    best = max(found.fits[:2], key=lambda row: row.dev["accuracy"])
    assert tried == [(1e-3, 0), (1e-2, 0), (best.learning_rate, 1)]
    assert found.best == best.name
    again = [best, found.fits[2]]
    assert found.chosen == max(again, key=lambda row: row.dev["accuracy"]).name
    assert found.cost.examples_seen == sum(row.examples_seen for row in found.fits)
    assert (found.cost.trainings, found.agora) == (3, None)


def test_the_chosen_model_is_scored_on_what_nothing_saw(done: tuple[Path, Metrics], data: Path) -> None:
    run, found = done
    folder, heldout = run / "finetuned" / "topics", parts_of(config(data)).heldout
    predicted = labels_of(heldout.task, predict(folder, heldout))
    assert score(heldout, predicted) == found.heldout.scores
    told = json.loads((folder / "heldout.json").read_text())
    assert told["ids"] == [one.id for one in heldout]
    seed = found.chosen.rpartition("-s")[2]
    assert told["seeds"][seed] == predicted
    accuracies = [scores["accuracy"] for scores in found.heldout.seeds.values()]
    assert found.heldout.mean["accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert found.heldout.deviation["accuracy"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / math.sqrt(2))
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.id2label == dict(enumerate(sorted(LABELS)))


def test_the_score_is_assessed_beside_the_model(done: tuple[Path, Metrics]) -> None:
    run, found = done
    folder = run / "finetuned" / "topics"
    (told,) = json.loads((folder / "report.json").read_text())["evaluations"]
    assert (told["task"], told["part"], told["command"]) == ("topics", "held-out", "subarch finetune")
    accuracy = told["scores"]["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(found.heldout.mean["accuracy"])
    assert sorted(accuracy["seeds"]) == sorted(scores["accuracy"] for scores in found.heldout.seeds.values())
    # of single examples what the model says that was chosen
    right = round(20 * found.heldout.scores["accuracy"])
    assert sum(row[n] for n, row in enumerate(told["confusion"]["counts"])) == right
    assert told["mistakes"]["count"] == 20 - right
    lines = [json.loads(line) for line in (folder / "predictions-topics-held-out.jsonl").read_text().splitlines()]
    seed = found.chosen.rpartition("-s")[2]
    names = sorted(LABELS)
    predicted = json.loads((folder / "heldout.json").read_text())["seeds"][seed]
    assert [line["prediction"] for line in lines] == [names[int(value)] for value in predicted]
    assert "topics, held-out: accuracy" in (folder / "report.html").read_text()
    assert not list(folder.parent.glob(".*"))


def test_held_out_examples_seen_in_training_are_said_everywhere(model: Path, tmp_path: Path) -> None:
    for part, one in (("train", rows(24, 0)), ("dev", rows(6, 1)), ("test", rows(6, 2) + rows(24, 0)[:3])):
        write_csv(tmp_path / "data" / f"{part}.csv", one)
    asked = config(tmp_path / "data", group=None, learning_rate=[1e-2], seeds=[0], epochs=1)
    with pytest.warns(UserWarning, match="3 of the 9 rows of held-out also are in train"):
        found = finetune(model, asked, tmp_path)
    assert found.data.overlaps == {"held-out in train": 3}
    folder = tmp_path / "finetuned" / "topics"
    caution = "3 of 9 examples are also in the training data: the score overestimates the quality on new data"
    (told,) = json.loads((folder / "report.json").read_text())["evaluations"]
    assert told["warnings"] == [caution]
    assert caution in (folder / "report.html").read_text()
    assert "3 held-out examples are also in train, so" in (folder / "README.md").read_text()


def test_the_models_of_the_best_setting_stay_and_no_others(done: tuple[Path, Metrics]) -> None:
    run, found = done
    fits = run / "finetuned" / "topics.fits"
    assert sorted(path.name for path in fits.glob("*/")) == sorted(found.heldout.fits)
    assert all((fits / name / "model.safetensors").is_file() for name in found.heldout.fits)


def test_the_same_again_trains_nothing(
    done: tuple[Path, Metrics], model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found = done
    monkeypatch.setattr(stage, "fit", None)
    assert finetune(model, config(data, threads=2), run) == found
    with pytest.raises(InvalidStudy, match=r"changed since this was started: epochs = 3 now and was 2; .*--restart"):
        finetune(model, config(data, epochs=3), run)


@pytest.mark.slow
def test_killed_after_any_fit_it_repeats_none_of_them(
    done: tuple[Path, Metrics], model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole = done
    trained: list[str] = []
    real: Callable[..., Any] = stage.fit

    def fit(*given: Any, **others: Any) -> Any:
        is_there = given[4].is_dir()
        found = real(*given, **others)
        if not is_there:
            trained.append(given[4].name)
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(stage, "fit", fit)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            finetune(model, config(data), tmp_path)
    monkeypatch.setattr(stage, "assess", None)  # and before the end
    with pytest.raises(TypeError):
        finetune(model, config(data), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(stage, "fit", fit)
    found = finetune(model, config(data), tmp_path)
    assert trained == [row.name for row in whole.fits]
    assert found.heldout == whole.heldout
    assert [row.dev for row in found.fits] == [row.dev for row in whole.fits]


def test_a_mistyped_question_is_not_insisted_on(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidTask):
        finetune(model, config(data, label="stars"), tmp_path)
    one = {"learning_rate": [1e-2], "seeds": [3], "epochs": 1}
    found = finetune(model, config(data, **one), tmp_path)
    assert len(found.fits) == 1  # Θ of one element, one seed
    assert found.heldout.deviation == {"accuracy": None, "macro_f1": None}
    found = finetune(model, config(data, **one | {"seeds": [4]}), tmp_path, restart=True)
    assert [row.seed for row in found.fits] == [4]


def test_a_setting_that_diverges_is_told_and_left_out(model: Path, data: Path, tmp_path: Path) -> None:
    found = finetune(model, config(data, learning_rate=[1e38, 1e-2], warm_up=[0.0], seeds=[0]), tmp_path / "a")
    assert [row.learning_rate for row in found.fits] == [1e-2]
    assert list(found.diverged) == ["lr1e+38-wd0.01-wu0-b8-e2-d0-s0"]
    with pytest.raises(TrainingDiverged, match="all 1 settings"):
        finetune(model, config(data, learning_rate=[1e38], warm_up=[0.0]), tmp_path / "b")


def test_a_teacher_is_learnt_from_if_it_is_adequate(
    done: tuple[Path, Metrics], model: Path, data: Path, tmp_path: Path
) -> None:
    run, _ = done
    teacher = run / "finetuned" / "topics"
    one = {"learning_rate": [1e-2], "seeds": [0], "teacher": teacher}
    found = finetune(model, config(data, **one), tmp_path / "good")
    told = found.teacher
    assert told is not None
    assert told.objection is None
    assert told.heldout == json.loads((teacher / "metrics.json").read_text())["heldout"]["scores"]
    # A teacher that always says the same
    weights = teacher.parent / "bad"
    stock = AutoModelForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        stock.classifier.weight.zero_()
    stock.save_pretrained(weights)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (weights / name).write_bytes((teacher / name).read_bytes())
    bad = config(data, **one | {"teacher": weights})
    with pytest.raises(InvalidTask, match="not an adequate teacher: its accuracy"):
        finetune(model, bad, tmp_path / "bad")
    found = finetune(model, bad.model_copy(update={"any_teacher": True, "epochs": 1}), tmp_path / "bad")
    assert "always predicting" in found.teacher.objection


def test_places(tmp_path: Path) -> None:
    for name in ("selected", "pretrained"):
        assert places(tmp_path / "hub" / "mini", None) == (tmp_path / "hub" / "mini", Path("runs/mini"))
        write_json(tmp_path / "mine" / name / "config.json", {})
        assert places(tmp_path / "mine", None) == (tmp_path / "mine" / name, tmp_path / "mine")
    (tmp_path / "mine" / "config.yaml").touch()
    assert places(tmp_path / "mine" / "selected", None) == (tmp_path / "mine" / "selected", tmp_path / "mine")
    assert places(tmp_path / "mine" / "selected", Path("x"))[1] == Path("x")


def test_the_command(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from subarch.cli.app import app

    words = ["finetune", str(model), "--run", str(tmp_path), "--task", "topics", "--data", str(data), "--first", "text"]
    words += ["--label", "topic", "--learning-rate", "1e-2", "--epochs", "1", "--seeds", "0", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["subarch", *words])
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "held out, 20 examples" in shown.stdout
    assert str(tmp_path / "finetuned" / "topics") in shown.stdout.replace("\n", "")
    page = (tmp_path / "report.html").read_text()
    assert "topics, held-out: accuracy" in page
    assert f"subarch finetune {model} --run" in page
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert found["config"]["learning_rate"] == [0.01]
