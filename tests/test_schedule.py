"""How long to train and whether to keep the teacher's outputs: decided from times that the tests set."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from subarch.errors import InvalidConfig
from subarch.learning import targets
from subarch.learning.collate import Loader
from subarch.numbers.architecture import Architecture
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.setup import PROBED, Setup, StepTimes, decide
from subarch.run.configuration import load
from subarch.run.records import Schedule
from tiny import tiny_corpus, tiny_teacher

CPU = torch.device("cpu")
CLEAR = {"loss_embedding": 1.0, "loss_relations": 1.0}
MASKED = {"loss_logits": 1.0, "loss_mlm": 0.5}
TOKENS = 256
"""Of a batch."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schedule")
    tiny_teacher(folder / "teacher", masked_lm=True)
    tiny_corpus(folder / "corpus.txt", 150)
    return folder


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what a part of a batch takes: teacher, student, optimiser."""
    monkeypatch.setattr(targets, "SHARD", 32)
    set_to = [StepTimes(1.0, 2.0, 0.5, [])]
    monkeypatch.setattr("subarch.pretraining.setup.step_times", lambda *_: set_to[-1])
    return lambda *times: set_to.append(StepTimes(*times, all=[]))


def prepared(folder: Path, **changes: Any) -> tuple[Setup, PretrainConfig]:
    options = {"teacher": folder / "teacher", "corpus": [str(folder / "corpus.txt")], "max_length": 32}
    options |= {"batch_tokens": TOKENS, "heldout": 4, "seed": 1, "initialise": "scratch", **changes}
    config = load(PretrainConfig, None, options)
    return Setup.load(config, folder / "run", Architecture.parse("1-2-16-24")), config


def schedule_of(steps: int, student: float, teacher: float, cached: bool, maskings: int, sentence: str) -> Schedule:
    return Schedule(
        steps=steps,
        student_seconds=student,
        teacher_seconds=teacher,
        cached=cached,
        maskings=maskings,
        sentence=sentence,
    )


def decided(folder: Path, **changes: Any) -> Schedule:
    return decide(*prepared(folder, **changes), CPU)


def corpus_tokens(setup: Setup) -> int:
    assert setup.store is not None
    return int(setup.budget.sizes(setup.store.segments).sum())


def test_steps_are_those_asked_for(folder: Path) -> None:
    found = decided(folder, steps=123, targets="live", **CLEAR)
    assert found == schedule_of(123, 2.5, 1.0, False, 0, found.sentence)
    assert found.sentence.startswith(
        "running the teacher at every step takes 2.0 min; computing its outputs once takes "
    )
    assert found.sentence.endswith(" and 0.0 GB: it runs at every step")


def test_minutes_become_steps(folder: Path) -> None:
    assert decided(folder, minutes=7, targets="live", **CLEAR).steps == 120  # of 3.5 s
    assert decided(folder, minutes=0.01, targets="live", **CLEAR).steps == 1


def test_accumulation_multiplies_the_passes_and_not_the_optimiser(folder: Path) -> None:
    found = decide(*prepared(folder, minutes=9.5, targets="live", **CLEAR), CPU, accumulation=3)
    assert (found.student_seconds, found.teacher_seconds) == (6.5, 3.0)
    assert found.steps == 60


def test_no_teacher_is_asked(folder: Path, seconds: Any) -> None:
    seconds(0.0, 2.0, 0.5)
    setup, config = prepared(folder, minutes=5, loss_mlm=1.0)
    assert decide(setup, config, CPU) == schedule_of(120, 2.5, 0.0, False, 0, "no loss needs a teacher")


def test_new_masks_at_each_visit_leave_nothing_to_keep(folder: Path) -> None:
    found = decided(folder, steps=10**6, **MASKED)
    assert not found.cached
    assert found.sentence.endswith("; no output is needed twice, so none is cached")


def passes_of(setup: Setup, seconds_a_part: float = 1.0) -> float:
    """Seconds of the teacher for the whole corpus, from those for the parts that were timed."""
    parts = list(islice(Loader(setup.source, setup.budget, setup.collator), PROBED))
    seen = sum(int(part["mask"].sum()) for part in parts) / len(parts)
    return seconds_a_part * corpus_tokens(setup) / seen


def test_many_steps_are_cheaper_from_disk_and_few_at_every_step(folder: Path) -> None:
    setup, _ = prepared(folder, steps=1, **CLEAR)
    once = passes_of(setup)
    assert 5 < once < 30
    many = decided(folder, steps=int(once) + 1, **CLEAR)
    assert many == schedule_of(int(once) + 1, 2.5, 0.0, True, 1, many.sentence)
    assert many.sentence.endswith(": they are cached")
    few = decided(folder, steps=int(once), **CLEAR)
    assert few == schedule_of(int(once), 2.5, 1.0, False, 0, few.sentence)
    assert few.sentence.endswith(": it runs at every step")


def test_minutes_go_where_more_steps_fit(folder: Path) -> None:
    setup, _ = prepared(folder, minutes=1, **CLEAR)
    once = passes_of(setup)
    long = decided(folder, minutes=60, **CLEAR)
    assert long.cached
    assert long.steps == int((3600 - once) / 2.5) > 3600 / 3.5
    short = decided(folder, minutes=once / 60 + 0.1, **CLEAR)
    assert not short.cached
    assert short.steps == int((once + 6) / 3.5)


def test_asked_for_it_is_kept_at_any_cost(folder: Path, seconds: Any) -> None:
    seconds(1000.0, 1.0, 0.0)
    found = decided(folder, minutes=1, targets="cache", **CLEAR)
    assert (found.cached, found.steps) == (True, 1)


def test_processes_share_the_teachers_work(folder: Path) -> None:
    setup, config = prepared(folder, minutes=1, targets="cache", **CLEAR)
    alone = (60 - passes_of(setup)) / 2.5
    assert decide(setup, config, CPU).steps == int(alone) < 23
    # The parts of two processes are half as large, and half of the corpus is each one's
    assert decide(setup, config, CPU, processes=2).steps == pytest.approx(alone, abs=1.5)


def test_a_full_disk_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, config = prepared(folder, steps=1000, **CLEAR)
    assert setup.store is not None
    part = next(iter(Loader(setup.source, setup.budget, setup.collator)))
    size = setup.store.bytes_of(part) / part["sizes"][0] * corpus_tokens(setup)
    for free, kept in ((2 * size + 2, True), (2 * size - 2, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free: SimpleNamespace(free=free))
        assert decide(setup, config, CPU).cached == kept


def test_what_is_kept_already_costs_nothing(folder: Path, tmp_path: Path) -> None:
    setup, config = prepared(folder, steps=1, **CLEAR)
    assert setup.store is not None
    setup.store.cache = replace(setup.store.cache, folder=tmp_path / "kept")
    assert not decide(setup, config, CPU).cached
    setup.store.fill(0, lambda _done, _total: None)
    found = decide(setup, config, CPU)
    assert found.cached
    assert "once takes 0.0 min and 0.0 GB: they are cached" in found.sentence


def test_as_many_maskings_as_the_epochs_need(folder: Path) -> None:
    setup, config = prepared(folder, steps=1, maskings=5, targets="cache", **MASKED)
    epoch = corpus_tokens(setup) / TOKENS
    for epochs, maskings in ((0.5, 1), (1.5, 2), (3.9, 4), (4.9, 5), (77.0, 5)):
        longer = config.model_copy(update={"steps": int(epochs * epoch)})
        assert decide(setup, longer, CPU).maskings == maskings


def test_no_masking_is_missing_where_caching_makes_more_steps(
    folder: Path, seconds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that the teacher does not take is trained on, which may reach a further epoch."""
    seconds(1.0, 0.5, 0.1)
    setup, config = prepared(folder, minutes=0.5, maskings=12, **MASKED)
    epoch = corpus_tokens(setup) / TOKENS
    monkeypatch.setattr(setup.store, "missing", lambda _masking: [])  # kept by a training before
    found = decide(setup, config, CPU)
    assert found.cached
    assert found.steps == 50
    assert found.maskings == math.ceil(50 / epoch) > math.ceil(30 / 1.6 / epoch)


def test_nothing_can_be_kept_of_masks_that_never_come_back(folder: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"targets 'cache' needs .* set maskings to 1 or more"):
        decided(folder, steps=10, targets="cache")  # the losses of a teacher with a head, not named


def test_it_is_measured_on_the_machine_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    torch.set_num_threads(1)
    setup, config = prepared(folder, steps=20, **CLEAR)
    before = {name: value.clone() for name, value in setup.distiller.state_dict().items()}
    found = decide(setup, config, CPU)
    assert found.student_seconds > 0
    assert found.cached == (found.teacher_seconds == 0)
    assert all(torch.equal(value, before[name]) for name, value in setup.distiller.state_dict().items())
