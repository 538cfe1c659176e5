"""How much faster, and in how much less memory, does `subarch pretrain` train a masked language model than Trainer?

    python -m benchmarks.throughput

Two sides train the same weights on the same batches in fp32, with the same optimiser, clipping, schedule and number of
threads: `stock` is `transformers.Trainer` with `DataCollatorForLanguageModeling` and the model's own loss, `ours` the
trainer behind `subarch pretrain --loss-mlm 1`, which is handed what the same collator with the same seed made, and runs
under the deterministic algorithms that the command asks for. A batch is 64 sequences of 128 random tokens, no padding.

A third side, `ours-mkl`, is ours without `models.products`: it tells what is owed to doing less, and what to another
library for matrix products.

Each side is a process of its own. They take turns, a step each (A B C A B C), the others waiting: what else the machine
does hits all alike. A step is timed as a whole, from data to optimiser; the first of each side only warms up. Memory
is the most that a process had resident, libraries included (`ru_maxrss`). Dropout is the same on both sides: 0, as
`subarch pretrain` has it by default, is the headline; 0.1, as stock BERT has it, is measured too. Everything is
written to benchmarks/results/throughput.json. The last line is JSON: the ratios of the seconds of a step, stock over
ours, for both shapes, and of the memory on Bort's, ours over stock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.runner import command_line, console, show, write

from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.machine import machine, usable_cores, versions

SIDES = ("stock", "ours", "ours-mkl")
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
TOLERANCE = 1e-5
"""Between both sides' losses of the same batch, in nats."""


@dataclass(frozen=True)
class Case:
    """What both sides train; `steps` of each are timed."""

    name: str
    architecture: str
    vocabulary: int
    dropout: float
    steps: int
    sequences: int = 64
    length: int = 128
    sides: tuple[str, ...] = SIDES


CASES = (
    Case("bort", "4-8-1024-768", 50265, 0.0, 3),
    Case("small", "4-4-256-1024", 8192, 0.0, 6),
    Case("bort, dropout 0.1", "4-8-1024-768", 50265, 0.1, 2, sides=SIDES[:2]),
    Case("small, dropout 0.1", "4-4-256-1024", 8192, 0.1, 6, sides=SIDES[:2]),
)
TINY = (
    Case("bort", "2-2-32-48", 500, 0.0, 2, 8, 32),
    Case("small", "1-2-16-32", 100, 0.0, 2, 8, 32, SIDES[:2]),
)
"""To try the benchmark itself; their figures mean nothing."""


