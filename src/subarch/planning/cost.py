"""The cost of a training step in closed form: operations, weights and memory of student and teacher.

The tests compare these counts with built models. The masked-LM head is counted at the masked positions only, as
`distill` runs it, and so is the end of the last layer if no loss needs the other positions. Padding is not counted:
batches are made by length.

    >>> job = Job(Architecture.parse("4-8-1024-768"), Inputs(50265, 514, 1), ("mlm",), length=512)
    >>> 2 * training_operations(job) / job.length / 1e6  # million floating-point operations a token
    197.4...
    >>> student_memory(job).optimizer
    609690312
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from subarch.errors import InvalidConfig
from subarch.learning.losses import LOSSES, NEED_TEACHER
from subarch.numbers.architecture import IMPOSSIBLE, Architecture, Inputs, impossible
from subarch.run.record import Row

HEAD = {"mlm", "logits"}
"""Losses that run the student's masked-LM head; `logits` runs the teacher's too."""

MASKED = 0.15
"""Share of the tokens that is masked, see `text.masking`."""


@dataclass(frozen=True, slots=True)
class Job:
    """A training: shapes, losses, tokens per sequence, per optimiser step of all devices and per pass of one.

    `cpu`: it runs on processors, where short attention in 16 bits is not fused (`models.products`).

    Raises:
        InvalidConfig: an unknown loss, a loss without the teacher it needs, a shape that its family cannot have, or a
            sequence longer than a batch or than the table of positions.
    """

    student: Architecture
    inputs: Inputs
    losses: tuple[str, ...]
    teacher: Architecture | None = None
    length: int = 128
    batch_tokens: int = 8192
    micro_tokens: int = 8192
    precision: str = "fp32"
    cpu: bool = False

    def __post_init__(self) -> None:
        for loss in self.losses:
            if loss not in LOSSES:
                raise InvalidConfig(f"loss {loss!r} is unknown; known: {', '.join(LOSSES)}")
            if loss in NEED_TEACHER and self.teacher is None:
                raise InvalidConfig(f"loss {loss!r} needs a teacher and there is none; give one, or use loss mlm")
        if not self.losses:
            raise InvalidConfig(f"there is no loss; give one or more of {', '.join(LOSSES)}")
        for shape in (self.student, self.teacher):
            if shape is not None and impossible(shape.depth, shape.heads, shape.hidden, self.inputs):
                raise InvalidConfig(f"{shape}: {IMPOSSIBLE}")
        if self.length > self.inputs.positions:
            raise InvalidConfig(f"length {self.length} is more than the {self.inputs.positions} positions; lower it")
        if self.length > min(self.batch_tokens, self.micro_tokens):
            given = f"batch_tokens {self.batch_tokens} and micro_tokens {self.micro_tokens}"
            raise InvalidConfig(
                f"a sequence of {self.length} tokens does not fit {given}; raise them, or lower the length"
            )

    @property
    def masked_positions(self) -> float:
        """Masked tokens of a sequence, on average; there is always one."""
        return max(1.0, MASKED * self.length)

    @property
    def fused(self) -> bool:
        if not self.cpu or self.precision == "fp32":
            return True
        from subarch.models.products import SHORT  # it imports torch, which no other device needs

        return self.length > SHORT

    @property
    def is_modern(self) -> bool:
        return self.inputs.family == "modernbert"

    @property
    def has_head(self) -> bool:
        """Whether the student's masked-LM head is run."""
        return bool(HEAD & set(self.losses))

    @property
    def spared(self) -> float:
        """Positions of a sequence at which the last layer ends with its attention: masked-LM losses skip the rest.

        None in a ModernBERT, whose last layer adds its attention to all of them.
        """
        if self.is_modern:
            return 0.0
        needs_all = not self.has_head or {"embedding", "hidden"} & set(self.losses) or not self.student.depth
        return 0.0 if needs_all else self.length - self.masked_positions

    @property
    def asked(self) -> Architecture | None:
        """The teacher, if a loss needs its outputs."""
        return self.teacher if set(NEED_TEACHER) & set(self.losses) else None

    @property
    def maps(self) -> int:
        """Number of learned maps to the teacher's hidden states: one per layer, or one of the embeddings."""
        return max(1, self.student.depth) if "hidden" in self.losses else 0

    @property
    def width(self) -> int:
        """The teacher's hidden size; the student's own without a teacher."""
        return (self.teacher or self.student).hidden

    @property
    def projects(self) -> bool:
        """Whether the student maps its pooled vector to the teacher's width, as a sentence encoder does."""
        return self.student.hidden != self.width and (not self.has_head or "embedding" in self.losses)


