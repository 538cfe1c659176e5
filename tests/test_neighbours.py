"""Agora's τ: each way of changing a text against all that it may make, and what is kept of it: inside the band, new to
every split, with the words that matter as they were, the same each time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.finetuning.neighbours import (
    LIKELIEST,
    Draft,
    Embedding,
    Infilling,
    Method,
    Nearest,
    Neighbourhood,
    Repairing,
    edited,
    identities,
    locked_in,
    overlap,
    sides_of,
    slots_of,
)
from subarch.models.teacher import Teacher
from subarch.tasks import TASKS, Example, Examples
from subarch.text.read import identity
from task_layouts import example
from tiny import tiny_sentences, tiny_teacher

TEN = "the old boat sees a captain and takes the net"
MARKED = "the * old boat * sees a # red net #, and the captain takes it"
SPANS = locked_in(TASKS["wsc"], example("0"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("masked"), masked_lm=True, layers=1)


def draft(text: str, seed: int = 0, locked: re.Pattern[str] | None = None) -> Draft:
    return Draft(text, locked, np.random.default_rng(seed))


def examples(part: str, texts: Sequence[tuple[str, ...]], task: str = "sst2", **others: Any) -> Examples:
    rows = tuple(example(f"{part}{n}", 0, texts=one, **others) for n, one in enumerate(texts))
    return Examples(TASKS[task], part, "here", rows)


# -- word-level edits


def one_edit(words: list[str]) -> set[str]:
    """Every text that one deletion, swap or doubling can make, and the text itself (a last word is not swapped)."""
    some = [words]
    for at in range(len(words)):
        some += [words[:at] + words[at + 1 :], words[: at + 1] + words[at:]]
        if at + 1 < len(words):
            some.append([*words[:at], words[at + 1], words[at], *words[at + 2 :]])
    return {" ".join(one) for one in some}


def test_one_edit_in_ten_words_and_every_one_of_them() -> None:
    made = {edited(draft(TEN, seed)) for seed in range(1000)}
    assert made == one_edit(TEN.split())


def test_a_tenth_of_the_words_is_edited_and_one_doubled_at_most() -> None:
    words = [f"w{n}" for n in range(40)]
    for seed in range(200):
        found = (edited(draft(" ".join(words), seed)) or "").split()
        counts = Counter(found)
        assert sum(count - 1 for count in counts.values()) <= 1
        assert 36 <= len(counts) <= 40
        # a swap disturbs the order by one step
        order = [int(word[1:]) for word in found]
        assert sum(a > b for a, b in pairwise(order)) <= 4
    assert found != words


def test_marked_words_stay_with_their_punctuation() -> None:
    assert SPANS is not None
    made = {edited(draft(MARKED, seed, SPANS)) for seed in range(300)}
    assert len(made) > 15
    assert all(SPANS.findall(text or "") == ["* old boat *", "# red net #"] for text in made)
    assert all("# red net #," in (text or "") for text in made)
    # the free words next to the marks are not swapped across them
    assert not any((text or "").startswith("* old boat * the") for text in made)


@pytest.mark.parametrize("text", ["", "two words", "* it * ran off"])
def test_short_texts_are_left_alone(text: str) -> None:
    assert edited(draft(text, locked=SPANS)) is None


# -- infilling


def test_infilled_words_are_among_the_likeliest_and_new(masked_lm: Path) -> None:
    teacher = Teacher.load(masked_lm)
    model = AutoModelForMaskedLM.from_pretrained(masked_lm).eval()
    tokenizer = teacher.tokenizer
    text = "The old boat sees a captain."  # of six words one is hidden
    words = text[:-1].split()
    changed = set()
    for made in Infilling(teacher)([draft(text, seed) for seed in range(40)]):
        new = (made or "")[:-1].split()
        assert (made or "").endswith(".")
        (at,) = [n for n, (one, other) in enumerate(zip(words, new, strict=True)) if one != other]
        hidden = " ".join([*words[:at], "[MASK]", *words[at + 1 :]]) + "."
        with torch.inference_mode():
            batch = tokenizer(hidden, return_tensors="pt")
            logits = model(**batch).logits[0, batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
        ranked = [tokenizer.decode([number]) for number in logits.argsort(descending=True).tolist()]
        allowed = [word for word in ranked if word.isalnum() and word != words[at].lower()]
        assert new[at].lower() in allowed[:LIKELIEST]
        assert new[at] == (new[at].capitalize() if at == 0 else new[at].lower())
        changed.add(at)
    assert changed == set(range(6))
    # the word that was hidden is not drawn in another case either
    shouted = [text.upper() for text in tiny_sentences(60)]
    for before, after in zip(shouted, Infilling(teacher)([draft(text) for text in shouted]), strict=True):
        old, new = (re.findall(r"\w+", (text or "").lower()) for text in (before, after))
        assert sum(a != b for a, b in zip(old, new, strict=True)) == max(1, round(0.15 * len(old)))


def test_infilling_leaves_the_rest_and_does_not_depend_on_the_others(masked_lm: Path) -> None:
    infill = Infilling(Teacher.load(masked_lm))
    texts = [MARKED, TEN, "", "#", "a [MASK] in the text", "* it *", *tiny_sentences(4)]
    together = infill([draft(text, 3, SPANS) for text in texts])
    assert [infill([draft(text, 3, SPANS)])[0] for text in texts] == together
    assert [made is None for made in together] == [False, False, True, True, True, True, *[False] * 4]
    assert SPANS is not None
    assert SPANS.findall(together[0] or "") == SPANS.findall(MARKED)
    # 15 % of ten words, rounded
    assert sum(a != b for a, b in zip(TEN.split(), (together[1] or "").split(), strict=True)) == 2


def test_of_a_long_text_only_what_is_read_is_changed(masked_lm: Path) -> None:
    text = " ".join([TEN] * 30)  # 300 words; the model reads 62
    (made,) = Infilling(Teacher.load(masked_lm))([draft(text)])
    changed = [a != b for a, b in zip(text.split(), (made or "").split(), strict=True)]
    assert sum(changed[:62]) == round(0.15 * 62)
    assert not any(changed[62:])


def test_roberta_fills_whole_words(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path, family="roberta", masked_lm=True, layers=1)
    (made,) = Infilling(Teacher.load(folder))([draft(TEN)])
    assert len((made or "").split()) == 10
    assert made != TEN
    assert "<mask>" not in (made or "")


def test_a_model_without_head_cannot_infill(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path, layers=0)
    with pytest.raises(InvalidTeacher, match=r"infilling needs a masked-LM head .*; name a masked language model"):
        Neighbourhood.load([examples("train", [(TEN,)])], masked_lm=folder)


# -- similarity and nearest texts


def test_overlap_by_hand() -> None:
    ones = ["a b c", "A  B c", "a b c", "a b", "", "a"]
    others = ["a b c", "a b c", "b a c", "c d", "", ""]
    # of the third pair: 3 words of 3, no neighbours of 2
    assert overlap(ones, others).tolist() == pytest.approx([1, 1, 2 * 3 / 10, 0, 1, 0])


def test_cosines_and_nearest_texts_by_brute_force(masked_lm: Path, tmp_path: Path) -> None:
    teacher = Teacher.load(masked_lm)
    corpus, texts = tiny_sentences(40), tiny_sentences(5, seed=9)

    def unit(text: str) -> torch.Tensor:
        vector = teacher.embed([teacher.tokenizer(text, add_special_tokens=False)["input_ids"]])[0]
        return torch.nn.functional.normalize(vector, dim=0)

    embedding = Embedding(teacher, tmp_path)
    expected = [float(unit(one) @ unit(other)) for one, other in zip(texts, corpus, strict=False)]
    assert embedding.cosine(texts, corpus[:5]).tolist() == pytest.approx(expected, abs=1e-5)
    nearest = Nearest(corpus, embedding)
    ranked = sorted(corpus, key=lambda other: -float(unit(texts[0]) @ unit(other)))
    assert set(nearest([draft(texts[0], seed) for seed in range(200)])) == set(ranked[:LIKELIEST])
    # what is kept is read, not computed
    (kept,) = tmp_path.glob("*.safetensors")
    stamp = kept.stat().st_mtime_ns
    again = Nearest(corpus, embedding)([draft(texts[0], 5)])
    assert again == nearest([draft(texts[0], 5)])
    assert kept.stat().st_mtime_ns == stamp
    assert nearest([draft("* it * ran", locked=SPANS)]) == [None]


# -- what may be changed


def test_what_may_be_changed_by_type() -> None:
    pair = example("0", texts=("a", "b"))
    assert slots_of(TASKS["mrpc"], pair) == [0, 1]
    quiz = example("0", texts=("premise", "Why?"), choices=("x", "y"))
    assert slots_of(TASKS["copa"], quiz) == [0, 2, 3]  # not the question
    assert slots_of(TASKS["record"], quiz) == [0]
    locked = locked_in(TASKS["record"], replace(quiz, choices=("Bob", "Bob (Ray)", "Ann")))
    assert locked is not None
    assert locked.findall("Ann met Bob (Ray) and Bob.") == ["Ann", "Bob (Ray)", "Bob"]
    assert locked_in(TASKS["sst2"], pair) is None


def test_one_text_of_an_example_is_changed_at_a_time() -> None:
    texts = (tiny_sentences(1)[0], "What was the cause of this?")
    choices = ("the old boat sees a captain", "the cook takes a knife")
    dev = examples("dev", [texts], "copa", choices=choices)
    origin = replace(dev[0], label=1, group="g", golds=())
    tau = Neighbourhood([dev], {"edits": edits}, overlap, each=12)
    points = tau(replace(dev, rows=(origin,)), dev, 1).points
    before = (*texts, *choices)
    changed = set()
    for point in points:
        after = (*point.example.texts, *point.example.choices)
        (at,) = [n for n in range(4) if before[n] != after[n]]
        changed.add(at)
        assert (point.example.label, point.example.group, point.origin) == (None, "g", "dev0")
        assert len(point.example.texts) == len(point.example.choices) == 2
    assert changed == {0, 2, 3}
    assert len({point.example.id for point in points}) == len(points)


# -- what is kept


def edits(drafts: Sequence[Draft]) -> list[str | None]:
    return [edited(one) for one in drafts]


def always(*texts: str | None) -> Method:
    """A method that makes these texts, in turn."""
    return lambda drafts: [texts[n % len(texts)] for n in range(len(drafts))]


def test_a_text_of_any_split_is_not_new() -> None:
    train, dev, held = (
        examples(part, [(text,)]) for part, text in [("train", "Aa b"), ("dev", "c d"), ("test", "e f")]
    )
    grown = replace(train, rows=(*train, example("agora-1-0", texts=("g h",))))
    tau = Neighbourhood([train, dev, held], {"m": always("a-A b", "D c", "C d!", "e, F", "G  h", "d c.")}, same, each=3)
    made = tau(dev, grown, 1)
    # case, punctuation and spacing make no difference: the first to come is kept, of the made ones too
    assert [point.example.texts for point in made.points] == [("a-A b",), ("D c",)]
    assert made.dropped == {"known": 4}
    assert not {identity(point.example.texts[0]) for point in made.points} & set(identities(grown))


def same(ones: Sequence[str], others: Sequence[str]) -> Any:
    """0.6 for all, but 0.2 between texts of the training part."""
    return np.array([0.2 if one.startswith("t") else 0.6 for one in ones], np.float32)


def test_the_band_is_on_the_scale_from_unrelated_to_equal() -> None:
    train = examples("train", [(f"t{n}",) for n in range(9)])
    dev = examples("dev", [("a b c d",)])
    tau = Neighbourhood([train, dev], {"m": always("new text")}, same, band=(0.4, 0.6))
    assert tau.unrelated == pytest.approx(0.2)
    (point,) = tau(dev, train, 1).points
    assert point.similarity == pytest.approx((0.6 - 0.2) / (1 - 0.2))
    far = Neighbourhood([train, dev], {"m": always("new text")}, same, band=(0.51, 0.9))(dev, train, 1)
    near = Neighbourhood([train, dev], {"m": always("new text")}, same, band=(0.1, 0.49))(dev, train, 1)
    assert (far.points, far.dropped) == ((), {"stranger": 8})
    assert (near.points, near.dropped) == ((), {"copy": 8})


def test_lost_marks_and_nothing_made_are_dropped() -> None:
    dev = examples("dev", [(MARKED,)], "wsc")
    lost = MARKED.replace("# red net #", "# net #")
    made = Neighbourhood([dev], {"m": always(lost, None, f"so {MARKED}")}, overlap, each=4)(dev, dev, 1)
    assert [point.example.texts[0] for point in made.points] == [f"so {MARKED}"]
    assert made.dropped == {"known": 1, "marks lost": 3, "none made": 3}


def test_so_many_for_each_and_the_methods_take_turns() -> None:
    sentences = [(text,) for text in tiny_sentences(6)]
    dev = examples("dev", sentences)
    other: Method = lambda drafts: [f"{one.text} and {one.random.integers(1 << 30)}" for one in drafts]  # noqa: E731
    made = Neighbourhood([dev], {"edits": edits, "other": other}, overlap, each=4)(dev, dev, 1)
    assert Counter(point.origin for point in made.points) == {f"dev{n}": 4 for n in range(6)}
    assert set(Counter(point.method for point in made.points)) == {"edits", "other"}


def test_the_same_points_each_time_and_others_by_seed_and_iteration() -> None:
    dev = examples("dev", [(text,) for text in tiny_sentences(8)])

    def texts(mistakes: Examples, iteration: int = 1, seed: int = 0) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for point in Neighbourhood([dev], {"edits": edits}, overlap, seed=seed)(mistakes, dev, iteration).points:
            found.setdefault(point.origin, []).append(point.example.texts[0])
        return found

    whole = texts(dev)
    assert whole == texts(dev)
    # what comes of a mistake does not depend on the other mistakes
    assert texts(dev[2:5]) == {name: whole[name] for name in ("dev2", "dev3", "dev4")}
    twin = replace(dev, rows=(replace(dev[0], id="twin"),))
    assert texts(twin)["twin"] != whole["dev0"]
    assert whole != texts(dev, iteration=2)
    assert whole != texts(dev, seed=1)


def test_loaded_with_everything(masked_lm: Path, tmp_path: Path) -> None:
    sentences = tiny_sentences(40)
    train, dev = (
        examples(part, [(text,) for text in some])
        for part, some in [("train", sentences[:20]), ("dev", sentences[20:24])]
    )
    (tmp_path / "corpus.txt").write_text("\n".join([*tiny_sentences(60, seed=5), *sentences[20:30]]), encoding="utf-8")
    held = examples("test", [(text,) for text in sentences[24:30]])
    tau = Neighbourhood.load(
        [train, dev, held], encoder=masked_lm, masked_lm=masked_lm, corpus=[tmp_path / "corpus.txt"], band=(0.0, 0.999)
    )
    made = tau(dev, train, 1)
    assert {point.method for point in made.points} == {"edits", "infilling", "nearest"}
    taken = {*identities(train), *identities(dev), *identities(held)}
    assert not taken & {identity(point.example.texts[0]) for point in made.points}
    assert all(0 <= point.similarity <= 0.999 for point in made.points)
    assert tau(dev, train, 1) == made


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    dev = examples("dev", [(TEN,)])
    for band in [(0.5, 0.5), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 1.0)]:
        with pytest.raises(InvalidConfig, match="band"):
            Neighbourhood([dev], {"edits": edits}, overlap, band=band)
    for known, methods, each in [([], {"edits": edits}, 4), ([dev], {}, 4), ([dev], {"edits": edits}, 0)]:
        with pytest.raises(InvalidConfig, match="at least one method"):
            Neighbourhood(known, methods, overlap, each=each)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="needs a sentence encoder"):
        Neighbourhood.load([dev], corpus=[tmp_path])


def test_no_mistakes_make_no_points() -> None:
    dev = examples("dev", [(TEN,)])
    made = Neighbourhood([dev], {"edits": edits}, overlap)(dev[:0], dev, 1)
    assert (made.points, made.dropped) == ((), {})


def test_examples_are_left_as_they_were() -> None:
    row = Example("0", "g", (TEN,), label=1)
    dev = Examples(TASKS["sst2"], "dev", "here", (row,))
    Neighbourhood([dev], {"edits": edits}, overlap)(dev, dev, 1)
    assert dev.rows == (Example("0", "g", (TEN,), label=1),)


# -- re-pairing


def test_pairs_are_paired_anew_with_sides_that_no_other_split_has(tmp_path: Path) -> None:
    ones = tiny_sentences(60)
    pairs = [*zip(ones[:25], ones[25:50], strict=True), (ones[50], ones[51]), (ones[50], ones[52])]
    known = [examples("train", pairs, "mrpc"), examples("validation", [(ones[0], ones[30])], "mrpc")]
    sides = sides_of(known)
    assert ones[0] not in sides[0]
    assert ones[30] not in sides[1]
    assert ones[50] not in sides[0], "it stands in two pairs, of which one may be held out"
    embedding = Embedding(Teacher.load(tiny_teacher(tmp_path / "encoder", layers=1)))
    tau = Neighbourhood(known, {"re-pairing": Repairing(sides, embedding)}, overlap, each=3, band=(0, 1))
    found = tau(known[0], replace(known[0], rows=()), 0)
    made = [point.example.texts for point in found.points]
    assert len(made) > 15
    assert len(set(made)) == len(made)
    assert not set(made) & set(pairs)
    train = {one.id: one for one in known[0]}
    for point in found.points:
        assert point.partner is not None
        origin, partner = train[point.origin].texts, train[point.partner].texts
        new = int(point.example.texts[0] == origin[0])  # the side that was exchanged
        assert point.example.texts[1 - new] == origin[1 - new]
        assert point.example.texts[new] == partner[new]
        assert partner[new] in sides[new]
    queries = examples("train", [(ones[0], one) for one in ones[1:30]], "mrpc")
    assert Repairing(sides_of([queries]), embedding)([draft(ones[0])]) == [None], "a query of all pairs has no other"
