"""Words with tags: how files are read, what is refused and how it is said, and spans scored by hand and by seqeval."""

from __future__ import annotations

import dataclasses
import random
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from subarch.errors import InvalidConfig, InvalidTask
from subarch.evaluation.evaluate import assess, marked
from subarch.evaluation.resampling import Scored, compare, intervals
from subarch.run.configuration import load
from subarch.show.finetuning import types
from subarch.tasks import Example, Examples, own_task, read, score, statistics, task_named
from subarch.tasks.division import TaskData, parts_of
from subarch.tasks.tagging import by_sentence
from task_layouts import write, write_jsonl
from tasks_tiny import TAGS, examples, in_columns, tagged

TRAIN = "Ann\tB-person\nLee\tI-person\nsaw\tO\nRome\tB-place\n\nIt\tO\nrains\tO\n"


def sentences(part: Examples) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [(one.texts, one.golds) for one in part]


# What is read


def test_a_word_a_line(tmp_path: Path) -> None:
    write(tmp_path / "train.conll", f"-DOCSTART-\tO\n\n{TRAIN}\n \n\t\n-DOCSTART-\tO\nBob\tB-person\r\n")
    found = read("ner", tmp_path, "train")
    assert sentences(found) == [
        (("Ann", "Lee", "saw", "Rome"), ("B-person", "I-person", "O", "B-place")),
        (("It", "rains"), ("O", "O")),
        (("Bob",), ("B-person",)),
    ]
    assert found.task.labels == ("O", "B-person", "I-person", "B-place", "I-place")  # also what does not occur
    assert (found.labels, found.answers) == ((1, 2, 0, 3, 0, 0, 1), 7)
    told = statistics(found)
    assert (told["rows"], told["counts"]["O"], told["majority"]) == (3, 3, "O")


