"""Tokenizers: how any of them reads text as text, and the one that is trained where there is no teacher.

>>> tokenizer = train_tokenizer(["some text", "more text"], 8192)
>>> plain(tokenizer).encode("a [MASK] in the text", add_special_tokens=False).ids
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from subarch.errors import InvalidConfig, InvalidCorpus

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with [PAD] [UNK] [CLS] [SEP] [MASK] as tokens 0 to 4, for a corpus without a teacher.

    Byte-level: no text is unknown. It writes `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, and hands out no token
    types, so stock BERT and RoBERTa models (which have one type only) both take what it gives. Small texts fill less
    than `vocabulary_size`.

    Raises:
        InvalidConfig: `vocabulary_size` cannot hold the 256 bytes and the special tokens.
        InvalidCorpus: there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    least = 256 + len(SPECIAL_TOKENS)
    if vocabulary_size < least:
        raise InvalidConfig(f"a vocabulary of {vocabulary_size} is too small; at least {least} tokens are needed")
    texts = iter(texts)
    if (first := next(texts, None)) is None:
        raise InvalidCorpus("no text to train a tokenizer on")
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # a word is the same first and later
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain([first], texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    inputs = ["input_ids", "attention_mask"]
    fast: Any = PreTrainedTokenizerFast
    trained: PreTrainedTokenizerFast = fast(tokenizer_object=tokenizer, model_input_names=inputs, **names)
    return trained


def plain(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizer proper: never truncates or pads, and reads special tokens in the text as text."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise InvalidCorpus(f"{type(tokenizer).__name__} is no fast tokenizer; load one with AutoTokenizer")
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy
