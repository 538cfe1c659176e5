"""`subarch finetune --agora` on tiny models: what is trained on what, what is told and left, killed at each writing."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from subarch.errors import InvalidConfig, InvalidTask, InvalidTeacher
from subarch.evaluation.evaluate import evaluate
from subarch.finetuning import finetune as stage
from subarch.finetuning.config import FinetuneConfig, FitSettings, Theta
from subarch.finetuning.finetune import finetune
from subarch.finetuning.fit import fit
from subarch.models.heads import labels_of, predict
from subarch.run.configuration import load
from subarch.run.records import Metrics
from subarch.tasks import score
from subarch.tasks.division import parts_of
from tasks_tiny import LABELS, topics
from tiny import tiny_teacher

pytestmark = pytest.mark.usefixtures("quick_trainer")
SETTINGS = FitSettings(max_length=16, threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("model") / "tiny", layers=1, modules=False, masked_lm=True)


@pytest.fixture(scope="module")
def teacher(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Knows the topics, by other numbers than the task's."""
    folder = tmp_path_factory.mktemp("teacher") / "topics"
    return fit(model, topics(60, 7), topics(20, 8, "dev"), Theta(1e-2, epochs=4), folder, settings=SETTINGS).folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count, seed in (("train", 24, 0), ("dev", 12, 1), ("test", 20, 2)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "topic"])
            writer.writerows([one.texts[0], LABELS[n % 3]] for n, one in enumerate(topics(count, seed)))
    return folder


def asked(data: Path, teacher: Path, **others: Any) -> dict[str, Any]:
    """Two learning rates that leave mistakes, less of them on more data; two seeds."""
    own = {"task": "topics", "data": str(data), "first": "text", "label": "topic", "teacher": teacher}
    search = {"learning_rate": [5e-4, 2e-3], "batch_size": [8], "epochs": 1, "seeds": [0, 1], "points": 2}
    return own | search | {"dropout": 0.0, "max_length": 16, "threads": 1, "agora": "common"} | others


def config(data: Path, teacher: Path, **others: Any) -> FinetuneConfig:
    return load(FinetuneConfig, None, asked(data, teacher, **others))


Done = tuple[Path, Metrics, list[str]]


