"""How matrices become smaller with the least that is lost: the tools of weight inheritance, for any family.

>>> rotate = rotation(anatomy.basis, 384)          # (384, 768)
>>> left, right = truncate(query, key, 32)         # leftᵀ·right, of rank 32
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def copy_into(target: Tensor, value: Tensor) -> None:
    """Raises ValueError where the shapes differ, which would otherwise be broadcast."""
    if target.shape != value.shape:
        raise ValueError(f"inherited weights have shape {tuple(value.shape)}, the candidate's {tuple(target.shape)}")
    target.copy_(value.to(target.dtype))


def rotation(basis: Tensor, hidden: int) -> Tensor:
    """(H, K) rotation onto the leading principal components, which are laid orthogonal to the student's ones vector."""
    width = len(basis)
    if hidden == width:
        return torch.eye(width, dtype=torch.float64)
    leading = basis[: hidden - 1]  # all of them where the candidate is wider than the teacher
    return centred(hidden)[:, : len(leading)] @ leading


@cache
def centred(size: int) -> Tensor:
    """(size, size - 1) orthonormal columns, each orthogonal to the all-ones vector."""
    ones = torch.ones(size, 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(size, size - 1, generator=generator, dtype=torch.float64)
    q: Tensor = torch.linalg.qr(torch.cat([ones, random], 1)).Q
    return q[:, 1:]


def grouped(energy: Tensor, count: int, size: int, their_size: int) -> list[list[int]]:
    """Which of a teacher's N heads each of `count` heads takes, by their (N,) energies: as many as its size holds."""
    group = max(1, min(round(size / their_size), len(energy) // count))
    chosen = torch.argsort(energy, descending=True, stable=True)[: group * count].sort().values.tolist()
    return [chosen[at : at + group] for at in range(0, len(chosen), group)]


def truncate(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two (r, m) and (r, n) factors of leftᵀ·right, cut to at most `rank` rows with the least squared error."""
    if len(left) <= rank:
        return left, right
    q_left, r_left = torch.linalg.qr(left.T)
    q_right, r_right = torch.linalg.qr(right.T)
    u, s, vt = torch.linalg.svd(r_left @ r_right.T)
    root = s[:rank].sqrt()
    return (q_left @ (u[:, :rank] * root)).T, (q_right @ (vt[:rank].T * root)).T
