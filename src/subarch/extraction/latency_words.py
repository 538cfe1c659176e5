"""What selection.json says of how its latencies came about: the runtime, what was measured, what was predicted.

>>> measurement(latencies)["sentence"]
'Latency is that of a forward pass of batch 1 at 32 tokens in onnx-int8 on 2 threads; 61 of 436 candidates were ...'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DRIFT = 0.15
"""A change of the machine's speed between measurements that is told of; it was corrected for."""


def digest(milliseconds: Mapping[str, float]) -> str:
    """SHA-256 of latencies by candidate, by which a selection names the figures that it was made from."""
    return hashlib.sha256(json.dumps(milliseconds, sort_keys=True).encode()).hexdigest()


def measurement(latencies: dict[str, Any]) -> dict[str, Any]:
    """Of latency.json: conditions, counts, the model's errors, all of it in a sentence, and warnings."""
    settings, model, candidates = latencies["settings"], latencies.get("model"), latencies["candidates"].values()
    figures = {name: float(entry["median_ms"]) for name, entry in latencies["candidates"].items()}
    predicted = sum("predicted" in entry for entry in candidates)
    drift = max((abs(entry.get("drift", 1.0) - 1) for entry in candidates), default=0.0)
    length, threads = settings["length"], settings["threads"]
    at = f"at {length} tokens"
    if isinstance(length, list):
        at = f"at the lengths of the corpus (the mean over {', '.join(map(str, length))} tokens)"
    sentence = (
        f"Latency is that of a forward pass of batch {settings['batch']} {at} in {settings['runtime']} on {threads} "
        f"thread{'s' * (threads != 1)}; "
    )
    warnings = []
    if model is None or not predicted:
        sentence += f"all {len(candidates)} candidates were measured."
    else:
        sentence += (
            f"{len(candidates) - predicted} of {len(candidates)} candidates were measured, all that were trained and "
            "all near the limit among them; the others were predicted, by a model that is "
            f"{100 * model['median_error']:.1f} % off in the median and {100 * model['p90_error']:.1f} % at the 90th "
            f"percentile (each of {model['measured']} measured candidates left out in turn)."
        )
        if model["left_near_limit"]:
            warnings.append(
                f"{model['left_near_limit']} candidates that may or may not meet the limit on latency were too many to "
                "measure; whether they were trained rests on predictions."
            )
    if drift > DRIFT:
        warnings.append(
            f"The speed of this machine differed by up to {100 * drift:.0f} % between measurements. It was corrected "
            "for by candidates that were measured each time, but quiet measurements are better: --remeasure."
        )
    return {
        **settings,
        "measured": len(candidates) - predicted,
        "predicted": predicted,
        "sha256": digest(figures),
        "model": {key: model[key] for key in ("median_error", "p90_error", "measured")} if model else None,
        "sentence": sentence,
        "warnings": warnings,
    }
