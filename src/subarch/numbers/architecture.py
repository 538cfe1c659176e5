"""An architecture ⟨D, A, H, I, V⟩ and its exact cost, in closed form.

D is the depth (encoder layers), A the attention heads, H the hidden size and I the intermediate size of the
feed-forward block (arXiv 2010.10499, section 2); V is the number of tokens that are kept of the vocabulary (ours). The
cost functions take ints or NumPy arrays; the tests compare them with the parameters and the operations of the built
model.

    >>> from subarch import Architecture, Inputs
    >>> bort = Architecture.parse("4-8-1024-768")
    >>> bort.parameters(Inputs(vocabulary=50265, positions=512, token_types=1)).encoder
    23108608
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from subarch.errors import InvalidArchitecture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PretrainedConfig

Count = TypeVar("Count", int, "NDArray[np.int64]")
"""An exact count: a Python int, or an int64 array over candidates."""


BIASES = ("attention", "mlp", "norm", "classifier", "decoder")
"""Parts of ModernBERT that may have a bias, as its configuration names them."""

IMPOSSIBLE = (
    "a ModernBERT has at least one layer, and heads of an even size (rotary positions turn pairs of numbers); "
    "choose other sizes"
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What all candidates of a search share: embedding tables, the width of the output, the kind of layers.

    RoBERTa has 1 token type, and 514 positions, of which 512 can be used. `output` is the width that a pooled embedding
    must have (the teacher's): a candidate of another hidden size has a linear map H -> output, which is counted. 0: no
    such map (a masked-LM search). `mapped`: candidates of the same size have the map too, since what they start from is
    not the teacher, and its space is another. `head` is the head of a task that candidates have instead, as the stock
    classes have it: "sequence" and "choice" (a dense map H -> H of the first token, then H -> `classes`; ModernBERT
    pools as it is configured, and normalises between) or "tokens" (H -> `classes` at each token); "": none.

    `family` is "bert" (RoBERTa's layers are the same) or "modernbert", which has no tables but that of the tokens; the
    rest is about the latter alone. Of its layers the first and every `global_every`-th after it see all tokens, the
    others those at most `window` // 2 away. `biases` names what has one besides the products' weights: "attention",
    "mlp", "norm", and of the masked-LM head "classifier" and "decoder".
    """

    vocabulary: int
    positions: int = 512
    token_types: int = 2
    output: int = 0
    family: str = "bert"
    window: int = 128
    global_every: int = 3
    biases: tuple[str, ...] = ()
    mapped: bool = False
    head: str = ""
    classes: int = 0


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
        """p(ξ): what is served, embeddings, encoder layers, and the map to the output width or the head of a task."""
        return self.embeddings + self.encoder + self.projection

    @property
    def with_heads(self) -> int:
        """Total with the pooler (BERT's) and a masked-LM head whose decoder is tied to the embeddings."""
        return self.total + self.pooler + self.masked_lm_head


