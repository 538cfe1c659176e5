"""Files and folders that appear whole or not at all, with ordinary permissions, and hashes of what they hold.

    >>> with replaced(Path("runs/mine/selected")) as partial:               # an empty folder to write into
    ...     model.save_pretrained(partial)
    >>> with replaced_file(Path("targets.npy")) as partial:                 # an empty file to write over
    ...     partial.write_bytes(content)
    >>> save_tensors({"weight": torch.eye(2)}, Path("weights.safetensors"))
    >>> write_text(Path("notes.txt"), "...")
    >>> content_hash(Path("models/all-MiniLM-L6-v2"))
    '5d41402abc4b2a76b9719d911017c592'

Permissions are those that the umask asks for, whatever wrote the files: libraries that write by way of tempfile, such
as safetensors, make files that only their owner can read. Importing this module imports neither torch nor NumPy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from subarch.run.records import FileSeal


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty hidden folder beside `folder`, which takes its place at the end; if something raises, it is deleted.

    What a killed process left of it is deleted the next time. One process at a time: the caller holds a lock.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    partial, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    mode = partial.stat().st_mode
    try:
        yield partial
        for path in partial.rglob("*"):
            _chmod(path, mode if path.is_dir() else mode & 0o666)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """An empty hidden file beside `path`, which takes its place at the end; if something raises, it is deleted.

    The folder is made where it is missing. Processes and threads may write the same file at once; the last one wins.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        _chmod(partial, mode)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OSError, SafetensorError: the disk is full, for example.
    """
    from safetensors.torch import save_file

    with replaced_file(path) as partial:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with replaced_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, indent: int | None = 1, ensure_ascii: bool = True) -> None:
    """Write a value as JSON.

    Raises:
        ValueError, TypeError: a number that is not finite, or no JSON.
        OSError: it cannot be written; what was there before still is.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=ensure_ascii) + "\n")


def content_hash(path: Path, matters: Callable[[Path], bool] = lambda _: True) -> str:
    """A hash of a file's bytes, or of the names and bytes of the files in a folder.

    Hidden files and folders do not count. Times and permissions do not either: a copy has the same hash.

    Args:
        path: a file or a folder.
        matters: of a folder's files, by their path relative to it, those that count.

    Raises:
        OSError: it is missing or cannot be read.
    """
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(found.relative_to(path) for found in path.rglob("*") if found.is_file()):
        if not any(part.startswith(".") for part in name.parts) and matters(name):
            digest.update(os.fsencode(name.as_posix()) + b"\0" + file_digest(path / name).encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """The BLAKE2b hash (128 bits) of a file's bytes.

    Raises:
        OSError: it is missing or cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_seal(path: Path) -> FileSeal:
    """Size in bytes and SHA-256 of a file, to tell later whether it is still what was written.

    Raises:
        OSError: it is missing or cannot be read.
    """
    with path.open("rb") as file:
        return FileSeal(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def unreadable(error: BaseException) -> str | None:
    """How to say that the system did not let a file be read; None where the error says something else about it."""
    while error.__cause__ is not None and not isinstance(error, PermissionError):
        error = error.__cause__
    return "cannot be read: permission denied" if isinstance(error, PermissionError) else None


def _chmod(path: Path, mode: int) -> None:
    if path.stat().st_mode & 0o777 != mode & 0o777:
        path.chmod(mode & 0o777)
