"""The published sizes and speed of Bort, set against the two shapes they could belong to.

"Optimal Subarchitecture Extraction For BERT" (arXiv 2010.10499) and the README of its released code give a handful of
sizes; the released weights have the shape 4-8-1024-768. This computes every figure for that shape and for the one with
H and I exchanged, 4-8-768-1024, under each rule of counting, from the closed forms of `numbers.architecture`, after
holding those against models built by `transformers` on the meta device, and marks which rules give the printed digits.

    python -m benchmarks.studies.reproduction --runtimes              # sizes alone: seconds
    python -m benchmarks.studies.reproduction                         # and speed: half an hour on two cores

prints Markdown tables and, as the last line, everything as one line of JSON; with speed it is written to
benchmarks/results/reproduction.json too, after every runtime. No download: models of these shapes with arbitrary
weights take as long as trained ones. Within a runtime all models are timed in turn; the runtimes come one after the
other, since five models in five runtimes at once would take 30 GB. Ratios are of models in the same runtime.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.runner import command_line, write
from rich import box
from rich.console import Console
from rich.table import Table

from subarch import Architecture, Inputs, ParameterCount
from subarch.latency.config import RUNTIMES, BenchConfig
from subarch.run.configuration import load

# RoBERTa's vocabulary; 512 positions (not RoBERTa's 514) and one token type
INPUTS = Inputs(vocabulary=50265, positions=512, token_types=1)
RELEASED, EXCHANGED = "4-8-1024-768", "4-8-768-1024"

# What sizes are compared with: BERT-large's 340 M as the paper rounds it, and its exact closed form
BERT_LARGE, BERT_LARGE_SHAPE, BERT_LARGE_INPUTS = 340e6, "24-16-1024-4096", Inputs(vocabulary=30522)

# What is timed: shape, inputs and family
MODELS = {
    "Bort": (RELEASED, INPUTS, "bert"),
    "Bort, H and I exchanged": (EXCHANGED, INPUTS, "bert"),
    "BERT-base": ("12-12-768-3072", BERT_LARGE_INPUTS, "bert"),
    "BERT-large": (BERT_LARGE_SHAPE, BERT_LARGE_INPUTS, "bert"),
    "RoBERTa-large": (BERT_LARGE_SHAPE, Inputs(50265, 514, 1), "roberta"),
}
PUBLISHED_SPEED = {"BERT-base": 7.9, "BERT-large": 20.0}
"""Times that Bort is said to be faster on a CPU; neither batch nor length nor runtime is said."""


@dataclass(frozen=True)
class Published:
    """A published figure: the digits as printed, the half-open interval they round, and where it is known from."""

    name: str
    value: str
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Row:
    """A published figure under one rule of counting, for both shapes; in millions or per cent."""

    figure: str
    published: str
    source: str
    rule: str
    released: float
    exchanged: float
    released_fits: bool
    exchanged_fits: bool


PUBLISHED = (
    Published("net size", "56 M", 55.5, 56.5, "README"),
    Published("embeddings", "39 M", 38.5, 39.5, "README"),
    Published("encoder share", "30.3 %", 30.25, 30.35, "README"),
    Published("effective size of BERT-large's", "5.5 %", 5.45, 5.55, "abstract"),
    Published("net size of BERT-large's", "16 %", 15.5, 16.5, "abstract"),
)


def rules(figure: str, shape: str) -> dict[str, float]:
    """A figure of one shape under every rule of counting, in millions or per cent.

    In a rule, E is the embeddings (three tables and their LayerNorm), L the encoder layers, P the pooler and M the
    masked-LM head, whose decoder is tied to E.
    """
    architecture = Architecture.parse(shape)
    count = architecture.parameters(INPUTS)
    large = Architecture.parse(BERT_LARGE_SHAPE).parameters(BERT_LARGE_INPUTS)
    heads = {
        "": 0,
        "+P": count.pooler,
        "+M": count.masked_lm_head,
        "+P+M": count.pooler + count.masked_lm_head,
    }
    match figure:
        case "net size":
            return {f"E+L{name}": (count.total + head) / 1e6 for name, head in heads.items()}
        case "embeddings":
            return {"token table alone": INPUTS.vocabulary * architecture.hidden / 1e6, "E": count.embeddings / 1e6}
        case "encoder share":
            # A head counted in the part is counted in the whole
            return {
                f"(L{part}) / (E+L{whole})": 100 * (count.encoder + heads[part]) / (count.total + head)
                for part in heads
                for whole, head in heads.items()
                if set(part.split("+")) <= set(whole.split("+"))
            }
        case "effective size of BERT-large's":
            references = {"its L": large.encoder, "(340 M - its E)": BERT_LARGE - large.embeddings}
            return {
                f"(L{name}) / {reference}": 100 * (count.encoder + head) / size
                for reference, size in references.items()
                for name, head in heads.items()
            }
        case "net size of BERT-large's":
            return {f"(E+L{name}) / 340 M": 100 * (count.total + head) / BERT_LARGE for name, head in heads.items()}
        case _:
            raise ValueError(f"no rule of counting for {figure!r}")


def rows() -> list[Row]:
    """Every published figure under every rule."""
    found = []
    for figure in PUBLISHED:
        released, exchanged = rules(figure.name, RELEASED), rules(figure.name, EXCHANGED)
        for rule in released:
            values = (released[rule], exchanged[rule])
            fits = (figure.low <= value < figure.high for value in values)
            found.append(Row(figure.name, figure.value, figure.source, rule, *values, *fits))
    return found


def built(architecture: Architecture, inputs: Inputs) -> ParameterCount:
    """The parameters of the model that `transformers` builds, by part (meta device: shapes without memory)."""
    import torch
    from transformers import BertForMaskedLM, BertModel

    with torch.device("meta"):
        config: Any = architecture.to_config(inputs)
        model: Any = BertModel(config)
        masked_lm = BertForMaskedLM(config)

    def size(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    embeddings, encoder = size(model.embeddings), size(model.encoder)
    # `parameters` yields the decoder, tied to the embeddings, once
    return ParameterCount(embeddings, encoder, 0, size(model.pooler), size(masked_lm) - embeddings - encoder)


def stock(folder: Path, shape: str, inputs: Inputs, family: str) -> None:
    """Write a stock folder of a shape, with arbitrary weights and a tokenizer that knows numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from subarch.latency.bench import write_shape

    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    words = [*special, *map(str, range(inputs.vocabulary - len(special)))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, words.index(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    write_shape(Architecture.parse(shape), inputs, folder, family)


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `bench` finds of the models in one runtime after the other."""
    from subarch.latency.bench import bench

    folders = {name: arguments.out / name for name in MODELS}
    for name, (shape, inputs, family) in MODELS.items():
        if not (folders[name] / "model.safetensors").is_file():
            model = ("1-2-16-24", Inputs(100), family) if arguments.tiny else (shape, inputs, family)
            stock(folders[name], *model)
    speed: dict[str, Any] = {"begun": datetime.now().astimezone().isoformat(timespec="seconds"), "runtimes": {}}
    for runtime in arguments.runtimes:
        options = {"runtime": [runtime], "length": arguments.lengths, "rounds": arguments.rounds}
        found = bench([str(folder) for folder in folders.values()], load(BenchConfig, None, options)).to_dict()
        speed |= {key: found[key] for key in ("threads", "versions", "machine")}
        kept = ("begun", "seconds", "load_average", "peak_gflops", "rows")
        speed["runtimes"][runtime] = {key: found[key] for key in kept} | {"ratios": ratios(found["rows"])}
        write(speed, arguments.results)
    return speed


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By length and reading of Bort: how many times as long each of the other models takes."""
    names = [name for name in MODELS if not name.startswith("Bort")]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for length in dict.fromkeys(row["lengths"][0] for row in rows):
        times = {row["subject"]: row["median_ms"] for row in rows if row["lengths"] == [length]}
        found[str(length)] = {
            bort: {name: times[name] / times[bort] for name in names} for bort in times if bort.startswith("Bort")
        }
    return found


def speed_table(speed: dict[str, Any]) -> Table:
    """Milliseconds of each model, and how many times as long as the released Bort it takes."""
    table = Table("runtime", "tokens", *MODELS, box=box.MARKDOWN)
    for runtime, found in speed["runtimes"].items():
        for length in found["ratios"]:
            rows = {row["subject"]: row for row in found["rows"] if row["lengths"] == [int(length)]}
            base = rows["Bort"]["median_ms"]
            cells = (f"{rows[name]['median_ms']:.1f} ({rows[name]['median_ms'] / base:.1f}x)" for name in MODELS)
            table.add_row(runtime, length, *cells)
    published = (f"{PUBLISHED_SPEED[name]:g}x" if name in PUBLISHED_SPEED else "" for name in MODELS)
    table.add_row("published", "", *published)
    return table


def main() -> None:
    parser = command_line(__doc__, "reproduction")
    parser.add_argument("--runtimes", nargs="*", choices=RUNTIMES, default=RUNTIMES, help="none: sizes alone")
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("runs/reproduction"), help="for the models, 4 GB")
    parser.add_argument("--tiny", action="store_true", help="stand-ins of one layer, to see that it runs")
    arguments = parser.parse_args()
    console = Console(width=120)
    shapes = {RELEASED: INPUTS, EXCHANGED: INPUTS, BERT_LARGE_SHAPE: BERT_LARGE_INPUTS}
    counts = {shape: Architecture.parse(shape).parameters(inputs) for shape, inputs in shapes.items()}
    for shape, inputs in shapes.items():
        model = built(Architecture.parse(shape), inputs)
        if model != counts[shape]:
            raise SystemExit(f"{shape}: the closed form {counts[shape]} differs from the built model {model}")
    console.print("The closed forms equal the built models, part by part.")
    console.print("E embeddings, L encoder layers, P pooler, M masked-LM head; millions, or per cent.")

    parts = Table("parameters", *counts, box=box.MARKDOWN)
    for part in ("embeddings", "encoder", "pooler", "masked_lm_head", "total", "with_heads"):
        parts.add_row(part.replace("_", " "), *(f"{getattr(count, part):,}" for count in counts.values()))
    console.print(parts)

    figures = rows()
    table = Table("figure", "published", "rule of counting", RELEASED, EXCHANGED, box=box.MARKDOWN)
    for row in figures:
        values = ((row.released, row.released_fits), (row.exchanged, row.exchanged_fits))
        cells = (f"{value:.3f}{' fits' if fits else ''}" for value, fits in values)
        table.add_row(row.figure, f"{row.published}, {row.source}", row.rule, *cells)
    console.print(table)
    speed = None
    if arguments.runtimes:
        speed = measured(arguments)
        console.print("Milliseconds of a forward pass at batch 1, and how many times as long as the released Bort.")
        console.print(speed_table(speed))
    # Not through rich, which would wrap the line
    print(json.dumps({"inputs": asdict(INPUTS), "rows": [asdict(row) for row in figures], "speed": speed}))


if __name__ == "__main__":
    main()
