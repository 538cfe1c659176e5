"""Examples: how choices fill a question, how data is divided, what is known of labels; one's own files as a task."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from subarch.errors import InvalidTask
from subarch.run.configuration import load
from subarch.tasks import TASKS, Example, Examples, Overlap, divide, hold_out, overlaps, own_task, read, statistics
from subarch.tasks.division import TaskData, parts_of
from task_layouts import example, write, write_jsonl


def examples(count: int, per_group: int = 1, task: str = "sst2") -> Examples:
    rows = tuple(example(str(n), n % 3 == 0, group=f"g{n // per_group}") for n in range(count))
    return Examples(TASKS[task], "train", "here", rows)


@pytest.mark.parametrize(
    ("question", "filled"),
    [
        ("Why?", "Why? he"),
        ("_ ran.", "he ran."),
        ("It is ____", "It is he"),
        ("_", "he"),
        ("_ saw _ .", "_ saw _ . he"),
        ("Then @placeholder left @placeholder", "Then he left he"),
    ],
)
def test_a_choice_fills_the_blank_or_follows(question: str, filled: str) -> None:
    # the choice is text, not a pattern: a backslash in it stays
    assert Example("0", "0", ("t", question), ("he", r"\1")).pairs()[0] == ("t", filled)
    assert Example("0", "0", ("t", "_ ran."), ("he", r"\1")).pairs()[1] == ("t", r"\1 ran.")
    assert Example("0", "0", ("t",), ("a", "b")).pairs() == (("t", "a"), ("t", "b"))
    assert Example("0", "0", ("t",)).pairs() == (("t", None),)
    assert Example("0", "0", ("t", "u")).pairs() == (("t", "u"),)


def test_groups_stay_together_and_shares_are_kept() -> None:
    whole = examples(6000, per_group=3)
    rest, held = hold_out(whole, 0.3, seed=1)
    assert not {row.group for row in rest} & {row.group for row in held}
    assert sorted((*rest, *held), key=lambda row: int(row.id)) == list(whole)
    assert len(held) / len(whole) == pytest.approx(0.3, abs=0.03)
    assert hold_out(whole, 0.3, seed=1) == (rest, held)
    assert hold_out(whole, 0.3, seed=2)[1] != held
    # a group falls on the same side whatever else is there
    assert set(hold_out(whole[:300], 0.3, seed=1)[1]) == set(held) & set(whole[:300])


def test_dividing_in_three() -> None:
    whole = examples(6000)
    parts = divide(whole, (0.6, 0.3, 0.1), seed=5)
    assert [len(part) / 6000 for part in parts] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    assert sum(len(part) for part in parts) == 6000
    assert parts[1].task is whole.task


@pytest.mark.parametrize("shares", [(), (0.5, 0.6), (1.2, -0.2), (1.0, 0.0)])
def test_shares_that_cannot_be(shares: tuple[float, ...]) -> None:
    with pytest.raises(InvalidTask, match="not positive numbers that add up to 1"):
        divide(examples(10), shares)
    with pytest.raises(InvalidTask, match="add up to 1"):
        hold_out(examples(10), 1.5)


def test_a_side_without_groups_is_refused() -> None:
    with pytest.raises(InvalidTask, match=r"1 groups \(9 rows\).* leave a part empty"):
        hold_out(examples(9, per_group=9), 0.5)


def test_statistics_by_hand() -> None:
    found = statistics(examples(9, per_group=3))  # labels 1 0 0 1 0 0 1 0 0
    assert found == {
        "rows": 9,
        "groups": 3,
        "counts": {"negative": 6, "positive": 3},
        "majority": "negative",
        "majority_share": pytest.approx(2 / 3),
        "majority_balanced": 0.5,
    }
    targets = tuple(example(str(n), target) for n, target in enumerate((1.0, 2.0, 6.0)))
    numbers = statistics(Examples(TASKS["stsb"], "train", "here", targets))
    assert numbers == {
        "rows": 3,
        "groups": 3,
        "mean": 3.0,
        "deviation": pytest.approx((14 / 3) ** 0.5),  # (4 + 1 + 9) / 3
        "minimum": 1.0,
        "maximum": 6.0,
    }
    assert statistics(Examples(TASKS["rte"], "test", "here", (example("0", None),))) == {"rows": 1, "groups": 1}


# one's own data


def test_csv_is_quoted_and_tsv_is_not(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", '\ufefftext,label\r\n"a, ""b""\u2028\nc",pos\r\n"d",neg\r\n')
    write(tmp_path / "dev.tsv", 'text\tlabel\n"d"\tneg\n')
    task = own_task(tmp_path, first="text")
    assert (task.labels, task.kind, task.head, task.metrics[0]) == (
        ("neg", "pos"),
        "classification",
        "classification",
        "accuracy",
    )
    train = read(task, tmp_path, "train")
    assert ([row.texts for row in train], train.labels) == ([('a, "b"\u2028\nc',), ("d",)], (1, 0))
    assert read(task, tmp_path, "dev")[0].texts == ('"d"',)
    with pytest.raises(InvalidTask, match="has only train, validation"):
        read(task, tmp_path, "test")


def test_columns_labels_ids_and_groups_by_name(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"q": "a", "p": "b", "stars": 10, "n": 7, "shop": "x"},
        {"q": "c", "p": "d", "stars": 9, "n": 8, "shop": "x"},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    write_jsonl(tmp_path / "test.jsonl", [{"q": "e", "p": "f", "n": 1, "shop": "z"}])
    task = own_task(tmp_path, first="q", second="p", label="stars", id="n", group="shop")
    assert (task.labels, task.kind) == (("9", "10"), "pair")  # as numbers, not as text
    train, test = read(task, tmp_path, "train"), read(task, tmp_path, "test")
    assert [(row.id, row.group, row.texts, row.label) for row in train] == [
        ("7", "x", ("a", "b"), 1),
        ("8", "x", ("c", "d"), 0),
    ]
    assert test.labels is None
    assert own_task(tmp_path, first="q", label="stars", labels=("10", "9")).labels == ("10", "9")


def test_a_single_file_is_divided_by_group(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": "ab"[n % 2], "author": f"w{n % 40}"} for n in range(400)]
    file = write_jsonl(tmp_path / "all[1].jsonl", rows)
    task = own_task(file, first="text", group="author")
    parts = [read(task, file, part) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(read(task, file, "all")) == 400
    assert all(part.labels for part in parts)
    groups = [{row.group for row in part} for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 40
    # what is held out of a part is not decided by the same hash that made it
    rest, held = hold_out(parts[0], 0.3, seed=0)
    assert 0 < len({row.group for row in held}) < len(groups[0]) * 0.6
    assert len(rest) > 0


@pytest.mark.parametrize("cell", ["", " ", None, float("nan")])
def test_a_row_without_a_group_is_in_none(tmp_path: Path, cell: str | float | None) -> None:
    rows = [{"text": f"t{n}", "label": "ab"[n % 2], "author": "w" if n < 10 else cell} for n in range(60)]
    rows.append(dict(rows[-1]))
    file = write_jsonl(tmp_path / "all.jsonl", rows)
    whole = read(own_task(file, first="text", group="author"), file, "all")
    assert len({row.group for row in whole}) == 1 + 50
    assert {row.group for row in whole[:10]} == {"w"}
    assert whole[-1].group == whole[-2].group  # the same text, so the same side


@pytest.mark.parametrize("name", ["group-mostly-empty.csv", "group-mostly-null.jsonl"])
def test_groups_of_others_that_are_mostly_empty(shared_cases: Path, name: str) -> None:
    file = shared_cases / "tasks" / name
    whole = read(own_task(file, first="text", group="author"), file, "all")
    assert max(Counter(row.group for row in whole).values()) < 10
    assert len(whole) > 160


def test_parts_that_overlap_are_counted(tmp_path: Path) -> None:
    def part(name: str, *rows: Example) -> Examples:
        return Examples(TASKS["mrpc"], name, "here", rows)

    one, two = Example("0", "0", ("A cat.", "b"), label=1), Example("1", "1", ("A dog.", "b"), label=0)
    shouted = Example("7", "7", ("a CAT!", " B"), label=0)
    swapped = Example("8", "8", ("b", "A cat."), label=1)
    assert overlaps([part("train", one, two), part("dev", swapped)]) == ()
    found = overlaps([part("train", one, two), part("dev", shouted), part("held-out", shouted, one, swapped)])
    assert found == (
        Overlap("dev", "train", 1, 1),
        Overlap("held-out", "train", 2, 3),
        Overlap("held-out", "dev", 2, 3),
    )
    assert found[1].sentence == "2 of the 3 rows of held-out also are in train"


def test_official_parts_that_overlap_are_told(tmp_path: Path) -> None:
    rows = [f"text number {n},{'ab'[n % 2]}\n" for n in range(30)]
    for name, some in (("train", rows[:20]), ("validation", rows[18:25]), ("test", rows[25:])):
        write(tmp_path / f"{name}.csv", "text,label\n" + "".join(some))
    data = load(TaskData, None, {"task": "mine", "data": str(tmp_path), "first": "text"})
    with pytest.warns(UserWarning, match="mine: 2 of the 7 rows of dev also are in train"):
        assert parts_of(data).overlap == (Overlap("dev", "train", 2, 7),)
    write(tmp_path / "validation.csv", "text,label\n" + "".join(rows[20:25]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parts_of(data).overlap == ()


def test_held_out_rows_of_others_that_are_all_learnt(shared_cases: Path) -> None:
    folder = shared_cases / "tasks" / "heldout-in-train"
    with pytest.warns(UserWarning, match="of held-out also are in train"):
        found = parts_of(load(TaskData, None, {"task": "mine", "data": str(folder), "first": "text"})).overlap
    assert {(one.part, one.other): one.rows == one.of for one in found}["held-out", "train"]


def test_regression_and_choices_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path / "r" / "train.csv", "text,price\na,1.5\nb,-1\n")
    assert read(own_task(tmp_path / "r", first="text", label="price", kind="regression"), tmp_path / "r").labels == (
        1.5,
        -1.0,
    )
    write(tmp_path / "c" / "train.csv", "ctx,x,y,right\na,one,two,two\nb,1,0,1\nc,p,q,1\n")
    columns = own_task(tmp_path / "c", first="ctx", choices=["x", "y"], label="right", kind="choice")
    # the text of a choice goes before a position
    assert read(columns, tmp_path / "c").labels == (1, 0, 1)
    write_jsonl(tmp_path / "l" / "train.jsonl", [{"ctx": "a", "q": "_ ?", "all": ["x", "y", "z"], "right": 2}])
    listed = own_task(tmp_path / "l", first="ctx", second="q", choices="all", label="right", kind="choice")
    assert read(listed, tmp_path / "l")[0].pairs()[2] == ("a", "z ?")
    assert (listed.head, listed.metrics) == ("choice", ("accuracy",))
    write(tmp_path / "a" / "train.csv", "ctx,x,y,right\na,one,two,B\nb,B,A,A\n")
    letters = own_task(tmp_path / "a", first="ctx", choices=["x", "y"], label="right", kind="choice")
    assert read(letters, tmp_path / "a").labels == (1, 1)  # a letter, unless it is the text of a choice


def test_a_data_set_with_named_classes(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    table.to_parquet(str(tmp_path / "train.parquet"))
    task = own_task(f"datasets:{tmp_path}", first="text")
    assert task.labels == ("no", "yes")
    assert read(task, f"datasets:{tmp_path}", "train").labels == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\na,b,c\n", "line 2: 3 fields for 2 columns .*double quotes"),
        ('text,label\n"a,b\n', "not CSV"),
        ("text,gold\na,b\n", "no column 'label'; found: 'text', 'gold'"),
        ("text,label\na,x\nb,x\n", "holds 1 different labels"),
        ("body,label\na,x\nb,y\n", "row 1: no column 'text'; found: 'body', 'label'"),
        ("text,label\na,x\nb,y\nc,\n", "row 3: no label"),
        ("text,label\n", "0 different labels"),
    ],
)
def test_own_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "train.csv", text)
    with pytest.raises(InvalidTask, match=message):
        read(own_task(tmp_path, first="text"), tmp_path, "train")


def test_labels_of_other_parts_must_be_known(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,x\nb,y\n")
    write(tmp_path / "val.csv", "text,label\na,z\n")
    task = own_task(tmp_path, first="text")
    with pytest.raises(InvalidTask, match=r"val\.csv, row 1: unknown label 'z'; those of own are x, y$"):
        read(task, tmp_path, "validation")
    write_jsonl(tmp_path / "val.jsonl", [])
    with pytest.raises(InvalidTask, match="'choice' go together"):
        own_task(tmp_path, first="text", kind="choice")
    with pytest.raises(InvalidTask, match="which regression does not have"):
        own_task(tmp_path, first="text", kind="regression", labels=("a",))


def test_examples_are_a_sequence_and_json() -> None:
    whole = examples(4)
    assert isinstance(whole[1:3], Examples)
    assert [row.id for row in whole[1:3]] == ["1", "2"]
    assert whole[1:3].labels == (False, False)
    assert json.loads(json.dumps(asdict(whole[0])))["texts"] == ["x"]
