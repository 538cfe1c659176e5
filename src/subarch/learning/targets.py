"""The teacher's outputs on disk.

What a teacher says of a sequence does not change while a student is trained, so it can be computed once: sentence
embeddings, hidden states and the likeliest tokens' log-probabilities, in 16 bits, in shards. A kill costs one shard.
Where the input is masked anew in each epoch, nothing would ever be read again.

    >>> store = TargetStore(run / "pretrained.targets", key, side, collator, segments, top_k=64, temperature=2.0)
    >>> store.fill(masking=0, report=print)
    >>> store.read(masking=0, rows=np.array([3, 1]), length=32)["state 5"].shape
    torch.Size([2, 32, 384])
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

from subarch.learning.distill import TeacherSide
from subarch.models.tensors import save_tensors
from subarch.pretraining.collate import Collator
from subarch.text.corpus import Segments

SHARD = 2048
"""Sequences of a shard."""
BATCH = 64


@dataclass
class TargetStore:
    """One file for each kind of output, masking and shard: losses that share a kind share its files.

    `key` names what all outputs depend on besides the teacher: the corpus and the length sequences are cut at.
    """

    folder: Path
    key: str
    side: TeacherSide
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
        seen = f"{masker.scheme} {self.collator.seed} {masking}" if masker is not None else "clear"
        detail = f"{self.top_k} {self.temperature}" if kind == "logits" else ""
        whole = repr((self.key, self.side.teacher.fingerprint, kind, seen, detail, shard))
        return self.folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:24]}.safetensors"

    def missing(self, masking: int) -> list[int]:
        """Shards of which some kind is not there yet."""
        return [shard for shard in range(self.shards) if self._missing(masking, shard)]

    def fill(self, masking: int, report: Callable[[int, int], None], process: int = 0, processes: int = 1) -> None:
        """Compute what is missing; of several processes each computes its share, and must wait for the others then."""
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
            if kind == "embedding":
                outputs[kind] = torch.cat(values)
            elif kind == "logits":
                outputs["top"] = (torch.cat([piece["tokens"].long() for piece in pieces]), torch.cat(values))
            else:
                outputs[kind] = torch.zeros(len(values), length, values[0].shape[1])
                for row, value in enumerate(values):
                    outputs[kind][row, : len(value)] = value
        return outputs

    def bytes_of(self, part: dict[str, Any]) -> int:
        """What the outputs for a part of a batch would take on disk."""
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
        """The tensors of the files of a shard, by kind."""
        rows = np.arange(shard * SHARD, min((shard + 1) * SHARD, len(self.segments)))
        order = rows[np.argsort(self.segments.size[rows], kind="stable")]
        found: dict[str, dict[int, dict[str, Tensor]]] = {kind: {} for kind in kinds}
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            inputs = self.collator([self.segments[row] for row in some], some, masking)
            pieces = self._pieces(inputs.ids, inputs.mask, inputs.where)
            for kind in kinds:
                found[kind].update(zip(some.tolist(), pieces[kind], strict=True))
        tensors = {}
        for kind, by_row in found.items():
            pieces_in_order = [by_row[row] for row in rows.tolist()]
            ends = torch.tensor([0, *(len(piece["values"]) for piece in pieces_in_order)]).cumsum(0)
            names = pieces_in_order[0]
            tensors[kind] = {name: torch.cat([piece[name] for piece in pieces_in_order]) for name in names}
            tensors[kind]["ends"] = ends
        return tensors

    def _pieces(self, ids: Tensor, mask: Tensor, where: Tensor | None) -> dict[str, list[dict[str, Tensor]]]:
        """The outputs of a batch by kind, in 16 bits, one piece for each of its sequences, without padding."""
        device = next(self.side.teacher.encoder.parameters()).device
        outputs = self.side.outputs(ids.to(device), mask.to(device), None if where is None else where.to(device))
        found = {}
        for kind, output in outputs.items():
            if kind == "embedding":
                found[kind] = [{"values": row} for row in torch.split(output.half().cpu(), 1)]
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