@pytest.fixture(scope="module")
def done(model: Path, teacher: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Run folder, what metrics.json holds, and what was said."""
    run, said = tmp_path_factory.mktemp("run"), list[str]()
    found = finetune(model, config(data, teacher, masked_lm=model), run, say=said.append)
    return run, found, said


def record_of(run: Path) -> Any:
    return json.loads((run / "finetuned" / "topics" / "agora.json").read_text(encoding="utf-8"))


def test_settings_are_tried_by_agora_and_the_best_repeated_on_its_data(done: Done) -> None:
    run, found, _ = done
    record = record_of(run)
    first, last = record["iterations"]
    made = first["points"]
    assert [first["examples"], last["examples"]] == [24, 24 + made]
    assert 0 < made <= 2 * first["mistakes"]
    assert set(first["methods"]) == {"edits", "infilling"}
    # both settings, the better one on more data, the better one of all with the other seed
    rows = found.fits
    assert [row.seed for row in rows] == [0, 0, 0, 1]
    assert [row.examples_seen for row in rows[:3]] == [24, 24, 24 + made]
    best = max(rows[:3], key=lambda row: row.dev["accuracy"])
    assert best is rows[2]
    assert found.best == best.name
    assert rows[3].learning_rate == best.learning_rate
    assert rows[3].examples_seen == 24 + made == found.agora.examples
    assert found.heldout.fits == (best.name, rows[3].name)
    names = [row.name for row in rows]
    assert len(set(names)) == 4
    assert {name.split("/")[0] for name in names if "/" in name} <= {"iteration-1", "iteration-2"}
    assert all(len(row.history) == row.epoch == 1 for row in rows)


def test_all_of_the_cost_is_counted(done: Done) -> None:
    run, found, _ = done
    cost, own = found.cost, record_of(run)["cost"]
    again = found.fits[3]
    assert (cost.trainings, own["trainings"]) == (4, 3)
    assert cost.examples_seen == own["examples_seen"] + again.examples_seen
    spent = [own[name] for name in ("training_seconds", "points_seconds", "labels_seconds")]
    assert min(spent) > 0
    assert cost.seconds == pytest.approx(sum(spent) + again.seconds)
    assert found.agora is not None
    assert found.agora.cost.to_dict() == own


def test_what_to_expect_is_said_once_and_kept(done: Done, data: Path, teacher: Path) -> None:
    _, found, said = done
    assert found.agora is not None
    expected = found.agora.forecast
    assert (expected.fewest, expected.most) == (2 + 1, 2 + 1 + 1)
    # 24 rows, and a third of 12 on dev; 8 of the 12 are wrong for who says always the same, 2 points each
    least, most = 3 * 28, 2 * 28 + 2 * (28 + 16)
    assert expected.hours is not None
    low, high = expected.hours
    assert high / low == pytest.approx(most / least)
    seconds = low * 3600 / least
    assert 1e-5 < seconds < 1
    (sentence,) = said
    assert sentence.startswith("Agora over 2 settings: 3 to 4 trainings, ")
    assert "hours if no training stops early; this includes repeating the best setting with seed 1" in sentence


def test_what_is_left_is_a_stock_model_its_scores_and_how_the_data_grew(
    done: Done, data: Path, teacher: Path, tmp_path: Path
) -> None:
    run, found, _ = done
    folder, heldout = run / "finetuned" / "topics", parts_of(config(data, teacher)).heldout
    assert score(heldout, labels_of(heldout.task, predict(folder, heldout))) == found.heldout.scores
    assert sorted(path.name for path in (run / "finetuned" / "topics.fits").iterdir() if path.name[0] != ".") == sorted(
        ["inputs.json", *found.heldout.fits]
    )
    assert [path.name for path in (run / "finetuned").iterdir() if path.name[0] == "."] == []
    record = record_of(run)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "topics, held-out: accuracy" in page
    assert "Agora: topics" in page
    assert f"the training data grew from 24 to {24 + record['cost']['points']} examples" in page
    # and a score on dev is told for what it is
    (caution,) = evaluate([Path(shutil.copytree(folder, tmp_path / "copy"))], {}, "dev").warnings
    assert "12 of 12 examples are also in the dev part, which chose the model" in caution


def test_the_same_again_trains_nothing(
    done: Done, model: Path, data: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, found, _ = done
    monkeypatch.setattr(stage, "fit", None)
    assert finetune(model, config(data, teacher, masked_lm=model), run) == found


def whole(folder: Path) -> dict[str, Any]:
    """All that is there but measured times; weights as bytes."""
    timed = {"seconds", "training_seconds", "points_seconds", "labels_seconds", "hours"}
    found: dict[str, Any] = {}
    for path in sorted(path for path in (folder / "finetuned").rglob("*") if path.is_file() and path.name[0] != "."):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = json.loads(
                path.read_text(encoding="utf-8"),
                object_hook=lambda item: {key: None if key in timed else value for key, value in item.items()},
            )
        elif path.suffix in (".safetensors", ".jsonl", ".npy"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.slow
def test_killed_before_every_writing_it_ends_the_same_and_repeats_no_training(
    done: Done, model: Path, data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops, finished = set[str](), list[str]()
    replaced, renamed = os.replace, Path.rename

    def stop(target: Path) -> None:
        """Each result is lost once, when it is made and not yet in its place; of the last ones one stands for all."""
        name = str(target.relative_to(tmp_path)) if target.is_relative_to(tmp_path) else ""
        counts = target.suffix != ".npy" and (target.parent.name != "topics" or target.stem == "metrics")
        if name and counts and name not in stops:
            stops.add(name)
            raise KeyboardInterrupt

    def replace(old: Any, new: Any) -> None:
        stop(Path(new))
        replaced(old, new)

    def rename(old: Path, new: Path) -> Path:
        stop(new)
        if new.name != "pace":
            finished.append(str(new))
        return renamed(old, new)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "rename", rename)
    kills = 0
    while True:
        try:
            finetune(model, config(data, teacher, masked_lm=model), tmp_path)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills == len(stops) > 15
    assert {Path(name).name for name in stops} >= {
        *(
            "inputs.json",
            "question.json",
            "pace.json",
            "teacher.json",
            "training-0.json",
            "training-1.json",
            "points.json",
        ),
        *("labels.json", "agora.json", "metrics.json", "topics"),
    }
    assert len(finished) == len(set(finished))
    assert whole(tmp_path) == whole(done[0])


def test_one_setting_is_one_iteration_and_that_is_said(model: Path, data: Path, teacher: Path, tmp_path: Path) -> None:
    said = list[str]()
    one = config(data, teacher, learning_rate=[2e-3], seeds=[0], agora="halving")
    found = finetune(model, one, tmp_path, say=said.append)
    assert (found.cost.trainings, found.agora.iterations) == (1, 1)
    assert (found.agora.points, found.agora.stopped) == (0, "one set was left")
    (sentence,) = said
    assert sentence.startswith("Agora over one setting: 1 training, ")
    assert sentence.endswith("with one setting no examples are made and nothing is pruned")


def test_what_cannot_be_run_is_refused_before_anything_is_trained(
    model: Path, data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "fit", lambda *_, **__: pytest.fail("trained"))
    nine = [n / 1e4 for n in range(1, 10)]
    with pytest.raises(InvalidConfig, match="9 sets, which take up to 45 trainings; give at most 8"):
        finetune(model, config(data, teacher, learning_rate=nine), tmp_path)
    with pytest.raises(InvalidTeacher, match="infilling needs a masked-LM head"):
        finetune(model, config(data, teacher, masked_lm=teacher), tmp_path)
    wrong = fit(model, topics(12, 7), topics(6, 8), Theta(0.0, epochs=1), tmp_path / "bad", settings=SETTINGS)
    with pytest.raises(InvalidTask, match="is not an adequate teacher"):
        finetune(model, config(data, wrong.folder), tmp_path)


@pytest.mark.slow
def test_the_command(model: Path, data: Path, teacher: Path, tmp_path: Path) -> None:
    from subarch.cli.app import app

    words = ["finetune", str(model), "--run", str(tmp_path)]
    for key, value in asked(data, teacher, seeds=[0], neighbours=[data / "train.csv"]).items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{key.replace('_', '-')}", str(one)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "Agora over 2 settings: 2 to 3 trainings" in shown.stderr
    assert "Agora (common), 2 iterations: one set was left; the best was trained on" in shown.stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Agora: topics" in page
