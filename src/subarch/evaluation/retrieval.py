"""How well a model finds documents: an embedding model in a whole collection, a reranker among what one has found.

    subarch evaluate runs/mine --retrieval cranfield --against all-MiniLM-L6-v2
    subarch evaluate runs/mine --retrieval cranfield --documents all-MiniLM-L6-v2   # a pair: see `exporting.pair`
    subarch evaluate RERANKER --retrieval cranfield --retriever all-MiniLM-L6-v2 --rerank 50

sentence-transformers embeds, compares and ranks (`InformationRetrievalEvaluator`, `CrossEncoder.predict`), with the
prompts of the folder; the scores of each query, which intervals and comparisons need, are computed here, as trec_eval
and BEIR do: nDCG of a ranking is the sum of grade / log2(rank + 1), over that of the best ranking possible; for MRR and
recall, what has a grade above 0 is relevant.

    >>> found = search(load(Path("runs/mine/pretrained")), Collection.read(Path("cranfield"), "test"))
    >>> found.model.scores.metrics["ndcg@10"]
    Interval(value=0.31, low=0.28, high=0.34, ...)
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.evaluation.collection import Collection
from subarch.evaluation.resampling import compare_means, mean_intervals
from subarch.models.kinds import is_reranker
from subarch.models.reranker import Reranker
from subarch.models.stock import StockTeacher
from subarch.models.teacher import BATCH, resolve
from subarch.run import Report, silent
from subarch.run.machine import machine, versions
from subarch.run.records import Machine, Ranked, Retrieval

TOP = 10
"""Ranks that nDCG and MRR look at."""
DEPTH = 100
"""Ranks that recall looks at."""
RERANK = 50
"""Documents that a reranker gets for a query, unless told otherwise."""
Ranking = list[list[str]]
"""For each query of a collection, in its order, ids of documents, best first."""

_ROLES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Names of prompts, as sentence-transformers takes them."""


@dataclass(frozen=True)
class Embedder:
    """An embedding model: `encoder` is sentence-transformers' own.

    `prompts` are by name, `prompt` is put before a text if there is none for its role; `max_length` is in tokens, None:
    whole texts.
    """

    name: str
    fingerprint: str
    prompts: dict[str, str]
    prompt: str
    max_length: int | None
    encoder: Any = field(repr=False, compare=False)

    @classmethod
    def load(cls, source: str | Path, max_length: int | None = None) -> Embedder:
        """Load what `StockTeacher.load` does, with its errors; `max_length` cuts texts shorter than the folder says."""
        found = StockTeacher.load(source)
        length = found.max_length
        if max_length is not None and length is not None:
            found.encoder.max_seq_length = length = min(length, max_length)
        return cls(str(source), found.fingerprint, found.prompts, found.prompt, length, found.encoder)


Model = Embedder | Reranker


def load(source: Path, max_length: int | None = None) -> Model:
    """The model in a folder, or of a hub name, as what it is.

    Raises:
        InvalidTeacher: see `Embedder.load` and `Reranker.load`.
    """
    return Reranker.load(source, max_length) if is_reranker(resolve(source)) else Embedder.load(source, max_length)


@dataclass(frozen=True)
class Found:
    """The ranking of a model, and its figures: by metric, one for each query."""

    ranking: Ranking
    figures: dict[str, list[float]]
    record: Ranked


def search(
    model: Model,
    collection: Collection,
    *,
    against: Model | None = None,
    documents: Model | None = None,
    retriever: Model | None = None,
    rerank: int | None = None,
    command: str = "",
    report: Report = silent,
) -> Retrieval:
    """Score an embedding model, or a reranker on what `retriever` finds, against another of its kind.

    Args:
        documents: what embeds the documents instead of the model, which then embeds the queries alone.
        rerank: documents that a reranker gets for a query; None: 50.

    Raises:
        InvalidConfig: a reranker without a retriever or with `documents`, or an embedding model with a retriever.
        InvalidTeacher: a model of the other kind; vectors of queries and documents of different width.
    """
    start = time.perf_counter()
    first = count = None
    if isinstance(model, Embedder):
        if retriever is not None or rerank is not None:
            raise InvalidConfig(
                f"{model.name}: is not a reranker (a CrossEncoder, or a ForSequenceClassification model) but finds "
                "documents itself; leave --retriever and --rerank out, or name a reranker"
            )
        if isinstance(against, Reranker):
            raise InvalidTeacher(f"{against.name}: is a reranker, which cannot find documents; compare with an encoder")
        if isinstance(documents, Reranker):
            raise InvalidTeacher(f"{documents.name}: is a reranker, which cannot embed documents; name an encoder")
        found = embedded(model, collection, DEPTH, report, documents)
        other = embedded(against, collection, DEPTH, report) if against else None
    else:
        if documents is not None:
            raise InvalidConfig(
                f"{model.name}: is a reranker, which reads queries and documents itself; leave --documents out"
            )
        if retriever is None:
            raise InvalidConfig(
                f"{model.name}: is a reranker, which orders what an embedding model finds; name that with --retriever"
            )
        if isinstance(retriever, Reranker):
            raise InvalidTeacher(f"{retriever.name}: is a reranker, which cannot find documents; name an encoder")
        if isinstance(against, Embedder):
            raise InvalidTeacher(
                f"{against.name}: is not a reranker, so it cannot order the same documents; compare with another "
                "reranker, or leave it out to compare with the retriever's own order"
            )
        count = min(rerank or RERANK, len(collection.documents))
        first = embedded(retriever, collection, max(DEPTH, count), report)
        found = reranked(model, collection, first.ranking, count, report)
        other = reranked(against, collection, first.ranking, count, report) if against else None
    reference = other or first
    return Retrieval(
        collection=collection.name,
        part=collection.part,
        source=collection.source,
        documents=len(collection.documents),
        queries=len(collection.queries),
        model=found.record,
        against=other.record if other else None,
        document_model=documents.name if documents else None,
        retriever=first.record if first else None,
        rerank=count,
        comparison=compare_means(found.figures, _only(reference.figures, found.figures)) if reference else None,
        warnings=collection.warnings,
        seconds=time.perf_counter() - start,
        command=command,
        versions=versions(),
        machine=Machine.model_validate(machine()),
    )