def test_columns_between_spaces_the_last_is_the_tag(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP B-org\nofficial  NN I-NP O\nno\xa0break NN I-NP O\n"
    write(tmp_path / "eng.train", text)
    assert sentences(read("ner", tmp_path, "train")) == [(("U.N.", "official", "no\xa0break"), ("B-org", "O", "O"))]


def test_parts_may_be_of_either_form(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", TRAIN)
    write_jsonl(tmp_path / "valid.jsonl", [{"tokens": ["Rome"], "tags": ["B-place"], "id": "x7"}])
    write(tmp_path / "test.bio", "Rome\nfell\n")
    assert read("ner", tmp_path, "dev")[0] == Example(
        "x7", read("ner", tmp_path, "dev")[0].group, ("Rome",), golds=("B-place",)
    )
    unlabelled = read("ner", tmp_path, "test")
    assert (unlabelled[0].texts, unlabelled.labels, unlabelled.answers) == (("Rome", "fell"), None, 2)


def test_iob1_is_recognised_said_and_rewritten(tmp_path: Path) -> None:
    # two persons side by side: the second begins with B-, as nothing else does
    write(tmp_path / "train.conll", "Ann\tI-person\nLee\tI-person\nBob\tB-person\nRome\tI-place\nis\tO\nin\tI-place\n")
    with pytest.warns(UserWarning, match=r"train.conll: the tags are IOB1 .*read as such"):
        found = read("ner", tmp_path, "train")
    assert found[0].golds == ("B-person", "I-person", "B-person", "B-place", "O", "B-place")


def test_a_file_of_ones_own_is_divided_by_sentence(tmp_path: Path) -> None:
    whole = tagged(60)
    write(tmp_path / "all.conll", in_columns(whole))
    parts = parts_of(load(TaskData, None, {"task": "ner", "data": str(tmp_path / "all.conll")}))
    both = [*parts.train, *parts.dev, *parts.heldout]
    assert sorted(one.texts for one in both) == sorted(one.texts for one in whole)
    assert min(len(parts.train), len(parts.dev), len(parts.heldout)) > 0
    assert parts.dev.task.labels == TAGS.labels
    rows = [{"words": list(one.texts), "names": list(one.golds)} for one in whole]
    write_jsonl(tmp_path / "all.jsonl", rows)
    own = {"task": "mine", "data": str(tmp_path / "all.jsonl"), "first": "words", "label": "names", "kind": "tagging"}
    again = parts_of(load(TaskData, None, own))
    assert [one.golds for one in again.train] == [one.golds for one in parts.train]


def test_a_data_set_gives_the_names_of_its_numbers(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["O", "B-place", "I-place"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)})
    (tmp_path / "hub").mkdir()
    for part, tags in (("train", [0, 1, 2]), ("test", [-1, -1, -1])):  # the test part is not labelled
        rows = {"tokens": [["In", "New", "York"]], "ner_tags": [tags]}
        file = tmp_path / "hub" / f"{part}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    assert read("ner", f"datasets:{tmp_path / 'hub'}", "train")[0].golds == ("O", "B-place", "I-place")
    assert read("ner", f"datasets:{tmp_path / 'hub'}", "test").labels is None
    own = own_task(f"datasets:{tmp_path / 'hub'}", first="tokens", label="ner_tags", kind="tagging")
    assert read(own, f"datasets:{tmp_path / 'hub'}", "train").labels == (0, 1, 2)


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "Ann\tB-person\n\nIt\tO\nLee\tI-person\nBob\tB-person\n",
            r"sentence 2, line 4: I-person follows O, but I-X continues B-X or I-X of the same type; nor are the tags "
            r"IOB1, where B-X stands only right behind another X: .*sentence 1, line 1",
        ),
        ("Ann\tB-person\nRome\tI-place\n", r"sentence 1, line 2: I-place follows B-person"),
        ("Ann\tB-person\n\nRome\tI-place\n", r"sentence 2, line 3: I-place begins the sentence"),
        ("Ann\tS-person\n", r"line 1: the tag 'S-person' is not O, B-TYPE or I-TYPE; of BIOES or BILOU write"),
        ("Ann\tNNP\n", r"line 1: the tag 'NNP' is not O, B-TYPE or I-TYPE$"),
        ("Ann\tB-\n", r"the tag 'B-' is not O"),
        ("Ann\tB-person\nLee\n", r"line 2: 1 columns, where lines before have 2; give a word and its tag on each line"),
        ("Ann\tB-person\n\tO\n", r"line 2: 1 columns, where lines before have 2"),
        ("Ann\nLee\n", r"row 1, line 1: one column only; give the word first and its tag last"),
        ("Ann\tO\n", r"no tag but O .*nothing to learn"),
        ("", r"no tag but O \(or none at all\)"),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "train.conll", text)
    with pytest.raises(InvalidTask, match=message) as caught:
        read("ner", tmp_path, "train")
    assert "train.conll" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "row 2: 2 words and 1 tags; give a tag for each word"),
        ({"tokens": [], "tags": []}, "row 2: a sentence without words; leave it out"),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, r"row 2: column 'tokens' holds \['a', ''\], not words as text"),
        ({"tokens": "a b", "tags": ["O", "O"]}, "column 'tokens' holds 'a b', not words"),
        ({"tokens": ["a"], "tags": [3]}, r"column 'tags' holds \[3\], not tags as text"),
        ({"tokens": ["a"], "tags": None}, "row 2: no label .*only the part test"),
        ({"tokens": ["a"]}, "row 2: no column 'tags'; found: 'tokens'"),
        ({"tokens": ["a", "b"], "tags": ["O", "I-place"]}, "sentence 2, word 2: I-place follows O"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"tokens": ["Rome"], "tags": ["B-place"]}, row])
    with pytest.raises(InvalidTask, match=message):
        read("ner", tmp_path, "train")


def test_a_type_that_the_training_part_lacks_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.conll", TRAIN)
    write(tmp_path / "dev.conll", "It\tO\n\nthe\tO\nTimes\tB-paper\n")
    with pytest.raises(
        InvalidTask, match=r"dev.conll, sentence 2 \('the Times'\): the tag 'B-paper' is of a type that"
    ):
        read("ner", tmp_path, "dev")
    write(tmp_path / "dev.conll", "in\tO\nNew\tB-place\nYork\tI-place\n")  # a type it has, without I- there
    assert read("ner", tmp_path, "dev").labels == (0, 3, 4)


def test_options_that_do_not_go_together() -> None:
    own = {"task": "mine", "data": "x", "first": "a", "kind": "tagging"}
    with pytest.raises(InvalidConfig, match="second is a second text, and words are tagged in one"):
        load(TaskData, None, own | {"second": "b"})
    with pytest.raises(InvalidTask, match="'b' is a second text"):
        own_task("x", first="a", second="b", kind="tagging")


# Scores


def noisy(part: Examples, seed: int, share: float = 0.2) -> list[float]:
    """The right tags but for a share that is drawn; they may break BIO, as a model's may."""
    draw = random.Random(seed)
    tags = part.labels or ()
    return [float(draw.randrange(len(part.task.labels)) if draw.random() < share else tag) for tag in tags]


