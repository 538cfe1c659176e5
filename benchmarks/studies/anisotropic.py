"""Which training loss do teachers need whose vectors all point the same way? STS-B judges students trained with each.

    python -m benchmarks.studies.anisotropic --e5 FOLDER --corpus TEXTS

FOLDER is multilingual-e5-small (../shared/data/README.md), a constant vector of which has a cosine of 0.88 to its own;
TEXTS are what `benchmarks.teachers` wrote. A student of one shape that starts from all-MiniLM-L6-v2 learns from it, and
for comparison from all-MiniLM-L6-v2 itself, for equal steps with each of the losses below. `relations`, a default where
teacher and start are the same, compares token by token and is not defined for others. Each training has two seeds;
results are written to benchmarks/results/anisotropic.json after each. The last line is JSON.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.runner import Results, command_line, console, show
from benchmarks.sts import sts_b
from torch import Tensor
from torch.nn.functional import kl_div, normalize

from subarch.demo.demo import teacher_folder
from subarch.extraction.config import ExtractConfig
from subarch.extraction.estimate import estimate
from subarch.extraction.trial import Settings
from subarch.extraction.workbench import Workbench
from subarch.learning.distill import embedding_distance
from subarch.learning.signals import EmbeddingSignal, text_embedder
from subarch.models.teacher import assemble
from subarch.numbers.architecture import Architecture
from subarch.run.configuration import load

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of (n, K) vectors of the student and of the teacher, and the mean (K,) of the teacher's directions."""


def plain(own: Tensor, theirs: Tensor, _: Tensor) -> Tensor:
    """The cosine distance, as training has it."""
    return embedding_distance(own, theirs)


def centred(own: Tensor, theirs: Tensor, mean: Tensor) -> Tensor:
    """The cosine distance of what is left of the directions without the teacher's mean."""
    return embedding_distance(normalize(own, dim=1) - mean, normalize(theirs, dim=1) - mean)


def both(own: Tensor, theirs: Tensor, mean: Tensor) -> Tensor:
    return plain(own, theirs, mean) + centred(own, theirs, mean)


def similarities(own: Tensor, theirs: Tensor, mean: Tensor) -> Tensor:
    """The plain distance, and KL(teacher | student) of the softmax of cosines to the other texts of the batch.

    The temperature is the spread of the teacher's cosines, so that it means the same for every teacher.
    """
    others = ~torch.eye(len(own), dtype=torch.bool)
    wanted, given = ((v @ v.T)[others].view(len(own), -1) for v in (normalize(theirs, dim=1), normalize(own, dim=1)))
    soft, target = ((cosines / wanted.std()).log_softmax(1) for cosines in (given, wanted))
    return plain(own, theirs, mean) + kl_div(soft, target, log_target=True, reduction="batchmean")


LOSSES: dict[str, Loss] = {"plain": plain, "centred": centred, "both": both, "plain + similarities": similarities}


class WithLoss:
    """The signal of a search whose loss is another one."""

    def __init__(self, signal: EmbeddingSignal, loss: Loss) -> None:
        self.signal, self.of = signal, loss
        self.lengths, self.error = signal.lengths, signal.error
        self.mean = normalize(signal.targets.float(), dim=1).mean(0)

    def loss(self, student: Any, rows: Any, epoch: int) -> Tensor:
        signal = self.signal
        batch = assemble([signal.train[row] for row in rows], signal.reader.tokenizer, signal.reader.recipe)
        return self.of(student(batch.ids, batch.mask), signal.targets[torch.from_numpy(rows)].float(), self.mean)


def main() -> None:
    parser = command_line(__doc__, "anisotropic")
    parser.add_argument("--e5", type=Path, required=True)
    parser.add_argument("--corpus", nargs="+", default=["runs/teachers/texts.parquet"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/anisotropic"))
    parser.add_argument("--architecture", type=Architecture.parse, default="4-12-384-512")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(arguments.results)
    results.about(architecture=str(arguments.architecture), steps=arguments.steps)
    start = str(teacher_folder())
    teachers = {"multilingual-e5-small": {"teacher": str(arguments.e5), "start_from": start}}
    teachers["all-MiniLM-L6-v2"] = {"teacher": start}

    for name, own in teachers.items():
        config = load(
            ExtractConfig,
            None,
            {"corpus": arguments.corpus, "max_length": 64, "steps": arguments.steps} | own,
        )
        run = arguments.out / name
        run.mkdir(parents=True, exist_ok=True)
        bench = Workbench.open(config, run)
        signal = bench.signal
        assert isinstance(signal, EmbeddingSignal)

        def trained(name: str, bench: Workbench, signal: EmbeddingSignal, loss: str, seed: int) -> dict[str, float]:
            student = bench.student(arguments.architecture, seed)
            error = estimate(
                student, WithLoss(signal, LOSSES[loss]), Settings(arguments.steps, 1e-3, 64, seed), shares=(1.0,)
            ).error
            embed = text_embedder(student, signal.reader)
            score = sts_b(arguments.data / "tasks" / "STS-B" / "dev.tsv").scores(embed)["spearman"]
            console.print(f"{name}, {loss}, seed {seed}: error {error:.4f}, STS-B dev {score:.4f}")
            return {"error": error, "sts_dev": score}

        results.keep("constant_distance", name, make=partial(float, signal.constant))
        for seed in range(arguments.seeds):
            for loss in LOSSES:
                results.keep("runs", name, loss, str(seed), make=partial(trained, name, bench, signal, loss, seed))

    rows = []
    for name, by_loss in results["runs"].items():
        for loss, by_seed in by_loss.items():
            cells = [[found[key] for found in by_seed.values()] for key in ("error", "sts_dev")]
            rows.append([name, loss, *(f"{statistics.mean(c):.4f} ({min(c):.4f} - {max(c):.4f})" for c in cells)])
    title = f"{arguments.architecture}, {arguments.steps} steps, {arguments.seeds} seeds"
    show(title, ["teacher", "loss", "error", "STS-B dev"], rows)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
