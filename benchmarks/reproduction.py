"""The published sizes of Bort, set against the two shapes they could belong to.

"Optimal Subarchitecture Extraction For BERT" (arXiv 2010.10499) and the README of its released code give a handful of
sizes; the released weights have the shape 4-8-1024-768. This computes every figure for that shape and for the one with
H and I exchanged, 4-8-768-1024, under each rule of counting, from the closed forms of `subarch.architecture`, after
holding those against models built by `transformers` on the meta device, and marks which rules give the printed digits.

    python benchmarks/reproduction.py

prints two Markdown tables and, as the last line, everything as one line of JSON. Seconds, no download.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from subarch import Architecture, Inputs, ParameterCount

# RoBERTa's vocabulary; 512 positions (not RoBERTa's 514) and one token type
INPUTS = Inputs(vocabulary=50265, positions=512, token_types=1)
RELEASED, EXCHANGED = "4-8-1024-768", "4-8-768-1024"

# What sizes are compared with: BERT-large's 340 M as the paper rounds it, and its exact closed form
BERT_LARGE, BERT_LARGE_SHAPE, BERT_LARGE_INPUTS = 340e6, "24-16-1024-4096", Inputs(vocabulary=30522)


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


def main() -> None:
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
    # Not through rich, which would wrap the line
    print(json.dumps({"inputs": asdict(INPUTS), "rows": [asdict(row) for row in figures]}))


if __name__ == "__main__":
    main()