def embedded(
    model: Embedder, collection: Collection, depth: int, report: Report, documents_by: Embedder | None = None
) -> Found:
    """The `depth` nearest documents of each query, by the folder's own prompts and similarity.

    Raises:
        InvalidTeacher: `documents_by`, which embeds the documents, has vectors of another width.
    """
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator  # takes seconds

    prompts = prompts_of(model)
    if documents_by is not None:
        own, theirs = (one.encoder.get_embedding_dimension() for one in (model, documents_by))
        if own and theirs and own != theirs:
            raise InvalidTeacher(
                f"{documents_by.name}: its vectors have {theirs} numbers and those of {model.name} {own}; a pair is a "
                "student and the teacher whose vectors it learnt"
            )
        prompts["document"] = prompts_of(documents_by)["document"]
    queries: dict[str, Any] = dict(collection.queries)
    documents: dict[str, Any] = dict(collection.documents)
    report(f"searching with {model.name}", 0, 0)
    evaluator = InformationRetrievalEvaluator(
        queries,
        documents,
        {query: relevant(grades) for query, grades in collection.grades.items()},
        map_at_k=[depth],  # the largest k is how many documents are kept
        batch_size=BATCH,
        write_csv=False,
        write_predictions=True,
        query_prompt=prompts["query"],
        corpus_prompt=prompts["document"],
    )
    with TemporaryDirectory() as folder:
        evaluator(
            model.encoder,
            output_path=folder,
            corpus_model=None if documents_by is None else documents_by.encoder,
        )
        (file,) = Path(folder).iterdir()
        with file.open(encoding="utf-8") as lines:
            found = {str(row["query_id"]): row["results"] for row in map(json.loads, lines)}
    ranking = [[result["corpus_id"] for result in found[query]] for query in collection.queries]
    return _found(model, {role: text for role, text in prompts.items() if text}, collection, ranking)


def prompts_of(model: Embedder) -> dict[str, str]:
    """What is put before a query and a document: the prompts of these names, or where there are none, the default."""
    by_role = {
        role: next((model.prompts[name] for name in names if model.prompts.get(name)), "")
        for role, names in _ROLES.items()
    }
    return by_role if any(by_role.values()) else dict.fromkeys(_ROLES, model.prompt)


def reranked(model: Reranker, collection: Collection, ranking: Ranking, count: int, report: Report) -> Found:
    """The first `count` documents of each query in the order of a reranker; those of equal score stay as they were.

    Raises:
        InvalidTeacher: a score is not finite.
    """
    order: Ranking = []
    for number, (query, documents) in enumerate(zip(collection.queries.values(), ranking, strict=True)):
        report(f"reranking with {model.name}", number, len(ranking))
        best = documents[:count]
        scores = model.score([(query, collection.documents[document]) for document in best])
        order.append([best[at] for at in np.argsort(-scores, kind="stable")] + documents[count:])
    report(f"reranking with {model.name}", len(ranking), len(ranking))
    return _found(model, {}, collection, order)


def _found(model: Model, prompts: dict[str, str], collection: Collection, ranking: Ranking) -> Found:
    figures = figures_of(ranking, list(collection.grades.values()))
    if isinstance(model, Reranker):  # which documents are found is not its doing
        del figures[f"recall@{DEPTH}"]
    record = Ranked(
        model=model.name,
        kind="reranker" if isinstance(model, Reranker) else "embedding",
        fingerprint=model.fingerprint,
        max_length=model.max_length,
        prompts=prompts,
        scores=mean_intervals(figures),
    )
    return Found(ranking, figures, record)


def figures_of(ranking: Ranking, grades: Sequence[Mapping[str, int]]) -> dict[str, list[float]]:
    """nDCG@10, MRR@10 and recall@100 of each query; `grades` by document, at least one of them above 0."""
    found: dict[str, list[float]] = {f"ndcg@{TOP}": [], f"mrr@{TOP}": [], f"recall@{DEPTH}": []}
    for documents, graded in zip(ranking, grades, strict=True):
        wanted = relevant(graded)
        ideal = sorted(graded.values(), reverse=True)
        gains = [graded.get(document, 0) for document in documents]
        found[f"ndcg@{TOP}"].append(_discounted(gains) / _discounted(ideal))
        ranks = [rank for rank, document in enumerate(documents[:TOP], 1) if document in wanted]
        found[f"mrr@{TOP}"].append(1 / ranks[0] if ranks else 0.0)
        found[f"recall@{DEPTH}"].append(len(wanted.intersection(documents[:DEPTH])) / len(wanted))
    return found


def relevant(grades: Mapping[str, int]) -> set[str]:
    return {document for document, grade in grades.items() if grade > 0}


def _discounted(gains: Sequence[int]) -> float:
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains[:TOP], 1)))


def _only(figures: dict[str, list[float]], names: Mapping[str, object]) -> dict[str, list[float]]:
    return {name: figures[name] for name in names}
