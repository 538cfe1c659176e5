"""Checkpoints that can be trusted: sealed when they are complete, verified before they are used.

A process may be killed while it writes a checkpoint, and a disk may be full or lose data. So the last file of a
checkpoint is a manifest with size and hash of every other one. A checkpoint without a manifest was not finished; one
that differs from its manifest is damaged. Nothing is flushed to disk: if a power failure loses a file, it does not
match the manifest, or the manifest is lost too.

    >>> seal(root / "checkpoint-500")
    >>> put_aside(root, warn=print)         # deletes unfinished checkpoints, renames damaged ones; says what is wrong
    >>> newest(root, warn=print)            # the latest intact one
    PosixPath('runs/mine/checkpoints/checkpoint-500')
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from subarch.run.files import file_seal, write_text

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write the manifest of all files in the folder. Nothing may be written there afterwards.

    Raises:
        OSError: a full disk, say; the checkpoint is then not sealed.
    """
    manifest = {name: file_seal(path).model_dump() for name, path in _files(folder).items()}
    # Compact: whitespace could be damaged without changing the content
    write_text(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, separators=(",", ":")))


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file is there and as it was when sealed.

    A file that the manifest does not list is wrong too: something was written after the seal.
    """
    try:
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it was not finished (it has no {MANIFEST})"
    except OSError as error:
        return f"it cannot be read: {error}"
    except (ValueError, RecursionError):
        return f"{MANIFEST} is damaged"
    if not isinstance(known, dict):
        return f"{MANIFEST} is damaged"
    files = _files(folder)
    for name in sorted(known.keys() | files.keys()):
        if name not in files:
            return f"{name} is missing"
        if name not in known:
            return f"{name} is not in {MANIFEST}"
        try:
            found = file_seal(files[name]).model_dump()
        except OSError as error:
            return f"it cannot be read: {error}"
        if found != known[name]:
            return f"{name} is damaged: its {found['bytes']} bytes are not those that were sealed"
    return None


def put_aside(root: Path, warn: Callable[[str], None]) -> None:
    """Remove every checkpoint that is later than the newest intact one, with a warning.

    An unfinished one is deleted, a damaged one is kept as `broken-checkpoint-N`. If they stayed, the training would
    count them when it deletes old checkpoints, and delete the intact one first. One process alone may call this.

    Raises:
        OSError: a folder cannot be renamed or deleted.
    """
    for folder in _latest_first(root):
        wrong = verify(folder)
        if wrong is None:
            return
        if (folder / MANIFEST).exists():
            broken = folder.with_name(f"broken-{folder.name}")
            shutil.rmtree(broken, ignore_errors=True)
            folder.rename(broken)
            warn(f"{folder}: {wrong}; it is kept as {broken.name} and not used")
        else:
            shutil.rmtree(folder)
            warn(f"{folder}: {wrong}; it is deleted")


def newest(root: Path, warn: Callable[[str], None]) -> Path | None:
    """The intact `checkpoint-N` of greatest N; None if there is none. Changes nothing on disk.

    Args:
        root: the folder of checkpoints; it need not exist.
        warn: called with a sentence about each later checkpoint.
    """
    for folder in _latest_first(root):
        wrong = verify(folder)
        if wrong is None:
            return folder
        warn(f"{folder}: {wrong}; it is not used")
    return None


_NAME = re.compile(r"checkpoint-([0-9]{1,18})")


def _latest_first(root: Path) -> list[Path]:
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    found = [(int(match[1]), path) for path in folders if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _files(folder: Path) -> dict[str, Path]:
    """All files in the folder except the manifest, by relative path."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    found.pop(MANIFEST, None)
    return found
