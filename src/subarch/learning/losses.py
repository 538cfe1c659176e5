"""The names of the losses, and what is known of each without computing it. The losses themselves: `learning.distill`.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

UNIT = {
    "mlm": "masked",
    "logits": "masked",
    "embedding": "sequences",
    "similarities": "sequences",
    "margins": "sequences",
    "outputs": "sequences",
    "hidden": "tokens",
    "relations": "tokens",
}
"""What each loss is a mean over."""
LOSSES = tuple(UNIT)
NEED_TEACHER = LOSSES[1:]
OF_VECTORS = ("embedding", "similarities", "margins")
"""What compares sentence embeddings, of which the teacher's are all that is needed."""
