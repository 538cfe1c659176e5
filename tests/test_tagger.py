"""Taggers: which token stands for which word, that tiny models learn, and what stock pipelines make of what is left."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from subarch.errors import InvalidCorpus, InvalidTask, InvalidTeacher
from subarch.evaluation.evaluate import evaluate
from subarch.extraction.config import ExtractConfig
from subarch.finetuning import fit as finetuning
from subarch.finetuning.agora import adequate
from subarch.finetuning.config import FinetuneConfig, FitSettings, Theta
from subarch.finetuning.finetune import finetune
from subarch.finetuning.fit import Fitted, fit
from subarch.models.heads import labels_of, predict
from subarch.models.words import aligned, first_tokens
from subarch.pipeline import extract
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, Metrics
from subarch.tasks import Examples, score
from subarch.tasks.division import parts_of
from subarch.tasks.inputs import label_of, record_of, write_records
from subarch.tasks.tagging import by_sentence, spans
from subarch.text.corpus import Corpus
from subarch.text.words import NOWHERE
from task_layouts import write
from tasks_tiny import TAGS, examples, in_columns, tagged
from tiny import tiny_teacher, tiny_tokenizer
from tiny_export import exported

FAST = Theta(3e-2, batch_size=8, epochs=5, dropout=0.0)
SETTINGS = FitSettings(max_length=48, threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("bert") / "model", layers=1, modules=False)


@pytest.fixture(scope="module")
def fitted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("fitted") / "tags"
    return fit(model, tagged(100), tagged(16, 1, "validation"), FAST, folder, settings=SETTINGS)


# Words and tokens


def unigram() -> Any:
    """A tokenizer of SentencePiece's kind, in which the space before a word may be a token, or a part of one."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -3.0), ("▁c", -2.0), *((letter, -4.0) for letter in "abcdR")]
    inner = Tokenizer(models.Unigram(pieces, 0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="</s>", unk_token="<unk>", model_max_length=64)


def bytes_of() -> Any:
    """A byte-level tokenizer whose tokens and offsets have the space before a word, or are that space."""
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġc"]
    inner = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, [("Ġ", "c")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="!", model_max_length=64)


@pytest.mark.parametrize(
    ("made", "tokens", "places"),
    [(unigram, "▁ b a d ▁ R ▁c a b", [0, 5, 6]), (bytes_of, "b a d Ġ R Ġc a b", [0, 4, 5])],
    ids=["unigram", "bytes"],
)
def test_a_word_is_tagged_at_its_first_token(made: Any, tokens: str, places: list[int]) -> None:
    tokenizer = made()
    found = aligned([["bad", "R", "cab"]], tokenizer)
    assert tokenizer.convert_ids_to_tokens(found.ids[0]) == tokens.split(" ")
    assert found.places == [places]


def test_tokens_are_those_of_a_list_of_words() -> None:
    tokenizer = tiny_tokenizer()
    sentences = [list(one.texts) for one in tagged(8)]
    found = aligned(sentences, tokenizer)
    for words, ids, places in zip(sentences, found.ids, found.places, strict=True):
        listed = tokenizer(words, is_split_into_words=True)
        assert listed["input_ids"] == ids
        assert [listed.word_ids().index(word) for word in range(len(words))] == places
    mask = first_tokens(found.places, 40)
    assert mask.sum(1).tolist() == [len(words) for words in sentences]
    assert mask.nonzero()[: len(sentences[0]), 1].tolist() == found.places[0]


def test_words_without_a_token_have_no_place() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True)
    tokenizer.model_max_length = 6
    found = aligned([["oven", "\u200d", "12", "spoon", "cook"], ["oven"]], tokenizer)
    # [CLS] oven 1 ##2 spoon [SEP]: nothing is left of the joiner, and cook lies beyond
    assert found.places == [[1, NOWHERE, 2, 4, NOWHERE], [1]]
    assert found.cut == [True, False]


# A tagger


