"""Files and folders that appear whole or not at all, with ordinary permissions, and hashes of what they hold.

    >>> with replaced(Path("runs/mine/selected")) as partial:               # an empty folder to write into
    ...     model.save_pretrained(partial)

Permissions are those that the umask asks for, whatever wrote the files: libraries that write by way of tempfile, such
as safetensors, make files that only their owner can read. A write that fails (OSError) leaves what was there.
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

from subarch.errors import SubarchError
from subarch.run.record import FileSeal


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty hidden folder beside `folder`, which takes its place at the end; if something raises, it is deleted.

    What a killed process left of it is deleted the next time. One process at a time: the caller holds a lock.
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


def is_taken(path: Path) -> bool:
    """Whether something is there: a file, or a folder that is not empty."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; a full disk raises SafetensorError too."""
    from safetensors.torch import save_file

    with replaced_file(path) as partial:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    with replaced_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, indent: int | None = 1, ensure_ascii: bool = True) -> None:
    """Write a value as JSON; ValueError or TypeError where it is none, or a number is not finite."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=ensure_ascii) + "\n")


def content_hash(path: Path, matters: Callable[[Path], bool] = lambda _: True) -> str:
    """A hash of a file's bytes, or of the names and bytes of the files in a folder that are not hidden.

    `matters` says which of a folder's files count, by their path relative to it. A copy has the same hash. Raises
    OSError, as `file_digest` and `file_seal` do.
    """
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(found.relative_to(path) for found in path.rglob("*") if found.is_file()):
        if not any(part.startswith(".") for part in name.parts) and matters(name):
            digest.update(os.fsencode(name.as_posix()) + b"\0" + file_digest(path / name).encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """The BLAKE2b hash (128 bits) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def file_seal(path: Path) -> FileSeal:
    """Size in bytes and SHA-256 of a file, to tell later whether it is still what was written."""
    with path.open("rb") as file:
        return FileSeal(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def read_yaml(path: Path, refusal: type[SubarchError]) -> Any:
    """The parsed content of a UTF-8 file; `refusal` is raised where it is unreadable, not UTF-8, or not YAML."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise refusal(unreadable(path, error, f"cannot be read as UTF-8 text: {error}")) from error
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
        raise refusal(f"{path}: not a YAML file: {error}") from error


def unreadable(path: Path, error: BaseException, damaged: str | None = None) -> str:
    """What is wrong with a file or folder that could not be read: a missing permission is no damage.

    Libraries call a file that may not be read damaged, or even missing (safetensors does), so it is tried here.

    Args:
        path: a file, or a folder of files.
        error: what reading it raised.
        damaged: what to say if permissions are in order; None: what the system says.
    """
    denied = path if isinstance(error, PermissionError) else None
    for one in [path, *sorted(path.glob("*"))]:
        denied = one if _is_denied(one) else denied
    if denied is not None:
        return f"{denied}: cannot be read: permission denied"
    return f"{path}: " + (f"cannot be read: {error}" if damaged is None else damaged)


def _is_denied(path: Path) -> bool:
    try:
        with os.scandir(path) if path.is_dir() else path.open("rb"):
            return False
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return isinstance(error, PermissionError)


def _chmod(path: Path, mode: int) -> None:
    if path.stat().st_mode & 0o777 != mode & 0o777:
        path.chmod(mode & 0o777)