@dataclass(frozen=True, slots=True, order=True)
class Architecture:
    """⟨D, A, H, I, V⟩. Hashable, ordered lexicographically, written `D-A-H-I-V`.

    Depth 0 is a static encoder, token embeddings alone; heads and intermediate size are 0 there. Vocabulary 0 is the
    whole one of what candidates start from, and is left out: `D-A-H-I`.

    Raises:
        InvalidArchitecture: a size below 1 (depth or vocabulary below 0), or H not divisible by A.
    """

    depth: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.vocabulary < 0:
            raise InvalidArchitecture(f"{self}: a vocabulary has at least 1 token; leave it out for the whole one")
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
        shape = f"{self.depth}-{self.heads}-{self.hidden}-{self.intermediate}"
        return f"{shape}-{self.vocabulary}" if self.vocabulary else shape

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read `D-A-H-I` or `D-A-H-I-V`, as in `4-8-1024-768` and `4-8-1024-768-16000`."""
        parts = text.strip().split("-")
        if len(parts) not in (4, 5) or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
            raise InvalidArchitecture(
                f"{text!r} is not an architecture; write depth-heads-hidden-intermediate, 4-8-1024-768, or with the "
                "tokens that are kept of the vocabulary behind them, 4-8-1024-768-16000"
            )
        return cls(*(int(part) for part in parts))

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads if self.depth else 0

    def reading(self, inputs: Inputs) -> Inputs:
        """The inputs with the vocabulary of this architecture."""
        return replace(inputs, vocabulary=self.vocabulary or inputs.vocabulary)

    def parameters(self, inputs: Inputs) -> ParameterCount:
        """Exact trainable weights by part."""
        hidden, inputs = self.hidden, self.reading(inputs)
        return ParameterCount(
            embeddings=embedding_parameters(hidden, inputs),
            encoder=encoder_parameters(self.depth, hidden, self.intermediate, inputs),
            projection=int(projection_parameters(hidden, inputs)),
            pooler=hidden * hidden + hidden if inputs.family == "bert" else 0,
            masked_lm_head=_head_parameters(hidden, inputs),
        )

    def operations(self, inputs: Inputs, length: int) -> int:
        """i(ξ): multiply-adds of one forward pass over one sequence of `length` tokens."""
        return operations(self.depth, self.hidden, self.intermediate, inputs, length)

    def to_config(self, inputs: Inputs, family: str = "bert", **overrides: Any) -> PretrainedConfig:
        """The stock `transformers` configuration of this architecture; `family` is "bert", "roberta" or "modernbert".

        Raises:
            InvalidArchitecture: an unknown family, or a shape that it cannot have.
        """
        from transformers import BertConfig, ModernBertConfig, RobertaConfig

        families: dict[str, Any] = {"bert": BertConfig, "roberta": RobertaConfig, "modernbert": ModernBertConfig}
        if family not in families:
            raise InvalidArchitecture(f"unknown model family {family!r}; known: {', '.join(families)}")
        if "modernbert" in {family, inputs.family} and family != inputs.family:
            raise InvalidArchitecture(f"a {family} cannot have the inputs of a {inputs.family}")
        settings: dict[str, Any] = {
            "vocab_size": self.vocabulary or inputs.vocabulary,
            "max_position_embeddings": inputs.positions,
            "num_hidden_layers": self.depth,
            # transformers divides by the number of heads even where there is no layer
            "num_attention_heads": self.heads or 1,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
        }
        if family == "modernbert":
            if impossible(self.depth, self.heads, self.hidden, inputs):
                raise InvalidArchitecture(f"{self}: {IMPOSSIBLE}")
            kinds = ("sliding_attention", "full_attention")
            settings |= {
                "layer_types": [kinds[at % inputs.global_every == 0] for at in range(self.depth)],
                "local_attention": inputs.window,
            }
            settings |= {f"{name}_bias": name in inputs.biases for name in BIASES}
            # The published vocabulary's, where none are given
            settings |= dict.fromkeys(f"{name}_token_id" for name in ("pad", "bos", "eos", "cls", "sep"))
        else:
            settings["type_vocab_size"] = inputs.token_types
        config: PretrainedConfig = families[family](**(settings | overrides))
        return config

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> Architecture:
        """Read ⟨D, A, H, I⟩ off the configuration of one of these families, whose vocabulary is the whole one."""
        depth = int(config.num_hidden_layers)
        heads, intermediate = (config.num_attention_heads, config.intermediate_size) if depth else (0, 0)
        return cls(depth, int(heads), int(config.hidden_size), int(intermediate))


def impossible(depth: Count, heads: Count, hidden: Count, inputs: Inputs) -> Count | bool:
    """Whether the inputs' family has no such shape: see `IMPOSSIBLE`."""
    if inputs.family == "bert":
        return False
    # Without layers there are no heads either
    found: Count = (depth == 0) | (hidden % (2 * (heads + (heads == 0))) != 0)
    return found


