"""subarch: the best encoder for your machine, found rather than guessed.

Importing this package imports neither torch nor transformers: the names below are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subarch.numbers.architecture import Architecture, Inputs, ParameterCount
    from subarch.numbers.space import Costs, SearchSpace

__version__ = "0.1.0"

_HOME = {
    "Architecture": "numbers.architecture",
    "Inputs": "numbers.architecture",
    "ParameterCount": "numbers.architecture",
    "Costs": "numbers.space",
    "SearchSpace": "numbers.space",
}

__all__ = ["Architecture", "Costs", "Inputs", "ParameterCount", "SearchSpace", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'subarch' has no attribute {name!r}")
    return getattr(import_module(f"subarch.{_HOME[name]}"), name)
