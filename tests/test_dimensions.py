"""Pretraining for search, whole: similarities, margins, and embeddings that may be cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from subarch.errors import InvalidConfig
from subarch.models.teacher import Teacher
from subarch.pretraining.pretrain import train
from subarch.run.folder import RunFolder
from subarch.run.records import Pretraining
from subarch.show.pretraining import cut, view
from subarch.show.screen import show_training
from subarch.text.corpus import Corpus
from tiny import tiny_sentences
from tiny_pretrain import tiny_pretraining

LOSSES = {"embedding": 1.0, "similarities": 0.5, "margins": 2.0}
GIVEN: dict[str, Any] = {f"loss_{name}": weight for name, weight in LOSSES.items()} | {"evaluations": 1, "steps": 6}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dimensions")


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    train(place / "run", tiny_pretraining(place, masked_lm=False, dimensions="8,32, 16", **GIVEN))
    return place / "run"


def test_all_of_it_is_learnt(run: Path) -> None:
    found = RunFolder(run).read(Pretraining)
    assert found.losses == LOSSES
    before, after = found.heldout[0], found.heldout[-1]
    assert all(after[name] > 0 for name in LOSSES)
    assert after["loss"] < before["loss"]
    assert after["loss"] == pytest.approx(sum(weight * after[name] for name, weight in LOSSES.items()))


def test_each_widths_agreement_is_that_of_all_pairs(run: Path, place: Path) -> None:
    found = RunFolder(run).read(Pretraining)
    heldout = Corpus.load(run / "corpus").segments("heldout", 30).shuffled()[:8]
    own, theirs = (
        Teacher.load(folder).embed(heldout).double().numpy() for folder in (run / "pretrained", place / "encoder")
    )
    pairs = np.triu_indices(len(heldout), 1)

    def cosines(vectors: Any) -> Any:
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return (unit @ unit.T)[pairs]

    assert found.agreement is not None
    assert list(found.agreement) == ["32", "16", "8"]
    for width, value in found.agreement.items():
        expected = np.corrcoef(cosines(own[:, : int(width)]), cosines(theirs))[0, 1]
        assert value == pytest.approx(expected, abs=1e-4), width


def test_it_is_told_and_cut_by_the_library(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = RunFolder(run).read(Pretraining)
    sentence = cut(found)
    assert sentence is not None
    assert sentence.endswith(f"16: {found.agreement['16']:.3f}, 8: {found.agreement['8']:.3f}.")  # type: ignore[index]
    assert ("Dimensions", sentence) in view(found)["words"]
    show_training(found, run)
    assert " ".join(sentence.split()) in " ".join(capsys.readouterr().out.split())
    card = (run / "pretrained" / "README.md").read_text(encoding="utf-8")
    assert "## Dimensions" in card
    assert f"16: {found.agreement['16']:.3f}, 8" in card  # type: ignore[index]
    texts = tiny_sentences(4)
    short = SentenceTransformer(str(run / "pretrained"), truncate_dim=8, device="cpu").encode(texts)
    assert short.shape == (4, 8)
    whole = SentenceTransformer(str(run / "pretrained"), device="cpu").encode(texts)
    np.testing.assert_allclose(short, whole[:, :8], atol=1e-6)


def test_prefixes_are_learnt_only_where_they_are_asked_for(run: Path, place: Path) -> None:
    """Without dimensions the same training is another, and there is nothing to say of them."""
    plain = place / "plain"
    train(plain, tiny_pretraining(place, masked_lm=False, **GIVEN))
    found = RunFolder(plain).read(Pretraining)
    assert found.agreement is None
    assert cut(found) is None
    assert "## Dimensions" not in (plain / "pretrained" / "README.md").read_text(encoding="utf-8")
    assert (plain / "pretrained/model.safetensors").read_bytes() != (run / "pretrained/model.safetensors").read_bytes()


def test_a_student_with_another_vocabulary_learns_them_too(place: Path) -> None:
    """Of texts: the teacher's vectors, and those in the bank, are computed beforehand."""
    config = tiny_pretraining(
        place, masked_lm=False, architecture="1-4-16-32-60", dimensions="8", targets="cache", **GIVEN
    )
    found = train(place / "cut", config)
    assert all(found.heldout[-1][name] > 0 for name in LOSSES)
    assert list(found.agreement or ()) == ["32", "8"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dimensions": "64,8"}, "dimensions 64,8: embeddings have 32 numbers; name fewer than these"),
        ({"dimensions": "32"}, "dimensions 32: embeddings have 32 numbers; name fewer than these"),
        (
            {"dimensions": "8", "loss_embedding": 1.0},
            "nothing is learnt of embeddings that are cut but by loss_similarities",
        ),
    ],
)
def test_widths_that_cannot_be_had(place: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        train(tmp_path / "run", tiny_pretraining(place, masked_lm=False, **given))


def test_a_masked_lm_has_no_dimensions_by_default(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="nothing is learnt of embeddings that are cut but by loss_similarities"):
        train(tmp_path / "run", tiny_pretraining(place, dimensions="8"))
