"""Training with the rows of the tokens that occur gives what training with the whole table gives, in little space."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from subarch.errors import InvalidStudy
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings
from subarch.extraction.workbench import Workbench
from subarch.models.rows import Rows
from subarch.models.student import Student, load_weights, save_weights
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract, select
from subarch.pretraining.pretrain import CHECKPOINTS, train
from subarch.run.configuration import load
from tiny import tiny_corpus, tiny_sentences, tiny_teacher
from tiny_pretrain import tensors, tiny_pretraining, weights
from tiny_run import OneProcess, tiny_config

VOCABULARY, KNOWN = 2000, 127
"""Rows of the tiny teachers here, and tokens of their tokenizer, which are the first of them."""
TABLE = "embeddings.word_embeddings.weight"
SHAPE = Architecture.parse("1-2-16-24")
THETA = Settings(6, 5e-3, 8)


def opened(folder: Path, vocabulary: int = VOCABULARY, **changes: Any) -> Workbench:
    teacher, corpus = folder / "teacher", folder / "corpus.txt"
    if not teacher.is_dir():
        tiny_teacher(teacher, vocab_size=vocabulary)
    if not corpus.is_file():
        tiny_corpus(corpus)
    values = {"teacher": teacher, "corpus": [str(corpus)], "max_length": 24, "heldout": 16, "steps": 6}
    return Workbench.open(load(ExtractConfig, None, values | {"batch_size": [8]} | changes), folder / "run")


@pytest.fixture(scope="module", params=["bert", "roberta", "modernbert"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = tmp_path_factory.mktemp("made")
    tiny_teacher(folder / "teacher", family=request.param, vocab_size=VOCABULARY)
    return opened(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return opened(tmp_path_factory.mktemp("bert"))


def table_of(student: Student) -> Tensor:
    table: Tensor = student.encoder.get_input_embeddings().weight.detach()
    return table


@pytest.mark.parametrize("shape", ["2-4-32-64", "1-2-16-24", "1-4-48-64"])
def test_errors_and_weights_are_those_of_the_whole_table(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    architecture, reduced, whole = Architecture.parse(shape), tmp_path / "reduced", tmp_path / "whole"
    trial = bench.train(architecture, THETA, reduced)
    rows, begun = bench.rows, table_of(bench.student(architecture))
    assert rows is not None
    assert 100 < len(rows) <= KNOWN
    monkeypatch.setattr(bench, "rows", None)
    other = bench.train(architecture, THETA, whole)
    assert [point.error for point in trial.curve] == [point.error for point in other.curve]
    found = load_weights(Student(architecture, bench.blueprint), reduced, lambda: bench.material.start)
    expected = load_weights(Student(architecture, bench.blueprint), whole)
    for (name, one), two in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, two), name
    moved = (table_of(found) != begun).any(1)
    assert moved[:KNOWN].sum() > 80
    assert not moved[KNOWN:].any()
    # a row is 4 bytes each number; there are a few hundred bytes of names, and the rotation
    saved = 4 * (VOCABULARY - len(rows)) * architecture.hidden
    assert whole.stat().st_size - reduced.stat().st_size > saved - 8 * 32 * architecture.hidden - 8 * len(rows) - 500


def test_a_task_may_have_other_words_than_the_corpus(tmp_path: Path) -> None:
    sentences = tiny_sentences(400)
    about = {name: [line for line in sentences if line.startswith(name)] for name in ("harbour", "kitchen")}
    (tmp_path / "corpus.txt").write_text("\n\n".join(about["harbour"]), encoding="utf-8")
    rows = [dict(zip(("query", "document"), line.split(": "), strict=True)) for line in about["kitchen"][:12]]
    (tmp_path / "task.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    without = opened(tmp_path)
    bench = opened(tmp_path, error="task", task=tmp_path / "task.jsonl")
    assert bench.rows is not None
    assert without.rows is not None
    assert len(bench.rows) > len(without.rows) + 5
    assert bench.train(SHAPE, THETA).error is not None


def test_the_prompt_counts_too(tmp_path: Path, bert: Workbench) -> None:
    few = "\n\n".join("the old boat sees " + " ".join(f"the net{' rope' * n}" for n in range(m)) for m in range(3, 80))
    (tmp_path / "corpus.txt").write_text(few, encoding="utf-8")
    bench = opened(tmp_path, prompt="bread oven: ")
    ids = bench.material.tokenizer.convert_tokens_to_ids(["bread", "oven", ":", "spoon"])
    assert bench.rows is not None
    assert [one in bench.rows.tolist() for one in ids] == [True, True, True, False]
    assert bench.train(SHAPE, THETA).error is not None


def test_the_whole_table_is_trained_where_most_of_it_occurs_or_the_head_needs_it(tmp_path: Path) -> None:
    assert opened(tmp_path / "small", vocabulary=KNOWN).rows is None
    tiny_teacher(tmp_path / "masked" / "teacher", masked_lm=True, modules=False, vocab_size=VOCABULARY)
    assert opened(tmp_path / "masked", error="mlm").rows is None
    assert opened(tmp_path / "scratch", initialise="scratch").rows is None


def test_an_id_that_is_not_kept_is_an_error() -> None:
    rows = Rows(nn.Embedding(10, 4, padding_idx=0), torch.tensor([0, 3, 9]))
    assert rows(torch.tensor([[9, 0]])).shape == (1, 2, 4)
    with pytest.raises(IndexError):
        rows(torch.tensor([4]))


def test_rows_of_another_start_are_refused(bert: Workbench, tmp_path: Path) -> None:
    path, start = tmp_path / "one.safetensors", bert.material.start
    save_weights(bert.student(SHAPE, rows=bert.rows), path)
    with pytest.raises(
        InvalidStudy, match=r"one.safetensors: has only those rows .* no encoder to start from is named"
    ):
        load_weights(Student(SHAPE, bert.blueprint), path)
    other = Teacher.load(tiny_teacher(tmp_path / "other", vocab_size=VOCABULARY, seed=1))
    with pytest.raises(InvalidStudy, match=r"that of .*other is another now. Restore or name that"):
        load_weights(Student(SHAPE, bert.blueprint), path, lambda: other)
    assert start is not None  # another prompt is no other table
    load_weights(Student(SHAPE, bert.blueprint), path, lambda: start.with_prefix("the boat "))
    with pytest.raises(InvalidStudy, match="of another architecture"):
        load_weights(Student(Architecture(1, 2, 16, 25), bert.blueprint), path, lambda: start)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher, corpus and a finished run; the selected encoder is narrower than the teacher."""
    folder = tmp_path_factory.mktemp("searched")
    tiny_teacher(folder / "teacher", vocab_size=VOCABULARY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(tiny_config(folder, max_parameters=40_000), folder / "run")
    return folder


def test_a_search_hands_over_the_whole_table(searched: Path) -> None:
    table = tensors(searched / "run", "selected")[TABLE]
    files = list((searched / "run" / "weights").iterdir())
    assert len(table) == VOCABULARY
    assert max(file.stat().st_size for file in files) < 4 * 32 * VOCABULARY
    # the rows that did not occur are the teacher's, rotated: their products are nearly the same
    theirs = load_file(searched / "teacher" / "model.safetensors")[TABLE][KNOWN:]
    own, wanted = (torch.corrcoef(rows[:500]).flatten() for rows in (table[KNOWN:], theirs))
    assert torch.corrcoef(torch.stack([own, wanted]))[0, 1] > 0.5


def test_selecting_again_needs_the_start_as_it_was(searched: Path, tmp_path: Path) -> None:
    run = shutil.copytree(searched, tmp_path / "copy") / "run"
    config = (run / "config.yaml").read_text(encoding="utf-8").replace(str(searched), str(tmp_path / "copy"))
    (run / "config.yaml").write_text(config, encoding="utf-8")
    assert select(run, {"objective": "error", "cost": "operations"}).winner is not None
    tiny_teacher(tmp_path / "copy" / "teacher", vocab_size=VOCABULARY, seed=1)
    with pytest.raises(InvalidStudy, match=r"what it started from, and that of .*teacher is another"):
        select(run, {"objective": "error", "cost": "operations"})


@pytest.mark.parametrize("initialise", ["search", "inherit", "scratch"])
@pytest.mark.usefixtures("quick_trainer")
def test_pretraining_leaves_the_other_rows_as_they_began(searched: Path, tmp_path: Path, initialise: str) -> None:
    run = shutil.copytree(searched / "run", tmp_path / "run")
    begun = tensors(run, "selected")[TABLE] if initialise == "search" else None
    shape = json.loads((run / "selection.json").read_text(encoding="utf-8"))["winner"]["architecture"]
    config = tiny_pretraining(
        searched, teacher=searched / "teacher", architecture=shape, initialise=initialise, weight_decay=0.5
    )
    train(run, config)
    table = tensors(run)[TABLE]
    assert len(table) == VOCABULARY
    if begun is not None:
        assert torch.equal(table[KNOWN:], begun[KNOWN:])
        assert (table[:KNOWN] != begun[:KNOWN]).any(1).sum() > 80
    checkpoint = next((run / CHECKPOINTS).iterdir())
    sizes = [file.stat().st_size for file in checkpoint.iterdir()]
    assert max(sizes) < 4 * table.shape[1] * VOCABULARY


@pytest.mark.usefixtures("quick_trainer")
def test_an_interrupted_pretraining_goes_on_to_the_same_bits(searched: Path, tmp_path: Path) -> None:
    config = tiny_pretraining(searched, teacher=searched / "teacher", architecture="1-4-16-32")
    train(tmp_path / "run", config)
    whole = weights(tmp_path / "run")
    (tmp_path / "run" / "pretraining.json").unlink()
    shutil.rmtree(tmp_path / "run" / "pretrained")
    shutil.rmtree(tmp_path / "run" / CHECKPOINTS / "checkpoint-8")
    train(tmp_path / "run", config)
    assert weights(tmp_path / "run") == whole
