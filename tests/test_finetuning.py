"""One fine-tuning: it learns, leaves a stock folder, repeats bit for bit, and refuses what it cannot learn from."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from subarch.errors import InvalidStudy, InvalidTask, InvalidTeacher, TrainingDiverged
from subarch.finetuning import fit as finetuning
from subarch.finetuning.config import FitSettings, Theta
from subarch.finetuning.fit import Fitted, Occurring, fit, loss_of
from subarch.models.heads import labels_of, predict
from subarch.tasks import Examples, score
from tasks_tiny import QUIZ, SAME, TOPIC, examples, pairs, prices, quizzes, topics
from tiny import tiny_teacher

FAST = Theta(3e-3, batch_size=8, epochs=2, dropout=0.0)
SETTINGS = FitSettings(max_length=32, threads=1)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("bert") / "model", layers=1, modules=False)


@pytest.fixture(scope="module")
def fitted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("fitted") / "topics"
    return fit(model, topics(44), topics(21, 1, "validation"), FAST, folder, settings=SETTINGS)


def refit(model: Path, folder: Path, theta: Theta = FAST, **others: Any) -> Fitted:
    train, dev = others.pop("train", topics(44)), others.pop("dev", topics(21, 1, "validation"))
    return fit(model, train, dev, theta, folder, **({"settings": SETTINGS} | others))


# What it leaves


def test_it_learns_and_says_what_it_did(fitted: Fitted) -> None:
    assert fitted.dev_scores["accuracy"] > 0.9
    assert list(fitted.dev_scores) == ["accuracy", "macro_f1"]
    assert (fitted.steps, fitted.examples_seen) == (12, 88)  # 44 are 6 batches of 8, the last of 4
    assert [row["epoch"] for row in fitted.history] == [1, 2]
    assert fitted.history[1]["loss"] < fitted.history[0]["loss"]
    assert fitted.truncated == 0
    assert not (fitted.folder / "checkpoints").exists()


def test_the_first_of_the_best_epochs_is_kept(fitted: Fitted) -> None:
    accuracies = [row["accuracy"] for row in fitted.history]
    assert fitted.epoch == 1 + accuracies.index(max(accuracies))
    assert fitted.dev_score == max(accuracies)


def test_predictions_are_those_on_dev(fitted: Fitted) -> None:
    dev = topics(21, 1)
    logits = predict(fitted.folder, dev)
    np.testing.assert_array_equal(logits, fitted.dev_logits)
    assert score(dev, labels_of(TOPIC, logits)) == fitted.dev_scores


def test_a_stock_pipeline_gives_the_same_labels(fitted: Fitted) -> None:
    dev = topics(6, 1)
    classify = pipeline("text-classification", model=str(fitted.folder), device="cpu")
    said = [classify(example.texts[0])[0] for example in dev]
    logits = torch.tensor(fitted.dev_logits[:6])
    assert [one["label"] for one in said] == [TOPIC.labels[row] for row in logits.argmax(1)]
    np.testing.assert_allclose([one["score"] for one in said], logits.softmax(1).amax(1), rtol=1e-4)


def test_the_tokenizer_cuts_as_in_training(fitted: Fitted, model: Path, tmp_path: Path) -> None:
    assert AutoTokenizer.from_pretrained(fitted.folder).model_max_length == 32
    short = refit(model, tmp_path / "fit", dataclasses.replace(FAST, epochs=1), settings=FitSettings(max_length=6))
    longer = sum(len(example.texts[0].split()) > 4 for example in topics(44)) / 44
    assert short.truncated == pytest.approx(longer)
    assert 0 < longer < 1


class _All(Occurring):
    """Sets nothing aside."""

    def __init__(self, model: Any, encoded: Any, padding: int) -> None:
        super().__init__(model, encoded, model.config.vocab_size - 1)


@pytest.mark.parametrize(
    "family", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("roberta", "modernbert"))]
)
def test_embeddings_of_tokens_that_do_not_occur_stay_and_nothing_else_differs(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_teacher(tmp_path / "model", family=family, layers=1, modules=False)
    modern = family == "modernbert"
    name = "embeddings.tok_embeddings.weight" if modern else "embeddings.word_embeddings.weight"
    theta = dataclasses.replace(FAST, weight_decay=0.0)
    parts = {"train": topics(20), "dev": topics(9, 1, "validation")}
    reduced = refit(model, tmp_path / "reduced", theta, **parts)
    monkeypatch.setattr(finetuning, "Occurring", _All)
    whole = refit(model, tmp_path / "whole", theta, **parts)
    before, after = load_file(model / WEIGHTS), load_file(reduced.folder / WEIGHTS)
    for key, weight in load_file(whole.folder / WEIGHTS).items():
        torch.testing.assert_close(after[key], weight, atol=1e-5, rtol=0)
    old, new = before[name], after[f"{'model' if modern else family}.{name}"]
    moved = (old != new).any(1)
    occurring = {
        row
        for example in (*parts["train"], *parts["dev"])
        for row in AutoTokenizer.from_pretrained(model)(*example.texts)["input_ids"]
    }
    assert set(moved.nonzero().flatten().tolist()) <= occurring
    assert 0 < moved.sum() < len(old)
    np.testing.assert_allclose(reduced.dev_logits, whole.dev_logits, atol=1e-5)


def test_roberta_learns_pairs(tmp_path: Path) -> None:
    model = tiny_teacher(tmp_path / "model", family="roberta", layers=1, modules=False)
    dev = pairs(12, 1, "validation")
    found = refit(model, tmp_path / "fit", train=pairs(24), dev=dev)
    stock = AutoModelForSequenceClassification.from_pretrained(found.folder).eval()
    assert type(stock).__name__ == "RobertaForSequenceClassification"
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    inputs = tokenizer([one.texts[0] for one in dev], [one.texts[1] for one in dev], padding=True, return_tensors="pt")
    assert "token_type_ids" not in inputs  # RoBERTa has one type, and a stock pipeline must not give it two
    np.testing.assert_allclose(stock(**inputs).logits.detach(), found.dev_logits, atol=1e-5)


def test_regression_speaks_in_the_units_of_its_labels(model: Path, tmp_path: Path) -> None:
    dev = prices(12, 1, "validation")
    theta = dataclasses.replace(FAST, learning_rate=1e-2, epochs=5)
    found = refit(model, tmp_path / "fit", theta, train=prices(45), dev=dev)
    assert found.dev_scores["pearson"] > 0.9
    assert found.dev_logits.shape == (12, 1)
    predicted = np.array(labels_of(dev.task, found.dev_logits))
    assert np.abs(predicted - np.array(dev.labels)).mean() < 250  # labels are 9000, 9500, 10000
    stock = AutoModelForSequenceClassification.from_pretrained(found.folder).eval()
    inputs = AutoTokenizer.from_pretrained(found.folder)(dev[0].texts[0], return_tensors="pt")
    assert stock.config.problem_type == "regression"
    assert stock(**inputs).logits.item() == pytest.approx(predicted[0], rel=1e-5)


@pytest.mark.slow
def test_numbers_of_choices_may_differ(model: Path, tmp_path: Path) -> None:
    dev = quizzes(11, 1, "validation")
    found = refit(model, tmp_path / "fit", dataclasses.replace(FAST, epochs=3), train=quizzes(30), dev=dev)
    assert found.dev_scores["accuracy"] > 0.7
    assert found.dev_logits.shape == (11, 4)
    stock = AutoModelForMultipleChoice.from_pretrained(found.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    for example, logits in zip(dev, found.dev_logits, strict=True):
        first, second = zip(*example.pairs(), strict=True)
        inputs = tokenizer(list(first), list(second), padding=True, return_tensors="pt")
        alone = stock(**{name: value[None] for name, value in inputs.items()}).logits[0]
        np.testing.assert_allclose(logits[: len(alone)], alone.detach(), atol=1e-5)
        assert np.isneginf(logits[len(alone) :]).all()


def test_no_layers_are_warned_of(tmp_path: Path) -> None:
    model = tiny_teacher(tmp_path / "model", layers=0, modules=False)
    with pytest.warns(UserWarning, match="has no layers"):
        found = refit(model, tmp_path / "fit", dataclasses.replace(FAST, epochs=1))
    assert np.ptp(found.dev_logits, axis=0).max() < 1e-5


# The same again


def test_the_same_call_leaves_the_same_bits_another_seed_others(fitted: Fitted, model: Path, tmp_path: Path) -> None:
    again = refit(model, tmp_path / "again")
    assert (again.folder / WEIGHTS).read_bytes() == (fitted.folder / WEIGHTS).read_bytes()
    other = refit(model, tmp_path / "other", dataclasses.replace(FAST, seed=1))
    assert (other.folder / WEIGHTS).read_bytes() != (fitted.folder / WEIGHTS).read_bytes()


def test_what_is_finished_is_not_trained_again(fitted: Fitted, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "_fit", None)
    again = refit(model, fitted.folder)
    np.testing.assert_array_equal(again.dev_logits, fitted.dev_logits)
    assert dataclasses.replace(again, dev_logits=fitted.dev_logits) == fitted


@pytest.mark.parametrize(
    "others",
    [
        {"train": topics(43)},
        {"dev": topics(21, 2)},
        {"theta": dataclasses.replace(FAST, seed=3)},
        {"settings": FitSettings(max_length=31)},
        {"teacher": np.zeros((44, 3), np.float32)},
    ],
    ids=lambda others: next(iter(others)),
)
def test_a_finished_fit_of_something_else_is_refused(fitted: Fitted, model: Path, others: dict[str, Any]) -> None:
    with pytest.raises(InvalidStudy, match="another"):
        refit(model, fitted.folder, others.pop("theta", FAST), **others)


def test_threads_may_differ(fitted: Fitted, model: Path) -> None:
    assert refit(model, fitted.folder, settings=dataclasses.replace(SETTINGS, threads=2)).steps == fitted.steps


@pytest.mark.parametrize("stop", [7])
def test_stopped_at_any_step_it_ends_the_same(fitted: Fitted, model: Path, tmp_path: Path, stop: int) -> None:
    def report(what: str, done: float, total: float) -> None:
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refit(model, tmp_path / "fit", report=report)
    assert not (tmp_path / "fit").exists()
    again = refit(model, tmp_path / "fit")
    assert (again.folder / WEIGHTS).read_bytes() == (fitted.folder / WEIGHTS).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


def test_a_damaged_record_is_said(fitted: Fitted, tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text((fitted.folder / "fit.json").read_text())
    with pytest.raises(InvalidStudy, match="dev_logits"):
        Fitted.read(tmp_path)


# How it learns


def test_patience_begins_after_the_warm_up(model: Path, tmp_path: Path) -> None:
    # A learning rate at which no prediction changes: no epoch is better than the first
    still = Theta(1e-12, warm_up=0.5, batch_size=44, epochs=6, dropout=0.0)
    found = refit(model, tmp_path / "a", still, settings=dataclasses.replace(SETTINGS, patience=1))
    assert len(found.history) == 4
    assert found.epoch == 1
    assert len(refit(model, tmp_path / "b", still, settings=dataclasses.replace(SETTINGS, patience=0)).history) == 6


@pytest.mark.slow
def test_a_batch_in_parts_trains_like_the_whole(
    fitted: Fitted, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "TRAINED_TOKENS", 20)
    parts: list[int] = []
    collate = finetuning.collate
    monkeypatch.setattr(finetuning, "collate", lambda rows, *others: parts.append(len(rows)) or collate(rows, *others))
    found = refit(model, tmp_path / "fit")
    assert max(parts) <= 2
    assert found.steps == fitted.steps
    np.testing.assert_allclose(found.dev_logits, fitted.dev_logits, atol=1e-3)
    assert found.history[0]["loss"] == pytest.approx(fitted.history[0]["loss"], abs=1e-4)


def test_soft_targets_alone_are_followed_against_the_labels(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "SOFT_WEIGHT", 1.0)
    train = topics(44)
    turned = np.full((44, 3), -4.0, np.float32)
    turned[np.arange(44), (np.array(train.labels) + 1) % 3] = 4.0
    rows = [dataclasses.replace(one, label=(int(one.id) + 1) % 3) for one in topics(21, 1)]
    dev = examples(TOPIC, rows, "validation")
    theta = dataclasses.replace(FAST, learning_rate=1e-2, epochs=4)
    assert refit(model, tmp_path / "fit", theta, teacher=turned, dev=dev).dev_score > 0.8


def test_divergence_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="lower learning rate"):
        refit(model, tmp_path / "fit", dataclasses.replace(FAST, learning_rate=1e38, warm_up=0.0))


# Losses, by hand

LOGITS = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]])


def test_cross_entropy_is_summed() -> None:
    batch = {"labels": torch.tensor([1, 2])}
    first, second = (-torch.log_softmax(LOGITS, 1)[row, label].item() for row, label in ((0, 1), (1, 2)))
    assert loss_of(LOGITS, batch).item() == pytest.approx(first + second, rel=1e-6)


def test_soft_targets_add_the_divergence_at_a_temperature() -> None:
    soft = torch.tensor([[1.0, 1.0, 0.0], [0.0, 3.0, -2.0]])
    batch = {"labels": torch.tensor([1, 2]), "soft": soft}
    hard = loss_of(LOGITS, {"labels": batch["labels"]}).item()
    divergence = 0.0
    for teacher, student in zip(soft.numpy(), LOGITS.numpy(), strict=True):
        p, q = (np.exp(one / 2) / np.exp(one / 2).sum() for one in (teacher, student))
        divergence += 4 * float((p * np.log(p / q)).sum())
    assert loss_of(LOGITS, batch, 0.25, 2.0).item() == pytest.approx(0.75 * hard + 0.25 * divergence, rel=1e-5)
    same = {"labels": batch["labels"], "soft": LOGITS}
    assert loss_of(LOGITS, same, 1.0, 3.0).item() == pytest.approx(0, abs=1e-6)


def test_missing_choices_add_nothing_to_loss_or_gradient() -> None:
    full = torch.tensor([[0.3, 1.0, -1.0]], requires_grad=True)
    padded = torch.cat([full, torch.full((1, 1), -torch.inf)], 1)
    soft = torch.tensor([[2.0, 0.0, 1.0]])
    labels = torch.tensor([1])
    less = loss_of(full, {"labels": labels, "soft": soft}, 0.5, 2.0)
    wide = torch.cat([soft, torch.full((1, 2), -torch.inf)], 1)
    more = loss_of(padded, {"labels": labels, "soft": wide}, 0.5, 2.0)
    assert more.item() == pytest.approx(less.item())
    gradients = [torch.autograd.grad(loss, full, retain_graph=True)[0] for loss in (less, more)]
    torch.testing.assert_close(*gradients)


def test_regression_is_squared_error_to_label_and_teacher() -> None:
    logits = torch.tensor([[1.0], [3.0]])
    batch = {"labels": torch.tensor([0.0, 1.0]), "soft": torch.tensor([[2.0], [3.0]])}
    assert loss_of(logits, batch, 0.25).item() == pytest.approx(0.75 * (1 + 4) + 0.25 * (1 + 0))


# What is refused


def relabelled(part: Examples, label: float | None) -> Examples:
    return dataclasses.replace(part, rows=(dataclasses.replace(part[0], label=label), *part.rows[1:]))


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"train": topics(0)}, "is empty"),
        ({"dev": topics(0, part="validation")}, "validation of topic is empty"),
        ({"train": relabelled(topics(9), None)}, "without a label"),
        ({"train": relabelled(topics(9), 3)}, "label of example '0' is 3; expected one of 0 to 2"),
        ({"train": relabelled(prices(9), float("nan")), "dev": prices(9)}, "is nan; expected a finite number"),
        ({"train": quizzes(9), "dev": relabelled(quizzes(9), 2)}, "expected one of 0 to 1"),
        ({"dev": pairs(9)}, "dev of same"),
        ({"train": dataclasses.replace(topics(9), rows=topics(9).rows[::3])}, "the same label"),
        ({"teacher": np.zeros((44, 2), np.float32)}, "44 examples and 3 outputs"),
        ({"teacher": np.full((44, 3), np.nan, np.float32)}, "not finite"),
    ],
)
def test_what_cannot_be_learnt_is_refused(model: Path, tmp_path: Path, others: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTask, match=said):
        refit(model, tmp_path / "fit", **others)
    assert list(tmp_path.iterdir()) == []


def test_texts_and_pairs_do_not_mix(model: Path, tmp_path: Path) -> None:
    mixed = dataclasses.replace(topics(4), rows=(*topics(4).rows, dataclasses.replace(pairs(1)[0], id="9")))
    with pytest.raises(InvalidTask, match="some examples have one text"):
        refit(model, tmp_path / "fit", train=mixed)


def test_a_tokenizer_that_opens_no_pair_is_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["post_processor"]["pair"] = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    file.write_text(json.dumps(content))
    with pytest.raises(InvalidTeacher, match=r"does not put \[CLS\].* before a pair"):
        refit(tmp_path / "model", tmp_path / "fit")


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidTeacher, match="no such folder"):
        refit(tmp_path / "none", tmp_path / "fit")


# Predictions of any folder


def test_an_encoder_without_head_predicts_nothing(model: Path) -> None:
    with pytest.raises(InvalidTeacher, match="not fine-tuned for classification"):
        predict(model, topics(3))


def test_a_head_for_other_labels_predicts_nothing(fitted: Fitted) -> None:
    with pytest.raises(InvalidTeacher, match="has 3 outputs, but same needs 2"):
        predict(fitted.folder, pairs(3))
    with pytest.raises(InvalidTask, match="part train of topic is empty"):
        predict(fitted.folder, topics(0))


def test_unlabelled_rows_are_predicted_and_not_scored(fitted: Fitted) -> None:
    dev = topics(21, 1, "test")
    bare = dataclasses.replace(dev, rows=tuple(dataclasses.replace(one, label=None) for one in dev))
    logits = predict(fitted.folder, bare)
    np.testing.assert_array_equal(logits, fitted.dev_logits)
    with pytest.raises(InvalidTask, match="cannot be scored"):
        score(bare, labels_of(TOPIC, logits))


def test_outputs_are_read_by_the_names_of_labels(fitted: Fitted) -> None:
    order = (2, 0, 1)
    turned = dataclasses.replace(TOPIC, labels=tuple(TOPIC.labels[at].upper() for at in order))
    dev = dataclasses.replace(topics(21, 1), task=turned)
    np.testing.assert_array_equal(predict(fitted.folder, dev), fitted.dev_logits[:, order])
    unnamed = dataclasses.replace(dev, task=dataclasses.replace(TOPIC, labels=("a", "b", "c")))
    np.testing.assert_array_equal(predict(fitted.folder, unnamed), fitted.dev_logits)


def test_labels_are_the_greatest_outputs() -> None:
    assert labels_of(SAME, np.array([[1, 2], [3, -1]], np.float32)) == [1, 0]
    assert labels_of(QUIZ, np.array([[-5, -np.inf, -np.inf], [0, 1, 2]], np.float32)) == [0, 2]
    assert labels_of(prices(1).task, np.array([[1.5], [-2.0]], np.float32)) == [1.5, -2.0]


def test_batches_for_predictions_hold_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from subarch.models import heads

    monkeypatch.setattr(heads, "TOKENS", 30)
    lengths = [3, 9, 40, 1, 9, 2, 31, 7]
    encoded = [heads.Encoded([[1] * n] * (1 + n % 2), [[0] * n] * (1 + n % 2), None) for n in lengths]
    batches = list(heads._by_length(encoded))
    assert sorted(itertools.chain(*batches)) == list(range(len(lengths)))
    for rows in batches:
        tokens = sum(len(encoded[row].ids) for row in rows) * max(lengths[row] for row in rows)
        assert tokens <= 30 or len(rows) == 1