def test_spans_by_hand() -> None:
    rows = [
        Example("0", "0", ("a", "b", "c", "d"), golds=("B-harbour", "I-harbour", "O", "B-kitchen")),
        Example("1", "1", ("e", "f"), golds=("O", "B-kitchen")),
    ]
    part = examples(TAGS, rows, "test")
    # a span too short, one right, one of another type, one that begins with I-
    said = [1, 0, 0, 3, 4, 1]
    assert by_sentence(part, said) == [["B-harbour", "O", "O", "B-kitchen"], ["I-kitchen", "B-harbour"]]
    found = score(part, said)
    assert found == {"span_f1": pytest.approx(2 / 7), "span_precision": 1 / 4, "span_recall": pytest.approx(1 / 3)}
    assert marked(rows[0].texts, rows[0].golds) == "harbour: a b; kitchen: d"
    assert marked(("e", "f"), ("O", "O")) == "no span"
    with pytest.raises(InvalidTask, match=r"shape \(2,\) for 2 examples \(6 words\)"):
        score(part, [0, 0])
    with pytest.raises(InvalidTask, match="the prediction for example '1' is 5, not 0 to 4"):
        score(part, [0, 0, 0, 0, 0, 5])


def test_scores_that_are_not_defined_are_said() -> None:
    part = tagged(4)
    with pytest.warns(UserWarning, match=r"span_precision is not defined \(there is no span in the predictions\)"):
        assert score(part, [0] * part.answers) == {"span_f1": 0, "span_precision": 0, "span_recall": 0}


def test_scores_of_resampled_sentences() -> None:
    part = tagged(12)
    rows = np.array([noisy(part, seed) for seed in range(3)])
    scored = Scored(part, rows.astype(int))
    source = np.random.default_rng(0)
    weights = source.multinomial(12, np.full(12, 1 / 12), size=6).astype(float)
    starts = np.cumsum([0, *(len(one.texts) for one in part)])
    mixed = source.integers(3, size=(6, 12))  # of each sentence which of the three predictions
    for metric in part.task.metrics:
        for row, chosen, value in zip(weights, mixed, scored.by(metric, weights, mixed), strict=True):
            at = [n for n, times in enumerate(row) for _ in range(int(times))]
            again = dataclasses.replace(part, rows=tuple(part[n] for n in at))
            said = [value for n in at for value in rows[chosen[n], starts[n] : starts[n + 1]]]
            assert value == pytest.approx(score(again, said)[metric], abs=1e-12)


def test_intervals_are_over_sentences() -> None:
    part = tagged(80)
    better, worse = [noisy(part, seed, 0.1) for seed in range(2)], [noisy(part, seed, 0.5) for seed in range(2)]
    found = intervals(part, better, resamples=400)
    assert (found.examples, found.groups) == (80, 80)
    metric = found.metrics["span_f1"]
    assert metric.seeds == tuple(score(part, row)["span_f1"] for row in better)
    assert metric.low < metric.value < metric.high
    assert metric.high - metric.low < 0.2
    difference = compare(part, better, worse, resamples=400).metrics["span_f1"]
    assert difference.low > 0
    assert difference.p_examples == pytest.approx(1 / 401)
    same = compare(part, better[0], better[0], resamples=50).metrics["span_f1"]
    assert (same.difference, same.low, same.high, same.p_examples) == (0, 0, 0, 1)


def test_an_evaluation_shows_spans_and_what_is_not_seen() -> None:
    part = tagged(6)
    labels = np.array(part.labels)
    logits = np.where(np.eye(5)[labels] > 0, 3.0, 0.0).astype(np.float32)
    first = int(np.flatnonzero(labels == 1)[0])
    logits[first] = [-np.inf, -np.inf, -np.inf, -np.inf, -np.inf]
    logits[first, 0] = 0  # as of a word beyond the window
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = assess(part, [logits])
    assert found.warnings[0].startswith(f"1 of {part.answers} words, in 1 of 6 sentences, are not seen by the model (")
    assert found.mistakes is not None
    assert (found.mistakes.count, found.mistakes.rows) == (1, 6)
    shown = found.mistakes.shown[0]
    assert shown.confidence == 1
    assert str(shown.label) != str(shown.prediction)
    assert found.confusion is not None
    assert sum(map(sum, found.confusion.counts)) == part.answers
    assert found.confusion.counts[1][0] == 1
    assert found.types is not None
    assert [(one.type, one.spans, one.f1) for one in found.types] == [
        ("harbour", 6, pytest.approx(5 / 6)),  # what is left of the span begins one word later
        ("kitchen", 6, 1),
    ]
    table = types(found.types)
    assert [cell.text for cell in table.rows[0].cells] == ["harbour", "0.833", "0.833", "0.833", "6"]
    nothing = np.tile(np.array([1, 0, 0, 0, 0], np.float32), (part.answers, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert {one.recall for one in assess(part, [nothing]).types or ()} == {0.0}
    assert found.scores is not None
    assert found.scores.metrics["span_recall"].value == pytest.approx(11 / 12)
    assert task_named("NER").head == "tagging"
