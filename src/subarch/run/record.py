"""What a record is: the base classes of all typed files of a run folder, without the records themselves.

    >>> class Space(Record):
    ...     NAME = "space"
    ...     depth: tuple[int, ...]
    >>> Space(depth=(2, 4)).to_json()
    '{\n "depth": [\n  2,\n  4\n ]\n}\n'

Apart from `records`, so that the command line's help does not build sixty classes.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

Free = dict[str, Any]
"""JSON whose keys are not known here: a configuration of a stage above, or a table with any columns."""

Number = int | float
"""A figure that is written as it came: 4 stays 4, 4.0 stays 4.0."""

Shape = str
"""An architecture, "D-A-H-I" or "D-A-H-I-V"."""


class Row(BaseModel):
    """Part of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")

    def to_dict(self) -> Any:
        """What the file holds, in plain JSON types; keys that are not set are left out."""
        return self.model_dump(mode="json", exclude_unset=True)


class Record(Row):
    """A JSON file of a run folder; `NAME` is the stem of its name."""

    NAME: ClassVar[str]

    def to_json(self) -> str:
        """The text of the file; ValueError where a free-form part holds a number that is not finite."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


class Bare(Record):
    """A record whose file holds one value instead of keys."""

    value: Any

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, data: Any) -> Any:
        return data if isinstance(data, dict) and data.keys() == {"value"} else {"value": data}

    @model_serializer
    def _unwrap(self) -> Any:
        return self.value


class FileSeal(Row):
    bytes: int
    sha256: str
