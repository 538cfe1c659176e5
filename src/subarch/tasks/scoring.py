"""Scores of sentence embeddings on the user's own data; 1 is best.

The kind follows from the columns of a file of records, in any format that `text.formats` reads:

- `query`, `document`: retrieval; each query must find its own document among all: mean reciprocal rank (and recall@10);
- `text_a`, `text_b`, `score`: similarity; Spearman's correlation of the cosine with the score;
- `text`, `label`: classification; accuracy of a logistic regression on the embeddings of one half (split by a hash of
  the text), scored on the other.

Nothing else is trained on the data, so the score is a held-out one.

    >>> task = Task.read(Path("queries.jsonl"))
    >>> task.scores(lambda texts: model.encode(texts))
    {'mrr': 0.71, 'recall@10': 0.88}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus
from subarch.text.formats import records

Embed = Callable[[list[str]], NDArray[np.float32]]
"""Texts to (n, K) embeddings."""

KINDS = {"retrieval": ("query", "document"), "similarity": ("text_a", "text_b", "score"), "labels": ("text", "label")}
LEAST_ROWS = 8


@dataclass(frozen=True)
class Task:
    """Rows of one kind, each with the columns of that kind as text."""

    kind: str
    rows: list[dict[str, str]]

    @classmethod
    def read(cls, path: Path) -> Task:
        """Read a task file.

        Raises:
            InvalidCorpus: missing, unreadable, unknown columns, empty or non-numeric cells, fewer than 8 rows.
        """
        rows = list(records(path))
        found = set(rows[0][1]) if rows else set()
        kind = next((kind for kind, columns in KINDS.items() if found >= set(columns)), None)
        if kind is None:
            wanted = "; or ".join(", ".join(columns) for columns in KINDS.values())
            raise InvalidCorpus(f"{path}: has the columns {sorted(found)}; a task needs {wanted}")
        if len(rows) < LEAST_ROWS:
            raise InvalidCorpus(f"{path}: {len(rows)} rows; at least {LEAST_ROWS} are needed for a score")
        kept = []
        for place, row in rows:
            cells = {column: _cell(row.get(column)) for column in KINDS[kind]}
            if empty := [column for column, cell in cells.items() if not cell]:
                raise InvalidCorpus(f"{path}, {place}: {empty[0]} is empty")
            if kind == "similarity" and not _is_finite(cells["score"]):
                raise InvalidCorpus(f"{path}, {place}: score {cells['score']!r} is not a number")
            kept.append(cells)
        if kind == "similarity" and len({float(row["score"]) for row in kept}) == 1:
            raise InvalidCorpus(f"{path}: all scores are {kept[0]['score']}; a correlation needs different ones")
        return cls(kind, kept)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([self.kind, self.rows], sort_keys=True).encode()).hexdigest()

    @property
    def texts(self) -> list[str]:
        """All that is embedded."""
        return [row[name] for row in self.rows for name in KINDS[self.kind] if name not in ("score", "label")]

    def scores(self, embed: Embed) -> dict[str, float]:
        """All scores of this kind by name; the first is the primary one."""
        column = {name: [row[name] for row in self.rows] for name in KINDS[self.kind]}
        if self.kind == "retrieval":
            return retrieval(embed(column["query"]), embed(column["document"]))
        if self.kind == "similarity":
            from scipy.stats import spearmanr

            cosine = (_unit(embed(column["text_a"])) * _unit(embed(column["text_b"]))).sum(1)
            return {"spearman": float(spearmanr(cosine, [float(score) for score in column["score"]]).statistic)}
        from sklearn.linear_model import LogisticRegression

        first = np.array([hashlib.sha256(text.encode()).digest()[0] < 128 for text in column["text"]])
        labels, vectors = np.array(column["label"]), _unit(embed(column["text"]))
        if len(set(labels[first])) < 2 or first.all():
            raise InvalidCorpus(
                "the half of the rows that the classifier is fitted on has a single label; give more rows"
            )
        model = LogisticRegression(max_iter=1000).fit(vectors[first], labels[first])
        return {"accuracy": float(model.score(vectors[~first], labels[~first]))}


def retrieval(queries: NDArray[np.float32], documents: NDArray[np.float32]) -> dict[str, float]:
    """(n, K) queries and their (n, K) documents -> MRR and recall@10 of finding one's own document by cosine.

    Ties count against the query: its document ranks behind all others of equal similarity.
    """
    similarity = _unit(queries) @ _unit(documents).T
    rank = (similarity >= np.diagonal(similarity)[:, None]).sum(1)
    return {"mrr": float((1 / rank).mean()), "recall@10": float((rank <= 10).mean())}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def _cell(value: object) -> str:
    """A cell as text; 0 and False are values, not empty cells."""
    return "" if value is None else str(value).strip()


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
