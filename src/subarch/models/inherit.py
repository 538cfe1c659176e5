"""Weight inheritance: a candidate starts from the teacher instead of from noise.

One code path for every candidate of a BERT or RoBERTa teacher; `inherit_modern` says what differs for a ModernBERT:

- layers: those that the caller names, such as a search that tried which ones learn best (`extraction.layers`). By
  default the teacher's layers are ranked once by greedy removal, dropping the one whose absence moves the sentence
  embeddings, or the outputs of a task, least; a candidate of depth D keeps the D that survive longest, in their order;
- feed-forward neurons: ranked by the energy they add to the layer's output, E[a²]·||w||²; what the dropped ones add
  on average goes into the bias;
- heads: ranked by the energy of their output, the best kept. Where the candidate's head size H/A differs from the
  teacher's, each of its heads takes a group of teacher heads (as many as its size holds, at least one): the mean
  of their attention logits and the sum of their value maps, truncated to the best rank H/A by a singular value
  decomposition;
- hidden size: the residual stream is rotated to its principal components (uncentred, over all its LayerNorm
  outputs) and cut to H; the rotation is folded into the weights. The components are laid orthogonal to the
  all-ones vector, so that LayerNorm's centring cannot touch them. LayerNorm's gain does not commute with a rotation,
  so the gains and biases are fitted by least squares on the calibration text: with H below the teacher's the start
  is an approximation, whose error `docs/estimate.md` records.

The start is exact where the candidate equals the teacher, and where what is dropped contributed nothing.

    >>> anatomy = Anatomy.examine(teacher, calibration_segments)
    >>> student = inherit(Architecture.parse("2-12-384-512"), Blueprint.of_teacher(teacher), teacher, anatomy)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from subarch.models import inherit_modern
from subarch.models.outputs import TaskTeacher, head_parts
from subarch.models.parts import ends_of, is_modern, layers_of, norms_of, set_layers
from subarch.models.reduce import copy_into, grouped, rotation, truncate
from subarch.models.rows import Rows, token_table
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import SentenceModel, Teacher, Tokens
from subarch.numbers.architecture import Architecture
from subarch.run.files import save_tensors

CALIBRATION = 64
"""Number of segments of text that a teacher is examined on."""


@dataclass(eq=False)
class Anatomy:
    """What a teacher does on some calibration text; computed once, shared by all candidates.

    With L teacher layers, width K, intermediate size J, heads N and T calibration tokens:
    `keep` lists the layers from most to least worth keeping; `neurons` (L, J) and `heads` (L, N) are energies;
    `activations` (L, J) are mean activations; `basis` (K, K) has the stream's principal components as rows;
    `before` and `after` hold the (T, K) input and output of each LayerNorm (`norms_of`).
    """

    keep: list[int]
    neurons: Tensor
    activations: Tensor
    heads: Tensor
    basis: Tensor
    before: list[Tensor]
    after: list[Tensor]

    @classmethod
    def cached(cls, path: Path, teacher: Teacher, segments: Tokens) -> Anatomy:
        """Examine the teacher and write the result to `path`, or read it from there."""
        if not path.is_file():
            anatomy = cls.examine(teacher, segments)
            state = {name: value for name, value in vars(anatomy).items() if isinstance(value, Tensor)}
            state["keep"] = torch.tensor(anatomy.keep, dtype=torch.int64)
            for name in ("before", "after"):
                state[name] = torch.stack(getattr(anatomy, name)).float()
            save_tensors(state, path)
        state = load_file(path)
        return cls(
            keep=state.pop("keep").tolist(),
            before=list(state.pop("before").double()),
            after=list(state.pop("after").double()),
            **state,
        )

    @classmethod
    @torch.inference_mode()
    def examine(cls, teacher: Teacher, segments: Tokens) -> Anatomy:
        """Run the teacher over the calibration segments (token ids; 64 are enough) and record."""
        batch = teacher.batch(segments)
        real = batch.mask.bool()
        seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

        def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[module] = (args[0][real].clone(), output[real].clone())

        layers = list(layers_of(teacher.encoder))
        norms = norms_of(teacher.encoder)
        ends = [ends_of(layer) for layer in layers]
        hooks = [module.register_forward_hook(record) for module in (*norms, *(end for pair in ends for end in pair))]
        teacher.encoder(input_ids=batch.ids, attention_mask=batch.mask)
        for hook in hooks:
            hook.remove()

        neurons, activations, heads = [], [], []
        for attention, block in ends:
            inner = seen[block][0].double()
            column = block.weight.double().square().sum(0)
            neurons.append(inner.square().mean(0) * column)
            activations.append(inner.mean(0))
            context = seen[attention][0].double()
            out = attention.weight.double()
            size = teacher.architecture.head_size
            each = (slice(at, at + size) for at in range(0, context.shape[1], size))
            energies = [(context[:, one] @ out[:, one].T).square().sum(-1).mean() for one in each]
            heads.append(torch.stack(energies))
        before = [seen[norm][0].double() for norm in norms]
        after = [seen[norm][1].double() for norm in norms]
        streams = inherit_modern.streams(before, after) if is_modern(teacher.encoder) else after
        moment = torch.stack([stream.T @ stream / len(stream) for stream in streams]).mean(0)
        basis = torch.linalg.eigh(moment).eigenvectors.flip(1).T
        ranked = _rank_layers(teacher, batch.ids, batch.mask)

        def stacked(each: list[Tensor]) -> Tensor:
            return torch.stack(each) if each else torch.empty(0, 0)

        return cls(ranked, stacked(neurons), stacked(activations), stacked(heads), basis, before, after)


@torch.inference_mode()
def _rank_layers(teacher: Teacher, ids: Tensor, mask: Tensor) -> list[int]:
    """Layers from most to least worth keeping, by greedy removal."""
    encoder = teacher.encoder
    layers = layers_of(encoder)
    model: nn.Module = teacher.model
    if isinstance(teacher, TaskTeacher) and teacher.task.base_model is not encoder:  # the head is of another family
        model = SentenceModel(encoder, "cls", nn.Identity(), False)

    def embed(kept: Sequence[int]) -> Tensor:
        set_layers(encoder, nn.ModuleList(layers[index] for index in kept))
        embedding: Tensor = model(ids, mask)
        return embedding

    def apart(found: Tensor, whole: Tensor) -> Tensor:
        """Of embeddings the directions count, of the outputs of a task the numbers."""
        if isinstance(teacher, TaskTeacher):
            return (found - whole).square().mean()
        return 1 - nn.functional.cosine_similarity(found, whole).mean()

    try:
        whole = embed(range(len(layers)))
        left, removed = list(range(len(layers))), []
        while left:
            distance = {index: apart(embed([k for k in left if k != index]), whole) for index in left}
            removed.append(min(left, key=lambda index: float(distance[index])))
            left.remove(removed[-1])
    finally:
        set_layers(encoder, layers)
    return removed[::-1]


@torch.no_grad()
def inherit(
    architecture: Architecture,
    blueprint: Blueprint,
    teacher: Teacher,
    anatomy: Anatomy,
    layers: Sequence[int] | None = None,
    readout: Tensor | None = None,
    kept: Tensor | None = None,
    vocabulary: Tensor | None = None,
) -> Student:
    """A student of this architecture that starts as near to the teacher as its size allows.

    `readout` (K_out, K + 1): where the student learns another teacher's vectors, the map to them from this one's pooled
    vectors, its bias last; None: this one's own dense maps. `kept`: (n,) tokens whose rows the table is to have, see
    `models.rows`; None: all of them. `vocabulary`: (V,) the start's ids of the student's tokens; None: they are the
    same.

    The head of a task is inherited where `teacher` has it: of its dense map the neurons that weigh most in the outputs.
    (Where its activation is another than the stock student's, as a DistilBERT's, that is an approximation.)

    A masked-LM head is inherited where the hidden sizes agree; its activation lets no rotation through.
    """
    student = Student(architecture, blueprint)
    own, source = student.encoder, teacher.encoder
    rotate = rotation(anatomy.basis, architecture.hidden)
    width = source.config.hidden_size

    theirs = kept if vocabulary is None else vocabulary if kept is None else vocabulary[kept]
    if kept is not None:
        origin = {"rotation": rotate, "start": teacher.table_digest}
        origin |= {} if vocabulary is None else {"vocabulary": vocabulary}
        own.set_input_embeddings(Rows(own.get_input_embeddings(), kept, origin))
    copy_into(own.get_input_embeddings().weight, token_table(source, rotate, theirs))

    chosen = sorted(anatomy.keep[: architecture.depth] if layers is None else layers)
    back, offset = rotate.T, torch.zeros(width, dtype=torch.float64)
    if is_modern(source):
        back, offset = inherit_modern.inherit_encoder(own, source, chosen, anatomy, rotate)
    else:
        _inherit_encoder(own, source, chosen, anatomy, rotate)
    if student.projection is not None:
        weight, bias = _composed(teacher) if readout is None else (readout[:, :-1], readout[:, -1])
        copy_into(student.projection.weight, weight @ back)
        copy_into(student.projection.bias, bias + weight @ offset)
    task = blueprint.task
    if task is not None and isinstance(teacher, TaskTeacher) and teacher.outputs.names == task.names:
        _inherit_head(student.model, teacher.task, back, offset)
    if blueprint.masked_lm and teacher.masked_lm is not None and architecture.hidden == width:
        student.head.load_state_dict(teacher.head.state_dict())
    return student


def _inherit_encoder(own: Any, source: Any, kept: list[int], anatomy: Anatomy, rotate: Tensor) -> None:
    """Of BERT and RoBERTa: positions, types and the layers `kept`, in the student's coordinates."""
    for name in ("position_embeddings", "token_type_embeddings"):
        copy_into(getattr(own.embeddings, name).weight, getattr(source.embeddings, name).weight.double() @ rotate.T)
    own_norms, norms = norms_of(own), norms_of(source)
    _fit_norm(own_norms[0], norms[0], anatomy, 0, rotate)
    for position, index in enumerate(kept):
        layer = own.encoder.layer[position]
        theirs = source.encoder.layer[index]
        _inherit_attention(layer.attention, theirs.attention, anatomy.heads[index], rotate)
        _inherit_feed_forward(layer, theirs, anatomy.neurons[index], anatomy.activations[index], rotate)
        for half in (1, 2):
            _fit_norm(own_norms[2 * position + half], norms[2 * index + half], anatomy, 2 * index + half, rotate)


