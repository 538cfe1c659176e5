"""Texts to learn a costly teacher from, and its vectors of them, computed once, in 16-bit arithmetic, and kept.

Texts are those of the prose corpora and of the docstrings of installed packages. Documents are cut at ends of sentences
into pieces of at most 12, 24, 48 or 96 words, drawn for each document, since what the student reads later is of any
length.

>>> write_texts(["corpora", "docstrings.jsonl"], 1000, Path("texts.parquet"))
>>> record(StockTeacher.load("all-mpnet-base-v2"), Path("texts.parquet"), Path("vectors.parquet"))
0.99996
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from benchmarks.runner import console

from subarch.models.stock import StockTeacher
from subarch.recording.texts import cut
from subarch.run.files import replaced_file
from subarch.text.read import THREE_WORDS, identity, read

WORDS = (12, 24, 48, 96)
PART = 2000
"""Texts whose vectors are lost at most if the recording is killed."""
COMPARED = 64
"""Texts whose vectors are also computed in fp32."""


def write_texts(
    corpora: Sequence[str], count: int, path: Path, words: Sequence[int] = WORDS, without: Iterable[str] = ()
) -> None:
    """Write `count` distinct pieces of the documents, in random order, with a group that is held out together.

    Args:
        words: at most so many in a piece, drawn for each document.
        without: texts that are none of the pieces, whatever their case, punctuation and spacing.
    """
    chance = random.Random(0)
    seen = set(map(identity, without))
    rows = []
    for number, document in enumerate(read(corpora, "text")):
        for piece in cut(document.text, chance.choice(words)):
            if THREE_WORDS.match(piece) and (key := identity(piece)) not in seen:
                seen.add(key)
                rows.append((piece, str(number)))
    chance.shuffle(rows)
    texts, groups = zip(*rows[:count], strict=True)
    with replaced_file(path) as partial:
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, "group": groups}), partial)


def record(teacher: StockTeacher, texts: Path, path: Path) -> float:
    """Write the teacher's vectors of the texts, in parts that survive a kill; the least cosine to its own in fp32."""
    table = pyarrow.parquet.read_table(texts)
    wanted = table["text"].to_pylist()
    parts = path.with_suffix("")
    parts.mkdir(parents=True, exist_ok=True)
    exact = teacher.embed_texts(wanted[:COMPARED])
    teacher.encoder.bfloat16()
    for start in range(0, len(wanted), PART):
        part = parts / f"{start:07}.npy"
        if not part.is_file():
            vectors = teacher.embed_texts(wanted[start : start + PART]).half().numpy()
            with replaced_file(part) as partial, partial.open("wb") as file:
                np.save(file, vectors)
            console.print(f"{path.name}: {start + len(vectors)} of {len(wanted)}")
    found = np.concatenate([np.load(part) for part in sorted(parts.iterdir())])
    teacher.encoder.float()
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(found.ravel()), found.shape[1])
    with replaced_file(path) as partial:
        pyarrow.parquet.write_table(table.append_column("vector", column), partial)
    near = torch.cosine_similarity(exact.double(), torch.from_numpy(found[:COMPARED]).double())
    return float(near.min())
