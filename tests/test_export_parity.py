"""What is said of two computations, on numbers that are worked out by hand, and on the batches they are compared on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from subarch.exporting.config import ExportConfig
from subarch.exporting.graph import Exportable, load_exportable
from subarch.exporting.parity import TOKENS, Tally, Text, objection
from subarch.run.configuration import load
from subarch.run.records import Likeness
from tiny import tiny_corpus
from tiny_export import tiny_model


def like(difference: float, share: float, worst: float, mean: float, agreement: float | None = None) -> Likeness:
    return Likeness(
        difference=difference, share_of_limit=share, worst_cosine=worst, mean_cosine=mean, agreement=agreement
    )


def identity(vectors: np.ndarray) -> np.ndarray:
    return vectors


def test_differences_and_cosines_by_hand() -> None:
    tally = Tally(identity, wins=False)
    tally.add(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [0.0, 0.0]]))  # cosine 24/25
    tally.add(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]))
    found = tally.likeness()
    assert (found.difference, found.worst_cosine, found.agreement) == (1.0, 0.96, None)
    assert found.mean_cosine == pytest.approx(0.98)
    assert found.share_of_limit == pytest.approx(1 / (1e-4 + 3e-4))  # where 3 became 4


def test_large_numbers_may_differ_by_more() -> None:
    tally = Tally(identity, wins=False)
    tally.add(np.array([10.0, 1000.0]), np.array([10.0, 1000.1]))
    assert tally.likeness().share_of_limit == pytest.approx(0.1 / 0.1001)
    tally.add(np.array([10.0]), np.array([10.0012]))
    assert tally.likeness().share_of_limit == pytest.approx(0.0012 / 0.0011)


def test_classes_are_compared_by_their_probabilities() -> None:
    tally = Tally(softmax, wins=True)
    tally.add(np.log([0.6, 0.4]), np.log([0.4, 0.6]) + 7)  # 7 is nothing to a probability
    assert tally.likeness().worst_cosine == pytest.approx(0.48 / 0.52)
    assert tally.likeness().agreement == 0
    tally.add(np.log([0.9, 0.1]), np.log([0.8, 0.2]))
    assert tally.likeness().agreement == 0.5
    assert tally.likeness().worst_cosine == pytest.approx(0.48 / 0.52)


def test_numbers_of_a_regression_are_compared_by_how_they_vary() -> None:
    tally = Tally(None, wins=False)
    for ours, theirs in ((9000.0, 8000.0), (9500.0, 8500.0), (10000.0, 9000.0)):
        tally.add(np.array([ours]), np.array([theirs]))
    found = tally.likeness()
    assert found.worst_cosine == found.mean_cosine == pytest.approx(1)
    assert found.difference == 1000
    tally.add(np.array([9500.0]), np.array([8200.0]))
    # deviations -500, 0, 500, 0 and -425, 75, 575, -225
    expected = (500 * 425 + 500 * 575) / (math.hypot(500, 500) * math.hypot(425, 75, 575, 225))
    assert tally.likeness().worst_cosine == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"storage": "fp16"}], ids=str)
def test_what_is_not_finite_is_refused_wherever_it_comes(wrong: float, options: dict[str, str]) -> None:
    config = load(ExportConfig, None, options)
    for rows in ([[wrong, 1.0], [1.0, 1.0]], [[1.0, 1.0], [wrong, 1.0]]):
        tally = Tally(identity, wins=False)
        with np.errstate(invalid="ignore"):
            for row in rows:
                tally.add(np.array([1.0, 1.0]), np.array(row))
            assert objection(config, {"logits": tally.likeness()}) is not None


def test_limits() -> None:
    def of(share: float, cosine: float) -> dict[str, Likeness]:
        first = like(1.0, 5000.0, 0.1, 0.1, None)  # token vectors, which only exact files must get right
        return {"last_hidden_state": first, "sentence_embedding": like(1e-3, share, cosine, 0.99, None)}

    exact, small = load(ExportConfig, None, {}), load(ExportConfig, None, {"quantize": "int8", "min_cosine": 0.97})
    assert "last_hidden_state differs from PyTorch's by up to 1, 5e+03 times" in str(objection(exact, of(0.5, 1)))
    assert objection(exact, {"logits": like(1.0, 1.0, 1.0, 1.0, 1.0)}) is None
    assert objection(exact, {"logits": like(1.0, 1.01, 1.0, 1.0, 1.0)}) is not None
    assert objection(small, of(20, 0.97)) is None
    assert "cosine of sentence_embedding with PyTorch's falls to 0.9690 (mean 0.9900), the limit is 0.97" in str(
        objection(small, of(20, 0.969))
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exportable]:
    folder = tmp_path_factory.mktemp("models")
    return {head: load_exportable(tiny_model(folder / head, head, layers=1)) for head in ("encoder", "choice")}


def test_batches_have_every_size_and_length_and_padding(models: dict[str, Exportable], tmp_path: Path) -> None:
    text = Text.find(models["encoder"], [str(tiny_corpus(tmp_path / "corpus.txt"))], "text", tmp_path, tmp_path / "to")
    batches = text.batches(models["encoder"], longest=64)
    assert [batch["input_ids"].shape for batch in batches[::5]] == [(1, 3), (1, 8), (1, 16), (1, 32), (1, 64)]
    assert [len(batch["input_ids"]) for batch in batches[-5:]] == [1, 2, 4, 8, 16]
    assert any((batch["attention_mask"] == 0).any() for batch in batches)
    special = {
        models["encoder"].teacher.tokenizer.convert_tokens_to_ids(token) for token in ("[CLS]", "[SEP]", "[PAD]")
    }
    held = set(text.heldout.tolist())
    for batch in batches:
        ids, mask, types = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
        assert ids.size <= TOKENS or len(ids) == 1
        assert mask[0].all()
        assert (mask[:, :-1] >= mask[:, 1:]).all()
        assert (types <= mask).all()
        third = ids.shape[1] // 3
        assert (types[1::2, third:] == mask[1::2, third:]).all()
        assert not types[::2].any()
        assert set(ids.ravel().tolist()) - special <= held
    again = text.batches(models["encoder"], longest=64)
    assert all((one["input_ids"] == other["input_ids"]).all() for one, other in zip(batches, again, strict=True))
    assert text.batches(models["encoder"], longest=10)[-1]["input_ids"].shape == (16, 10)


def test_choices_vary_too(models: dict[str, Exportable], tmp_path: Path) -> None:
    text = Text.find(models["choice"], None, "text", tmp_path, tmp_path / "to")
    shapes = [batch["input_ids"].shape for batch in text.batches(models["choice"], longest=64)]
    assert {choices for _, choices, _ in shapes} == {2, 3, 4}
    assert shapes[0] == (1, 2, 3)
    assert not set(text.heldout.tolist()) & set(models["choice"].teacher.tokenizer.all_special_ids)


def test_calibration_and_comparison_share_no_text(models: dict[str, Exportable], tmp_path: Path) -> None:
    model = models["encoder"]
    text = Text.find(model, [str(tiny_corpus(tmp_path / "corpus.txt"))], "text", tmp_path, tmp_path / "to")
    calibration = text.calibration(model, 40, longest=20)
    assert len(calibration) == 40
    assert max(batch["input_ids"].shape[1] for batch in calibration) == 20
    held = " " + " ".join(map(str, text.heldout.tolist())) + " "
    for batch in calibration:
        ids = batch["input_ids"][0]
        assert (ids[0], batch["attention_mask"].min()) == (model.teacher.tokenizer.cls_token_id, 1)
        assert " " + " ".join(map(str, ids[1:-1])) + " " not in held
