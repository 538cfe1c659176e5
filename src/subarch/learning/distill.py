"""The losses that compare student and teacher, and the module that is trained: a student with their weighted sum.

Student and teacher see the same input: masked if a masked-LM loss has a weight, unmasked otherwise. A loss is a mean
over sequences, tokens or masked positions, and `shares` is the share of the whole batch's that this part of it holds.
So the losses of the parts of a batch, over processes or accumulation steps, *add up* to the loss of the batch, and so
do their gradients, however unevenly the batch was cut. One does so only within a part: `similarities` compares the
sequences with each other, and those of other parts are not there.

    >>> distiller = Distiller(student, {"embedding": 1.0, "relations": 0.1}, teacher)
    >>> distiller(ids, mask, targets=TeacherSide(teacher, distiller).live(ids, mask))["loss"].backward()
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from subarch.errors import InvalidConfig
from subarch.learning.bank import Bank
from subarch.learning.losses import OF_VECTORS, UNIT
from subarch.learning.outputs import counts_of, divergence, flat
from subarch.models.outputs import TaskTeacher, run
from subarch.models.parts import attended, is_modern, layers_of, readers_of, split_attended
from subarch.models.products import products
from subarch.models.sentence import pool
from subarch.models.source import Source
from subarch.models.student import Student
from subarch.models.teacher import Teacher

WHOLE = {"masked": 1.0, "sequences": 1.0, "tokens": 1.0}

Targets = dict[str, Any]
"""The teacher's targets of a batch: "embedding" (n, K); "negatives" (n, k, K), see `Bank`; "outputs" (k, C), see
`outputs.flat`; "hidden", a list of (n, L, K); "relations", its queries, keys and values, each (n, L, K); "logits"
(m, V), or "top": the k most probable tokens and their log-probabilities."""


class Distiller(nn.Module):
    """The student, the linear maps that only training needs, and the weighted sum of the losses.

    Args:
        weights: by loss; a loss without a weight is not computed. All but mlm and those of vectors need the teacher
            itself.
        temperature: τ of the loss `logits`.
        constant: what the loss `outputs` is divided by (`learning.outputs.constant`).
        widths: that embeddings may be cut to: the loss `similarities` is the mean over these prefixes and the whole
            (Matryoshka; Kusupati et al., arXiv 2205.13147). Its targets are always the teacher's whole vectors.

    Raises:
        InvalidConfig, InvalidTeacher: student or teacher lack what a loss compares (attention, a masked-LM head, the
            same vocabulary).
    """

    def __init__(
        self,
        student: Student,
        weights: Mapping[str, float],
        teacher: Teacher | None = None,
        temperature: float = 2.0,
        constant: float = 1.0,
        widths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.student, self.weights, self.temperature, self.constant = student, dict(weights), temperature, constant
        own = student.encoder.config
        _check(own, self.weights, teacher)
        if student.projection is not None:  # no other loss uses it
            student.projection.requires_grad_(self.of_vectors)
        self.layers: list[tuple[int, int]] = []
        self.maps = nn.ModuleList()
        if "hidden" in self.weights:
            assert teacher is not None
            theirs = teacher.architecture
            self.layers = layer_pairs(own.num_hidden_layers, theirs.depth)
            for _ in self.layers:
                linear = nn.Linear(own.hidden_size, theirs.hidden, bias=False)
                if own.hidden_size == theirs.hidden:  # inherited states are already in the teacher's coordinates
                    nn.init.eye_(linear.weight)
                self.maps.append(linear)
        self.heads = 0
        self._attended: list[Tensor] = []
        if "relations" in self.weights:
            assert teacher is not None
            self.heads = relation_heads(own.hidden_size, teacher.architecture.hidden, teacher.architecture.heads)
            for read in readers_of(layers_of(student.encoder)[-1])[0][1]:
                read.register_forward_hook(lambda _module, _args, output: self._attended.append(output))
        self._where: Tensor | None = None
        # A ModernBERT adds what its attention gives to the stream of all positions, where nothing can be left out
        spares = own.num_hidden_layers and self.masked and not is_modern(student.encoder)
        if spares and not self.of_vectors and "hidden" not in self.weights:
            student.encoder.encoder.layer[-1].attention.output.register_forward_pre_hook(self._masked_only)

    @property
    def masked(self) -> bool:
        return "mlm" in self.weights or "logits" in self.weights

    @property
    def of_vectors(self) -> bool:
        return any(name in self.weights for name in OF_VECTORS)

    @products()
    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        where: Tensor | None = None,
        labels: Tensor | None = None,
        targets: Targets | None = None,
        shares: Mapping[str, float] = WHOLE,
        choices: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted sum as "loss", and each loss by name, detached; all of them scaled by `shares`.

        ids, mask: (n, L); where, labels: (m,) masked positions in the flattened ids, and their true tokens; choices:
        (inputs,) rows of each, if any has several.
        """
        targets = targets or {}
        self._attended.clear()
        self._where = where
        task, own = self.student.task, Tensor()
        if task is not None:
            own, states = run(self.student.model, task.head, ids, mask, bool(self.layers))
            hidden = own  # no loss of a student with a head looks at it
        else:
            output = self.student.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=bool(self.layers))
            hidden = output.last_hidden_state
            states = output.hidden_states or (hidden,)  # transformers lists none at depth 0
        self._where = None
        found: dict[str, Tensor] = {}
        if self.masked:
            assert where is not None
            assert labels is not None
            logits = self.student.head(hidden if hidden.ndim == 2 else rows_of(hidden, where))
            if "mlm" in self.weights:
                found["mlm"] = masked_lm(logits, labels)
            if "top" in targets:
                tokens, likely = targets["top"]
                found["logits"] = distillation_top(logits, tokens, likely, self.temperature)
            elif "logits" in self.weights:
                found["logits"] = distillation(logits, targets["logits"], self.temperature)
        if self.of_vectors:
            pooled = pool(hidden, mask, self.student.pooling)
            vectors = pooled if self.student.projection is None else self.student.projection(pooled)
            theirs = targets["embedding"]
            if "embedding" in self.weights:
                found["embedding"] = embedding_distance(vectors, theirs)
            if "similarities" in self.weights:
                several = [vectors, *(vectors[:, :width] for width in self.widths)]
                found["similarities"] = torch.stack([similarity_divergence(own, theirs) for own in several]).mean()
            if "margins" in self.weights:
                found["margins"] = margin_difference(vectors, theirs, targets["negatives"])
        if "outputs" in self.weights:
            assert task is not None
            counts = counts_of(task, mask, choices)
            apart = divergence(task.kind, flat(task, own, mask), targets["outputs"], counts)
            found["outputs"] = apart.mean() / self.constant
        if self.layers:
            pairs = zip(self.maps, self.layers, targets["hidden"], strict=True)
            parts = [hidden_distance(to(states[at]), theirs, mask) for to, (at, _), theirs in pairs]
            found["hidden"] = torch.stack(parts).mean()
        if "relations" in self.weights:
            pairs_of = zip(split_attended(self._attended), targets["relations"], strict=True)
            found["relations"] = torch.stack([relation(own, t, self.heads, mask) for own, t in pairs_of]).mean()
        scaled = {name: value * shares[UNIT[name]] for name, value in found.items()}
        loss = torch.stack([self.weights[name] * value for name, value in scaled.items()]).sum()
        return {"loss": loss} | {name: value.detach() for name, value in scaled.items()}

    def _masked_only(self, _: nn.Module, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
        """After the last layer's attention positions no longer interact: compute only those that a loss looks at."""
        if self._where is None:
            return None
        attended, entering = states
        return rows_of(attended, self._where), rows_of(entering, self._where)


class TeacherSide:
    """The teacher's half of a distiller: `outputs` are worth caching, `targets` derives from them what is compared.

    `bank`: where the loss `margins` finds its negatives.
    """

    def __init__(self, teacher: Teacher, distiller: Distiller, bank: Bank | None = None) -> None:
        self.teacher, self.bank = teacher, bank
        self.names = set(distiller.weights) - {"mlm"}
        self.of_vectors = distiller.of_vectors
        self.compared = [theirs for _, theirs in distiller.layers]
        # MiniLMv2 compares the last layer of a base teacher; its queries, keys and values follow from its input
        last = [teacher.architecture.depth - 1] if "relations" in self.names else []
        self.layers = list(dict.fromkeys(layer for layer in self.compared if layer not in last)) + last

    @property
    def kinds(self) -> list[str]:
        """What the losses need: "embedding", "logits", "outputs", and hidden states by layer, as "state 5"."""
        kinds = ["embedding"] * self.of_vectors + [kind for kind in ("logits", "outputs") if kind in self.names]
        return kinds + [f"state {layer}" for layer in self.layers]

    @products()
    @torch.no_grad()
    def outputs(self, ids: Tensor, mask: Tensor, where: Tensor | None) -> dict[str, Tensor]:
        """By kind: (n, K) embedding, (m, V) logits, (k, C) outputs as `flat` gives them, (n, L, K) states."""
        teacher = self.teacher
        if "outputs" in self.names:
            assert isinstance(teacher, TaskTeacher)
            said, states = run(teacher.task, teacher.outputs.head, ids, mask, bool(self.layers))
            return {"outputs": flat(teacher.outputs, said, mask)} | {f"state {at}": states[at] for at in self.layers}
        output = teacher.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=bool(self.layers))
        hidden, found = output.last_hidden_state, {}
        if self.of_vectors:
            found["embedding"] = teacher.dense(pool(hidden, mask, teacher.recipe.pooling))
        if "logits" in self.names:
            assert where is not None
            found["logits"] = teacher.head(rows_of(hidden, where))
        states = output.hidden_states or (hidden,)  # transformers lists none at depth 0
        return found | {f"state {layer}": states[layer] for layer in self.layers}

    @products()
    @torch.no_grad()
    def targets(self, outputs: Mapping[str, Any]) -> Targets:
        """What the losses compare with, from outputs as they are computed, or as cached ("top" instead of "logits")."""
        targets: Targets = {
            kind: outputs[kind] for kind in ("embedding", "logits", "top", "outputs") if kind in outputs
        }
        if self.bank is not None:
            targets["negatives"] = self.bank.negatives(targets["embedding"])
        if "hidden" in self.names:
            targets["hidden"] = [outputs[f"state {layer}"] for layer in self.compared]
        if "relations" in self.names:
            entering = outputs[f"state {self.layers[-1]}"]
            targets["relations"] = attended(layers_of(self.teacher.encoder)[-1], entering)
        return targets

    def to(self, device: torch.device) -> None:
        (self.teacher.masked_lm if self.teacher.masked_lm is not None else self.teacher.encoder).to(device)
        if isinstance(self.teacher, TaskTeacher):
            self.teacher.task.to(device)
        self.teacher.dense.to(device)
        if self.bank is not None:
            self.bank.to(device)

    def live(self, ids: Tensor, mask: Tensor, where: Tensor | None = None) -> Targets:
        return self.targets(self.outputs(ids, mask, where))


