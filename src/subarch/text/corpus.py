"""Sources of text -> token sequences on disk, deduplicated, with a held-out part.

What is held out is decided by hashes and not by position, and by whole groups where the records name one (a package,
an author), so that neither the order of the files nor a near-copy next door carries text across the split. Where
there is no group, neighbouring paragraphs of one file may land on both sides.

    >>> corpus = build(["docs/", "abstracts.jsonl.gz"], tokenizer, Path("corpus"))
    >>> corpus.segments("heldout", 128), corpus.meta["tokens"], corpus.content_hash
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus
from subarch.run.files import replaced
from subarch.run.inputs import Source, of_values
from subarch.text.packed import FORMAT, Corpus, Part, Segments, pack, replacing, require
from subarch.text.read import Document, files, hash64, identity, listed, read

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

__all__ = ["Corpus", "Part", "Progress", "Segments", "build", "hold_out", "own_tokenizer", "train_tokenizer"]

TOKENIZER_TEXTS = 200_000
"""Documents a tokenizer is trained on, where there is no teacher."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

Progress = Callable[[int, str], None]
"""Called with the work done so far and its unit."""


def build(
    sources: Sequence[str | Path],
    tokenizer: PreTrainedTokenizerFast | Tokenizer,
    folder: Path,
    *,
    text_column: str = "text",
    heldout_fraction: float = 0.05,
    max_tokens: int | None = None,
    minimum: int = 20,
    progress: Progress | None = None,
) -> Corpus:
    """Read, deduplicate, tokenise and pack `sources` (see `subarch.text.read`) into `folder`; open it.

    A folder already built from the same bytes, tokenizer and settings is opened as it is; one built from others is
    replaced. Of documents that differ in case, punctuation and spacing only, the first is kept. Sources are read in
    sorted order, so the order they are given in changes nothing; reading stops with the document that reaches
    `max_tokens`. Which documents are held out is a matter of hashes: see `hold_out`.

    Text is tokenised as text: a literal "[MASK]" in it does not become the special token.

    Raises:
        InvalidCorpus: see `subarch.text.read.read`; fewer than `minimum` distinct documents; all of them in one group;
            `folder` is something else than a corpus; the disk is full.
        InvalidConfig: a fraction outside (0, 0.5].
    """
    require(0 < heldout_fraction <= 0.5, f"heldout_fraction is {heldout_fraction}; it must be above 0 and at most 0.5")
    backend = plain(tokenizer)
    folder = Path(folder)
    ordered = sorted(listed(sources), key=str)
    recipe = {
        "format": FORMAT,
        "sources": [fingerprint(source) for source in ordered],
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "settings": {
            "text_column": text_column,
            "heldout_fraction": heldout_fraction,
            "max_tokens": max_tokens,
            "minimum": minimum,
        },
    }
    with replacing(folder, recipe) as partial:
        if partial is not None:
            meta = _write(read(ordered, text_column), backend, partial, heldout_fraction, max_tokens, minimum, progress)
            (partial / "corpus.json").write_text(json.dumps(recipe | meta, indent=1), encoding="utf-8")
    return Corpus.load(folder)


