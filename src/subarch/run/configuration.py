"""Reading and writing a configuration: any flat, frozen pydantic record whose keys are the command-line options.

Each stage has such a record in its `config`, with a description on every key.

    >>> config = load(ExtractConfig, Path("configs/minilm.yaml"), {"steps": 25})
    >>> print(dump(config))                             # commented YAML; reading it gives the same record
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, Strict, ValidationError

from subarch.errors import InvalidConfig, show
from subarch.run.files import read_yaml


def _refuse_bool(value: Any) -> Any:
    # pydantic would read `true` as 1.0
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a truth value")
    return value


# Not strict: YAML 1.1 reads 5e-4, without a point, as text
Number = Annotated[float, Strict(False), BeforeValidator(_refuse_bool), Field(gt=0, allow_inf_nan=False)]
# The same, or 0
Amount = Annotated[float, Strict(False), BeforeValidator(_refuse_bool), Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
# Not strict: paths are text in YAML
File = Annotated[Path, Strict(False)]

Record = TypeVar("Record", bound=BaseModel)


def load(kind: type[Record], path: Path | None, overrides: Mapping[str, Any]) -> Record:
    """The configuration of a YAML file, with the options given on the command line over it.

    Args:
        kind: the class of the record; forbids extra keys.
        path: a YAML mapping, or None for the defaults.
        overrides: values by key; None means that the option was not given.

    Raises:
        InvalidConfig: the file, a key, a value or a combination; the message names file or option of every wrong key.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    values = (_read(path) if path else {}) | given
    for key in values:
        if key not in kind.model_fields:
            name = key if isinstance(key, str) else show(key)
            nearest = difflib.get_close_matches(name.replace("-", "_"), kind.model_fields, n=1, cutoff=0)[0]
            raise InvalidConfig(
                f"{_origin(name, given, path)}: unknown key {show(key)}; the nearest known key is {nearest!r}"
            )
    try:
        return kind.model_validate(values)
    except ValidationError as invalid:
        problems = [_describe(problem, given, path) for problem in invalid.errors(include_url=False)]
        raise InvalidConfig("\n".join(problems)) from invalid


def dump(config: BaseModel) -> str:
    """Commented YAML of every key; `load` of it gives an equal configuration."""
    import yaml

    blocks = []
    for key, value in config.model_dump(mode="json").items():
        entry = yaml.safe_dump({key: value}, allow_unicode=True, width=math.inf)
        if yaml.safe_load(entry) != {key: value}:  # some line breaks of Unicode are written as they are, and lost
            entry = yaml.safe_dump({key: value}, width=math.inf)
        blocks.append(f"# {type(config).model_fields[key].description}\n{entry}")
    return "\n".join(blocks)


def _read(path: Path) -> dict[Any, Any]:
    data = read_yaml(path, InvalidConfig)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InvalidConfig(f"{path}: needs a mapping of keys to values, one `key: value` a line; found {show(data)}")
    return data


def _describe(problem: Any, given: Mapping[str, Any], path: Path | None) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return f"{path or 'configuration'}: {message}"
    key, *rest = problem["loc"]
    item = "".join(f"[{index}]" for index in rest if isinstance(index, int))
    value = "" if problem["type"] == "missing" else f" = {show(problem['input'])}"
    return f"{_origin(key, given, path)}: {key}{item}{value}: {message}"


def _origin(key: str, given: Mapping[str, Any], path: Path | None) -> str:
    if key in given:
        return f"--{key.replace('_', '-')}"
    return str(path or "configuration")