def _inherit_head(own: Any, source: Any, back: Tensor, offset: Tensor) -> None:
    """The head of a task, for hidden states h of which the teacher's are back·h + offset."""
    (dense, norm, last), (their_dense, their_norm, their_last) = head_parts(own), head_parts(source)
    weight, bias = their_last.weight.double(), their_last.bias.double()
    if dense is None or their_dense is None:
        copy_into(last.weight, weight @ back)
        copy_into(last.bias, bias + weight @ offset)
        return
    count = min(dense.out_features, their_dense.out_features)
    kept = torch.argsort(weight.square().sum(0), descending=True, stable=True)[:count].sort().values
    inner = their_dense.weight.double()[kept]
    copy_into(dense.weight[:count], inner @ back)
    if dense.bias is not None:
        copy_into(dense.bias[:count], their_dense.bias.double()[kept] + inner @ offset)
    last.weight.zero_()  # surplus neurons start without effect
    copy_into(last.weight[:, :count], weight[:, kept])
    copy_into(last.bias, bias)
    if norm is not None and their_norm is not None:
        copy_into(norm.weight[:count], their_norm.weight[kept])
        if norm.bias is not None:
            copy_into(norm.bias[:count], their_norm.bias[kept])


def _composed(teacher: Teacher) -> tuple[Tensor, Tensor]:
    """The teacher's dense maps after pooling as one linear map (width, K) and its bias; no tanh, no norm."""
    width = teacher.encoder.config.hidden_size
    weight, bias = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for linear in teacher.dense.modules():
        if isinstance(linear, nn.Linear):
            weight, bias = linear.weight.double() @ weight, linear.weight.double() @ bias
            bias = bias if linear.bias is None else bias + linear.bias.double()
    return weight[: teacher.width], bias[: teacher.width]


