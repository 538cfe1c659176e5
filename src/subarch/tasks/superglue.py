"""The tasks of SuperGLUE with both diagnostic sets (arXiv 1905.00537): declarations, no code.

Rows have the hub's columns; the download's nested JSON is unfolded into them. Label order is the hub's, metrics, file
names and spellings are those of super.gluebenchmark.com, row counts those of the official test sets. AX-b and AX-g are
predicted by the model of RTE. The part `dev32` is the second half of the few-shot samples of FewGLUE.

    >>> [task.name for task in SUPERGLUE][:3]
    ['boolq', 'cb', 'copa']
"""

from __future__ import annotations

from subarch.tasks.declaration import Layout, Submission, Task, hub
from subarch.tasks.glue import ENTAILS

_JSONL = {
    "train": ("train.jsonl",),
    "validation": ("val.jsonl",),
    "test": ("test.jsonl",),
    "dev32": ("dev32.jsonl",),
}
_DOWNLOAD = Layout("superglue", _JSONL)
_NO_YES = ("False", "True")
_NLI = {"first": "premise", "second": "hypothesis", "label": "label", "id": "idx"}


def _folders(name: str) -> tuple[str, ...]:
    return (f"SuperGLUE-{name}", name, name.lower(), f"super_glue/{name.lower()}")


SUPERGLUE: tuple[Task, ...] = (
    Task(
        name="boolq",
        benchmark="superglue",
        kind="pair",
        cast="texts",
        columns={"first": "question", "second": "passage", "group": "passage", "label": "label", "id": "idx"},
        labels=_NO_YES,
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
        columns=_NLI,
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
        folders=("COPA-full", *_folders("COPA")),
        layouts=(
            _DOWNLOAD,
            hub("copa"),
            # the original: SuperGLUE's training and validation rows are the first 400 and the last 100 of dev
            Layout(
                "xml",
                {"train": ("copa-dev.xml",), "validation": ("copa-dev.xml",), "test": ("copa-test.xml",)},
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
        labels=_NO_YES,
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
        columns=_NLI,
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
        labels=_NO_YES,
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
        labels=_NO_YES,
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
        columns=_NLI,
        labels=ENTAILS,
        metrics=("gender_parity", "accuracy"),
        folders=("AX-g", "axg", "super_glue/axg"),
        layouts=(Layout("superglue", {"test": ("AX-g.jsonl",)}), hub("axg", test="test")),
        submission=Submission("AX-g.jsonl", "name", 356),
        trained_on="superglue-rte",
    ),
)