class TextSide:
    """The half of a teacher that reads text: its vectors of the sequences are computed once, before training."""

    kinds: ClassVar[list[str]] = ["embedding"]

    def __init__(self, teacher: Source, bank: Bank | None = None) -> None:
        self.teacher, self.bank = teacher, bank

    def targets(self, outputs: Mapping[str, Any]) -> Targets:
        theirs = outputs["embedding"]
        return {"embedding": theirs} | ({"negatives": self.bank.negatives(theirs)} if self.bank is not None else {})

    def to(self, device: torch.device) -> None:
        """The teacher stays where it is."""
        if self.bank is not None:
            self.bank.to(device)


def rows_of(states: Tensor, where: Tensor) -> Tensor:
    """(n, L, H) states, (m,) positions in the flattened n · L -> (m, H)."""
    # By index: a mask of booleans has a backward pass that is slow, and not repeatable, on a CPU
    return states.flatten(0, 1).index_select(0, where)


def layer_pairs(depth: int, teacher_depth: int) -> list[tuple[int, int]]:
    """(student, teacher) hidden states that are compared, 0 being the embeddings: evenly spaced, both last included."""
    return [(at, round(at * teacher_depth / depth)) for at in range(1, depth + 1)] if depth else [(0, teacher_depth)]


def relation_heads(hidden: int, teacher_hidden: int, teacher_heads: int) -> int:
    """The largest number of relation heads that divides both widths, at most the teacher's attention heads."""
    common = math.gcd(hidden, teacher_hidden)
    return max(heads for heads in range(1, teacher_heads + 1) if common % heads == 0)