def encoder_parameters(depth: Count, hidden: Count, intermediate: Count, inputs: Inputs) -> Count:
    """Weights of `depth` encoder layers, and of ModernBERT's norm behind them.

    BERT: attention 4H² + 4H, feed-forward 2HI + I + H, two LayerNorms 4H. ModernBERT: attention 4H², gated feed-forward
    3HI, two norms 2H, and biases where it has them; its first layer lacks one norm, which is the one behind the last.
    """
    if inputs.family == "bert":
        return depth * (4 * hidden * hidden + 2 * hidden * intermediate + intermediate + 9 * hidden)
    attention, mlp, norm = (name in inputs.biases for name in ("attention", "mlp", "norm"))
    biases = attention * 4 * hidden + mlp * (2 * intermediate + hidden) + norm * 2 * hidden
    return depth * (4 * hidden * hidden + 3 * hidden * intermediate + 2 * hidden + biases)


def embedding_parameters(hidden: Count, inputs: Inputs, vocabulary: Count | int = 0) -> Count:
    """Weights of the embedding tables and their LayerNorm: (V + P + t)H + 2H; ModernBERT's: VH + H, and a bias.

    `vocabulary`: V; 0: that of the inputs.
    """
    tokens = vocabulary + (vocabulary == 0) * inputs.vocabulary
    if inputs.family == "bert":
        return (tokens + inputs.positions + inputs.token_types + 2) * hidden
    return (tokens + 1 + ("norm" in inputs.biases)) * hidden


def _head_parameters(hidden: int, inputs: Inputs) -> int:
    """Weights of a masked-LM head: dense map, LayerNorm, and the bias of the decoder, which is tied to the tokens."""
    if inputs.family == "bert":
        return hidden * hidden + hidden + 2 * hidden + inputs.vocabulary
    classifier, decoder, norm = (name in inputs.biases for name in ("classifier", "decoder", "norm"))
    return hidden * hidden + (1 + classifier + norm) * hidden + decoder * inputs.vocabulary


def projection_parameters(hidden: Count, inputs: Inputs) -> Count:
    """Weights behind the encoder: the map H -> output with its bias, if there is one, or the head of a task."""
    count: Count = (hidden + 1) * inputs.output * has_map(hidden, inputs)
    if inputs.head:
        count = count + (hidden + 1) * inputs.classes
    if inputs.head and inputs.family != "bert":
        classifier, norm = (name in inputs.biases for name in ("classifier", "norm"))
        count = count + hidden * hidden + (1 + classifier + norm) * hidden
    elif inputs.head in ("sequence", "choice"):
        count = count + hidden * hidden + hidden
    return count


def has_map(hidden: Count, inputs: Inputs) -> Any:
    """Whether candidates of these hidden sizes have a linear map H -> output."""
    return ((hidden != inputs.output) | inputs.mapped) & (inputs.output > 0)


def operations(depth: Count, hidden: Count, intermediate: Count, inputs: Inputs, length: int) -> Count:
    """Multiply-adds at sequence length n, with H·output for the map of the pooled vector, or those of a task's head.

    BERT: D(4nH² + 2n²H + 2nHI). ModernBERT: D(4nH² + 3nHI) + 2H(Gn² + (D - G)m), where G layers are global, and m
    counts the pairs of tokens that see each other in a local one. (Kernels that mask pairs away compute all n².)
    """
    if inputs.family == "bert":
        layer = 4 * length * hidden * hidden + 2 * length * length * hidden + 2 * length * hidden * intermediate
        layers = depth * layer
    else:
        whole = (depth + inputs.global_every - 1) // inputs.global_every
        pairs = whole * length * length + (depth - whole) * local_pairs(length, inputs.window)
        layers = depth * (4 * length * hidden * hidden + 3 * length * hidden * intermediate) + 2 * hidden * pairs
    count: Count = layers + hidden * inputs.output * has_map(hidden, inputs)
    if inputs.head:
        dense = 0 if inputs.head == "tokens" and inputs.family == "bert" else hidden * hidden
        count = count + (length if inputs.head == "tokens" else 1) * (dense + hidden * inputs.classes)
    return count


def local_pairs(length: int, window: int) -> int:
    """Pairs of tokens at most window // 2 apart, each with itself included: n² where all are."""
    reach = min(window // 2, length - 1)
    return length * (2 * reach + 1) - reach * (reach + 1)
