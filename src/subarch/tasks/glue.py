"""The tasks of GLUE and its diagnostic set (arXiv 1804.07461): declarations, no code.

Label order and column names are the hub's, metrics, file names and spellings those of gluebenchmark.com, row counts
those of the official test sets. MNLI is two tasks, for it is scored and submitted as two; the mismatched one and the
diagnostic set (AX) have no training part and are predicted by the model of MNLI.

    >>> [task.name for task in GLUE][:3]
    ['cola', 'sst2', 'mrpc']
"""

from __future__ import annotations

from subarch.tasks.declaration import Layout, Submission, Task, hub

PAIR = {"first": "sentence1", "second": "sentence2", "label": "label", "id": "idx"}
ENTAILS = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")

_TSV = {"train": ("train.tsv",), "validation": ("dev.tsv",), "test": ("test.tsv",)}
_INDEX = {"id": "index"}
_GLUE = Layout("glue", _TSV, columns=_INDEX)
# Sub-samples of a training part as other repositories hold them: {"0": {"text_a": ..., "text_b": ..., "label": ...}}
_SAMPLE = Layout(
    "sample",
    {"train": ("sample_train.json",), "validation": ("sample_dev.json",)},
    columns={"first": "text_a", "second": "text_b"},
)
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
        layouts=(glue, hub("mnli", **hub_parts)) if trained_on else (glue, hub("mnli", **hub_parts), _SAMPLE),
        submission=Submission(file, "name", rows),
        trained_on=trained_on,
    )


GLUE: tuple[Task, ...] = (
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
            _SAMPLE,
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
                {"test": ("sts-test.tsv", "original/sts-test.tsv")},
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
        layouts=(_GLUE, hub("qnli"), _SAMPLE),
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
        folders=("AX", "diagnostic", "GLUE-diagnostic", "ax", "glue/ax"),
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
