"""The model card of a fine-tuned folder: what it tells is what was measured, and the code in it runs."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import pipeline

from subarch.finetuning.config import FinetuneConfig
from subarch.finetuning.finetune import finetune
from subarch.run.configuration import load
from subarch.run.records import AgoraSummary, Metrics
from subarch.show.card import facts_of
from subarch.tasks import Examples
from subarch.tasks.division import parts_of
from tasks_tiny import LABELS, grades, pairs, prices, quizzes, topics
from tiny import tiny_teacher

SEARCH = {"learning_rate": [1e-2], "batch_size": [8], "epochs": 2, "dropout": 0.0, "max_length": 16, "threads": 1}
MADE = {"classification": topics, "pair": pairs, "regression": prices, "grades": grades, "choice": quizzes}
OWN: dict[str, dict[str, Any]] = {
    "classification": {"first": "text0"},
    "pair": {"first": "text0", "second": "text1"},
    "regression": {"first": "text0", "kind": "regression"},
    "grades": {"first": "text0", "second": "text1", "kind": "regression"},
    "choice": {"first": "text0", "choices": ["choices"], "kind": "choice"},
}


def data_of(folder: Path, kind: str) -> Path:
    """Train, dev and test as JSONL; the licence of nothing, 3 examples a group."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count, seed in (("train", 24, 0), ("dev", 12, 1), ("test", 12, 2)):
        made: Examples = MADE[kind](count, seed)
        lines = []
        for n, one in enumerate(made):
            row: dict[str, Any] = {f"text{number}": text for number, text in enumerate(one.texts)}
            row |= {"page": f"{part} {n // 3}", "label": one.label}
            if one.choices:
                row["choices"] = list(one.choices)
            elif made.task.labels:
                row["label"] = made.task.labels[int(one.label or 0)]
            lines.append(json.dumps(row))
        (folder / f"{part}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_teacher(tmp_path_factory.mktemp("model") / "tiny", layers=1, modules=False)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    return folder


def trained(
    model: Path, folder: Path, kind: str = "classification", **others: Any
) -> tuple[Path, FinetuneConfig, dict[str, Any]]:
    own = {"task": "topics", "data": str(data_of(folder / "rows", kind)), "group": "page", "seeds": [0]}
    config = load(FinetuneConfig, None, own | OWN[kind] | SEARCH | others)
    result = finetune(model, config, folder / "run").to_dict()
    return folder / "run" / "finetuned" / "topics", config, result


def split(folder: Path) -> tuple[dict[str, Any], str]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.fixture(scope="module")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FinetuneConfig, dict[str, Any]]:
    return trained(model, tmp_path_factory.mktemp("plain"), seeds=[0, 1])


def test_the_card_tells_what_was_measured(plain: tuple[Path, FinetuneConfig, dict[str, Any]]) -> None:
    folder, _, result = plain
    front, body = split(folder)
    assert front == {
        "license": "mit",
        "base_model": "tiny",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["subarch"],
    }
    assert body.startswith("\n# topics\n\nA text classifier, fine-tuned from tiny; made with subarch.")
    assert f"| labels | {', '.join(sorted(LABELS))} |" in body
    assert "| source | rows |\n| division | the task's own parts |" in body
    assert "| examples, training | 24 in 8 groups |\n| examples, dev | 12 in 4 groups |" in body
    assert "| examples, held out | 12 in 4 groups |" in body
    scores, heldout = result["heldout"]["scores"], result["heldout"]
    lines = body.split("## Measured quality\n\n")[1].splitlines()
    assert lines[0] == "| held out | this model | mean of 2 seeds | standard deviation | always the most frequent |"
    figures = (scores["accuracy"], heldout["mean"]["accuracy"], heldout["deviation"]["accuracy"], 1 / 3)
    assert lines[2] == f"| accuracy | {' | '.join(f'{figure:.4g}' for figure in figures)} |"
    assert "| macro f1 |" in body
    assert "| trainings | 2 |" in body
    assert f"| threads | 1 |\n| processor | {result['machine']['processor']} |" in body
    assert "- Reads at most 16 tokens" in body
    assert "one seed" not in body
    assert str(folder.parents[2]) not in body  # whose machine it was


def test_a_stock_pipeline_gives_the_names_of_the_labels(plain: tuple[Path, FinetuneConfig, dict[str, Any]]) -> None:
    folder, config, _ = plain
    heldout = parts_of(config).heldout
    told = json.loads((folder / "heldout.json").read_text())
    seed = json.loads((folder / "metrics.json").read_text())["chosen"].rpartition("-s")[2]
    names = [sorted(LABELS)[int(number)] for number in told["seeds"][seed]]
    said = pipeline("text-classification", model=str(folder))([one.texts[0] for one in heldout])
    assert [one["label"] for one in said] == names
    assert len(set(names)) > 1


def test_a_teacher_is_named_with_its_scores_and_its_licence(
    plain: tuple[Path, FinetuneConfig, dict[str, Any]], model: Path, tmp_path: Path
) -> None:
    teacher, config, _ = plain
    folder, _, result = trained(model, tmp_path, teacher=teacher)
    front, body = split(folder)
    assert front["license"] == "mit"  # that of the encoder, and of the teacher's card
    assert front["tags"] == ["subarch", "distillation"]
    assert "A text classifier, fine-tuned from tiny, a student of topics (run); made with subarch." in body
    assert "| distillation | soft targets of the teacher and labels |" in body
    ours, theirs = result["heldout"]["scores"]["accuracy"], result["teacher"]["heldout"]["accuracy"]
    assert f"| accuracy | {ours:.4g} | {theirs:.4g} | 0.3333 |" in body
    assert "Trained with one seed" in body
    doubted = Metrics.model_validate(result | {"teacher": result["teacher"] | {"objection": "bad"}})
    facts = facts_of(model, parts_of(config).heldout, doubted)
    assert "Its teacher was not adequate: bad." in facts["limits"]


def test_how_agora_went_is_told(plain: tuple[Path, FinetuneConfig, dict[str, Any]], model: Path) -> None:
    _, config, result = plain
    heldout = parts_of(config).heldout
    told = {"iterations": 3, "pruning": "halving", "stopped": "one setting is left", "examples": 30}
    plainly = Metrics.model_validate(result)
    grown = plainly.model_copy(update={"agora": AgoraSummary.model_construct(**told)})
    facts = facts_of(model, heldout, grown)
    assert facts["agora"]["examples"] == "30, of them 6 made, labelled by the teacher"
    assert facts_of(model, heldout, plainly)["agora"] is None


@pytest.mark.parametrize("kind", MADE)
def test_the_code_in_the_card_runs(
    plain: tuple[Path, FinetuneConfig, dict[str, Any]], model: Path, tmp_path: Path, kind: str
) -> None:
    folder = plain[0] if kind == "classification" else trained(model, tmp_path, kind, epochs=1)[0]
    code = split(folder)[1].split("```python\n")[1].split("```")[0]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code.replace("path/to/this/folder", str(folder)))
    if kind == "choice":
        assert said.getvalue().strip() in ("One choice.", "Another one.")
    elif kind == "grades":
        front = split(folder)[0]
        assert (front["library_name"], front["pipeline_tag"]) == ("sentence-transformers", "text-ranking")
        assert said.getvalue().count("corpus_id") == 2
    elif kind == "regression":
        assert 8000 < float(said.getvalue().split("'score': ")[1].split("}")[0]) < 11000  # in the units of the labels
    else:
        labels = LABELS if kind == "classification" else ("different", "same")
        assert any(f"'label': '{label}'" in said.getvalue() for label in labels)
