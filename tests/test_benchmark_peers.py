"""The table of what else a user would pick: what is trained on, for how long, and how its rows are scored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from benchmarks import peers

from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture, Inputs
from tiny import tiny_teacher

INPUTS = Inputs(30522, 512)
TOKENS = peers.TRAINING["batch_tokens"] / peers.LENGTH


@pytest.mark.parametrize("shape", ["3-12-384-1536", "2-12-384-512", "4-12-312-1200"])
def test_each_training_costs_the_same_multiply_adds(shape: str) -> None:
    operations = Architecture.parse(shape).operations(INPUTS, peers.LENGTH)
    assert peers.steps(operations) * 3 * operations * TOKENS == pytest.approx(peers.OPERATIONS, rel=0.01)


def test_a_training_has_an_end() -> None:
    assert peers.steps(1) == peers.MOST


def test_two_limits_that_select_one_architecture_share_its_training(tmp_path: Path) -> None:
    assert peers.folder_of("ours, 1/2", "3-12-384-1536", tmp_path) == peers.folder_of(
        "picked", "3-12-384-1536", tmp_path
    )
    assert peers.folder_of("sentence-transformers, 2 layers", (0, 3), tmp_path).parent == tmp_path


def test_texts_of_tasks_are_taken_once_and_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"A/train.json": ("text_a", "text_b"), "B/rows.jsonl": ("article",)}
    monkeypatch.setattr(peers, "UNLABELLED", columns)
    for name in columns:
        (tmp_path / name).parent.mkdir()
    rows = {"0": {"text_a": "one", "text_b": "two", "label": "no"}, "1": {"text_a": "one", "text_b": "three"}}
    (tmp_path / "A" / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    lines = [json.dumps({"article": "four", "answer": "five"})] * 2
    (tmp_path / "B" / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = peers.unlabelled(tmp_path, tmp_path).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in found] == ["one", "two", "three", "four"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """STS-B, SST-2 and a collection, of a few texts each."""
    folder = tmp_path / "data"
    for name in ("tasks/STS-B", "tasks/SST-2", "retrieval/cranfield/qrels"):
        (folder / name).mkdir(parents=True)
    texts = ["a cat sat", "a dog ran", "the sun shone", "no rain fell", "a bird sang", "the car broke"]
    pairs = [f"{one}\t{two}\t{cosine(one, two)}" for one in texts[:3] for two in texts[3:]]
    lines = ["sentence1\tsentence2\tscore", *pairs]
    (folder / "tasks/STS-B/dev.tsv").write_text("\n".join(lines), encoding="utf-8")
    gold = ["\t".join(["g", "f", "y", str(at), *reversed(pair.split("\t"))]) for at, pair in enumerate(pairs)]
    (folder / "tasks/STS-B/sts-test.tsv").write_text("\n".join(gold), encoding="utf-8")
    labelled = ["sentence\tlabel", *(f"{text}\t{at % 2}" for at, text in enumerate(texts))]
    for part in ("train", "dev"):
        (folder / f"tasks/SST-2/{part}.tsv").write_text("\n".join(labelled), encoding="utf-8")
    collection = folder / "retrieval" / "cranfield"
    documents = [json.dumps({"_id": f"d{at}", "title": "", "text": text}) for at, text in enumerate(texts)]
    (collection / "corpus.jsonl").write_text("\n".join(documents), encoding="utf-8")
    queries = [json.dumps({"_id": f"q{at}", "text": text}) for at, text in enumerate(texts[:3])]
    (collection / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    judged = ["query-id\tcorpus-id\tscore", "q0\td0\t1", "q1\td1\t1", "q2\td0\t1"]
    (collection / "qrels/test.tsv").write_text("\n".join(judged), encoding="utf-8")
    return folder


def letters(text: str) -> Any:
    return np.array([text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"], float)


def cosine(one: str, two: str) -> float:
    a, b = letters(one), letters(two)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def stub(monkeypatch: pytest.MonkeyPatch, noise: float) -> Any:
    """A model whose vectors count letters, with noise."""

    def encode(texts: list[str], show_progress_bar: bool) -> Any:
        counts = np.array([letters(text) for text in texts])
        return counts + noise * np.random.default_rng(0).normal(size=counts.shape)

    found = SimpleNamespace(figures={"ndcg@10": [1.0 - noise / 10, 0.5, 0.0], "mrr@10": [1.0, 0.5, 0.0]})
    monkeypatch.setattr(peers, "embedded", lambda *_: found)
    return SimpleNamespace(encoder=SimpleNamespace(encode=encode))


def test_scores_stand_beside_those_of_the_teacher(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "FITTED", 6)
    teacher = peers.figures(peers.REFERENCE, stub(monkeypatch, 0.0), tmp_path, data)
    worse = peers.figures("other", stub(monkeypatch, 3.0), tmp_path, data)
    for part in peers.PARTS:
        assert teacher[part]["kept"] == 1
        assert teacher[part]["difference_low"] == teacher[part]["difference_high"] == 0
        assert worse[part]["kept"] == pytest.approx(worse[part]["value"] / teacher[part]["value"])
        assert worse[part]["low"] <= worse[part]["value"] <= worse[part]["high"]
    assert teacher["sts_dev"]["value"] == pytest.approx(1) == teacher["sts_test"]["value"] > worse["sts_dev"]["value"]
    assert worse["cranfield"]["value"] == pytest.approx((0.7 + 0.5) / 3)


def test_what_is_scored_is_not_trained_on(data: Path) -> None:
    texts = peers.tested(data)
    assert {"a cat sat", "the car broke"} <= set(texts)
    assert len(texts) == 3 + 6 + 18 + 18 + 6  # queries, documents, both sides of both parts, sentences


@pytest.mark.slow
def test_the_recipe_keeps_the_layers_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_teacher(tmp_path / "teacher")
    teacher = Teacher.load(folder)
    monkeypatch.setattr(peers, "OPERATIONS", 3 * 6400 * teacher.architecture.operations(teacher.inputs(0), 32) / 32)
    texts = [f"the boat sees the {word} near the bread" for word in ("rope", "mast", "tide", "gull", "wave", "pier")]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "texts.parquet")
    found = peers.reduced((0,), 1e-4, tmp_path / "texts.parquet", folder, tmp_path / "run")
    student = Teacher.load(tmp_path / "run" / "pretrained")
    assert found["architecture"] == str(student.architecture)
    assert student.architecture.depth == 1
    first = teacher.encoder.encoder.layer[0].attention.self.query.weight
    assert not torch.equal(student.encoder.encoder.layer[0].attention.self.query.weight, first)
    assert torch.allclose(student.encoder.encoder.layer[0].attention.self.query.weight, first, atol=0.1)
