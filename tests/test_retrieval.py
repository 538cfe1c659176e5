"""`subarch evaluate --retrieval`: figures by hand and by libraries, prompts, reranking, what is refused and left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sklearn.metrics import ndcg_score

import report_fixture
import subarch
from subarch.cli import app as cli
from subarch.errors import InvalidConfig, InvalidStudy, InvalidTask, InvalidTeacher
from subarch.evaluation.collection import Collection
from subarch.evaluation.retrieval import figures_of
from subarch.evaluation.retrieval import search as search_with
from subarch.exporting.searching import load
from subarch.pipeline import write_report
from subarch.run.folder import RunFolder
from subarch.run.records import Pretraining, Retrieval
from tiny import tiny_teacher, tiny_tokenizer, write_json
from tiny_retrieval import tiny_collection, tiny_reranker

METRICS = ("ndcg@10", "mrr@10", "recall@100")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("retrieval")
    tiny_collection(place / "harbours")
    tiny_teacher(place / "one", layers=1)
    tiny_teacher(place / "two", layers=1, seed=2)
    tiny_reranker(place / "reranker")
    tiny_reranker(place / "other", seed=3)
    return place


@pytest.fixture(scope="module")
def collection(place: Path) -> Collection:
    return Collection.read(place / "harbours", "test")


def search(
    model: Path, collection: Collection, max_length: int | None = None, rerank: int | None = None, **others: Path
) -> Retrieval:
    """`search` of models by their folders."""
    loaded: dict[str, Any] = {role: load(folder, max_length) for role, folder in others.items()}
    return search_with(load(model, max_length), collection, rerank=rerank, **loaded)


def values(found: Any) -> dict[str, float]:
    return {name: metric.value for name, metric in found.scores.metrics.items()}


def test_figures_by_hand() -> None:
    """Grades 2 at rank 2 and 1 at rank 4, a 1 not found: DCG 2/log2(3) + 1/log2(5), ideal 2 + 1/log2(3) + 1/log2(4)."""
    grades = {"a": 2, "b": 1, "c": 1, "d": 0}
    ((ndcg,), (mrr,), (recall,)) = figures_of([["d", "a", "x", "b"]], [grades]).values()
    assert ndcg == pytest.approx((2 / np.log2(3) + 1 / np.log2(5)) / (2 + 1 / np.log2(3) + 1 / 2), abs=1e-12)
    assert ndcg == pytest.approx(0.540586, abs=1e-6)
    assert (mrr, recall) == (1 / 2, 2 / 3)


def test_only_ten_ranks_count_and_the_ideal_is_of_ten() -> None:
    grades = {f"r{n}": 1 for n in range(12)}
    found = figures_of([[*(f"r{n}" for n in range(10))], [*(f"x{n}" for n in range(10)), *grades]], [grades, grades])
    assert found == {"ndcg@10": [1.0, 0.0], "mrr@10": [1.0, 0.0], "recall@100": [10 / 12, 1.0]}


def test_graded_figures_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        grades = {f"d{n}": int(grade) for n, grade in enumerate(draw.integers(0, 4, 30))}
        ranking = [f"d{n}" for n in draw.permutation(30)]
        ((ndcg,), *_) = figures_of([ranking], [grades]).values()
        expected = ndcg_score([[grades[document] for document in ranking]], [range(30, 0, -1)], k=10)
        assert ndcg == pytest.approx(expected, abs=1e-12)


def test_an_embedding_model(place: Path, collection: Collection) -> None:
    found = search(place / "one", collection)
    model = SentenceTransformer(str(place / "one"))
    ours, theirs = (model.encode(list(part.values())) for part in (collection.queries, collection.documents))
    names = list(collection.documents)
    ranking = [[names[at] for at in np.argsort(-row, kind="stable")] for row in ours @ theirs.T]
    expected = figures_of(ranking, list(collection.grades.values()))
    assert values(found.model) == pytest.approx({name: np.mean(figures) for name, figures in expected.items()})
    assert 0.2 < values(found.model)["ndcg@10"] < 1  # there is something to tell apart
    assert (found.model.kind, found.model.max_length, found.model.prompts) == ("embedding", 64, {})
    assert (found.documents, found.queries, found.rerank, found.comparison) == (40, 5, None, None)
    about = found.model.scores
    assert (about.groups, about.method) == (5, "percentile bootstrap over queries")
    assert all(metric.low <= metric.value <= metric.high for metric in about.metrics.values())
    assert about.metrics["ndcg@10"].low < about.metrics["ndcg@10"].high


def test_binary_figures_are_those_of_the_library(place: Path, collection: Collection) -> None:
    """Where all grades are equal, which is what the library knows."""
    binary = {query: dict.fromkeys(grades, 1) for query, grades in collection.grades.items()}
    same = Collection(**{key: getattr(collection, key) for key in collection.__slots__} | {"grades": binary})
    relevant = {query: set(grades) for query, grades in binary.items()}
    evaluator = InformationRetrievalEvaluator(
        dict(same.queries), dict(same.documents), relevant, precision_recall_at_k=[100], write_csv=False
    )
    theirs = evaluator(SentenceTransformer(str(place / "one")))
    found = values(search(place / "one", same).model)
    assert found == pytest.approx({name: float(theirs[f"cosine_{name}"]) for name in METRICS})


@pytest.mark.parametrize(
    ("about", "query", "document"),
    [
        ({"prompts": {"query": "kitchen: ", "passage": "school garden: "}}, "kitchen: ", "school garden: "),
        ({"prompts": {"query": "kitchen: "}, "default_prompt_name": "query"}, "kitchen: ", ""),
        ({"prompts": {"document": "school: "}}, "", "school: "),
        ({"prompts": {"any": "school: "}, "default_prompt_name": "any"}, "school: ", "school: "),
        ({"prompts": {"any": "school: "}}, "", ""),
    ],
)
def test_prompts_of_the_folder(
    about: dict[str, Any], query: str, document: str, place: Path, collection: Collection, tmp_path: Path
) -> None:
    folder = tmp_path / "prompted"
    shutil.copytree(place / "one", folder)
    write_json(folder / "config_sentence_transformers.json", about)
    prompts = {"query": query, "document": document}
    found = search(folder, collection).model
    assert found.prompts == {role: text for role, text in prompts.items() if text}
    before = {
        "queries": {key: query + text for key, text in collection.queries.items()},
        "documents": {key: document + text for key, text in collection.documents.items()},
    }
    by_hand = Collection(**{key: getattr(collection, key) for key in collection.__slots__} | before)
    plain = values(search(place / "one", collection).model)
    assert values(found) == pytest.approx(values(search(place / "one", by_hand).model))
    assert (values(found) == plain) == (not query and not document)


def test_texts_are_cut(place: Path, collection: Collection) -> None:
    found = search(place / "one", collection, max_length=8)
    assert found.model.max_length == 8
    assert values(found.model) != values(search(place / "one", collection).model)
    assert search(place / "one", collection, max_length=500).model.max_length == 64
    with pytest.raises(InvalidConfig, match="max_length = 2 leaves nothing of a text; give at least 8 tokens"):
        subarch.evaluate(place / "one", retrieval=place / "harbours", max_length=2)


def test_a_static_table_reads_whole_texts(collection: Collection, tmp_path: Path) -> None:
    SentenceTransformer(modules=[StaticEmbedding(tiny_tokenizer(), embedding_dim=20)]).save(str(tmp_path))
    assert search(tmp_path, collection, max_length=8).model.max_length is None


def test_against_another_model(place: Path, collection: Collection) -> None:
    found = search(place / "one", collection, against=place / "two")
    alone = search(place / "two", collection)
    assert found.against is not None
    assert found.comparison is not None
    assert values(found.against) == values(alone.model)
    for name, difference in found.comparison.metrics.items():
        assert (difference.ours, difference.theirs) == (values(found.model)[name], values(alone.model)[name])
        assert difference.low <= difference.difference <= difference.high
    same = search(place / "one", collection, against=place / "one").comparison
    assert same is not None
    assert {(one.difference, one.low, one.high, one.p_examples) for one in same.metrics.values()} == {(0, 0, 0, 1)}


def test_a_reranker(place: Path, collection: Collection) -> None:
    """It orders the first ten of the retriever as `CrossEncoder.rank` does; below, nothing changes."""
    found = search(place / "reranker", collection, retriever=place / "one", rerank=10)
    model, cross = SentenceTransformer(str(place / "one")), CrossEncoder(str(place / "reranker"))
    names, texts, ranking = list(collection.documents), list(collection.documents.values()), []
    documents = model.encode(texts)
    for query in collection.queries.values():
        first = np.argsort(-(model.encode([query]) @ documents.T)[0], kind="stable")[:10]
        ranked = cross.rank(query, [texts[at] for at in first])
        ranking.append([names[first[int(one["corpus_id"])]] for one in ranked])
    expected = figures_of(ranking, list(collection.grades.values()))
    assert values(found.model) == pytest.approx({name: np.mean(expected[name]) for name in METRICS[:2]})
    assert (found.rerank, found.model.kind) == (10, "reranker")
    assert found.retriever is not None
    assert values(found.retriever) == values(search(place / "one", collection).model)
    assert found.comparison is not None  # with the retriever's own order
    assert found.comparison.metrics["ndcg@10"].theirs == values(found.retriever)["ndcg@10"]
    assert values(found.model) != {name: values(found.retriever)[name] for name in METRICS[:2]}


def test_how_many_are_reranked(place: Path, collection: Collection) -> None:
    once = search(place / "reranker", collection, retriever=place / "one", rerank=1)
    assert once.retriever is not None
    assert values(once.model) == {name: values(once.retriever)[name] for name in METRICS[:2]}
    assert search(place / "reranker", collection, retriever=place / "one").rerank == 40  # of 50: all documents


def test_against_another_reranker(place: Path, collection: Collection) -> None:
    found = search(place / "reranker", collection, retriever=place / "one", against=place / "other")
    alone = search(place / "other", collection, retriever=place / "one")
    assert found.against is not None
    assert found.comparison is not None
    assert values(found.against) == values(alone.model)
    assert found.comparison.metrics["mrr@10"].theirs == values(alone.model)["mrr@10"]


@pytest.mark.parametrize(
    ("model", "options", "error", "problem"),
    [
        (
            "reranker",
            {},
            InvalidConfig,
            "reranker: is a reranker, which orders what an embedding model finds; name that with --retriever",
        ),
        ("reranker", {"retriever": "other"}, InvalidTeacher, "other: is a reranker, which cannot find documents"),
        (
            "reranker",
            {"retriever": "one", "against": "two"},
            InvalidTeacher,
            "two: is not a reranker, so it cannot order the same documents",
        ),
        ("one", {"retriever": "two"}, InvalidConfig, "one: is not a reranker .* but finds documents itself"),
        ("reranker", {"rerank": 50}, InvalidConfig, "orders what an embedding model finds; name that with --retriever"),
        ("one", {"rerank": 50}, InvalidConfig, "one: is not a reranker .* leave --retriever and --rerank out"),
        ("one", {"against": "other"}, InvalidTeacher, "other: is a reranker, which cannot find documents; compare"),
        ("nothing", {}, InvalidTeacher, "nothing: no such folder"),
    ],
)
def test_models_of_the_wrong_kind(
    model: str, options: dict[str, Any], error: type[Exception], problem: str, place: Path, collection: Collection
) -> None:
    given = {key: place / value if isinstance(value, str) else value for key, value in options.items()}
    with pytest.raises(error, match=problem):
        search(place / model, collection, **given)


def test_a_run_means_its_encoder_and_keeps_the_record(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "one", run / "selected")
    (run / "config.yaml").touch()
    found = subarch.evaluate(run, retrieval=place / "harbours")
    assert found.model.model == str(run / "selected")
    assert RunFolder(run / "retrieval").read(Retrieval, "selected-harbours-test") == found
    assert not (run / "report.html").exists()
    monkeypatch.chdir(tmp_path)
    again = subarch.evaluate(place / "one", retrieval=place / "harbours", against=run)
    assert RunFolder(Path("runs/one/retrieval")).read(Retrieval, "one-harbours-test") == again
    assert values(again.against) == values(found.model)


def test_the_page_of_a_run_shows_it(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "one", run / "pretrained")
    (run / "pretrain.yaml").touch()
    RunFolder(run).write(Pretraining.model_validate(report_fixture.example().pretraining))
    write_report(run)
    assert "Search in collections" not in (run / "report.html").read_text()
    found = subarch.evaluate(run / "pretrained", retrieval=place / "harbours", against=place / "two")
    page = (run / "report.html").read_text()
    assert "Search in collections" in page
    assert ">harbours, test</th>" in page
    assert found.comparison is not None
    shown = (found.model.scores.metrics["ndcg@10"].high, found.comparison.metrics["mrr@10"].difference)
    assert [figure for figure in shown if f">{figure:.3f}</td>" not in page] == []


def test_refused_before_anything_is_read(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harbours = place / "harbours"
    for wrong, problem in (
        ({"task": "rte"}, "task is for a task, and retrieval names a collection"),
        ({"submission": tmp_path / "a.zip"}, "submission is for a task, and"),
        ({"against": ["a", "b"]}, "1 models against 2: in search one is scored, against one at most"),
    ):
        with pytest.raises(InvalidConfig, match=problem):
            subarch.evaluate(place / "one", retrieval=harbours, **wrong)  # type: ignore[call-overload]
    with pytest.raises(InvalidConfig, match="2 models against 0: in search one is scored"):
        subarch.evaluate([place / "one", place / "two"], retrieval=harbours)
    for options in ({"retriever": place / "one"}, {"rerank": 5}):
        with pytest.raises(InvalidConfig, match="are for a collection; name it in retrieval"):
            subarch.evaluate(place / "one", **options)  # type: ignore[call-overload]
    with pytest.raises(InvalidTask, match="there are the parts test, choose one with --part"):
        subarch.evaluate(place / "one", "dev", retrieval=harbours)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InvalidStudy, match="cannot be written in, and results go to runs/one"):
        subarch.evaluate(place / "one", retrieval=harbours)


def test_the_command(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    words = ["evaluate", place / "reranker", "--retrieval", place / "harbours", "--retriever", place / "one"]

    def run(*more: str) -> str:
        monkeypatch.setattr("sys.argv", ["subarch", *map(str, words), *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code
        return capsys.readouterr().out

    found = json.loads(run("--rerank", "10", "--json"))
    assert found["rerank"] == 10
    assert found["command"].endswith("--rerank 10 --json")
    metric, other = found["model"]["scores"]["metrics"]["ndcg@10"], found["comparison"]["metrics"]["ndcg@10"]
    shown = run("--rerank", "10")
    assert "harbours, test: 5 queries, 40 documents, the first 10 of the retriever reranked" in shown
    figures = [f"{metric['value']:.3f}", f"{metric['low']:.3f} to {metric['high']:.3f}", f"{other['difference']:+.3f}"]
    figures += [f"{found['retriever']['scores']['metrics']['recall@100']['value']:.3f}"]
    assert [figure for figure in figures if figure not in shown] == []
    assert "record: runs/reranker/retrieval" in shown
    assert f"retriever: {place / 'one'}, 64 tokens" in shown
