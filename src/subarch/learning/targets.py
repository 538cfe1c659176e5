"""What a teacher says of a text, computed once and kept on disk: one cache, one layout, one rule for its keys.

The answers do not change while a student is trained. They are kept as safetensors files, in 16 bits where a training
compares with them, in shards of `SHARD` sequences where there are many. Each file appears whole or not at all, so an
interrupted computation loses one shard at most. Its name is a hash of all that decides the content: the teacher (its
weights and files, not its path), the text, and the settings. So another teacher or a grown corpus never meets old
answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from subarch.learning.collate import Collator
from subarch.learning.distill import TeacherSide, TextSide
from subarch.run.files import save_tensors
from subarch.text.batches import by_length
from subarch.text.corpus import Segments

SHARD = 2048
"""Sequences of one file."""
BATCH = 64
"""Sequences of one forward pass of the teacher."""


@dataclass(frozen=True)
class TargetCache:
    """A folder of a teacher's answers; `teacher` and `text` identify by content who answers and what it reads."""

    folder: Path
    teacher: str
    text: str

    def path(self, *settings: object) -> Path:
        """The file of one answer; `settings` are whatever else decides it, and have to have a `repr` by content."""
        whole = repr((self.teacher, self.text, *settings))
        return self.folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:24]}.safetensors"

    def get(self, settings: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
        """The kept tensor; computed and kept where there is none."""
        path = self.path(*settings)
        if not path.is_file():
            save_tensors({"values": compute()}, path)
        with safe_open(path, "pt") as file:
            values: Tensor = file.get_tensor("values")
        return values

    def rows(
        self,
        settings: tuple[object, ...],
        count: int,
        needed: int,
        compute: Callable[[range], Tensor],
        report: Callable[[int, int], None],
    ) -> Tensor:
        """The answers on the first `needed` of `count` sequences, one after another.

        The last shard is computed as far as it is needed, unless it is there as a whole.
        """
        shards, total = [], min(count, needed)
        for start in range(0, total, SHARD):
            whole = range(start, min(start + SHARD, count))
            known = self.path(*settings, whole.start, whole.stop).is_file()
            piece = whole if known else range(start, min(whole.stop, total))
            shards.append(self.get((*settings, piece.start, piece.stop), lambda piece=piece: compute(piece)))  # type: ignore[misc]
            report(min(whole.stop, total), total)
        return torch.cat(shards)


@dataclass
class TargetStore:
    """The answers on the sequences of a pretraining: a file for each kind of output, masking and shard.

    Losses that need the same kind share its files. Embeddings and hidden states are kept as they are; of logits the
    `top_k` most probable tokens and their log-probabilities at `temperature`. Rows are read one by one from disk, so
    that a corpus need not fit into memory.
    """

    cache: TargetCache
    side: TeacherSide | TextSide
    collator: Collator
    segments: Segments
    top_k: int
    temperature: float
    _open: dict[Path, _Shard] = field(default_factory=dict, repr=False)

    @property
    def shards(self) -> int:
        return -(-len(self.segments) // SHARD)

    def path(self, kind: str, masking: int, shard: int) -> Path:
        masker = self.collator.masker
        seen = f"{masker.scheme} {self.collator.seed} {masking}" if masker is not None else "unmasked"
        detail = f"{self.top_k} {self.temperature}" if kind == "logits" else ""
        return self.cache.path(kind, seen, detail, "shard", shard)

    def missing(self, masking: int) -> list[int]:
        """Shards that lack some kind of output."""
        return [shard for shard in range(self.shards) if self._missing(masking, shard)]

    def fill(self, masking: int, report: Callable[[int, int], None], process: int = 0, processes: int = 1) -> None:
        """Compute what is missing. Of several processes each computes its share; they have to wait for each other."""
        own = range(process, self.shards, processes)
        for done, shard in enumerate(own, 1):
            if kinds := self._missing(masking, shard):
                for kind, tensors in self._compute(kinds, masking, shard).items():
                    save_tensors(tensors, self.path(kind, masking, shard))
            report(done, len(own))

    def read(self, masking: int, rows: NDArray[np.int64], length: int) -> dict[str, Any]:
        """The outputs for these rows, as `TeacherSide.targets` takes them: states padded to (n, length, K)."""
        outputs: dict[str, Any] = {}
        for kind in self.side.kinds:
            pieces = [self._shard(kind, masking, int(row) // SHARD).row(int(row) % SHARD) for row in rows]
            values = [piece["values"].float() for piece in pieces]
            if kind in ("embedding", "outputs"):
                outputs[kind] = torch.cat(values)
            elif kind == "logits":
                outputs["top"] = (torch.cat([piece["tokens"].long() for piece in pieces]), torch.cat(values))
            else:
                outputs[kind] = torch.zeros(len(values), length, values[0].shape[1])
                for row, value in enumerate(values):
                    outputs[kind][row, : len(value)] = value
        return outputs

    def bytes_of(self, part: dict[str, Any]) -> int:
        """What the outputs for a part of a batch take on disk, file headers aside."""
        if isinstance(self.side, TextSide):
            return 2 * len(part["ids"]) * self.side.teacher.width
        pieces = self._pieces(part["ids"], part["mask"], part.get("where"))
        tensors = [tensor for some in pieces.values() for piece in some for tensor in piece.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _missing(self, masking: int, shard: int) -> list[str]:
        return [kind for kind in self.side.kinds if not self.path(kind, masking, shard).is_file()]

    def _shard(self, kind: str, masking: int, shard: int) -> _Shard:
        path = self.path(kind, masking, shard)
        if path not in self._open:
            self._open[path] = _Shard.open(path)
        return self._open[path]

    def _compute(self, kinds: list[str], masking: int, shard: int) -> dict[str, dict[str, Tensor]]:
        first, last = shard * SHARD, min((shard + 1) * SHARD, len(self.segments))
        if isinstance(self.side, TextSide):
            assert self.segments.texts is not None
            vectors = self.side.teacher.embed_texts(self.segments.texts[first:last]).half()
            return {"embedding": {"values": vectors, "ends": torch.arange(last - first + 1)}}
        found: dict[str, dict[int, dict[str, Tensor]]] = {kind: {} for kind in kinds}
        for batch in by_length(self.segments.size[first:last], BATCH):
            rows = first + batch
            inputs = self.collator([self.segments[row] for row in rows], rows, masking)
            pieces = self._pieces(inputs.ids, inputs.mask, inputs.where)
            for kind in kinds:
                found[kind].update(zip(rows.tolist(), pieces[kind], strict=True))
        tensors = {}
        for kind, by_row in found.items():
            ordered = [by_row[row] for row in range(first, last)]
            tensors[kind] = {name: torch.cat([piece[name] for piece in ordered]) for name in ordered[0]}
            tensors[kind]["ends"] = torch.tensor([0, *(len(piece["values"]) for piece in ordered)]).cumsum(0)
        return tensors

    def _pieces(self, ids: Tensor, mask: Tensor, where: Tensor | None) -> dict[str, list[dict[str, Tensor]]]:
        """The outputs of a batch by kind, in 16 bits, one piece for each of its sequences, without padding."""
        assert isinstance(self.side, TeacherSide)
        device = next(self.side.teacher.encoder.parameters()).device
        outputs = self.side.outputs(ids.to(device), mask.to(device), None if where is None else where.to(device))
        found = {}
        for kind, output in outputs.items():
            if kind == "embedding":
                found[kind] = [{"values": row} for row in torch.split(output.half().cpu(), 1)]
            elif kind == "outputs":  # in 32 bits: there are few, and a number may be large
                inner = (mask.sum(1) - 2).tolist() if len(output) != len(mask) else 1
                found[kind] = [{"values": rows} for rows in torch.split(output.float().cpu(), inner)]
            elif kind == "logits":
                assert where is not None
                counts = torch.bincount(where // mask.shape[1], minlength=len(mask)).tolist()
                soft = torch.log_softmax(output.float() / self.temperature, -1)
                values, tokens = soft.topk(min(self.top_k, soft.shape[-1]), -1)
                parts = torch.split(values.half().cpu(), counts), torch.split(tokens.int().cpu(), counts)
                found[kind] = [{"values": v, "tokens": t} for v, t in zip(*parts, strict=True)]
            else:
                states = zip(output.half().cpu(), mask.sum(1).tolist(), strict=True)
                found[kind] = [{"values": state[:size].clone()} for state, size in states]
        return found


@dataclass(frozen=True)
class _Shard:
    """An open file: its tensors are read in slices, `ends` says where those of each sequence end."""

    slices: dict[str, Any]
    ends: list[int]

    @classmethod
    def open(cls, path: Path) -> _Shard:
        file: Any = safe_open(path, "pt")
        names = [name for name in file.keys() if name != "ends"]  # noqa: SIM118
        return cls({name: file.get_slice(name) for name in names}, file.get_tensor("ends").tolist())

    def row(self, index: int) -> dict[str, Tensor]:
        start, stop = self.ends[index : index + 2]
        return {name: values[start:stop] for name, values in self.slices.items()}
