"""Submissions, against the published formats of gluebenchmark.com and super.gluebenchmark.com."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from subarch.errors import InvalidTask
from subarch.tasks import TASKS, Examples, write_submission
from subarch.tasks.examples import Example
from task_layouts import example

# file -> rows of the official test set, the spelling of labels 0 and 1
GLUE = {
    "CoLA.tsv": ("cola", 1063, ("0", "1")),
    "SST-2.tsv": ("sst2", 1821, ("0", "1")),
    "MRPC.tsv": ("mrpc", 1725, ("0", "1")),
    "QQP.tsv": ("qqp", 390_965, ("0", "1")),
    "STS-B.tsv": ("stsb", 1379, ("0.000", "1.000")),
    "MNLI-m.tsv": ("mnli", 9796, ("entailment", "neutral")),
    "MNLI-mm.tsv": ("mnli-mm", 9847, ("entailment", "neutral")),
    "QNLI.tsv": ("qnli", 5463, ("entailment", "not_entailment")),
    "RTE.tsv": ("rte", 3000, ("entailment", "not_entailment")),
    "WNLI.tsv": ("wnli", 146, ("0", "1")),
    "AX.tsv": ("ax", 1104, ("entailment", "neutral")),
}
SUPERGLUE = {
    "BoolQ.jsonl": ("boolq", 3245, ("false", "true")),
    "CB.jsonl": ("cb", 250, ("entailment", "contradiction")),
    "COPA.jsonl": ("copa", 500, (0, 1)),
    "ReCoRD.jsonl": ("record", 10_000, ("Ann", "Bob")),
    "RTE.jsonl": ("superglue-rte", 3000, ("entailment", "not_entailment")),
    "WiC.jsonl": ("wic", 1400, ("false", "true")),
    "WSC.jsonl": ("wsc", 146, ("False", "True")),
    "AX-b.jsonl": ("ax-b", 1104, ("entailment", "not_entailment")),
    "AX-g.jsonl": ("ax-g", 356, ("entailment", "not_entailment")),
}


def unlabelled(name: str, count: int) -> Examples:
    prefix = "0-" if name == "record" else ""
    row = example("0", None, choices=("Ann", "Bob") if TASKS[name].head == "choice" else ())
    return Examples(TASKS[name], "test", "here", tuple(replace(row, id=f"{prefix}{n}") for n in range(count)))


def small(name: str, count: int) -> Examples:
    """The task as if its official test set had this many rows."""
    examples, form = unlabelled(name, count), TASKS[name].submission
    assert form is not None
    return replace(examples, task=replace(examples.task, submission=replace(form, rows=count)))


def contents(path: Path) -> dict[str, list[str]]:
    with ZipFile(path) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert all(text.endswith("\n") and "\r" not in text for text in texts.values())
    return {name: text.removesuffix("\n").split("\n") for name, text in texts.items()}


def test_official_names_and_numbers_of_rows() -> None:
    declared = {
        task.submission.file: (task.name, task.submission.rows)
        for task in TASKS.values()
        if task.submission and task.benchmark == "glue"
    }
    assert declared == {file: (name, rows) for file, (name, rows, _) in GLUE.items()}
    declared = {
        task.submission.file: (task.name, task.submission.rows)
        for task in TASKS.values()
        if task.submission and task.benchmark == "superglue"
    }
    assert declared == {file: (name, rows) for file, (name, rows, _) in SUPERGLUE.items()} | {
        "MultiRC.jsonl": ("multirc", 9693)
    }


def test_a_glue_archive(tmp_path: Path) -> None:
    # QQP's 390,965 rows would take seconds to no purpose
    whole = {n: unlabelled(n, rows) if n != "qqp" else small(n, 9) for n, rows, _ in GLUE.values()}
    predictions = [(part, [n % 2 for n in range(len(part))]) for part in whole.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = write_submission(tmp_path / "glue.zip", predictions)
    files = contents(tmp_path / "glue.zip")
    assert set(files) == set(names) == set(GLUE)  # flat: no folders
    for file, (name, rows, spelt) in GLUE.items():
        assert files[file][0] == "index\tprediction"
        assert files[file][1:4] == [f"0\t{spelt[0]}", f"1\t{spelt[1]}", f"2\t{spelt[0]}"]
        assert len(files[file]) == 1 + (rows if name != "qqp" else 9)


def test_scores_are_cut_to_the_scale(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no predictions for cola, sst2"):
        write_submission(tmp_path / "s.zip", [(small("stsb", 3), [-0.2, 2.34567, 5.9])])
    assert contents(tmp_path / "s.zip") == {"STS-B.tsv": ["index\tprediction", "0\t0.000", "1\t2.346", "2\t5.000"]}


@pytest.mark.filterwarnings("ignore:.*no predictions of")
def test_a_superglue_archive(tmp_path: Path) -> None:
    parts = [unlabelled(name, rows) for name, rows, _ in SUPERGLUE.values()]
    write_submission(tmp_path / "s.zip", [(part, [n % 2 for n in range(len(part))]) for part in parts])
    files = contents(tmp_path / "s.zip")
    assert set(files) == set(SUPERGLUE)
    for file, (_, rows, spelt) in SUPERGLUE.items():
        found = [json.loads(line) for line in files[file]]
        assert found[:2] == [{"idx": 0, "label": spelt[0]}, {"idx": 1, "label": spelt[1]}]
        assert [row["idx"] for row in found] == list(range(rows))


@pytest.mark.filterwarnings("ignore:.*no predictions of")
def test_multirc_is_nested(tmp_path: Path) -> None:
    ids = ["0-0-0", "0-0-1", "0-1-2", "3-2-3"]
    task = small("multirc", 4).task
    part = Examples(task, "test", "here", tuple(Example(name, "g", ("p", "q")) for name in ids))
    write_submission(tmp_path / "s.zip", [(part, [1, 0, 0, 1])])
    first = [{"idx": 0, "answers": [{"idx": 0, "label": 1}, {"idx": 1, "label": 0}]}]
    assert [json.loads(line) for line in contents(tmp_path / "s.zip")["MultiRC.jsonl"]] == [
        {"idx": 0, "passage": {"questions": [*first, {"idx": 1, "answers": [{"idx": 2, "label": 0}]}]}},
        {"idx": 3, "passage": {"questions": [{"idx": 2, "answers": [{"idx": 3, "label": 1}]}]}},
    ]


def test_submissions_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    rte, boolq = small("rte", 1), small("boolq", 1)
    for predicted, message in [
        ([(unlabelled("rte", 2), [0, 0])], "rte: 2 predictions, the official test set has 3000 rows"),
        (
            [(replace(rte, part="validation"), [0])],
            "only predictions of the part test can be submitted",
        ),
        ([(rte, [0]), (boolq, [0])], "one benchmark, not for glue, superglue"),
        ([(rte, [0]), (rte, [0])], r"RTE\.tsv would be written twice"),
        ([(unlabelled("dream", 1), [0])], "dream has no server"),
        ([(rte, [0, 1])], r"predictions of shape \(2,\)"),
        ([], "one benchmark, not for none"),
    ]:
        with pytest.raises(InvalidTask, match=message):
            write_submission(path, predicted)
    assert not path.exists()
