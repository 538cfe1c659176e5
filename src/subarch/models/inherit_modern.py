"""What a smaller ModernBERT takes of a larger one; `inherit` says how its layers, neurons and heads are chosen.

- hidden size: the residual stream is not normalised, only what each block reads of it is. So the rotation and the
  gains of the teacher's norms are folded into the maps behind them, exactly but for what the cut leaves out; the
  student's own gains make up for the change of length, by least squares. Token embeddings are the normalised ones.
- the first layer has no norm before its attention. Where another layer than the teacher's first comes to stand there,
  its norm is folded into its map for vectors of the usual length.
- heads: positions turn pairs of numbers, each pair at a speed of its own, so that queries and keys of another head size
  cannot be mixed freely. A head of the student has pairs at the speeds of its size; each takes those of the teacher's
  that turn at nearly that speed, cut to the best one by a singular value decomposition of complex matrices (a pair is
  one complex number, which turning multiplies). Values are not turned and are merged as BERT's are.
- neurons: the activation and its gate go together. Without biases nothing takes over the mean of what is dropped.

Whether a layer is global or local is decided by its place in the student, as stock configurations do; a layer that
changes keeps its weights, but sees farther or less far, and turns at other speeds. Exact where the candidate equals the
teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from subarch.models.parts import norms_of
from subarch.models.reduce import copy_into, grouped, truncate

if TYPE_CHECKING:
    from subarch.models.inherit import Anatomy


def streams(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Tensor]:
    """The residual stream as its readers see it, (T, K) each: normalised, without their gains."""
    return [_normalised(after[0]), *(_normalised(stream) for stream in before[2:])]


def inherit_encoder(own: Any, source: Any, kept: list[int], anatomy: Anatomy, rotate: Tensor) -> tuple[Tensor, Tensor]:
    """Fill the student's norms and layers with the teacher's layers `kept`, in the coordinates of the (H, K) rotation.

    Returns the (K, H) map and the (K,) offset from the student's last hidden states to the teacher's.
    """
    own_norms, norms = norms_of(own), norms_of(source)
    if rotate.shape[0] == rotate.shape[1]:
        own_norms[0].load_state_dict(norms[0].state_dict())
    else:
        stream = anatomy.after[0] @ rotate.T
        _fit(own_norms[0], stream, stream)

    for position, index in enumerate(kept):
        layer, theirs, at = own.layers[position], source.layers[index], 2 * index + 1
        if position:
            read = _read(own_norms[2 * position + 1], norms[at], anatomy.before[at], rotate, theirs.attn.Wqkv)
        else:
            read = _read_at_once(norms[at], anatomy.after[0], rotate)
        _attention(layer.attn, theirs.attn, anatomy.heads[index], read, rotate)
        read = _read(own_norms[2 * position + 2], norms[at + 1], anatomy.before[at + 1], rotate, theirs.mlp.Wi)
        _feed_forward(layer.mlp, theirs.mlp, anatomy.neurons[index], anatomy.activations[index], read, rotate)
    return _read(own_norms[-1], norms[-1], anatomy.before[-1], rotate, None)


def _normalised(states: Tensor) -> Tensor:
    normal: Tensor = nn.functional.layer_norm(states, states.shape[-1:])
    return normal


def _fit(own: Any, stream: Tensor, target: Tensor) -> None:
    """Gain of each coordinate, and the bias if there is one, by least squares: normalised(stream) -> (T, H) target."""
    normal, middle = _normalised(stream), target
    offset = torch.zeros_like(normal[0])
    if own.bias is not None:
        offset = normal.mean(0)
        middle = target - target.mean(0)
    gain = ((normal - offset) * middle).sum(0) / (normal - offset).square().sum(0).clamp(min=1e-12)
    copy_into(own.weight, gain)
    if own.bias is not None:
        copy_into(own.bias, target.mean(0) - gain * offset)


def _read(own: Any, norm: Any, before: Tensor, rotate: Tensor, reader: nn.Linear | None) -> tuple[Tensor, Tensor]:
    """Set the student's norm; (K, H) map and (K,) offset from what it gives to what the teacher's gives.

    The offset is zero where the teacher's `reader` has no bias to take it up: the norm's does, as well as it can.
    """
    width = rotate.shape[1]
    nothing = torch.zeros(width, dtype=torch.float64)
    if rotate.shape[0] == width:
        own.load_state_dict(norm.state_dict())
        return rotate, nothing
    _fit(own, before @ rotate.T, _normalised(before) @ rotate.T)
    through: Tensor = norm.weight.double()[:, None] * rotate.T
    if norm.bias is None:
        return through, nothing
    own.bias.zero_()
    if reader is None or reader.bias is not None:
        return through, norm.bias.double()
    weight = reader.weight.double()
    copy_into(own.bias, torch.linalg.lstsq(weight @ through, weight @ norm.bias.double()).solution)
    return through, nothing


def _read_at_once(norm: Any, stream: Tensor, rotate: Tensor) -> tuple[Tensor, Tensor]:
    """The same without a norm of the student's own, for the (T, K) stream behind the embeddings."""
    nothing = torch.zeros(rotate.shape[1], dtype=torch.float64)
    if isinstance(norm, nn.Identity):
        return rotate.T, nothing
    assert isinstance(norm, nn.LayerNorm)
    middle = stream - stream.mean(1, keepdim=True)
    length = (_normalised(stream) * middle).sum() / middle.square().sum()
    through = length * norm.weight.double()[:, None] * (rotate.T - rotate.T.mean(0))
    return through, nothing if norm.bias is None else norm.bias.double()