def _fit_norm(own: nn.Module, source: nn.Module, anatomy: Anatomy, index: int, rotate: Tensor) -> None:
    """Gain and bias per coordinate by least squares: normalised(R z) -> R x over the calibration tokens."""
    assert isinstance(own, nn.LayerNorm)
    if rotate.shape[0] == rotate.shape[1]:
        own.load_state_dict(source.state_dict())
        return
    normal = nn.functional.layer_norm(anatomy.before[index] @ rotate.T, own.normalized_shape, eps=own.eps)
    target = anatomy.after[index] @ rotate.T
    offset, mean = normal.mean(0), target.mean(0)
    gain = ((normal - offset) * (target - mean)).sum(0) / (normal - offset).square().sum(0).clamp(min=1e-12)
    copy_into(own.weight, gain)
    copy_into(own.bias, mean - gain * offset)


def _inherit_feed_forward(own: Any, source: Any, energy: Tensor, activation: Tensor, rotate: Tensor) -> None:
    size = own.intermediate.dense.out_features
    order = torch.argsort(energy, descending=True, stable=True)
    kept, dropped = order[:size].sort().values, order[size:]
    weight = source.intermediate.dense.weight.double() @ rotate.T
    out = source.output.dense.weight.double()
    bias = source.output.dense.bias.double() + out[:, dropped] @ activation[dropped]
    inner = len(kept)  # fewer than `size` where the candidate's block is wider than the teacher's
    copy_into(own.intermediate.dense.weight[:inner], weight[kept])
    copy_into(own.intermediate.dense.bias[:inner], source.intermediate.dense.bias[kept])
    copy_into(own.output.dense.weight[:, :inner], rotate @ out[:, kept])
    own.output.dense.weight[:, inner:].zero_()  # surplus neurons start without effect, and learn
    copy_into(own.output.dense.bias, rotate @ bias)


