"""subarch: the best encoder for your machine, found rather than guessed.

    >>> import subarch
    >>> selection = subarch.extract("runs/mine", teacher="all-MiniLM-L6-v2", corpus="my-texts", max_latency_ratio=0.25)

Importing this package imports neither torch nor transformers: the names below are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subarch.api import (
        bench,
        compress,
        evaluate,
        export,
        extract,
        finetune,
        load_model,
        plan,
        pretrain,
        push,
        record,
        select,
        verify,
    )
    from subarch.errors import SubarchError
    from subarch.numbers.architecture import Architecture, Inputs, ParameterCount
    from subarch.numbers.space import Costs, SearchSpace

__version__ = "0.1.0"

_HOME = {
    **dict.fromkeys(
        (
            *("compress", "extract", "pretrain", "finetune", "export", "select", "bench", "evaluate", "verify", "plan"),
            *("record", "augment", "load_model", "push"),
        ),
        "api",
    ),
    **dict.fromkeys(("Architecture", "Inputs", "ParameterCount"), "numbers.architecture"),
    **dict.fromkeys(("Costs", "SearchSpace"), "numbers.space"),
    "SubarchError": "errors",
}

__all__ = [
    "Architecture",
    "Costs",
    "Inputs",
    "ParameterCount",
    "SearchSpace",
    "SubarchError",
    "__version__",
    "augment",
    "bench",
    "compress",
    "evaluate",
    "export",
    "extract",
    "finetune",
    "load_model",
    "plan",
    "pretrain",
    "push",
    "record",
    "select",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'subarch' has no attribute {name!r}")
    return getattr(import_module(f"subarch.{_HOME[name]}"), name)
