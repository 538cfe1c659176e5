"""What the plots share: axes, ticks, lines, colours, and the escaping of what they show.

Two conventions hold everywhere:

- A colour is the name of a CSS variable, as in "--accent"; `report.js` puts in the value of the light or dark theme.
- Plotly reads a little HTML in labels and hovers, so every string that comes from data goes through `label`.

    >>> label("<b>1-4-128-512</b>")
    '&lt;b&gt;1-4-128-512&lt;/b&gt;'
"""

from __future__ import annotations

import math
from typing import Any

from subarch.show import formats

Figure = dict[str, Any]

LOG_FROM_RATIO = 30.0  # an axis whose values span more than this is logarithmic
# From the cheapest to the costliest candidate; of middle lightness, so that they read on white and on black.
RAMP = ((58, 122, 200), (38, 155, 148), (178, 140, 32), (200, 84, 48))


def label(text: str) -> str:
    """A string from data as text that Plotly shows literally, whatever HTML or entities it holds."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def base_layout(x_title: str, y_title: str) -> Figure:
    """What all plots share: the page's background and font, quiet grids, a legend above."""
    font = {"family": "system-ui, sans-serif", "size": 13, "color": "--ink-soft"}
    axis = {"gridcolor": "--line", "linecolor": "--line", "zeroline": False, "automargin": True, "ticks": ""}
    return {
        "paper_bgcolor": "--page",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": font,
        "margin": {"l": 56, "r": 16, "t": 16, "b": 52},
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "--surface",
            "bordercolor": "--line",
            "align": "left",
            "font": font | {"color": "--ink"},
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "--muted-mark", "activecolor": "--ink"},
        "uirevision": "keep",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemsizing": "constant"}
        | {"font": {"color": "--ink-soft"}},
        "xaxis": {**axis, "title": {"text": x_title}},
        "yaxis": {**axis, "title": {"text": y_title}},
    }


def scatter(name: str, mode: str, x: list[Any], y: list[Any], hovers: list[str], **more: Any) -> Figure:
    """A trace whose points say `hovers` under the mouse."""
    trace = {"type": "scatter", "mode": mode, "name": name, "x": x, "y": y}
    return trace | {"hovertext": hovers, "hoverinfo": "text"} | more


def bars(above: list[float], below: list[float], color: str, thickness: float = 1.5, width: int = 0) -> Figure:
    """Error bars of unequal ends."""
    ends = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return ends | {"color": color, "thickness": thickness, "width": width}


def padded_axis(values: list[float]) -> Figure:
    """Axis settings that leave room for the markers; logarithmic where the values span orders of magnitude."""
    if not values:
        return {}
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOG_FROM_RATIO:
        pad = 0.07 * math.log10(high / low)
        return log_ticks(low, high) | {"range": [math.log10(low) - pad, math.log10(high) + pad]}
    pad = 0.07 * (high - low or abs(high) or 1)
    return {"range": [low - pad, high + pad]}


def log_ticks(low: float, high: float) -> Figure:
    """A logarithmic axis labelled 1, 2, 5, 10, ...; over more than five decades at the powers of ten only."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits = (1, 2, 5) if last - first <= 5 else (1,)
    ticks = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in digits]
    return {"type": "log", "tickvals": ticks, "ticktext": [formats.tick(tick) for tick in ticks]}


def leaves_room(value: float, axis: Figure) -> bool:
    """Whether a name fits to the left of a value: it does not lie in the left third of the axis."""
    low, high = axis["range"]
    place = math.log10(value) if axis.get("type") == "log" else value
    return bool((place - low) / (high - low) > 1 / 3)


def marker_line(axis: str, value: float, text: str, color: str, dash: str) -> Figure:
    """A line across the whole plot at one value of an axis, with its label inside."""
    other = "y" if axis == "x" else "x"
    return {
        "type": "line",
        **{f"{axis}ref": axis, f"{axis}0": value, f"{axis}1": value},
        **{f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1},
        "line": {"color": color, "width": 1.5, "dash": dash},
        "label": {
            "text": text,
            "textangle": 0,
            "textposition": "end",
            "xanchor": "right",
            "yanchor": "top" if axis == "x" else "bottom",
            "padding": 5,
            "font": {"color": color, "size": 12},
        },
    }


def ramp(position: float) -> str:
    """A colour of RAMP, from 0 (cheapest) to 1 (costliest)."""
    index = min(int(position * (len(RAMP) - 1)), len(RAMP) - 2)
    share = position * (len(RAMP) - 1) - index
    mixed = (round(a + (b - a) * share) for a, b in zip(RAMP[index], RAMP[index + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
