"""The losses of the search, pretraining and fine-tuning: pure functions of tensors.

The paper's distillation (released scripts of Bort, `docs/method.md`) is
`0.5 * distillation(student, teacher, 2.0) + 0.1 * masked_lm(student, labels)`, both at masked positions only. The
caller weights them.

`hidden_distance` and `relation` see whole padded batches, so they take the mask (1 real, 0 padding): padding changes
neither value nor gradient, and each real token weighs the same, whatever sequence it is in. A batch needs at least one
real token.

    >>> loss = relation(own.queries, teacher.queries, 12, batch.mask) + embedding_distance(own.pooled, teacher.pooled)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from subarch.errors import InvalidConfig

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