def _check(own: Any, weights: Mapping[str, float], teacher: Teacher | None) -> None:
    if needy := sorted(set(weights) - {"mlm", *OF_VECTORS}):  # of these the targets are all that is needed
        if teacher is None:
            raise InvalidConfig(f"loss_{needy[0]} needs a teacher, and there is none; give one, or use loss_mlm")
        if "relations" in weights and 0 in (own.num_hidden_layers, teacher.architecture.depth):
            raise InvalidConfig("loss_relations compares attention, and a model of depth 0 has none; set it to 0")
    if "logits" in weights:
        assert teacher is not None
        _ = teacher.head  # raises if there is none
        if (rows := teacher.encoder.config.vocab_size) != own.vocab_size:
            raise InvalidConfig(
                f"loss_logits needs a common vocabulary: the teacher has {rows} tokens, the student "
                f"{own.vocab_size}; use the teacher's tokenizer, or another loss"
            )


# Losses: pure functions. Those of whole padded batches take the mask (1 real, 0 padding, at least one real token):
# padding changes neither value nor gradient, and each real token weighs the same, whatever sequence it is in.

_NEVER = -1e4
"""A logit whose probability is 0 next to one of 0 or more; with -inf, 0 · log 0 would be NaN."""


def masked_lm(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats of (m, V) logits at the m masked positions against their (m,) true tokens."""
    return functional.cross_entropy(logits, labels)


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """τ² KL(teacher ‖ student) of (m, V) logits softened by τ, mean over the m positions (Hinton et al., 2015)."""
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        log_target=True,
        reduction="batchmean",
    )


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """`distillation` for each of (n, C) rows, (n,); outputs that are -inf (choices an example lacks) add nothing."""
    absent = torch.isinf(teacher)
    own = functional.log_softmax(student / temperature, dim=1).masked_fill(absent, 0.0)
    theirs = functional.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * (theirs.exp() * (theirs.masked_fill(absent, 0.0) - own)).sum(1)


def distillation_top(student: Tensor, tokens: Tensor, log_probabilities: Tensor, temperature: float) -> Tensor:
    """`distillation` with only the teacher's k most probable tokens: (m, V) logits, (m, k) tokens, (m, k) nats.

    `log_probabilities` are the teacher's, softened by τ; 16 bits are enough. All other tokens are one class more, for
    teacher and student. Merging classes can only lower KL (log-sum inequality): the value is a lower bound of
    `distillation`, and equal to it for k = V - 1 and k = V.
    """
    precise = torch.promote_types(student.dtype, torch.float32)
    softened = student.to(precise) / temperature
    own, theirs = softened.gather(1, tokens), log_probabilities.to(precise)
    if tokens.shape[1] < student.shape[1]:
        # The student's remainder from its logits and not as 1 - sum: exact where it is tiny, and so is its gradient
        others = softened.scatter(1, tokens, float("-inf")).logsumexp(1, keepdim=True)
        # Rounded to 16 bits, the teacher's probabilities may sum to more than 1
        rest = (1 - theirs.exp().sum(1, keepdim=True)).clamp(min=torch.finfo(precise).tiny)
        own, theirs = torch.cat([own, others], 1), torch.cat([theirs, rest.log()], 1)
    return temperature**2 * functional.kl_div(
        own.log_softmax(1), theirs.log_softmax(1), log_target=True, reduction="batchmean"
    )


def embedding_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine distance, 0 to 2, between (n, K) embeddings."""
    return (1 - functional.cosine_similarity(student, teacher, dim=-1)).mean()


def similarity_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher ‖ student) of each sequence's similarity to the others of the batch, mean over (n, ...) embeddings.

    A row is the softmax of the cosines to the n - 1 others, over a temperature that is the standard deviation of the
    teacher's cosines, so that it means the same for every teacher. The embeddings may differ in width. In a batch of
    two or less there is nothing to tell apart, and the loss is 0.
    """
    count = len(teacher)
    if count < 3:
        return student.sum() * 0.0
    others = ~torch.eye(count, dtype=torch.bool, device=teacher.device)
    own, wanted = (
        (directions @ directions.T)[others].view(count, -1)
        for directions in (functional.normalize(student, dim=1), functional.normalize(teacher, dim=1))
    )
    spread = wanted.std().clamp(min=1e-6)
    return distillation(own / spread, wanted / spread, 1.0)


def margin_difference(student: Tensor, teacher: Tensor, negatives: Tensor) -> Tensor:
    """Margin-MSE (Hofstätter et al., arXiv 2010.02666), mean over n sequences and k negatives; cosines for scores.

    The margin of a sequence is by how much it is nearer to its own text than to a negative, both as the teacher embeds
    them. So nothing but the sequence itself goes through the student. (Ours: the paper's positives are other texts, and
    the student embeds all three.)

    Args:
        student, teacher: (n, K) embeddings.
        negatives: (n, k, K), the teacher's of the negatives of each.
    """

    def margins(vectors: Tensor) -> Tensor:
        own = functional.cosine_similarity(vectors, teacher, dim=1)
        return own[:, None] - functional.cosine_similarity(vectors[:, None], negatives, dim=2)

    return functional.mse_loss(margins(student), margins(teacher))


def hidden_distance(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference of (n, L, K) hidden states over K and the real tokens of the (n, L) mask.

    TinyBERT (Jiao et al., arXiv 1909.10351, eq. 8); the student's are already projected to the teacher's K.
    """
    return functional.mse_loss(student, teacher, reduction="none").mean(-1)[mask.bool()].mean()