def hold_out(units: NDArray[np.uint64], sizes: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Which documents are held out: (N,) bool from (N,) hashes and sizes in tokens; whole units, whatever the order.

    A unit is what must stay together, by its hash. The units with a hash below `fraction` of the range are held out,
    so that a document keeps its side when others come and go. Where that leaves a part without text or holds out
    more than half (few units), the units are ranked by hash instead, those with over half of all tokens last, and
    the first are taken until `fraction` of the tokens is reached.

    Raises:
        InvalidCorpus: there is only one unit.
    """
    unique, member = np.unique(units, return_inverse=True)
    if len(unique) < 2:
        raise InvalidCorpus(
            "there is only one document or group, so nothing can be held out; "
            "give at least two groups, or leave groups out"
        )
    weight = np.bincount(member, weights=sizes)
    chosen = unique / 2.0**64 < fraction
    if not 0 < weight[chosen].sum() <= weight.sum() / 2:
        rank = np.lexsort((unique, weight > weight.sum() / 2))
        count = np.searchsorted(np.cumsum(weight[rank]), fraction * weight.sum()) + 1
        chosen = np.isin(np.arange(len(unique)), rank[: min(count, len(unique) - 1)])
    held: NDArray[np.bool_] = chosen[member]
    return held


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
    require(
        vocabulary_size >= least, f"a vocabulary of {vocabulary_size} is too small; at least {least} tokens are needed"
    )
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


def own_tokenizer(sources: Sequence[str | Path], text_column: str, vocabulary_size: int, folder: Path) -> Any:
    """A BPE trained on the corpus, kept in `folder`."""
    from transformers import AutoTokenizer

    if not folder.is_dir():
        texts = (document.text for document in islice(read(sources, text_column), TOKENIZER_TEXTS))
        with replaced(folder) as partial:
            train_tokenizer(texts, vocabulary_size).save_pretrained(partial)
    return AutoTokenizer.from_pretrained(folder)


def fingerprint(source: str | Path) -> dict[str, Any]:
    """What a source holds, to tell whether it changed: a hash over names and bytes of its files.

    The bytes are hashed, not the modification time, so that a source written anew with the same content counts as
    unchanged. Of a data set on the hub only the name is known.
    """
    digest = hashlib.blake2b(digest_size=16)
    paths = files(source)
    for path in paths:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "blake2b").digest()
        except OSError as error:
            raise InvalidCorpus(f"{path}: cannot be read: {error}") from error
        digest.update(path.name.encode(errors="surrogateescape") + b"\0" + content)
    return {"source": str(source), "blake2b": digest.hexdigest() if paths else None}


def content_of(sources: Sequence[str | Path]) -> Source:
    """What a stage records of a corpus that it reads (`run.inputs`), whatever the order of the sources.

    The bytes of files are hashed; of a data set on the hub the name is all that is compared.

    Raises:
        InvalidCorpus: a source is missing or cannot be read.
    """
    found = map(fingerprint, listed(sources))
    hashes = sorted(one["blake2b"] or one["source"] for one in found)
    return of_values(", ".join(map(str, listed(sources))), *hashes)


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


def _write(
    documents: Iterator[Document],
    backend: Tokenizer,
    folder: Path,
    fraction: float,
    max_tokens: int | None,
    minimum: int,
    progress: Progress | None,
) -> dict[str, Any]:
    """Fill `folder` and describe it. Tokens go to a spool first: the split is known when all units are."""
    units, sizes = array("Q"), array("q")
    seen: set[int] = set()
    groups: dict[str, int] = {}
    tokens = duplicates = 0
    spool = folder / "spool"
    with spool.open("wb") as file:
        while batch := list(islice(documents, 512 if max_tokens is None or tokens < max_tokens else 0)):
            fresh = []
            for document in batch:
                key = identity(document.text)
                if key in seen:
                    duplicates += 1
                    continue
                seen.add(key)
                if document.group is not None:
                    key = groups.setdefault(document.group, hash64(f"group {document.group}"))
                fresh.append((key, document.text))
            encodings = backend.encode_batch_fast([text for _, text in fresh], add_special_tokens=False)
            for (unit, _), encoding in zip(fresh, encodings, strict=True):
                if max_tokens is not None and tokens >= max_tokens:
                    break
                ids = encoding.ids
                if ids:
                    file.write(np.array(ids, dtype="<i4").tobytes())
                    units.append(unit)
                    sizes.append(len(ids))
                    tokens += len(ids)
            if progress is not None:
                progress(tokens, "tokens")
    if len(sizes) < minimum:
        raise InvalidCorpus(
            f"only {len(sizes)} distinct documents, {tokens} tokens; at least {minimum} documents are needed "
            "(a document is a line of a text file or a record, of three words or more): give more text"
        )
    held = hold_out(np.array(units, dtype=np.uint64), np.array(sizes, dtype=np.int64), fraction)
    digest = hashlib.sha256()
    parts: tuple[tuple[Part, NDArray[np.bool_]], ...] = (("train", ~held), ("heldout", held))
    counts = {part: pack(folder, part, spool, np.array(sizes, dtype=np.int64), kept, digest) for part, kept in parts}
    spool.unlink()
    chosen = {unit for unit, is_held in zip(units, held, strict=True) if is_held}
    return {
        "content_hash": digest.hexdigest(),
        "documents": {part: count for part, (count, _) in counts.items()},
        "tokens": {part: size for part, (_, size) in counts.items()},
        "duplicates": duplicates,
        "heldout_groups": sorted(group for group, unit in groups.items() if unit in chosen),
    }