class Memory(Row):
    """Bytes on one device; of student and teacher together only the total."""

    weights: int | None = None
    gradients: int | None = None
    optimizer: int | None = None
    activations: int | None = None
    total: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of one device: per token through the student (forward, backward) and the teacher, and per optimiser step.

    `source` says where they come from, in JSON types.
    """

    student_token: float
    teacher_token: float
    optimizer_step: float
    source: dict[str, Any]


def student_operations(job: Job) -> float:
    """Multiply-adds of one forward pass over one sequence, with the heads and maps of the losses."""
    hidden, length = job.student.hidden, job.length
    count: float = job.student.operations(job.inputs, length)
    if job.has_head:
        count += job.masked_positions * hidden * (hidden + job.inputs.vocabulary)
    count -= job.spared * hidden * (hidden + 2 * job.student.intermediate)
    if "embedding" in job.losses and job.projects:
        count += hidden * job.width
    if "relations" in job.losses:
        count += 3 * length * length * hidden  # x xᵀ of queries, keys and values, in however many relation heads
    return count + job.maps * length * hidden * job.width


def training_operations(job: Job) -> float:
    """Multiply-adds of a forward and a backward pass over one sequence: three times the forward pass, exactly.

    Each matrix product x W has two in the backward pass, for x and for W. One case is counted too high: `relations`
    alone has no backward pass through what lies above the last layer's values.
    """
    return 3 * student_operations(job)


def teacher_operations(job: Job) -> float:
    """Multiply-adds of the teacher over one sequence, forward only; 0 if no loss needs it.

    `relations` computes the queries, keys and values of the last layer a second time, from its input.
    """
    if job.asked is None:
        return 0.0
    hidden, length = job.asked.hidden, job.length
    count: float = job.asked.operations(job.inputs, length)
    if "logits" in job.losses:
        count += job.masked_positions * hidden * (hidden + job.inputs.vocabulary)
    if "relations" in job.losses:
        count += 3 * length * hidden * hidden + 3 * length * length * hidden
    return count


def student_parameters(job: Job) -> int:
    """Weights of the student: tables, layers, and the head and maps of the losses."""
    hidden = job.student.hidden
    count = job.student.parameters(job.inputs)
    total = count.total + (count.masked_lm_head if job.has_head else 0)
    if job.projects:
        total += (hidden + 1) * job.width
    return total + job.maps * hidden * job.width


def teacher_parameters(job: Job) -> int:
    """The teacher's weights, with its masked-LM head only if `logits` needs it; 0 if no loss needs the teacher."""
    if job.asked is None:
        return 0
    count = job.asked.parameters(job.inputs)
    return count.total + (count.masked_lm_head if "logits" in job.losses else 0)


def student_memory(job: Job) -> Memory:
    """Weights, gradients and optimiser state in fp32, as mixed precision keeps them, and the activations of a pass.

    Weights that no loss reaches (the map of a sentence encoder trained by `hidden` or `relations` alone, and the end of
    its last layer by `relations` alone) are counted as if one did.
    """
    weights = student_parameters(job)
    # AdamW keeps two averages; its step counters, 4 bytes a tensor, are left out
    return _memory(4 * weights, 4 * weights, 8 * weights, student_activations(job))


def _memory(weights: int, gradients: int, optimizer: int, activations: int) -> Memory:
    total = weights + gradients + optimizer + activations
    return Memory(weights=weights, gradients=gradients, optimizer=optimizer, activations=activations, total=total)


