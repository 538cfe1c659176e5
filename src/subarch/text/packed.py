"""Token sequences on disk: the folder of a corpus, opened by memory mapping.

The folder holds `train.npy` and `heldout.npy` (int32, the documents of a split end to end, without special tokens),
`train.offsets.npy` and `heldout.offsets.npy` (int64, where each document begins, then the end) and `corpus.json`
(what it was made of). Plain .npy and not Arrow: both map into memory, but segments are views of one flat
array, and any NumPy reads it. int32, because torch's embedding takes it as it is.

The folder appears by a rename once complete, so a build that is killed leaves no half corpus.

    >>> corpus = Corpus.load(Path("corpus"))
    >>> corpus.segments("train", 128)[0]
    memmap([ 2023,  2003, ...], dtype=int32)
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.run.files import replaced

if TYPE_CHECKING:
    from hashlib import _Hash

FORMAT = 1
CRUMB = 4
"""The rest of a cut document is dropped when it has fewer tokens than this."""

Part = Literal["train", "heldout"]


@dataclass(frozen=True)
class Segments(Sequence[NDArray[np.int32]]):
    """Token sequences as views of one flat array: number i is `tokens[offset[i] : offset[i] + size[i]]`."""

    tokens: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Segments(self.tokens, self.offset[index], self.size[index])
        return self.tokens[self.offset[index] : self.offset[index] + self.size[index]]

    def shuffled(self) -> Segments:
        """In one fixed random order, whatever the configuration: a longer search goes on where a shorter one ended."""
        order = np.random.default_rng(0).permutation(len(self))
        return Segments(self.tokens, self.offset[order], self.size[order])


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk. `train` and `heldout` are its documents; `meta` is `corpus.json`."""

    folder: Path
    train: Segments
    heldout: Segments
    meta: dict[str, Any]

    @property
    def content_hash(self) -> str:
        """SHA-256 over tokens and offsets of both splits."""
        return str(self.meta["content_hash"])

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Open a folder written by `build`; the tokens stay on disk.

        Raises:
            InvalidCorpus: the folder is missing, incomplete, damaged, or of another version.
        """
        try:
            meta = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
            found = meta["format"]
            train, heldout = _open(folder, "train"), _open(folder, "heldout")
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise InvalidCorpus(
                f"{folder}: no readable corpus ({error!r}); delete the folder and build it again"
            ) from error
        if found != FORMAT:
            raise InvalidCorpus(f"{folder}: a corpus of format {found}, this version reads {FORMAT}; build it again")
        return cls(folder, train, heldout, meta)

    def segments(self, part: Part, length: int) -> Segments:
        """Each document cut into pieces of at most `length` tokens; a shorter document is one segment.

        What is left at the end of a cut document is dropped if it has fewer than CRUMB tokens. There are no special
        tokens: leave room for them in `length`.
        """
        require(length >= 1, f"segments of {length} tokens cannot be cut; the length must be at least 1")
        documents: Segments = getattr(self, part)
        pieces = -(-documents.size // length)
        # the index of each piece in its document: 0 1 2 0 0 1 ...
        number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        offset = np.repeat(documents.offset, pieces) + number * length
        size = np.minimum(length, np.repeat(documents.offset + documents.size, pieces) - offset)
        kept = (number == 0) | (size >= min(CRUMB, length))
        return Segments(documents.tokens, offset[kept], size[kept])


def pack(
    folder: Path, part: Part, spool: Path, sizes: NDArray[np.int64], kept: NDArray[np.bool_], digest: _Hash
) -> tuple[int, int]:
    """Write the kept documents of the spool (raw int32, documents of `sizes` tokens); their number and tokens.

    Written, not mapped: a full disk is then an error and not a crash of the process (SIGBUS).
    """

    def chosen() -> Iterator[NDArray[np.int32]]:
        with spool.open("rb") as file:
            for first in range(0, len(sizes), 4096):
                some = slice(first, first + 4096)
                tokens = np.fromfile(file, "<i4", int(sizes[some].sum()))
                yield tokens[np.repeat(kept[some], sizes[some])]

    offsets = np.concatenate([[0], np.cumsum(sizes[kept])]).astype("<i8")
    _save(folder / f"{part}.npy", "<i4", int(offsets[-1]), chosen(), digest)
    _save(folder / f"{part}.offsets.npy", "<i8", len(offsets), [offsets], digest)
    return len(offsets) - 1, int(offsets[-1])


def _save(path: Path, dtype: str, count: int, chunks: Iterable[NDArray[Any]], digest: _Hash) -> None:
    """A .npy file from chunks. (np.save reports a full disk without its error number.)"""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": (count,)})
        for chunk in chunks:
            data = chunk.tobytes()
            digest.update(data)
            file.write(data)


def _open(folder: Path, part: Part) -> Segments:
    tokens = np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False)
    offsets = np.load(folder / f"{part}.offsets.npy", allow_pickle=False)
    if tokens.ndim != 1 or len(offsets) < 2 or offsets[-1] != len(tokens):
        raise ValueError(f"the {part} tokens and offsets do not fit each other")
    return Segments(tokens, offsets[:-1], np.diff(offsets))


@contextmanager
def replacing(folder: Path, recipe: dict[str, Any]) -> Iterator[Path | None]:
    """A folder to write into, which then takes the place of `folder`; None where `folder` is up to date already.

    The lock makes a second builder wait and then find the corpus ready. Leftovers of killed builds are removed.
    """
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if _made_by(folder, recipe):
                yield None
                return
            with replaced(folder) as partial:
                yield partial
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidCorpus(
            f"{folder}: the disk is full; free some space (a corpus takes about 8 bytes a token while it is built), "
            "choose another folder, or set max_tokens"
        ) from error


def _made_by(folder: Path, recipe: dict[str, Any]) -> bool:
    if not folder.exists():
        return False
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "corpus.json").is_file()):
        raise InvalidCorpus(f"{folder} exists and is no corpus; it would be overwritten: choose another folder")
    try:
        meta = Corpus.load(folder).meta
    except InvalidCorpus:
        return False  # damaged or of another version: built again
    return all(meta.get(key) == value for key, value in recipe.items())


def require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidConfig(message)
