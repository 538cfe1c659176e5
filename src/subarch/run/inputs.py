"""What a stage read, recorded with its result; a result is returned only for exactly the same input.

Paths are not enough: labels may be corrected, rows added, weights trained again under the same name. So a stage records
its configuration and a hash of the content of everything that it reads, before it begins. When it is called again, the
same input goes on with what is there, and any other is refused with all that changed, by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from subarch.errors import InvalidStudy, SubarchError, show
from subarch.run.files import content_hash, unreadable
from subarch.run.folder import RunFolder
from subarch.run.record import Free, Record, Row

REMEDY = "restore it, begin again with --restart, or choose another folder"

_MODEL_FILES = {".safetensors", ".json", ".jinja", ".txt", ".model"}
_OURS = {"agora.json", "fit.json", "heldout.json", "inputs.json", "metrics.json", "report.json"}
_EXPORTS = {"onnx", "openvino"}


class Content(Row):
    """Something that was read: where, and a hash of its content."""

    path: str
    hash: str


class StageInputs(Record):
    """What a stage read: its configuration, and its sources by what they are to it ("teacher", "corpus")."""

    NAME = "inputs"

    config: Free
    sources: dict[str, Content]


def claim(
    folder: RunFolder,
    inputs: StageInputs,
    *,
    begun: bool,
    free: Collection[str] = (),
    name: str | None = None,
    remedy: str = REMEDY,
) -> None:
    """Record what a stage in `folder` reads, or make sure that it is what was read when the stage began.

    Args:
        begun: whether something is there already that was made from what was recorded.
        free: keys of the configuration that may differ: those that change no result, and paths of sources.
        name: stem of the file; None: that of the record.

    Raises:
        InvalidStudy: something differs, or what is there has no such record.
    """
    if begun:
        if not folder.has(StageInputs, name):
            raise InvalidStudy(
                f"{folder.path}: was written by a version that did not record what it read, so it is not known whether "
                f"that is the same now; {remedy}"
            )
        if changed := changes(folder.read(StageInputs, name), inputs, free):
            raise InvalidStudy(
                f"{folder.path}: the input changed since this was started: {'; '.join(changed)}; {remedy}"
            )
    folder.write(inputs, name=name)


def changes(before: StageInputs, now: StageInputs, free: Collection[str] = ()) -> list[str]:
    """What differs, in words: sources first, then keys of the configuration that are not `free`."""
    found = []
    for role in now.sources | before.sources:
        old, new = before.sources.get(role), now.sources.get(role)
        if old is None or new is None:
            found.append(f"there is a {role} now ({new.path})" if new else f"there is no {role} now")
        elif old.path == new.path and old.hash != new.hash:
            found.append(f"the {role} {new.path} has other content now")
        elif old.hash != new.hash:
            found.append(f"the {role} is {new.path} now and was {old.path}")
    for key in now.config | before.config:
        old_value, new_value = before.config.get(key), now.config.get(key)
        if key not in free and old_value != new_value:
            found.append(f"{key} = {show(new_value)} now and was {show(old_value)}")
    return found


def of_values(path: str, *values: object) -> Content:
    """What `path` names, by values that decide what it holds."""
    return Content(path=path, hash=hashlib.blake2b(repr(values).encode(), digest_size=16).hexdigest())


def of_model(folder: Path, refusal: type[SubarchError]) -> Content:
    """A model folder: configuration, tokenizer and weights; not its card, reports, or exports."""
    return Content(path=str(folder), hash=_hashed(folder, refusal, models_only=True))


def of_file(path: Path, refusal: type[SubarchError]) -> Content:
    return Content(path=str(path), hash=_hashed(path, refusal))


def _hashed(path: Path, refusal: type[SubarchError], models_only: bool = False) -> str:
    try:
        return content_hash(path, _shapes_a_model) if models_only else content_hash(path)
    except OSError as error:
        raise refusal(unreadable(path, error)) from error


def _shapes_a_model(name: Path) -> bool:
    return name.suffix in _MODEL_FILES and name.name not in _OURS and name.parts[0] not in _EXPORTS
