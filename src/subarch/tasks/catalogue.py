"""Every task by name: GLUE (arXiv 1804.07461), SuperGLUE (1905.00537), RACE (1704.04683) and DREAM (1902.00164).

Declarations, no code. A new task of a public benchmark is one more entry here. Its layouts are those of the benchmark's
own download and of the hub; other files are read as the user's own data (`own.py`). Label order and column names are
the hub's; metrics, names of submission files, spellings and row counts are those of the benchmarks' servers. RACE and
DREAM have none.

MNLI is two tasks, because it is scored and submitted as two. The mismatched one and the diagnostic sets AX, AX-b and
AX-g have no training part and are predicted by the model of MNLI or RTE. RACE is read whole or by part, middle and high
school.

    >>> task_named("sst2").metrics
    ('accuracy',)
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from subarch.errors import InvalidTask
from subarch.tasks.declaration import Layout, Submission, Task, hub

# GLUE

PAIR = {"first": "sentence1", "second": "sentence2", "label": "label", "id": "idx"}
ENTAILS = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")

_TSV = {"train": ("train.tsv",), "validation": ("dev.tsv",), "test": ("test.tsv",)}
_INDEX = {"id": "index"}
_GLUE = Layout("glue", _TSV, columns=_INDEX)
_MSR = {"first": "#1 String", "second": "#2 String", "label": "Quality", "id": "index"}
_MSR_FILE = "msr_paraphrase_{}.txt"
_STS = ("genre", "filename", "year", "old_index", "score", "sentence1", "sentence2")


def _mnli(name: str, part: str, file: str, rows: int, trained_on: str) -> Task:
    evaluated = {"validation": (f"dev_{part}.tsv",), "test": (f"test_{part}.tsv",)}
    hub_parts = {"validation": f"validation_{part}", "test": f"test_{part}"}
    if not trained_on:
        evaluated, hub_parts = {"train": ("train.tsv",), **evaluated}, {"train": "train", **hub_parts}
    glue = Layout(
        "glue", evaluated, columns={"first": "sentence1", "second": "sentence2", "label": "gold_label"} | _INDEX
    )
    return Task(
        name=name,
        benchmark="glue",
        kind="pair",
        cast="texts",
        columns={"first": "premise", "second": "hypothesis", "label": "label", "id": "idx"},
        labels=NLI,
        metrics=("accuracy",),
        folders=("MNLI", "mnli", "glue/mnli"),
        layouts=(glue, hub("mnli", **hub_parts)),
        submission=Submission(file, "name", rows),
        trained_on=trained_on,
    )


_GLUE_TASKS = (
    Task(
        name="cola",
        benchmark="glue",
        kind="classification",
        cast="texts",
        columns={"first": "sentence", "label": "label", "id": "idx"},
        labels=("unacceptable", "acceptable"),
        metrics=("mcc",),
        folders=("CoLA", "cola", "glue/cola"),
        layouts=(
            # training and validation rows without a header, test rows with one
            Layout(
                "glue",
                {"train": ("train.tsv",), "validation": ("dev.tsv",)},
                header=("source", "label", "mark", "sentence"),
            ),
            Layout("glue", {"test": ("test.tsv",)}, columns=_INDEX),
            hub("cola"),
        ),
        submission=Submission("CoLA.tsv", "number", 1063),
        numbered=True,
    ),
    Task(
        name="sst2",
        benchmark="glue",
        kind="classification",
        cast="texts",
        columns={"first": "sentence", "label": "label", "id": "idx"},
        labels=("negative", "positive"),
        metrics=("accuracy",),
        folders=("SST-2", "sst2", "glue/sst2"),
        layouts=(_GLUE, hub("sst2")),
        submission=Submission("SST-2.tsv", "number", 1821),
        numbered=True,
    ),
    Task(
        name="mrpc",
        benchmark="glue",
        kind="pair",
        cast="texts",
        columns=PAIR,
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        folders=("MRPC", "mrpc", "glue/mrpc"),
        layouts=(
            # the original test rows are labelled, those of GLUE, in the same order, are not
            Layout("msr", {"test": (_MSR_FILE.format("test"),)}, columns=_MSR, form="tsv"),
            Layout("glue", _TSV, columns=_MSR),
            Layout(
                "msr",
                dict.fromkeys(("train", "validation"), (_MSR_FILE.format("train"),)),
                columns=_MSR,
                form="tsv",
                listed=("dev_ids.tsv", "mrpc_dev_ids.tsv"),
            ),
            hub("mrpc"),
        ),
        submission=Submission("MRPC.tsv", "number", 1725),
        numbered=True,
    ),
    Task(
        name="qqp",
        benchmark="glue",
        kind="pair",
        cast="texts",
        columns={"first": "question1", "second": "question2", "label": "label", "id": "idx"},
        labels=("not_duplicate", "duplicate"),
        metrics=("f1", "accuracy"),
        folders=("QQP", "qqp", "glue/qqp"),
        layouts=(
            # some official rows are cut off; the hub leaves them out too
            Layout("glue", _TSV, columns={"label": "is_duplicate"}, ragged="shorter"),
            hub("qqp"),
        ),
        submission=Submission("QQP.tsv", "number", 390_965),
        numbered=True,
    ),
    Task(
        name="stsb",
        benchmark="glue",
        kind="regression",
        cast="texts",
        columns=PAIR,
        labels=(),
        metrics=("pearson", "spearman"),
        folders=("STS-B", "stsb", "glue/stsb"),
        layouts=(
            # the original test rows are labelled, and end in licences of the sources
            Layout(
                "sts",
                {"test": ("original/sts-test.tsv", "sts-test.tsv")},
                columns={"label": "score"},
                header=_STS,
                ragged="longer",
            ),
            Layout("glue", _TSV, columns={"label": "score"} | _INDEX),
            hub("stsb"),
        ),
        submission=Submission("STS-B.tsv", "score", 1379),
    ),
    _mnli("mnli", "matched", "MNLI-m.tsv", 9796, ""),
    _mnli("mnli-mm", "mismatched", "MNLI-mm.tsv", 9847, "mnli"),
    Task(
        name="qnli",
        benchmark="glue",
        kind="pair",
        cast="texts",
        columns={"first": "question", "second": "sentence", "label": "label", "id": "idx"},
        labels=ENTAILS,
        metrics=("accuracy",),
        folders=("QNLI", "qnli", "glue/qnli"),
        layouts=(_GLUE, hub("qnli")),
        submission=Submission("QNLI.tsv", "name", 5463),
    ),
    Task(
        name="rte",
        benchmark="glue",
        kind="pair",
        cast="texts",
        columns=PAIR,
        labels=ENTAILS,
        metrics=("accuracy",),
        folders=("RTE", "rte", "glue/rte"),
        layouts=(_GLUE, hub("rte")),
        submission=Submission("RTE.tsv", "name", 3000),
    ),
    Task(
        name="wnli",
        benchmark="glue",
        kind="pair",
        cast="texts",
        columns=PAIR,
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
        folders=("WNLI", "wnli", "glue/wnli"),
        layouts=(_GLUE, hub("wnli")),
        submission=Submission("WNLI.tsv", "number", 146),
        numbered=True,
    ),
    Task(
        name="ax",
        benchmark="glue",
        kind="pair",
        cast="texts",
        columns={"first": "premise", "second": "hypothesis", "label": "label", "id": "idx"},
        labels=NLI,
        metrics=("mcc",),
        folders=("AX", "diagnostic", "ax", "glue/ax"),
        layouts=(
            Layout(
                "glue",
                {"test": ("diagnostic.tsv", "AX.tsv")},
                columns={"first": "sentence1", "second": "sentence2"} | _INDEX,
            ),
            hub("ax", test="test"),
        ),
        submission=Submission("AX.tsv", "name", 1104),
        trained_on="mnli",
    ),
)

# SuperGLUE

_JSONL = {"train": ("train.jsonl",), "validation": ("val.jsonl",), "test": ("test.jsonl",)}
_DOWNLOAD = Layout("superglue", _JSONL)
NO_YES = ("False", "True")
PREMISE = {"first": "premise", "second": "hypothesis", "label": "label", "id": "idx"}


def _folders(name: str) -> tuple[str, ...]:
    return (name, name.lower(), f"super_glue/{name.lower()}")


_SUPERGLUE_TASKS = (
    Task(
        name="boolq",
        benchmark="superglue",
        kind="pair",
        cast="texts",
        columns={"first": "question", "second": "passage", "group": "passage", "label": "label", "id": "idx"},
        labels=NO_YES,
        metrics=("accuracy",),
        folders=_folders("BoolQ"),
        layouts=(_DOWNLOAD, hub("boolq")),
        submission=Submission("BoolQ.jsonl", "lower", 3245),
        until=" -- ",  # passages begin with the title of their article
    ),
    Task(
        name="cb",
        benchmark="superglue",
        kind="pair",
        cast="texts",
        columns=PREMISE,
        labels=("entailment", "contradiction", "neutral"),
        metrics=("macro_f1", "accuracy"),
        folders=_folders("CB"),
        layouts=(_DOWNLOAD, hub("cb")),
        submission=Submission("CB.jsonl", "name", 250),
    ),
    Task(
        name="copa",
        benchmark="superglue",
        kind="choice",
        cast="choice",
        columns={
            "context": "premise",
            "question": "question",
            "choices": ("choice1", "choice2"),
            "label": "label",
            "id": "idx",
        },
        labels=("choice1", "choice2"),
        metrics=("accuracy",),
        folders=_folders("COPA"),
        layouts=(
            _DOWNLOAD,
            hub("copa"),
            # its authors' download: SuperGLUE's training and validation rows are the first 400 and last 100 of dev
            Layout(
                "xml",
                {"train": ("copa-dev.xml",), "validation": ("copa-dev.xml",), "test": ("copa-test.xml",)},
                form="xml",
                unfold="copa",
                rows={"train": (0, 400), "validation": (400, 500)},
            ),
        ),
        submission=Submission("COPA.jsonl", "number", 500),
        wording={"cause": "What was the cause of this?", "effect": "What happened as a result?"},
    ),
    Task(
        name="multirc",
        benchmark="superglue",
        kind="multi-sentence",
        cast="multirc",
        columns={"first": "paragraph", "question": "question", "answer": "answer", "label": "label", "id": "idx"},
        labels=NO_YES,
        metrics=("f1a", "em"),
        folders=_folders("MultiRC"),
        layouts=(Layout("superglue", _JSONL, unfold="multirc"), hub("multirc")),
        submission=Submission("MultiRC.jsonl", "answers", 9693),
    ),
    Task(
        name="record",
        benchmark="superglue",
        kind="cloze",
        cast="record",
        columns={
            "context": "passage",
            "question": "query",
            "choices": "entities",
            "golds": "answers",
            "id": "idx",
        },
        labels=(),
        metrics=("f1", "em"),
        folders=_folders("ReCoRD"),
        layouts=(Layout("superglue", _JSONL, unfold="record"), hub("record")),
        submission=Submission("ReCoRD.jsonl", "text", 10_000),
    ),
    Task(
        name="superglue-rte",
        benchmark="superglue",
        kind="pair",
        cast="texts",
        columns=PREMISE,
        labels=ENTAILS,
        metrics=("accuracy",),
        folders=_folders("RTE"),
        layouts=(_DOWNLOAD, hub("rte")),
        submission=Submission("RTE.jsonl", "name", 3000),
    ),
    Task(
        name="wic",
        benchmark="superglue",
        kind="span",
        cast="wic",
        columns={"first": "sentence1", "second": "sentence2", "group": "word", "label": "label", "id": "idx"},
        labels=NO_YES,
        metrics=("accuracy",),
        folders=_folders("WiC"),
        layouts=(_DOWNLOAD, hub("wic")),
        submission=Submission("WiC.jsonl", "lower", 1400),
    ),
    Task(
        name="wsc",
        benchmark="superglue",
        kind="span",
        cast="wsc",
        columns={"first": "text", "label": "label", "id": "idx"},
        labels=NO_YES,
        metrics=("accuracy",),
        folders=(*_folders("WSC"), "wsc.fixed", "super_glue/wsc.fixed"),
        layouts=(Layout("superglue", _JSONL, unfold="wsc"), hub("wsc")),
        submission=Submission("WSC.jsonl", "name", 146),
    ),
    Task(
        name="ax-b",
        benchmark="superglue",
        kind="pair",
        cast="texts",
        columns={"first": "sentence1", "second": "sentence2", "label": "label", "id": "idx"},
        labels=ENTAILS,
        metrics=("mcc",),
        folders=("AX-b", "axb", "super_glue/axb"),
        layouts=(Layout("superglue", {"test": ("AX-b.jsonl",)}), hub("axb", test="test")),
        submission=Submission("AX-b.jsonl", "name", 1104),
        trained_on="superglue-rte",
    ),
    Task(
        name="ax-g",
        benchmark="superglue",
        kind="pair",
        cast="texts",
        columns=PREMISE,
        labels=ENTAILS,
        metrics=("gender_parity", "accuracy"),
        folders=("AX-g", "axg", "super_glue/axg"),
        layouts=(Layout("superglue", {"test": ("AX-g.jsonl",)}), hub("axg", test="test")),
        submission=Submission("AX-g.jsonl", "name", 356),
        trained_on="superglue-rte",
    ),
)

# Reading comprehension with choices, from English examinations

_OFFICIAL = {"train": "train", "validation": "dev", "test": "test"}


def _race(part: str) -> Task:
    config = part or "all"
    inside = {ours: (f"{theirs}/{part or '*'}/*.txt",) for ours, theirs in _OFFICIAL.items()}
    return Task(
        name=f"race-{part}" if part else "race",
        benchmark="race",
        kind="choice",
        cast="choice",
        columns={
            "context": "article",
            "question": "question",
            "choices": "options",
            "label": "answer",
            "group": "example_id",
        },
        labels=("A", "B", "C", "D"),
        metrics=("accuracy",) if part else ("accuracy", "accuracy_middle", "accuracy_high"),
        folders=("RACE", f"race/{config}", config),
        layouts=(
            Layout("race", inside, unfold="race"),
            hub(config),
        ),
        part=part,
    )


_EXAM_TASKS = (
    _race(""),
    _race("middle"),
    _race("high"),
    Task(
        name="dream",
        benchmark="dream",
        kind="choice",
        cast="choice",
        columns={
            "context": "dialogue",
            "question": "question",
            "choices": "choice",
            "label": "answer",
            "group": "dialogue_id",
        },
        labels=(),
        metrics=("accuracy",),
        folders=("DREAM", "dream", "dream/plain_text", "plain_text"),
        layouts=(
            Layout("dream", {ours: (f"{theirs}.json",) for ours, theirs in _OFFICIAL.items()}, unfold="dream"),
            hub("plain_text"),
        ),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in (*_GLUE_TASKS, *_SUPERGLUE_TASKS, *_EXAM_TASKS)}


def task_named(name: str) -> Task:
    """The task of a name, whatever its case.

    Raises:
        InvalidTask: there is none; names the nearest.
    """
    if name.lower() in TASKS:
        return TASKS[name.lower()]
    near = get_close_matches(name.lower(), TASKS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InvalidTask(f"no task {name!r}; {hint}known: {', '.join(TASKS)}; or give columns for data of your own")


def described(task: Task) -> dict[str, Any]:
    """What is known of a task without its data, for a listing."""
    return {
        "task": task.name,
        "benchmark": task.benchmark,
        "type": task.kind,
        "head": task.head,
        "labels": list(task.labels),
        "metrics": list(task.metrics),
        "submission": task.submission.file if task.submission else None,
        "trained_on": task.trained_on or None,
        "layouts": list(dict.fromkeys(layout.name for layout in task.layouts)),
        "parts": list(task.parts),
    }