def test_it_learns_and_counts_sentences(fitted: Fitted) -> None:
    assert list(fitted.dev_scores) == ["span_f1", "span_precision", "span_recall"]
    assert fitted.dev_score > 0.9
    assert (fitted.steps, fitted.examples_seen) == (65, 500)
    assert fitted.truncated == 0


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_every_family_learns(family: str, tmp_path: Path) -> None:
    model = tiny_teacher(tmp_path / "model", family=family, layers=1, modules=False)
    found = fit(model, tagged(100), tagged(12, 1, "validation"), FAST, tmp_path / "fit", settings=SETTINGS)
    assert found.dev_score > 0.8
    stock = AutoModelForTokenClassification.from_pretrained(found.folder)
    assert type(stock).__name__.lower() == f"{family}fortokenclassification"


def test_outputs_are_those_of_the_stock_model_for_each_word(fitted: Fitted) -> None:
    dev = tagged(16, 1)
    logits = predict(fitted.folder, dev)
    np.testing.assert_array_equal(logits, fitted.dev_logits)
    assert logits.shape == (dev.answers, 5)
    assert score(dev, labels_of(TAGS, logits)) == fitted.dev_scores
    stock = AutoModelForTokenClassification.from_pretrained(fitted.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(fitted.folder)
    start = 0
    for one in dev:
        inputs = tokenizer(list(one.texts), is_split_into_words=True, return_tensors="pt")
        places = [inputs.word_ids().index(word) for word in range(len(one.texts))]
        alone = stock(**inputs).logits[0, places].detach()
        np.testing.assert_allclose(logits[start : start + len(places)], alone, atol=1e-5)
        start += len(places)


def test_a_stock_pipeline_names_the_entities(fitted: Fitted) -> None:
    tag = pipeline("token-classification", model=str(fitted.folder), aggregation_strategy="first", device="cpu")
    dev = tagged(6, 1)
    said = by_sentence(dev, labels_of(TAGS, predict(fitted.folder, dev)))
    for one, tags in zip(dev, said, strict=True):
        found = [(span["entity_group"], span["word"]) for span in tag(" ".join(one.texts))]
        expected = [
            (kind, " ".join(one.texts[first : last + 1]))
            for kind, first, last in sorted(spans(tags), key=lambda span: span[1])
        ]
        assert expected
        assert found == expected


def test_soft_targets_alone_are_followed_against_the_tags(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "SOFT_WEIGHT", 1.0)
    train, dev = tagged(100), tagged(16, 1, "validation")
    turned = {"harbour": "kitchen", "kitchen": "harbour"}

    def other(part: Examples) -> Examples:
        rows = []
        for one in part:
            golds = [tag if tag == "O" else f"{tag[:2]}{turned[tag[2:]]}" for tag in one.golds]
            rows.append(dataclasses.replace(one, golds=tuple(golds)))
        return examples(TAGS, rows, part.part)

    soft = np.where(np.eye(5)[list(other(train).labels or ())] > 0, 4.0, -4.0).astype(np.float32)
    found = fit(model, train, other(dev), FAST, tmp_path / "fit", settings=SETTINGS, teacher=soft)
    assert found.dev_score > 0.8
    with pytest.raises(InvalidTask, match=rf"there are {train.answers} words and 5 outputs"):
        fit(model, train, dev, FAST, tmp_path / "other", settings=SETTINGS, teacher=soft[:-1])


@pytest.mark.slow
def test_a_batch_in_parts_trains_like_the_whole(
    fitted: Fitted, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "TRAINED_TOKENS", 50)
    found = fit(model, tagged(100), tagged(16, 1, "validation"), FAST, tmp_path / "fit", settings=SETTINGS)
    assert found.steps == fitted.steps
    assert found.history[0]["loss"] == pytest.approx(fitted.history[0]["loss"], abs=1e-4)


def test_what_lies_beyond_the_window_is_said_and_counts_as_missed(fitted: Fitted, model: Path, tmp_path: Path) -> None:
    short = FitSettings(max_length=8, threads=1)
    with pytest.warns(UserWarning, match="100.0% of the sentences of train are longer than 8 tokens: what lies"):
        found = fit(model, tagged(8), tagged(4, 1), dataclasses.replace(FAST, epochs=1), tmp_path / "f", settings=short)
    assert found.truncated == 1
    dev = tagged(16, 1)
    logits = predict(fitted.folder, dev, max_length=8)
    unseen = np.isneginf(logits).any(axis=1)
    assert 0 < unseen.sum() < len(unseen)
    assert not logits[unseen, 0].any()
    whole, cut = (score(dev, labels_of(TAGS, one)) for one in (predict(fitted.folder, dev), logits))
    assert cut["span_recall"] < whole["span_recall"] - 0.2
    said = sum(tag != "O" for tags in by_sentence(dev, labels_of(TAGS, logits)) for tag in tags)
    assert said <= (~unseen).sum()


def test_what_cannot_be_learnt_or_was_learnt_for_something_else(fitted: Fitted, model: Path, tmp_path: Path) -> None:
    nothing = examples(TAGS, [dataclasses.replace(one, golds=("O",) * len(one.texts)) for one in tagged(8)], "train")
    with pytest.raises(InvalidTask, match=rf"all {nothing.answers} words of train have the same label"):
        fit(model, nothing, tagged(4), FAST, tmp_path / "fit", settings=SETTINGS)
    unlabelled = examples(TAGS, [dataclasses.replace(one, golds=()) for one in tagged(8)], "train")
    with pytest.raises(InvalidTask, match="rows without a label"):
        fit(model, unlabelled, tagged(4), FAST, tmp_path / "fit", settings=SETTINGS)
    fewer = dataclasses.replace(tagged(4), task=dataclasses.replace(TAGS, labels=TAGS.labels[:3]))
    with pytest.raises(InvalidTeacher, match="has 5 outputs, but tags needs 3"):
        predict(fitted.folder, fewer)
    with pytest.raises(InvalidTeacher, match="is not fine-tuned for tagging"):
        predict(model, tagged(4))


# The stage


def of_search(teacher: Path, examples: Examples, folder: Path) -> ExtractConfig:
    write_records(folder / "inputs.jsonl", (record_of(TAGS, one, label_of(TAGS, one)) for one in examples))
    (folder / "space.yaml").write_text("depth: [1]\nheads: [2]\nhidden: [32]\nintermediate: [16]\n", encoding="utf-8")
    given = {"teacher": str(teacher), "corpus": [str(folder / "inputs.jsonl")], "space": str(folder / "space.yaml")}
    asked = {"error": "task", "strategy": "exhaustive", "cost": "operations", "workers": 1, "max_length": 16}
    return load(ExtractConfig, None, given | asked | {"steps": 20, "learning_rate": [3e-3], "batch_size": [16]})


@pytest.mark.slow
def test_a_search_measures_the_span_f1(fitted: Fitted, tmp_path: Path) -> None:
    """Its error is 1 - the score that evaluation finds, of the teacher as of a candidate, also of what is cut."""
    whole, run = tagged(120, 5), tmp_path / "run"
    selection = extract(of_search(fitted.folder, whole, tmp_path), run)
    held = set(Corpus.load(run / "corpus").meta.heldout_groups)
    heldout = dataclasses.replace(whole, rows=tuple(one for one in whole if one.group in held))

    def error(model: Path) -> float:
        return 1 - score(heldout, labels_of(TAGS, predict(model, heldout, max_length=16)))["span_f1"]

    assert selection.winner is not None
    reference = RunFolder.open(run).read(Basis).reference_error
    assert reference == pytest.approx(error(fitted.folder))
    assert selection.winner.error == pytest.approx(error(run / "selected"))
    assert 0 < reference < selection.winner.error < 1


def test_labels_without_a_span_give_no_floor(fitted: Fitted, tmp_path: Path) -> None:
    outside = [dataclasses.replace(one, golds=("O",) * len(one.texts)) for one in tagged(40)]
    asked = of_search(fitted.folder, examples(TAGS, outside, "train"), tmp_path)
    with pytest.raises(
        InvalidCorpus, match="its own span F1 against the labels of 5 held-out inputs is 0, so there is"
    ):
        extract(asked, tmp_path / "run")


def config(data: Path, **others: Any) -> FinetuneConfig:
    quick = {"learning_rate": [3e-2], "batch_size": [8], "epochs": 5, "dropout": 0.0, "max_length": 48, "threads": 1}
    return load(FinetuneConfig, None, {"task": "ner", "data": str(data), "seeds": [0]} | quick | others)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, count, seed in (("train", 100, 0), ("dev", 12, 1), ("test", 12, 2)):
        write(folder / f"{name}.conll", in_columns(tagged(count, seed)))
    return folder


@pytest.fixture(scope="module")
def done(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    run = tmp_path_factory.mktemp("run")
    return run, finetune(model, config(data), run)


def test_the_stage_scores_and_leaves_what_others_do(done: tuple[Path, Metrics], data: Path) -> None:
    run, found = done
    folder, heldout = run / "finetuned" / "ner", parts_of(config(data)).heldout
    assert found.metric == "span_f1"
    predicted = labels_of(heldout.task, predict(folder, heldout, max_length=48))
    assert score(heldout, predicted) == found.heldout.scores
    assert found.heldout.scores["span_f1"] > 0.8
    told = json.loads((folder / "heldout.json").read_text())
    assert told["seeds"]["0"] == predicted
    assert len(told["ids"]) == len(set(told["ids"])) == len(told["labels"]) == heldout.answers
    assert told["ids"][:2] == ["0-0", "0-1"]
    lines = [json.loads(line) for line in (folder / "predictions-ner-held-out.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in lines] == by_sentence(heldout, predicted)
    assert [len(line["confidence"]) for line in lines] == [len(one.texts) for one in heldout]
    assert 'pipeline("token-classification"' in (folder / "README.md").read_text()
    page = (folder / "report.html").read_text()
    assert "ner, held-out: span f1" in page
    assert "Spans by type" in page
    names = AutoModelForTokenClassification.from_pretrained(folder).config.id2label
    assert set(names.values()) == set(heldout.task.labels)
    again = evaluate([folder], {"max_length": 48}, "held-out")
    assert again.scores is not None
    assert again.scores.metrics["span_f1"].value == found.heldout.scores["span_f1"]


def test_a_tagger_teaches_a_tagger(done: tuple[Path, Metrics], model: Path, data: Path, tmp_path: Path) -> None:
    teacher = done[0] / "finetuned" / "ner"
    found = finetune(model, config(data, teacher=teacher, epochs=1), tmp_path)
    assert found.teacher is not None
    assert found.teacher.objection is None
    assert found.teacher.heldout == done[1].heldout.scores


def test_a_teacher_that_only_says_outside_is_not_adequate() -> None:
    part = tagged(8)
    assert "always predicting 'O'" in str(adequate(part, [0] * part.answers))
    assert adequate(part, list(part.labels or ())) is None


def test_agora_is_refused(done: tuple[Path, Metrics], model: Path, data: Path, tmp_path: Path) -> None:
    teacher = done[0] / "finetuned" / "ner"
    with pytest.raises(InvalidTask, match="ner: Agora makes texts with one label each, and a sentence to"):
        finetune(model, config(data, teacher=teacher, agora="halving", learning_rate=[3e-2, 1e-3]), tmp_path)


@pytest.mark.parametrize(
    "options", [{}, {"quantize": "int8"}, pytest.param({"runtime": "openvino"}, marks=pytest.mark.slow)], ids=str
)
def test_an_export_is_compared_and_scored(done: tuple[Path, Metrics], tmp_path: Path, options: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime" if options.get("runtime") != "openvino" else "openvino")
    run, found = done
    told = exported(run / "finetuned" / "ner", tmp_path, min_cosine=0.5, max_drop=0.5, **options)
    assert (told.head, told.outputs) == ("tagging", ("logits",))
    assert told.likeness["logits"].agreement is not None
    assert told.likeness["logits"].agreement > 0.9
    assert told.task is not None
    assert (told.task.metric, told.task.examples) == ("span_f1", 12)
    assert told.task.pytorch == pytest.approx(found.heldout.scores["span_f1"])
    if not options.get("quantize"):
        assert told.likeness["logits"].share_of_limit <= 1
        assert told.task.drop == 0
