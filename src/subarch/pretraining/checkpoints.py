"""Checkpoints that can be trusted: sealed when they are whole, verified before they are used.

A process may be killed in the middle of writing a checkpoint, and a disk may be full or lose what it was given. So a
checkpoint is sealed last, by a manifest with size and digest of every file in its folder, which appears whole or not at
all. What carries no manifest was never finished; what differs from it is damaged. No flush to the disk is asked for:
whatever a power failure loses does not match the manifest, or loses that too.

    >>> seal(root / "checkpoint-500")
    >>> put_aside(root, warn=print)         # what is not whole gets out of the way; says which, and what is wrong
    >>> newest(root, warn=print)            # the latest that is whole
    PosixPath('runs/mine/checkpoints/checkpoint-500')
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write the manifest of every file under the folder; nothing may be written there after it.

    Raises:
        OSError: a full disk, say; the checkpoint then stays unsealed.
    """
    manifest = {name: _entry(path) for name, path in _files(folder).items()}
    temporary = folder.with_name(f".{folder.name}.{MANIFEST}")
    # Compact: a space more or less would be damage that changes nothing
    temporary.write_text(json.dumps(manifest, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    os.replace(temporary, folder / MANIFEST)


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint, in words, or None if every file is there and is as it was when sealed.

    A file that the manifest does not know is wrong too: something wrote on after the seal.
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
            found = _entry(files[name])
        except OSError as error:
            return f"it cannot be read: {error}"
        if found != known[name]:
            return f"{name} is damaged: its {found['size']} bytes are not those that were sealed"
    return None


def put_aside(root: Path, warn: Callable[[str], None]) -> None:
    """Clear the way from the newest whole checkpoint: every later one that is not whole goes, with a warning.

    One that was never finished is deleted, a damaged one is kept as `broken-checkpoint-N`. A training that went on
    beside them would count them when it deletes old checkpoints, and delete the whole one first. For one process alone.

    Raises:
        OSError: it may not be renamed or deleted.
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
    """The `checkpoint-N` of greatest N that is whole; None if there is none. Changes nothing on disk.

    Args:
        root: the folder of checkpoints; need not exist.
        warn: called with a sentence for every later checkpoint that is skipped.
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
    """Every file under the folder but the manifest, by its relative name."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    found.pop(MANIFEST, None)
    return found


def _entry(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
