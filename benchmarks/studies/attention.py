"""A training step of a small encoder with torch's fused attention and with that of `models.products`.

    python -m benchmarks.studies.attention           # a minute on one core; benchmarks/results/attention.json

Encoder 3-12-384-512 with 30,522 tokens, batches of 2,048 random tokens, forward and backward pass, no optimiser; sides
in turn, processor time of one thread. The last line is JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from contextlib import nullcontext
from typing import Any

import torch
from benchmarks.runner import Results, command_line, show
from transformers import BertConfig, BertModel

from subarch.models import products

LENGTHS = (16, 32, 64, 128, 192, 256, 512)
TOKENS, ROUNDS = 2048, 15
SIDES = ("fp32", "bf16 fused", "bf16 unfused")


def main() -> None:
    parser = command_line(__doc__, "attention")
    results = Results(parser.parse_args().results)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "num_hidden_layers": 3,
        "num_attention_heads": 12,
        "hidden_size": 384,
        "intermediate_size": 512,
    }
    dropout: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertModel(BertConfig(vocab_size=30_522, **shape, **dropout), add_pooling_layer=False)
    products.SHORT = LENGTHS[-1]  # unfused at all lengths: where it stops to be faster is the question
    for length in LENGTHS:
        results.keep("seconds", str(length), make=lambda: measured(model, length))  # noqa: B023
    rows = [
        [length, *(f"{statistics.median(times):.3f}" for times in sides.values()), spread(ratios(sides))]
        for length, sides in results["seconds"].items()
    ]
    show("seconds of a step", ["tokens a text", *SIDES, "fused / unfused"], rows)
    print(json.dumps(results))


def measured(model: BertModel, length: int) -> dict[str, list[float]]:
    """Processor seconds of steps of each side, in turn, after one that warms up."""
    ids = torch.randint(1000, 30_522, (TOKENS // length, length))
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(ROUNDS + 1):
        for side in SIDES:
            seconds = step(model, ids, side)
            if number:
                times[side].append(seconds)
    return times


def step(model: BertModel, ids: torch.Tensor, side: str) -> float:
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    start = time.process_time()
    inner: Any = products.products() if side != "bf16 fused" else nullcontext()
    with torch.autocast("cpu", torch.bfloat16, enabled=side != "fp32"), inner:
        loss = model(input_ids=ids, attention_mask=mask).last_hidden_state.float().square().mean()
    loss.backward()
    seconds = time.process_time() - start
    model.zero_grad()
    return seconds


def ratios(sides: dict[str, list[float]]) -> list[float]:
    return [fused / unfused for fused, unfused in zip(sides[SIDES[1]], sides[SIDES[2]], strict=True)]


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


if __name__ == "__main__":
    main()
