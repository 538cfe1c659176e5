"""Pretraining what a search trained: default losses fit its weights, a refusal leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from subarch.errors import InvalidConfig
from subarch.pipeline import extract
from subarch.pretraining.pretrain import configure, train
from tiny import tiny_teacher
from tiny_pretrain import QUICK
from tiny_run import OneProcess, tiny_config

pytestmark = pytest.mark.usefixtures("quick_trainer")
OPTIONS = {key: QUICK[key] for key in ("max_length", "batch_tokens", "steps", "evaluations", "heldout", "threads")}


def searched(folder: Path, error: str) -> Path:
    """The run folder of a search with a teacher that has a masked-LM head; the selected one is narrower."""
    tiny_teacher(folder / "teacher", masked_lm=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(tiny_config(folder, error=error, max_parameters=9_000), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("sentences"), "embedding")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("masked"), "mlm")


def pretrained(run: Path, **given: Any) -> dict[str, float]:
    """The losses that `subarch pretrain` trains with."""
    record = train(run, configure(run, None, given))
    assert record.started == "the search's own training of it"
    return record.losses


@pytest.mark.slow
def test_a_refused_loss_leaves_nothing_in_the_way(sentences: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sentences, tmp_path / "run")
    for loss in ("loss_mlm", "loss_logits"):
        message = "trained have no masked-LM head; leave out loss_mlm and loss_logits, or set initialise to inherit"
        with pytest.raises(InvalidConfig, match=message):
            pretrained(run, **OPTIONS, **{loss: 1.0})
    assert configure(run, None, {}).loss_logits is None  # nothing given is not the command that was refused
    assert pretrained(run, **OPTIONS, loss_embedding=1.0) == {"embedding": 1.0}
    assert configure(run, None, {}).loss_embedding == 1.0  # this one has begun


@pytest.mark.slow
def test_default_losses_need_no_head_that_the_search_has_not_trained(sentences: Path, tmp_path: Path) -> None:
    losses = pretrained(shutil.copytree(sentences, tmp_path / "run"), **OPTIONS)
    assert losses == {"embedding": 1.0, "relations": 1.0}


def test_with_what_it_inherits_it_has_a_head(sentences: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sentences, tmp_path / "run")
    record = train(run, configure(run, None, {**OPTIONS, "initialise": "inherit"}))
    assert record.started == "the teacher's weights, reduced"
    assert set(record.losses) == {"logits", "mlm"}


@pytest.mark.slow
def test_a_searched_masked_lm_goes_on_as_one(masked: Path, tmp_path: Path) -> None:
    run = shutil.copytree(masked, tmp_path / "run")
    with pytest.raises(InvalidConfig, match="have a masked-LM head that no loss here trains; add loss_mlm, or set"):
        pretrained(run, **OPTIONS, loss_embedding=1.0)
    with pytest.raises(InvalidConfig, match="have no map to the teacher's embeddings; leave out loss_embedding, or"):
        pretrained(run, **OPTIONS, loss_embedding=1.0, loss_mlm=1.0)
    assert set(pretrained(run, **OPTIONS)) == {"logits", "mlm"}
