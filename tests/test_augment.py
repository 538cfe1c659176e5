"""More inputs of a task: what is made, how it is marked, and that no error is measured on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.test_outputs import write_inputs

import subarch
from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.text.corpus import build
from subarch.text.read import identity
from tiny import tiny_teacher, tiny_tokenizer


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("kind", ["classes", "choices"])
def test_new_inputs_stand_beside_those_they_were_made_of(tmp_path: Path, kind: str) -> None:
    given = write_inputs(tmp_path / "inputs.jsonl", kind, 60, label=True)
    found = subarch.augment(tmp_path / "more.jsonl", corpus=str(given), points=2)
    rows = records(tmp_path / "more.jsonl")
    old, new = [row for row in rows if "made" not in row], [row for row in rows if "made" in row]
    assert (found.given, found.made) == (len(old), len(new)) == (60, len(new))
    assert 60 < len(new) <= 120
    assert all("label" in row for row in old)
    assert not any("label" in row for row in new)
    groups = {row["group"]: row for row in old}

    def texts(row: dict[str, Any]) -> list[str]:
        return [row["text_a"], *(row["choices"] if kind == "choices" else [row["text_b"]])]

    known = {identity(text) for row in old for text in texts(row)}
    for row in new:
        changed = [text for text in texts(row) if text not in texts(groups[row["group"]])]
        assert len(changed) == 1, "one text of the origin was changed"
        assert identity(changed[0]) not in known


def test_the_same_inputs_are_held_out_and_none_that_was_made(tmp_path: Path) -> None:
    given = write_inputs(tmp_path / "inputs.jsonl", "classes", 200)
    subarch.augment(tmp_path / "more.jsonl", corpus=str(given))
    tokenizer = tiny_tokenizer()
    plain = build([given], tokenizer, tmp_path / "plain", heldout_fraction=0.2, between=(3,))
    more = build([tmp_path / "more.jsonl"], tokenizer, tmp_path / "more", heldout_fraction=0.2, between=(3,))
    held = {row["group"] for row in records(tmp_path / "more.jsonl")} & set(more.meta.heldout_groups)
    made = [row for row in records(tmp_path / "more.jsonl") if "made" in row]
    kept = [row for row in made if row["group"] not in held]
    assert 0 < len(kept) < len(made)
    assert len(more.train) + len(more.heldout) == 200 + len(kept)
    assert len(more.heldout) == sum(
        "made" not in row for row in records(tmp_path / "more.jsonl") if row["group"] in held
    )
    assert abs(len(more.heldout) - len(plain.heldout)) < 40


def test_no_side_of_a_held_out_pair_is_trained_on(tmp_path: Path) -> None:
    """What is paired anew is made of two inputs, and left out if either is held out."""
    given = write_inputs(tmp_path / "inputs.jsonl", "classes", 120)
    encoder = tiny_teacher(tmp_path / "encoder", layers=1)
    asked: dict[str, Any] = {"encoder": encoder, "re_pair": True, "seed": 1}
    found = subarch.augment(tmp_path / "more.jsonl", corpus=str(given), **asked)
    assert found.by_method["re-pairing"] > 20
    packed = build([tmp_path / "more.jsonl"], tiny_tokenizer(), tmp_path / "more", heldout_fraction=0.2, between=(3,))
    rows, held = records(tmp_path / "more.jsonl"), set(packed.meta.heldout_groups)
    by_group = {row["group"]: row for row in rows if "made" not in row}
    paired = [row for row in rows if row.get("made") == "re-pairing"]
    for row in paired:
        origin, partner = by_group[row["group"]], by_group[row["made_with"]]
        assert sum(row[side] == origin[side] for side in ("text_a", "text_b")) == 1
        assert sum(row[side] == partner[side] for side in ("text_a", "text_b")) == 1
    dropped = [row for row in rows if held & {row["group"], row.get("made_with", row["group"])}]
    assert any(row["group"] not in held for row in dropped if "made" in row)
    assert len(packed.train) == len(rows) - len(dropped)


def test_made_again_from_what_was_written_nothing_is_made_twice(tmp_path: Path) -> None:
    given = write_inputs(tmp_path / "inputs.jsonl", "classes", 30)
    first = subarch.augment(tmp_path / "more.jsonl", corpus=str(given))
    again = subarch.augment(tmp_path / "again.jsonl", corpus=str(tmp_path / "more.jsonl"))
    assert (again.given, again.made) == (first.given, first.made)


def test_refused(tmp_path: Path) -> None:
    words = write_inputs(tmp_path / "words.jsonl", "tags", 30)
    pairs = write_inputs(tmp_path / "pairs.jsonl", "classes", 30)
    with pytest.raises(InvalidConfig, match="holds words to tag; new inputs are made of texts, pairs and choices only"):
        subarch.augment(tmp_path / "out.jsonl", corpus=str(words))
    with pytest.raises(InvalidCorpus, match="inputs of several kinds, pair and words; give files of one kind"):
        subarch.augment(tmp_path / "out.jsonl", corpus=[str(words), str(pairs)])
    with pytest.raises(InvalidConfig, match="either a corpus of inputs or a task"):
        subarch.augment(tmp_path / "out.jsonl")
    with pytest.raises(InvalidConfig, match="task and data go together"):
        subarch.augment(tmp_path / "out.jsonl", task="mrpc")
    with pytest.raises(InvalidConfig, match=r"let the name end in \.jsonl"):
        subarch.augment(tmp_path / "out.csv", corpus=str(pairs))
    with pytest.raises(InvalidConfig, match="needs a sentence encoder"):
        subarch.augment(tmp_path / "out.jsonl", corpus=str(pairs), neighbours=[str(pairs)])
    with pytest.raises(InvalidConfig, match="re_pair needs a sentence encoder"):
        subarch.augment(tmp_path / "out.jsonl", corpus=str(pairs), re_pair=True)
    choices, encoder = write_inputs(tmp_path / "choices.jsonl", "choices", 30), tiny_teacher(tmp_path / "encoder")
    with pytest.raises(InvalidConfig, match="re_pair exchanges sides of pairs, and these are none; leave it out"):
        subarch.augment(tmp_path / "out.jsonl", corpus=str(choices), re_pair=True, encoder=encoder)
    assert not (tmp_path / "out.jsonl").exists()