def _attention(own: Any, source: Any, energy: Tensor, read: tuple[Tensor, Tensor], rotate: Tensor) -> None:
    size, their_size = own.head_dim, source.head_dim
    count = own.Wqkv.in_features // size
    wide, bias = _composed(source.Wqkv, read)
    if bias is not None:
        wide = torch.cat([wide, bias[:, None]], 1)
    query, key, value = wide.chunk(3)
    out = rotate @ source.Wo.weight.double()
    ours = torch.zeros(3, count, size, wide.shape[1], dtype=torch.float64)
    theirs = torch.zeros(len(rotate), count, size, dtype=torch.float64)
    for head, members in enumerate(grouped(energy, count, size, their_size)):
        rows = torch.cat([torch.arange(m * their_size, (m + 1) * their_size) for m in members])
        # The student divides its logits by sqrt(its head size) and should give the mean of its members' logits.
        scale = (size / their_size) ** 0.5 / len(members)
        ours[0, head], ours[1, head] = _turned_alike(query[rows] * scale, key[rows], len(members), size)
        v, o = truncate(value[rows], out[:, rows].T, size)
        ours[2, head, : len(v)] = v
        theirs[:, head, : len(o)] = o.T
    flat = ours.flatten(0, 2)
    copy_into(own.Wqkv.weight, flat[:, : own.Wqkv.in_features])
    copy_into(own.Wo.weight, theirs.flatten(1))
    if bias is not None:
        copy_into(own.Wqkv.bias, flat[:, -1])
        copy_into(own.Wo.bias, rotate @ source.Wo.bias.double())


def _composed(linear: nn.Linear, read: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear map behind the (K, H) map and the (K,) offset."""
    weight, (through, offset) = linear.weight.double(), read
    # torch's stubs say that there always is a bias
    bias: Tensor | None = linear.bias
    return weight @ through, None if bias is None else bias.double() + weight @ offset


def _turned_alike(query: Tensor, key: Tensor, heads: int, size: int) -> tuple[Tensor, Tensor]:
    """(heads · d, m) queries and keys of some heads -> (size, m) of one head, whose pairs turn at nearly their speeds.

    Pair j of a head of size d is rows j and j + d/2, and turns at the speed θ^(-2j/d).
    """
    pairs = []
    for rows in (query, key):
        real, imaginary = rows.view(heads, 2, -1, rows.shape[1]).unbind(1)
        pairs.append(torch.complex(real, imaginary).transpose(0, 1).flatten(0, 1))  # fastest first
    slots, given = size // 2, len(pairs[0])
    found = [torch.zeros(slots, query.shape[1], dtype=torch.complex128) for _ in pairs]
    for slot in range(slots):
        taken = [at for at in range(given) if at * slots // given == slot]
        if taken:
            q, k = truncate(pairs[0][taken].conj().resolve_conj(), pairs[1][taken], 1)
            found[0][slot], found[1][slot] = q[0].conj(), k[0]
    q, k = (torch.cat([one.real, one.imag]) for one in found)
    return q, k


def _feed_forward(
    own: Any, source: Any, energy: Tensor, activation: Tensor, read: tuple[Tensor, Tensor], rotate: Tensor
) -> None:
    size, their_size = own.Wo.in_features, source.Wo.in_features
    order = torch.argsort(energy, descending=True, stable=True)
    kept, dropped = order[:size].sort().values, order[size:]
    inner = len(kept)  # fewer than `size` where the candidate's block is wider than the teacher's
    (wide, bias), out = _composed(source.Wi, read), source.Wo.weight.double()
    for half in (0, 1):  # activations, then gates
        copy_into(own.Wi.weight[half * size :][:inner], wide[half * their_size + kept])
        if bias is not None:
            copy_into(own.Wi.bias[half * size :][:inner], bias[half * their_size + kept])
    copy_into(own.Wo.weight[:, :inner], rotate @ out[:, kept])
    own.Wo.weight[:, inner:].zero_()  # surplus neurons start without effect, and learn
    if source.Wo.bias is not None:
        copy_into(own.Wo.bias, rotate @ (source.Wo.bias.double() + out[:, dropped] @ activation[dropped]))