def work(case: Case, side: str) -> None:
    """Train one side in this process: a step for each line read, a line of JSON for each step."""
    import numpy as np
    import torch
    from tokenizers import Tokenizer, models
    from torch.utils.data import DataLoader, IterableDataset
    from transformers import (
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )
    from transformers.trainer_callback import PrinterCallback

    import subarch.models.products
    from subarch.learning.distill import WHOLE, Distiller
    from subarch.models.student import Blueprint, Student
    from subarch.pretraining.trainer import PretrainTrainer, Progress

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # what else is printed is no answer

    class Turns(TrainerCallback):
        """Waits for the parent before each step, and tells it of the step before: the whole way round the loop."""

        def __init__(self) -> None:
            self.began: tuple[float, float] | None = None
            self.loss = 0.0

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            self.loss = (logs or {}).get("loss", self.loss)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.tell()
            sys.stdin.readline()
            self.began = time.perf_counter(), time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.tell()

        def tell(self) -> None:
            if self.began is None:
                return
            seconds, processor = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
            found = {"seconds": seconds, "processor": processor, "loss": self.loss, "memory": peak_memory()}
            print(json.dumps(found), file=answers, flush=True)

    class SameBatches(IterableDataset[dict[str, Any]]):
        """What stock is given, as `Distiller` takes it."""

        def __iter__(self) -> Iterator[dict[str, Any]]:
            for batch in DataLoader(examples, case.sequences, collate_fn=collator):  # type: ignore[arg-type]
                labels = batch["labels"].flatten()
                where = (labels != -100).nonzero().flatten()
                ids, size = batch["input_ids"], batch["input_ids"].numel()
                part = {"ids": ids, "mask": batch["attention_mask"], "where": where, "labels": labels[where]}
                yield part | {"shares": WHOLE, "position": {}, "sizes": (size, size)}

    torch.set_num_threads(usable_cores())
    words = [*SPECIAL.values(), *(f"w{number}" for number in range(case.vocabulary - len(SPECIAL)))]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, SPECIAL["unk_token"]))
    collator = DataCollatorForLanguageModeling(PreTrainedTokenizerFast(tokenizer_object=inner, **SPECIAL), seed=0)
    draw = np.random.default_rng(0)
    count = (case.steps + 1) * case.sequences
    tokens = draw.integers(len(SPECIAL), case.vocabulary, (count, case.length))
    examples = [{"input_ids": row} for row in tokens.tolist()]
    set_seed(0)
    student = Student(
        Architecture.parse(case.architecture),
        Blueprint(
            "bert",
            Inputs(case.vocabulary, case.length),
            masked_lm=True,
            settings={"hidden_dropout_prob": case.dropout, "attention_probs_dropout_prob": case.dropout},
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=case.steps + 1,
            per_device_train_batch_size=case.sequences,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer: Trainer
        if side == "stock":
            trainer = Trainer(student.model, arguments, collator, examples)
            trainer.remove_callback(PrinterCallback)
        else:
            torch.use_deterministic_algorithms(True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            subarch.models.products.AVAILABLE = subarch.models.products.AVAILABLE and side == "ours"
            distiller = Distiller(student, {"mlm": 1.0})
            progress = Progress(case.architecture)
            batches: Any = SameBatches()
            trainer = PretrainTrainer(distiller, arguments, batches, [], None, progress, lambda *_: None)
        trainer.add_callback(Turns())
        trainer.train()


def peak_memory() -> int:
    """Bytes; the system counts them in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare(case: Case) -> dict[str, Any]:
    """All sides in turns.

    Raises:
        SystemExit: a side died, or without dropout their losses of the same batch with the same weights differ.
    """
    steps: dict[str, list[dict[str, float]]] = {side: [] for side in case.sides}
    command = [sys.executable, "-m", "benchmarks.throughput", "--work", json.dumps(asdict(case))]
    with ExitStack() as stack:
        workers = {}
        for side in case.sides:
            worker = subprocess.Popen([*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            workers[side] = stack.enter_context(worker)
            stack.callback(worker.terminate)
        for _ in range(case.steps + 1):
            for side, worker in workers.items():
                print("go", file=worker.stdin, flush=True)
                assert worker.stdout is not None
                if not (answer := worker.stdout.readline()):
                    raise SystemExit(f"{case.name}: {side} died; what it wrote above tells why")
                steps[side].append(json.loads(answer))
    first = [steps[side][0]["loss"] for side in case.sides]
    if case.dropout == 0 and max(first) - min(first) > TOLERANCE:
        raise SystemExit(f"{case.name}: the losses of the same batch are {first}, which cannot be")
    return {
        "case": asdict(case),
        "speed": {side: ratio(steps, side, "seconds") for side in case.sides[1:]},
        "speed_by_processor_time": {side: ratio(steps, side, "processor") for side in case.sides[1:]},
        "memory": {side: steps[side][-1]["memory"] / steps["stock"][-1]["memory"] for side in case.sides[1:]},
        "first_losses": first,
        "steps": steps,
    }


def ratio(steps: dict[str, list[dict[str, float]]], side: str, kind: str) -> dict[str, float]:
    """Stock over a side, step by step, behind the first: the median of the ratios, the least and the greatest."""
    ratios = [stock[kind] / own[kind] for stock, own in zip(steps["stock"][1:], steps[side][1:], strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}


def main() -> None:
    parser = command_line(__doc__, "throughput")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the benchmark itself")
    parser.add_argument("--work", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(Case(**json.loads(arguments.work[0])), arguments.work[1])
        return
    rows = []
    found = {}
    for case in TINY if arguments.tiny else CASES:
        with console.status(f"{case.name}: {case.steps + 1} steps of each side"):
            one = found[case.name] = compare(case)
        for side, steps in one["steps"].items():
            seconds = statistics.median(step["seconds"] for step in steps[1:])
            row = [f"{seconds:.2f}", f"{steps[-1]['memory'] / 1e9:.2f}"]
            if side != "stock":
                row += [f"{value:.2f}" for value in (*one["speed"][side].values(), one["memory"][side])]
            rows.append([f"{case.name}, {side}", *row, *[""] * (6 - len(row))])
    columns = ["case, side", "s", "GB", "faster", "least", "greatest", "memory"]
    show("median seconds of a step, most memory", columns, rows)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "threads": usable_cores(),
        "cases": found,
    }
    write(record, arguments.results)
    ratios = {name: found[name]["speed"]["ours"]["median"] for name in ("bort", "small")}
    ratios["memory"] = found["bort"]["memory"]["ours"]
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
