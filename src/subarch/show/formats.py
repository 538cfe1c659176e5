"""How the report writes numbers: one function a unit, so that a quantity looks the same in text, tables and hovers.

    >>> count(13_427_328), milliseconds(3.0184), error(0.18932), duration(140.2)
    ('13.4 M', '3.02 ms', '0.1893', '2 min 20 s')

A number that is missing or not finite is written as a dash, never as 0 or NaN. Spaces inside a quantity do not break.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

DASH = "–"
SPACE = "\N{NO-BREAK SPACE}"

_TIME = re.compile(r"(^|[_\W])ms($|[_\W])", re.IGNORECASE)
_COUNT = re.compile(r"parameters|operations", re.IGNORECASE)


def finite(value: Any) -> float | None:
    """The value as a number a plot or a sort can use; None for anything else, NaN and infinities included."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def count(value: Any, unit: str = "") -> str:
    """A count to three significant digits: 512, 13.4 M, 2.30 G. The exact number is `exact`."""
    number = finite(value)
    if number is None:
        return DASH
    if abs(number) < 1000:
        return _with_unit(f"{number:.0f}", unit)
    rounded = float(f"{number:.3g}")  # first, so that 999 999 becomes 1.00 M and not 1000 k
    power = min(int(math.log10(abs(rounded)) + 1e-9) // 3, 4)
    scaled = rounded / 1000**power
    digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
    return _with_unit(f"{scaled:.{digits}f}{SPACE}{'kMGT'[power - 1]}", unit)


def exact(value: Any, unit: str = "") -> str:
    """A count in full, in groups of three: 13,427,328."""
    number = finite(value)
    return DASH if number is None else _with_unit(f"{number:,}", unit)


def milliseconds(value: Any, unit: str = "ms") -> str:
    """A latency to two decimals; below 0.1 ms, where static encoders live, to three."""
    number = finite(value)
    return DASH if number is None else _with_unit(f"{number:.{_decimals(number)}f}", unit)


def by_language(errors: Mapping[str, float]) -> str:
    """Errors by language, the greatest first, for a line of text."""
    ranked = sorted(errors.items(), key=lambda item: -item[1])
    return f"error by language: {', '.join(f'{name} {error(value)}' for name, value in ranked)}"


def interval(value: Any) -> str:
    """First and third quartile of a latency, in milliseconds: 2.91–3.20 ms."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or None in map(finite, value):
        return DASH
    decimals = _decimals(value[0])
    return _with_unit(f"{value[0]:.{decimals}f}{DASH}{value[1]:.{decimals}f}", "ms")


def error(value: Any) -> str:
    """An error, or W: four decimals; four significant digits where those would say too little or too much."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{number:.4f}" if number == 0 or 0.001 <= abs(number) < 1000 else f"{number:.4g}"


def score(value: Any) -> str:
    """A metric of a task, in 0..1 or -1..1: three decimals, as finer than that no test part tells models apart."""
    number = finite(value)
    return DASH if number is None else f"{number:.3f}"


def percent(share: Any) -> str:
    """A share: 95 %."""
    number = finite(share)
    return DASH if number is None else _with_unit(f"{100 * number:.3g}", "%")


def factor(value: Any) -> str:
    """A ratio, such as a speed-up: 4.1×."""
    number = finite(value)
    return DASH if number is None else f"{number:.1f}×" if number >= 1 else f"{number:.2f}×"


def megabytes(count: Any, unit: str = "MB") -> str:
    """Bytes in millions: 15.8 MB."""
    number = finite(count)
    return DASH if number is None else _with_unit(f"{number / 1e6:.1f}", unit)


def duration(seconds: Any) -> str:
    number = finite(seconds)
    if number is None:
        return DASH
    if number < 60:
        return f"{number:.1f}{SPACE}s"
    minutes, rest = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min{SPACE}{rest:02d}{SPACE}s"
    return f"{minutes // 60}{SPACE}h{SPACE}{minutes % 60:02d}{SPACE}min"


def tick(value: float) -> str:
    """A label of an axis: 0.05, 20, 5 M."""
    return f"{value:g}" if value < 1000 else count(value).replace(".00", "").replace(".0", "")


def shape(architecture: str) -> str:
    """`2-12-384-512` as ⟨2, 12, 384, 512⟩, a vocabulary behind them; anything else as it is."""
    parts = architecture.split("-")
    is_shape = len(parts) in (4, 5) and all(part.isdigit() for part in parts)
    return f"⟨{', '.join(parts)}⟩" if is_shape else architecture


def hyperparameters(settings: dict[str, Any]) -> str:
    """θ in one line: learning rate 0.0003, batch size 64."""
    return ", ".join(f"{name.replace('_', ' ')}{SPACE}{plain(value)}" for name, value in settings.items())


def plain(value: Any) -> str:
    """Any other value: whole numbers in full, other numbers to four significant digits, missing as a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return str(value)


def digits(value: Any) -> str:
    """Every digit of a number; nothing for anything else."""
    return "" if finite(value) is None else exact(value) if isinstance(value, int) else repr(value)


def by_name(name: str, value: Any) -> str:
    """A value of a free-form column, written by what the name says: `..._ms`, `parameters`, `operations`."""
    if finite(value) is not None:
        if _TIME.search(name):
            return milliseconds(value, "")
        if _COUNT.search(name):
            return count(value)
    return plain(value)


def outward(value: float, digits: int, up: bool) -> str:
    """A limit rounded to the side that admits what `value` admits: an upper limit up, a lower one down."""
    step = Decimal(1).scaleb(-digits)
    rounded = Decimal(repr(value)).quantize(step, ROUND_CEILING if up else ROUND_FLOOR)
    return f"{rounded:,}"


def _decimals(milliseconds: float) -> int:
    return 3 if 0 < milliseconds < 0.1 else 2


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{SPACE}{unit}" if unit else number
