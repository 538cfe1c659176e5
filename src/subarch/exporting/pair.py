"""Two encoders as one model: a student for the queries, its teacher for the documents.

Documents are embedded once, ahead of time, and queries while somebody waits. A student's vectors are near its
teacher's, so the teacher may embed the documents, and queries take no longer than by the student alone (LEAF, arXiv
2509.12539). The folder is sentence-transformers' own (`Router`): `encode_query` and `encode_document` take the one or
the other.

    >>> write_pair(Path("runs/mine/pretrained"), Path("all-MiniLM-L6-v2"), Path("pair"))
    >>> SentenceTransformer("pair").encode_query("what the student reads")
"""

from __future__ import annotations

from pathlib import Path

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.evaluation.retrieval import Embedder, prompts_of
from subarch.models.kinds import is_reranker
from subarch.models.teacher import resolve
from subarch.run.files import is_taken, replaced
from subarch.run.folder import places


def write_pair(queries: Path, documents: Path, out: Path) -> None:
    """Write the pair into the new folder `out`.

    The prompts of both are kept, by role, and the similarity function, which must be the same.

    Raises:
        InvalidConfig: `out` is not empty; different similarity functions.
        InvalidTeacher: one cannot be loaded, is a reranker, or embeds in another number of dimensions than the other.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Router

    if is_taken(out):
        raise InvalidConfig(f"{out}: is not empty; name a new folder in --out")
    ones = places(queries, None)[0], places(documents, None)[0]
    for one in ones:
        if is_reranker(resolve(one)):
            raise InvalidTeacher(f"{one}: is a reranker, which embeds neither queries nor documents; name encoders")
    first, second = (Embedder.load(one) for one in ones)
    widths = [one.encoder.get_embedding_dimension() for one in (first, second)]
    if widths[0] != widths[1]:
        raise InvalidTeacher(
            f"{first.name} embeds in {widths[0]} dimensions and {second.name} in {widths[1]}; a pair is a student and "
            "the teacher whose vectors it learnt"
        )
    similarities = [one.encoder.similarity_fn_name for one in (first, second)]
    if similarities[0] != similarities[1]:
        raise InvalidConfig(
            f"{first.name} compares by {similarities[0]} and {second.name} by {similarities[1]}; "
            "a pair needs one measure"
        )
    router = Router.for_query_document(
        query_modules=list(first.encoder.children()), document_modules=list(second.encoder.children())
    )
    prompts = {"query": prompts_of(first)["query"], "document": prompts_of(second)["document"]}
    both = SentenceTransformer(modules=[router], prompts=prompts, similarity_fn_name=similarities[0], device="cpu")
    with replaced(out) as partial:
        both.save_pretrained(str(partial))
