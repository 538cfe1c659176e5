"""An architecture ⟨D, A, H, I⟩ and its exact cost, in closed form.

D is the depth (encoder layers), A the attention heads, H the hidden size and I the intermediate size of the
feed-forward block (arXiv 2010.10499, section 2). The cost functions take ints or NumPy arrays; the tests compare them
with the parameters and the operations of the built model.

    >>> from subarch import Architecture, Inputs
    >>> bort = Architecture.parse("4-8-1024-768")
    >>> bort.parameters(Inputs(vocabulary=50265, positions=512, token_types=1)).encoder
    23108608
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from subarch.errors import InvalidArchitecture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PretrainedConfig

Count = TypeVar("Count", int, "NDArray[np.int64]")
"""An exact count: a Python int, or an int64 array over candidates."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The rows of the three embedding tables and the width of the output, shared by all candidates of a search.

    RoBERTa has 1 token type, and 514 positions, of which 512 can be used. `output` is the width that a pooled embedding
    must have (the teacher's): a candidate of another hidden size has a linear map H -> output, which is counted. 0: no
    such map (a masked-LM search). `mapped`: candidates of the same size have the map too, since what they start from is
    not the teacher, and its space is another.
    """

    vocabulary: int
    positions: int = 512
    token_types: int = 2
    output: int = 0
    mapped: bool = False


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Trainable weights by part; the properties are the usual ways to count "the size"."""

    embeddings: int
    encoder: int
    projection: int
    pooler: int
    masked_lm_head: int

    @property
    def effective(self) -> int:
        """Encoder layers only: the "effective size" of arXiv 2010.10499."""
        return self.encoder

    @property
    def total(self) -> int:
        """p(ξ): what is served, embeddings, encoder layers and the map to the output width."""
        return self.embeddings + self.encoder + self.projection

    @property
    def with_heads(self) -> int:
        """Total with BERT's pooler and a masked-LM head whose decoder is tied to the embeddings."""
        return self.total + self.pooler + self.masked_lm_head


@dataclass(frozen=True, slots=True, order=True)
class Architecture:
    """⟨D, A, H, I⟩. Hashable, ordered lexicographically, written `D-A-H-I`.

    Depth 0 is a static encoder, token embeddings alone; heads and intermediate size are 0 there.

    Raises:
        InvalidArchitecture: a size below 1 (depth below 0), or H not divisible by A.
    """

    depth: int
    heads: int
    hidden: int
    intermediate: int

    def __post_init__(self) -> None:
        if self.depth < 0 or self.hidden < 1:
            raise InvalidArchitecture(f"{self}: depth must be at least 0 and the hidden size at least 1")
        if self.depth == 0:
            if self.heads or self.intermediate:
                raise InvalidArchitecture(
                    f"{self}: at depth 0 there are no heads and layers; write 0-0-{self.hidden}-0"
                )
            return
        if self.heads < 1 or self.intermediate < 1:
            raise InvalidArchitecture(f"{self}: heads and intermediate size must be at least 1")
        if self.hidden % self.heads:
            raise InvalidArchitecture(
                f"{self}: the hidden size {self.hidden} is not divisible by {self.heads} heads; "
                f"use one of {[a for a in range(1, min(self.hidden, 64) + 1) if self.hidden % a == 0]} heads"
            )

    def __str__(self) -> str:
        return f"{self.depth}-{self.heads}-{self.hidden}-{self.intermediate}"

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read `D-A-H-I`, as in `4-8-1024-768`."""
        parts = text.strip().split("-")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise InvalidArchitecture(
                f"{text!r} is not an architecture; write depth-heads-hidden-intermediate, 4-8-1024-768"
            )
        return cls(*(int(part) for part in parts))

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads if self.depth else 0

    def parameters(self, inputs: Inputs) -> ParameterCount:
        """Exact trainable weights by part."""
        hidden = self.hidden
        return ParameterCount(
            embeddings=embedding_parameters(hidden, inputs),
            encoder=encoder_parameters(self.depth, hidden, self.intermediate),
            projection=int(projection_parameters(hidden, inputs)),
            pooler=hidden * hidden + hidden,
            masked_lm_head=hidden * hidden + hidden + 2 * hidden + inputs.vocabulary,
        )

    def operations(self, inputs: Inputs, length: int) -> int:
        """i(ξ): multiply-adds of one forward pass over one sequence of `length` tokens."""
        return operations(self.depth, self.hidden, self.intermediate, inputs, length)

    def to_config(self, inputs: Inputs, family: str = "bert", **overrides: Any) -> PretrainedConfig:
        """The stock `transformers` configuration of this architecture; `family` is "bert" or "roberta"."""
        from transformers import BertConfig, RobertaConfig

        families: dict[str, Any] = {"bert": BertConfig, "roberta": RobertaConfig}
        if family not in families:
            raise InvalidArchitecture(f"unknown model family {family!r}; known: {', '.join(families)}")
        settings = {
            "vocab_size": inputs.vocabulary,
            "max_position_embeddings": inputs.positions,
            "type_vocab_size": inputs.token_types,
            "num_hidden_layers": self.depth,
            # transformers divides by the number of heads even where there is no layer
            "num_attention_heads": self.heads or 1,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
        }
        config: PretrainedConfig = families[family](**(settings | overrides))
        return config

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> Architecture:
        """Read ⟨D, A, H, I⟩ off a BERT or RoBERTa configuration."""
        depth = int(config.num_hidden_layers)
        heads, intermediate = (config.num_attention_heads, config.intermediate_size) if depth else (0, 0)
        return cls(depth, int(heads), int(config.hidden_size), int(intermediate))


def encoder_parameters(depth: Count, hidden: Count, intermediate: Count) -> Count:
    """Weights of `depth` encoder layers: attention 4H² + 4H, feed-forward 2HI + I + H, two LayerNorms 4H."""
    return depth * (4 * hidden * hidden + 2 * hidden * intermediate + intermediate + 9 * hidden)


def embedding_parameters(hidden: Count, inputs: Inputs) -> Count:
    """Weights of the three embedding tables and their LayerNorm: (V + P + t)H + 2H."""
    return (inputs.vocabulary + inputs.positions + inputs.token_types + 2) * hidden


def projection_parameters(hidden: Count, inputs: Inputs) -> Count:
    """Weights of the map H -> output, with its bias; none where there is no map."""
    count: Count = (hidden + 1) * inputs.output * has_map(hidden, inputs)
    return count


def has_map(hidden: Count, inputs: Inputs) -> Any:
    """Whether candidates of these hidden sizes have a linear map H -> output."""
    return ((hidden != inputs.output) | inputs.mapped) & (inputs.output > 0)


def operations(depth: Count, hidden: Count, intermediate: Count, inputs: Inputs, length: int) -> Count:
    """Multiply-adds at sequence length n: D(4nH² + 2n²H + 2nHI), and H·output for the map of the pooled vector."""
    layer = 4 * length * hidden * hidden + 2 * length * length * hidden + 2 * length * hidden * intermediate
    projection = hidden * inputs.output * has_map(hidden, inputs)
    count: Count = depth * layer + projection
    return count
