"""Tiny data of every task in the hub's layout, made by hand, and what must come out when it is read.

>>> folder = write_hub(tmp_path)                   # cola/train-00000-of-00001.parquet, ...
>>> read("cola", folder, "train")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from subarch.tasks import TASKS
from subarch.tasks.examples import Example

PASSAGE = "Ann met Bob in Rome. @highlight Bob Ray stayed."

# per task: the rows of one labelled part as the hub has them, and what the first becomes: texts, choices, label
HUB: dict[str, tuple[list[dict[str, Any]], tuple[tuple[str, ...], tuple[str, ...], int | float]]] = {
    "cola": ([{"sentence": "She ran.", "label": 1, "idx": 0}], (("She ran.",), (), 1)),
    "sst2": ([{"sentence": "dull ", "label": 0, "idx": 0}], (("dull",), (), 0)),
    "mrpc": ([{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 7}], (("a", "b"), (), 1)),
    "qqp": ([{"question1": "a?", "question2": "b?", "label": 0, "idx": 0}], (("a?", "b?"), (), 0)),
    "stsb": ([{"sentence1": "a", "sentence2": "b", "label": 3.25, "idx": 0}], (("a", "b"), (), 3.25)),
    "mnli": ([{"premise": "a", "hypothesis": "b", "label": 2, "idx": 0}], (("a", "b"), (), 2)),
    "mnli-mm": ([{"premise": "a", "hypothesis": "b", "label": 1, "idx": 0}], (("a", "b"), (), 1)),
    "qnli": ([{"question": "a?", "sentence": "b", "label": 1, "idx": 0}], (("a?", "b"), (), 1)),
    "rte": ([{"sentence1": "a", "sentence2": "b", "label": 0, "idx": 0}], (("a", "b"), (), 0)),
    "wnli": ([{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}], (("a", "b"), (), 1)),
    "boolq": (
        [{"question": "is it", "passage": "T -- It is.", "idx": 0, "label": 1}],
        (("is it", "T -- It is."), (), 1),
    ),
    "cb": ([{"premise": "a", "hypothesis": "b", "idx": 0, "label": 2}], (("a", "b"), (), 2)),
    "copa": (
        [{"premise": "It fell.", "choice1": "x", "choice2": "y", "question": "cause", "idx": 0, "label": 1}],
        (("It fell.", "What was the cause of this?"), ("x", "y"), 1),
    ),
    "multirc": (
        [
            {
                "paragraph": "p",
                "question": "q?",
                "answer": "yes",
                "idx": {"paragraph": 4, "question": 5, "answer": 6},
                "label": 1,
            }
        ],
        (("p", "q? yes"), (), 1),
    ),
    "record": (
        [
            {
                "passage": PASSAGE,
                "query": "@placeholder stayed in Rome",
                "entities": ["Ann", "Bob", "Bob Ray", "Rome"],
                "answers": ["Bob Ray", "Bob"],
                "idx": {"passage": 3, "query": 9},
            }
        ],
        ((PASSAGE, "@placeholder stayed in Rome"), ("Ann", "Bob", "Bob Ray", "Rome"), 1),
    ),
    "superglue-rte": ([{"premise": "a", "hypothesis": "b", "idx": 0, "label": 1}], (("a", "b"), (), 1)),
    "wic": (
        [
            {
                "word": "class",
                "sentence1": "A class act.",
                "sentence2": "He has class.",
                "start1": 2,
                "start2": 7,
                "end1": 7,
                "end2": 12,
                "idx": 0,
                "label": 0,
            }
        ],
        (("A * class * act.", "He has * class *."), (), 0),
    ),
    "wsc": (
        [
            {
                "text": "Ann Lee saw Bob, but he slept.",
                "span1_index": 0,
                "span2_index": 5,
                "span1_text": "Ann Lee",
                "span2_text": "he",
                "idx": 0,
                "label": 0,
            }
        ],
        (("# Ann Lee # saw Bob, but * he * slept.",), (), 0),
    ),
    "ax": ([{"premise": "a", "hypothesis": "b", "label": 0, "idx": 0}], (("a", "b"), (), 0)),
    "ax-b": ([{"sentence1": "a", "sentence2": "b", "idx": 0, "label": 1}], (("a", "b"), (), 1)),
    "ax-g": ([{"premise": "a", "hypothesis": "b", "idx": 0, "label": 0}], (("a", "b"), (), 0)),
    "race": (
        [
            {"example_id": "high3.txt", "article": "t", "answer": "C", "question": "q _ .", "options": list("wxyz")},
            {"example_id": "middle1.txt", "article": "u", "answer": "A", "question": "q?", "options": list("wxyz")},
        ],
        (("t", "q _ ."), ("w", "x", "y", "z"), 2),
    ),
    "dream": (
        [
            {
                "id": 0,
                "dialogue_id": "5-1",
                "dialogue": ["M: Hi.", "W: Yes."],
                "question": "q?",
                "choice": ["x", "y", "z"],
                "answer": "z",
            }
        ],
        (("M: Hi. W: Yes.", "q?"), ("x", "y", "z"), 2),
    ),
}
HUB["race-middle"] = ([HUB["race"][0][1]], (("u", "q?"), ("w", "x", "y", "z"), 0))
HUB["race-high"] = ([HUB["race"][0][0]], HUB["race"][1])


BENCHMARKS = [name for name, task in TASKS.items() if task.benchmark != "own"]
"""All but ner, which reads any data of words with tags."""


def write_hub(root: Path) -> Path:
    """Tasks of benchmarks in the layout of the hub: folders of data sets, of configurations in them, a Parquet file a
    part.
    """
    data_sets = {"glue": "glue", "superglue": "super_glue", "race": "race", "dream": "dream"}
    for name in BENCHMARKS:
        task = TASKS[name]
        layout = next(one for one in task.layouts if one.name == "hub")
        folder = root / data_sets[task.benchmark] / layout.config
        folder.mkdir(parents=True, exist_ok=True)
        for theirs in layout.parts.values():
            parquet.write_table(pyarrow.Table.from_pylist(HUB[name][0]), folder / f"{theirs}-00000-of-00001.parquet")
    return root


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def write_json(path: Path, value: Any) -> Path:
    return write(path, json.dumps(value))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def example(name: str, label: float | None = 0, **others: Any) -> Example:
    """An example with only what a metric looks at."""
    return Example(name, others.pop("group", name), others.pop("texts", ("x",)), label=label, **others)
