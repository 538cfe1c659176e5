"""What a task is, and every public one by name.

Everything that differs between tasks is data: where the files may lie, what columns mean, how predictions are scored
and submitted. The code that reads, scores and submits is the same for all. A new public task is one more entry here.

GLUE (arXiv 1804.07461), SuperGLUE (1905.00537), RACE (1704.04683) and DREAM (1902.00164). Layouts are those of the
benchmark's download and of the hub; other files are read as the user's own data (`division.own_task`). The tags of
`ner` are those of whatever data it is given. Label order and
column names are the hub's; metrics, file names, spellings and row counts those of the benchmarks' servers, which RACE
and DREAM do not have. MNLI is two tasks because it is scored and submitted as two.

    >>> task_named("sst2").metrics
    ('accuracy',)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from subarch.errors import InvalidTask
from subarch.text.formats import COMPRESSIONS

Kind = Literal["classification", "pair", "regression", "choice", "span", "cloze", "multi-sentence", "tagging"]
Cast = Literal["texts", "choice", "wic", "wsc", "record", "multirc", "tags"]
Head = Literal["classification", "regression", "choice", "tagging"]
Spelling = Literal["number", "name", "lower", "score", "answers", "text"]
Columns = Mapping[str, str | tuple[str, ...]]

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which the data of a task is distributed.

    Attributes:
        name: for messages, and to ask for it.
        files: part (train, validation, test, ...) -> glob patterns below the folder; the first with a match is used.
        columns: meaning -> column, where it differs from the task's own.
        header: the columns of files that have no header line.
        form: the format, where neither the ending nor the content tell it (`text.formats`).
        unfold: how nested records become flat rows (`reader.unfolded`).
        ragged: `longer`: fields after the last column are dropped; `shorter`: incomplete rows are skipped.
        unlabelled: the label of rows without one (the hub writes -1).
        rows: part -> first and last row (exclusive) of the file that belong to this part.
        shares: part -> range of the groups' hashes in [0, 1), for data without official parts.
        listed: names of a file that lists the validation rows; all other rows are training rows.
        config: the name of the configuration on the hub.
        parts: our name of a part -> its name on the hub.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    columns: Columns = field(default_factory=dict)
    header: tuple[str, ...] = ()
    form: Literal["", "tsv", "xml", "conll"] = ""
    unfold: str = ""
    ragged: Literal["", "longer", "shorter"] = ""
    unlabelled: float | None = None
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shares: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    config: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """The file a benchmark's server expects: its name, how labels are spelt, and the rows of the official test set.

    `score`: a number cut to 0..5 with three decimals (STS-B); `answers`: nested by passage and question (MultiRC);
    `text`: the text of the choice (ReCoRD).
    """

    file: str
    spelling: Spelling
    rows: int


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `columns` maps a meaning (id, group, label, first, second, context, question, choices) to a column.

    Attributes:
        labels: names in official order, a label is a position in it; empty for regression and free choices, and for
            tags that are found in the training part.
        metrics: official, the primary one first (`metrics.METRICS`).
        folders: where it lies below a folder of many tasks, in order of preference.
        trained_on: the task whose model predicts this one, if this one has no training part.
        until: the group is its column's text up to this separator (BoolQ: the title before " -- ").
        part: keep only rows whose group starts with this (RACE).
        wording: question in the data -> question in the model's input.
        numbered: text files hold labels as positions ("0", "1"); otherwise they hold names, and "0" is an error.
    """

    name: str
    benchmark: Literal["glue", "superglue", "race", "dream", "own"]
    kind: Kind
    cast: Cast
    columns: Columns
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    layouts: tuple[Layout, ...]
    folders: tuple[str, ...] = ()
    submission: Submission | None = None
    trained_on: str = ""
    until: str = ""
    part: str = ""
    wording: Mapping[str, str] = field(default_factory=dict)
    numbered: bool = False

    @property
    def head(self) -> Head:
        """The stock head: sequence classification, the same with one output, multiple choice, token classification."""
        if self.kind == "tagging":
            return "tagging"
        if self.kind in ("choice", "cloze"):
            return "choice"
        return "regression" if self.kind == "regression" else "classification"

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part that some layout has: train, validation, test, then others."""
        found = dict.fromkeys(part for layout in self.layouts for part in layout.files)
        return (*(part for part in PARTS if part in found), *(part for part in found if part not in PARTS))


def hub(config: str, **parts: str) -> Layout:
    """The hub's layout, a folder of Parquet per configuration; `parts`: our name of a part = the hub's name."""
    names = parts or dict(zip(PARTS, PARTS, strict=True))
    files = {ours: (f"{name}-*.parquet", f"{name}/*.parquet", f"{name}.parquet") for ours, name in names.items()}
    return Layout("hub", files, unlabelled=-1, config=config, parts=names)


def _columns(*texts: str, **others: str | tuple[str, ...]) -> Columns:
    """Columns of one or two texts, of the label and the id as the hub names them, and of others."""
    return dict(zip(("first", "second"), texts, strict=False)) | {"label": "label", "id": "idx"} | others


ENTAILS = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")
NO_YES = ("False", "True")

# GLUE

_PAIR = _columns("sentence1", "sentence2")
_QUESTIONS = _columns("question1", "question2")
_PREMISE = _columns("premise", "hypothesis")
_TSV = {"train": ("train.tsv",), "validation": ("dev.tsv",), "test": ("test.tsv",)}
_INDEX = {"id": "index"}
_WITH_INDEX = Layout("glue", _TSV, columns=_INDEX)
_MSR = {"first": "#1 String", "second": "#2 String", "label": "Quality", "id": "index"}
_MSR_TRAIN = dict.fromkeys(("train", "validation"), ("msr_paraphrase_train.txt",))
_STS = ("genre", "filename", "year", "old_index", "score", "sentence1", "sentence2")
_STS_TEST = {"test": ("original/sts-test.tsv", "sts-test.tsv")}

# training and validation rows without a header, test rows with one
_COLA = (
    Layout("glue", {part: _TSV[part] for part in PARTS[:2]}, header=("source", "label", "mark", "sentence")),
    Layout("glue", {"test": ("test.tsv",)}, columns=_INDEX),
)
# the original test rows are labelled, those of GLUE, in the same order, are not
_MRPC = (
    Layout("msr", {"test": ("msr_paraphrase_test.txt",)}, columns=_MSR, form="tsv"),
    Layout("glue", _TSV, columns=_MSR),
    Layout("msr", _MSR_TRAIN, columns=_MSR, form="tsv", listed=("dev_ids.tsv", "mrpc_dev_ids.tsv")),
)
# some official rows are cut off; the hub leaves them out too
_QQP = Layout("glue", _TSV, columns={"label": "is_duplicate"}, ragged="shorter")
# the original test rows are labelled, and end in licences of the sources
_STSB = (
    Layout("sts", _STS_TEST, columns={"label": "score"}, header=_STS, ragged="longer"),
    Layout("glue", _TSV, columns={"label": "score"} | _INDEX),
)
_DIAGNOSTIC = Layout(
    "glue", {"test": ("diagnostic.tsv", "AX.tsv")}, columns={"first": "sentence1", "second": "sentence2"} | _INDEX
)


def _glue(
    folder: str,
    columns: Columns,
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    spelling: Spelling,
    rows: int,
    *layouts: Layout,
) -> Task:
    """A task of GLUE. Its folder also names its submission file, and its name is the hub's configuration."""
    name = folder.lower().replace("-", "")
    kind: Kind = "pair" if "second" in columns else "classification"
    return Task(
        name=name,
        benchmark="glue",
        kind=kind if labels else "regression",
        cast="texts",
        columns=columns,
        labels=labels,
        metrics=metrics,
        layouts=(*layouts, hub(name)),
        folders=(folder, name, f"glue/{name}"),
        submission=Submission(f"{folder}.tsv", spelling, rows),
        numbered=spelling == "number",
    )


