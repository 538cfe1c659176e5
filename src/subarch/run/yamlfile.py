"""Reading YAML that people wrote: whatever is wrong with it becomes one error of the caller's choice.

>>> read_yaml(Path("space.yaml"), InvalidSpace)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subarch.errors import SubarchError


def read_yaml(path: Path, refusal: type[SubarchError]) -> Any:
    """The parsed content of a UTF-8 file.

    Raises:
        refusal: unreadable, not UTF-8, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise refusal(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return parse_yaml(text, path, refusal)


def parse_yaml(text: str, origin: Path, refusal: type[SubarchError]) -> Any:
    """The parsed content of a text, which `origin` holds.

    Raises:
        refusal: not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    # On a malformed number, date or tag PyYAML lets the error of int(), datetime() or a look-up through
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise refusal(f"{origin}: not a YAML file: {error}") from error
