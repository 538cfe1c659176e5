"""Losses of pretraining and of the error estimate: pure functions of tensors.

The paper's distillation (released scripts of Bort, `docs/method.md`) is
`0.5 * distillation(student, teacher, 2.0) + 0.1 * masked_lm(student, labels)`, both at masked positions only.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


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


def embedding_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine distance, 0 to 2, between (n, K) embeddings."""
    return (1 - functional.cosine_similarity(student, teacher, dim=-1)).mean()