def relation(student: Tensor, teacher: Tensor, heads: int, mask: Tensor) -> Tensor:
    """KL(teacher ‖ student) of self-relations of (n, L, H) and (n, L, K) vectors, mean over heads and real tokens.

    MiniLMv2 (Wang et al., arXiv 2012.15828, section 3): the concatenated vectors of all attention heads are split
    into `heads` relation heads of size d; the relation of a token to the real tokens of its sequence is
    softmax(x xᵀ / √d). So hidden sizes and attention heads may differ. One call each for queries, keys and values.

    Raises:
        InvalidConfig: H or K cannot be split into `heads`.
    """
    real = mask.bool()
    divergence = functional.kl_div(
        _relations(student, heads, real), _relations(teacher, heads, real), log_target=True, reduction="none"
    )
    return divergence.sum(-1).transpose(1, 2)[real].mean()


def _relations(vectors: Tensor, heads: int, real: Tensor) -> Tensor:
    """(n, L, H) vectors -> (n, heads, L, L) log relations of each token to each; none to padding."""
    width = vectors.shape[-1]
    if width % heads:
        raise InvalidConfig(
            f"vectors of size {width} cannot be split into {heads} relation heads; "
            "choose a number that divides the hidden sizes of teacher and student"
        )
    # Scaled before the product, where it is small, and made contiguous once: the product would copy both factors
    split = (vectors * (heads / width) ** 0.25).unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
    # A token's relation to itself is a square, so the greatest logit of a real token is never below 0
    logits: Tensor = split @ split.mT
    return logits.masked_fill_(~real[:, None, None], _NEVER).log_softmax(-1)