def _inherit_attention(own: Any, source: Any, energy: Tensor, rotate: Tensor) -> None:
    theirs, ours = source.self, own.self
    count, size = ours.num_attention_heads, ours.attention_head_size
    their_size = theirs.attention_head_size

    def extended(linear: nn.Linear) -> Tensor:
        """(K_out, H + 1): the map in the student's coordinates, its bias as a last column."""
        return torch.cat([linear.weight.double() @ rotate.T, linear.bias.double()[:, None]], 1)

    query, key, value = extended(theirs.query), extended(theirs.key), extended(theirs.value)
    out = rotate @ source.output.dense.weight.double()
    own.output.dense.weight.zero_()  # heads that inherit nothing start without effect
    for head, members in enumerate(grouped(energy, count, size, their_size)):
        rows = torch.cat([torch.arange(m * their_size, (m + 1) * their_size) for m in members])
        at = slice(head * size, (head + 1) * size)
        # The student divides its logits by sqrt(its head size) and should give the mean of its members' logits.
        scale = (size / their_size) ** 0.5 / len(members)
        q, k = truncate(query[rows] * scale, key[rows], size)
        v, o = truncate(value[rows], out[:, rows].T, size)
        rank = len(q)
        for linear, matrix in ((ours.query, q), (ours.key, k), (ours.value, v)):
            copy_into(linear.weight[at][:rank], matrix[:, :-1])
            copy_into(linear.bias[at][:rank], matrix[:, -1])
        ours.query.weight[at][rank:].zero_()
        ours.query.bias[at][rank:].zero_()
        copy_into(own.output.dense.weight[:, at][:, :rank], o.T)
    copy_into(own.output.dense.bias, rotate @ source.output.dense.bias.double())