def student_activations(job: Job) -> int:
    """Bytes that the forward pass of `micro_tokens` keeps for the backward pass, without dropout.

    Per token and layer: the inputs of the six matrix products (and of GELU) in the precision of the products, the
    inputs of the two LayerNorms in fp32, mean and deviation of each, and the A normalisers of the fused attention,
    which keeps no n x n matrix; where it is not fused, queries, keys, values and probabilities are kept in fp32. The
    vocabulary-wide rows at the masked positions are kept once by `mlm`, twice by `logits`. bf16 adds a copy of each
    weight matrix, and one of the layer's input for each of queries, keys and values.
    A ModernBERT's layer keeps the inputs of its four products, queries and keys before and after they are turned,
    values, and the activations, gates and both before they are multiplied.
    Accurate to 5 % in fp32 and 15 % in bf16 (tests). Temporary tensors of the backward pass come on top.
    """
    depth, heads, hidden, intermediate = (getattr(job.student, n) for n in ("depth", "heads", "hidden", "intermediate"))
    size, inputs = (4, 6) if job.precision == "fp32" else (2, 8)
    sequences = job.micro_tokens // job.length
    inner, gated = (8 * hidden + 4 * intermediate, 3) if job.is_modern else (inputs * hidden + 2 * intermediate, 2)
    layer = size * inner + 8 * hidden + 4 * heads + 16
    if not job.fused:
        layer += 6 * hidden + 4 * heads * (job.length - 1)
    token = 8 + 4 * (hidden + 2) + depth * layer
    matrices = depth * (4 * hidden * hidden + gated * hidden * intermediate)
    if "relations" in job.losses:
        # Log-probabilities of student and teacher, n x n in each relation head, of which there are at most A
        token += 3 * (8 * (job.teacher or job.student).heads * job.length + size * hidden)
    if job.maps:
        token += job.maps * 8 * job.width + size * hidden  # both sides of each difference, and the last map's input
    position = 0
    if job.has_head:
        rows = ("mlm" in job.losses) + 2 * ("logits" in job.losses)
        position = size * 4 * hidden + 8 + 4 * rows * job.inputs.vocabulary
        matrices += hidden * (hidden + job.inputs.vocabulary)
    # Behind the last layer's attention; what is left is picked out, one more copy of the attention's output
    ended = job.spared * (size * (hidden + 2 * intermediate) + 8 * hidden + 16)
    picked = job.masked_positions * size * hidden if job.spared else 0.0
    copies = 0 if job.precision == "fp32" else 2 * matrices
    return int(sequences * (job.length * token + job.masked_positions * position - ended + picked)) + copies


def teacher_memory(job: Job) -> Memory:
    """fp32 weights, and the peak of activations in a pass without gradients over `micro_tokens`.

    The peak is in a layer's feed-forward block: the embeddings and the layer's and the block's input, all in fp32, then
    either the wide vectors before and after GELU, or one of them and the three steps to the layer's output. A
    ModernBERT's is there too (what its attention gave, and four wide vectors), or where its keys are turned.
    """
    teacher = job.asked
    if teacher is None:
        return _memory(0, 0, 0, 0)
    size, hidden, intermediate = 4 if job.precision == "fp32" else 2, teacher.hidden, teacher.intermediate
    sequences = job.micro_tokens // job.length
    # Hidden states that a loss needs are kept from all layers
    states = teacher.depth + 1 if {"hidden", "relations"} & set(job.losses) else 3
    if job.is_modern:
        block = max(28 * hidden, 8 * hidden + 4 * size * intermediate)
    else:
        block = max(2 * size * intermediate, size * intermediate + (size + 8) * hidden)
    layer = 4 * states * hidden + block
    logits = 4 * job.inputs.vocabulary if "logits" in job.losses else 0
    most = max(job.length * layer, job.length * 4 * hidden + job.masked_positions * logits)
    return _memory(4 * teacher_parameters(job), 0, 0, int(sequences * most))