def _mnli(name: str, part: str, file: str, rows: int, trained_on: str) -> Task:
    evaluated = {"validation": (f"dev_{part}.tsv",), "test": (f"test_{part}.tsv",)}
    hub_parts = {"validation": f"validation_{part}", "test": f"test_{part}"}
    if not trained_on:
        evaluated, hub_parts = {"train": ("train.tsv",), **evaluated}, {"train": "train", **hub_parts}
    columns = {"first": "sentence1", "second": "sentence2", "label": "gold_label"} | _INDEX
    return replace(
        _glue("MNLI", _PREMISE, NLI, ("accuracy",), "name", rows),
        name=name,
        layouts=(Layout("glue", evaluated, columns=columns), hub("mnli", **hub_parts)),
        submission=Submission(file, "name", rows),
        trained_on=trained_on,
    )


_GLUE_TASKS = (
    _glue("CoLA", _columns("sentence"), ("unacceptable", "acceptable"), ("mcc",), "number", 1063, *_COLA),
    _glue("SST-2", _columns("sentence"), ("negative", "positive"), ("accuracy",), "number", 1821, _WITH_INDEX),
    _glue("MRPC", _PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy"), "number", 1725, *_MRPC),
    _glue("QQP", _QUESTIONS, ("not_duplicate", "duplicate"), ("f1", "accuracy"), "number", 390_965, _QQP),
    _glue("STS-B", _PAIR, (), ("pearson", "spearman"), "score", 1379, *_STSB),
    _mnli("mnli", "matched", "MNLI-m.tsv", 9796, ""),
    _mnli("mnli-mm", "mismatched", "MNLI-mm.tsv", 9847, "mnli"),
    _glue("QNLI", _columns("question", "sentence"), ENTAILS, ("accuracy",), "name", 5463, _WITH_INDEX),
    _glue("RTE", _PAIR, ENTAILS, ("accuracy",), "name", 3000, _WITH_INDEX),
    _glue("WNLI", _PAIR, ENTAILS[::-1], ("accuracy",), "number", 146, _WITH_INDEX),
    replace(
        _glue("AX", _PREMISE, NLI, ("mcc",), "name", 1104),
        layouts=(_DIAGNOSTIC, hub("ax", test="test")),
        folders=("AX", "diagnostic", "ax", "glue/ax"),
        trained_on="mnli",
    ),
)

# SuperGLUE

_JSONL = {"train": ("train.jsonl",), "validation": ("val.jsonl",), "test": ("test.jsonl",)}


def _superglue(
    folder: str,
    kind: Kind,
    cast: Cast,
    columns: Columns,
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    spelling: Spelling,
    rows: int,
    unfold: str = "",
) -> Task:
    """A task of SuperGLUE. Its folder also names its submission file, and its name is the hub's configuration."""
    name = folder.lower()
    return Task(
        name=name,
        benchmark="superglue",
        kind=kind,
        cast=cast,
        columns=columns,
        labels=labels,
        metrics=metrics,
        layouts=(Layout("superglue", _JSONL, unfold=unfold), hub(name)),
        folders=(folder, name, f"super_glue/{name}"),
        submission=Submission(f"{folder}.jsonl", spelling, rows),
    )


def _diagnostic(name: str, columns: Columns, metrics: tuple[str, ...], rows: int) -> Task:
    """A test set that is predicted by the model of RTE."""
    short = name.lower().replace("-", "")
    return replace(
        _superglue(name, "pair", "texts", columns, ENTAILS, metrics, "name", rows),
        layouts=(Layout("superglue", {"test": (f"{name}.jsonl",)}), hub(short, test="test")),
        folders=(name, short, f"super_glue/{short}"),
        trained_on="superglue-rte",
    )


_BOOLQ = _columns("question", "passage", group="passage")
_CB = ("entailment", "contradiction", "neutral")
_COPA: Columns = {
    "context": "premise",
    "question": "question",
    "choices": ("choice1", "choice2"),
    "label": "label",
    "id": "idx",
}
# its authors' download: SuperGLUE's training and validation rows are the first 400 and last 100 of dev
_COPA_XML = Layout(
    "xml",
    {"train": ("copa-dev.xml",), "validation": ("copa-dev.xml",), "test": ("copa-test.xml",)},
    form="xml",
    unfold="copa",
    rows={"train": (0, 400), "validation": (400, 500)},
)
_MULTIRC = {"first": "paragraph", "question": "question", "answer": "answer", "label": "label", "id": "idx"}
_RECORD = {"context": "passage", "question": "query", "choices": "entities", "golds": "answers", "id": "idx"}
_WIC = _columns("sentence1", "sentence2", group="word")

_boolq = _superglue("BoolQ", "pair", "texts", _BOOLQ, NO_YES, ("accuracy",), "lower", 3245)
_copa = _superglue("COPA", "choice", "choice", _COPA, ("choice1", "choice2"), ("accuracy",), "number", 500)
_rte = _superglue("RTE", "pair", "texts", _PREMISE, ENTAILS, ("accuracy",), "name", 3000)
_wsc = _superglue("WSC", "span", "wsc", _columns("text"), NO_YES, ("accuracy",), "name", 146, unfold="wsc")
_SUPERGLUE_TASKS = (
    replace(_boolq, until=" -- "),  # passages begin with the title of their article
    _superglue("CB", "pair", "texts", _PREMISE, _CB, ("macro_f1", "accuracy"), "name", 250),
    replace(
        _copa,
        layouts=(*_copa.layouts, _COPA_XML),
        wording={"cause": "What was the cause of this?", "effect": "What happened as a result?"},
    ),
    _superglue("MultiRC", "multi-sentence", "multirc", _MULTIRC, NO_YES, ("f1a", "em"), "answers", 9693, "multirc"),
    _superglue("ReCoRD", "cloze", "record", _RECORD, (), ("f1", "em"), "text", 10_000, "record"),
    replace(_rte, name="superglue-rte"),
    _superglue("WiC", "span", "wic", _WIC, NO_YES, ("accuracy",), "lower", 1400),
    replace(_wsc, folders=(*_wsc.folders, "wsc.fixed", "super_glue/wsc.fixed")),
    _diagnostic("AX-b", _PAIR, ("mcc",), 1104),
    _diagnostic("AX-g", _PREMISE, ("gender_parity", "accuracy"), 356),
)

# Reading comprehension with choices, from English examinations

_OFFICIAL = {"train": "train", "validation": "dev", "test": "test"}


def _exam(**columns: str) -> Columns:
    return {"question": "question", "label": "answer"} | columns


def _race(part: str) -> Task:
    config = part or "all"
    inside = {ours: (f"{theirs}/{part or '*'}/*.txt",) for ours, theirs in _OFFICIAL.items()}
    return Task(
        name=f"race-{part}" if part else "race",
        benchmark="race",
        kind="choice",
        cast="choice",
        columns=_exam(context="article", choices="options", group="example_id"),
        labels=("A", "B", "C", "D"),
        metrics=("accuracy",) if part else ("accuracy", "accuracy_middle", "accuracy_high"),
        folders=("RACE", f"race/{config}", config),
        layouts=(Layout("race", inside, unfold="race"), hub(config)),
        part=part,
    )


_DREAM = Task(
    name="dream",
    benchmark="dream",
    kind="choice",
    cast="choice",
    columns=_exam(context="dialogue", choices="choice", group="dialogue_id"),
    labels=(),
    metrics=("accuracy",),
    folders=("DREAM", "dream", "dream/plain_text", "plain_text"),
    layouts=(
        Layout("dream", {ours: (f"{theirs}.json",) for ours, theirs in _OFFICIAL.items()}, unfold="dream"),
        hub("plain_text"),
    ),
)

_EXAM_TASKS = (_race(""), _race("middle"), _race("high"), _DREAM)

# Tagging

RECORDS = (
    *(f"{end}{packed}" for end in (".csv", ".tsv", ".jsonl", ".ndjson", ".json") for packed in ("", *COMPRESSIONS)),
    ".parquet",
)
COLUMNS = tuple(
    f"{end}{packed}" for end in (".conll", ".bio", ".iob", ".iob2", ".txt", ".tsv") for packed in ("", *COMPRESSIONS)
)
ONLY_RECORDS = tuple(ending for ending in RECORDS if ending not in COLUMNS)
"""Endings of files of one's own: of records; of a word a line, where words are tagged; of records, there."""

_NAMES = {"train": ("train",), "validation": ("validation", "dev", "val", "valid"), "test": ("test",)}


def own_files(endings: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Part -> patterns of files of one's own: train.*, dev.*, test.* and the like, of each also several (train-*)."""
    return {
        part: tuple(f"{name}{more}{ending}" for name in names for ending in endings for more in ("", "-*"))
        for part, names in _NAMES.items()
    }


SPANS = ("span_f1", "span_precision", "span_recall")
_TOKENS = {"first": "tokens", "label": "tags", "id": "id"}
_WNUT = {"train": "wnut17train.conll", "validation": "emerging.dev.conll", "test": "emerging.test.annotated"}
_CONLL = {"train": "eng.train", "validation": "eng.testa", "test": "eng.testb"}
_NER = Task(
    name="ner",
    benchmark="own",
    kind="tagging",
    cast="tags",
    columns=_TOKENS,
    labels=(),
    metrics=SPANS,
    folders=("WNUT-17", "CoNLL-2003", "conll2003"),
    layouts=(
        *(
            Layout(name, {part: (file,) for part, file in files.items()}, form="conll")
            for name, files in (("wnut17", _WNUT), ("conll2003", _CONLL))
        ),
        Layout("columns", own_files(COLUMNS), form="conll"),
        Layout("records", own_files(ONLY_RECORDS)),
        Layout("hub", {}, columns={"label": "ner_tags"}, parts=dict(zip(PARTS, PARTS, strict=True))),
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in (*_GLUE_TASKS, *_SUPERGLUE_TASKS, *_EXAM_TASKS, _NER)}


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
