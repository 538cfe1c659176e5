"""`subarch evaluate --mteb`: a local task of mteb's own classes, run by mteb, offline; and what is refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import ndcg_score

import subarch
from subarch.cli import app as cli
from subarch.errors import InvalidConfig, InvalidTask, InvalidTeacher, MissingExtra
from subarch.evaluation.benchmark import benchmarked, tasks_of
from subarch.evaluation.collection import Collection
from subarch.exporting.searching import load
from tiny import tiny_teacher, write_json
from tiny_retrieval import tiny_collection, tiny_reranker

PROMPTS = {"prompts": {"query": "kitchen: ", "passage": "school garden: "}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mteb")
    tiny_collection(place / "harbours")
    for name, seed in (("plain", 0), ("prompted", 0)):
        tiny_teacher(place / name, layers=1, seed=seed)
    write_json(place / "prompted" / "config_sentence_transformers.json", PROMPTS)
    return place


@pytest.fixture
def harbours(place: Path) -> Any:
    """The tiny collection as a retrieval task of mteb."""
    mteb = pytest.importorskip("mteb", reason="the extra mteb is not installed")
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    assert mteb.__version__
    collection = Collection.read(place / "harbours", "test")

    class Harbours(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = TaskMetadata(
            type="Retrieval",
            name="Harbours",
            description="harbours",
            main_score="ndcg_at_10",
            dataset={"path": "none/none", "revision": "1"},
            eval_langs=["eng-Latn"],
            eval_splits=["test"],
            category="t2t",
            modalities=["text"],
        )

        def load_data(self, *_: Any, **__: Any) -> None:
            documents, queries = (
                Dataset.from_list([{"id": key, "text": text} for key, text in part.items()])
                for part in (collection.documents, collection.queries)
            )
            found = {"queries": queries, "corpus": documents, "relevant_docs": collection.grades, "top_ranked": None}
            self.dataset, self.data_loaded = {"default": {"test": found}}, True

    return Harbours()


def expected(folder: Path, place: Path, query: str, document: str) -> float:
    """nDCG@10 by scikit-learn, of the model's own vectors."""
    collection, encoder = Collection.read(place / "harbours", "test"), load(folder).encoder
    options = {"prompt": "", "normalize_embeddings": True}
    queries = encoder.encode([query + text for text in collection.queries.values()], **options)
    documents = encoder.encode([document + text for text in collection.documents.values()], **options)
    truth = [[grades.get(name, 0) for name in collection.documents] for grades in collection.grades.values()]
    return float(ndcg_score(truth, queries @ documents.T, k=10))


@pytest.mark.slow  # mteb imports for seconds
@pytest.mark.parametrize(
    ("model", "query", "document"), [("plain", "", ""), ("prompted", *PROMPTS["prompts"].values())]
)
def test_a_local_task_is_run_by_mteb(
    model: str, query: str, document: str, place: Path, harbours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mteb

    (score,) = benchmarked(load(place / model), [harbours], tmp_path)
    assert (score.task, score.metric) == ("Harbours", "ndcg_at_10")
    assert score.score == pytest.approx(expected(place / model, place, query, document), abs=1e-5)
    (file,) = tmp_path.glob(f"results/subarch__{model}/*/Harbours.json")
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["scores"]["test"][0]["main_score"] == pytest.approx(score.score, abs=1e-5)
    assert mteb.results.TaskResult.from_disk(file).get_score() == pytest.approx(score.score, abs=1e-5)
    # What is there of this model is not run again; of another with the same name it is
    monkeypatch.setattr(type(harbours), "load_data", lambda *_, **__: pytest.fail("run again"))
    assert benchmarked(load(place / model), [harbours], tmp_path) == [score]
    another = load(tiny_teacher(tmp_path / "other" / model, layers=1, seed=5))
    with pytest.raises(BaseException, match="run again"):
        benchmarked(another, [harbours], tmp_path)


@pytest.mark.slow
def test_names_of_tasks_and_benchmarks(harbours: Any) -> None:
    names = [task.metadata.name for task in tasks_of(["NanoBEIR", "STSBenchmark", "NanoSciFactRetrieval"])]
    assert len(names) == len(set(names)) == 14
    assert {"NanoSciFactRetrieval", "STSBenchmark"} <= set(names)
    with pytest.raises(InvalidTask, match="'STSBenchmrk' is neither a task nor a benchmark of mteb 2"):
        tasks_of(["STSBenchmrk"])


@pytest.mark.slow
def test_data_that_cannot_be_loaded(
    place: Path, harbours: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(type(harbours), "load_data", fails)
    with pytest.raises(InvalidTask, match="Harbours of mteb could not be run: ConnectionError: no route to the hub"):
        benchmarked(load(place / "plain"), [harbours], tmp_path)


@pytest.mark.slow
def test_a_reranker_finds_nothing(harbours: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidTeacher, match="is a reranker, and tasks of mteb are run with embedding models"):
        benchmarked(load(tiny_reranker(tmp_path / "reranker")), [harbours], tmp_path)


@pytest.mark.slow
def test_the_command(
    place: Path, harbours: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("subarch.pipeline.tasks_of", lambda names: [harbours] * (names == ["Harbours"]))
    monkeypatch.setattr(sys, "argv", ["subarch", "evaluate", "plain", "--mteb", "Harbours"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None)
    said = capsys.readouterr().out
    shown = re.search(r"Harbours +ndcg_at_10 +([\d.]+)", said)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(expected(place / "plain", place, "", ""), abs=1e-4)
    assert said.rstrip().endswith("runs/plain/mteb/results")
    assert list(place.glob("runs/plain/mteb/results/*/*/Harbours.json"))


def test_without_mteb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtra, match=r"need the package mteb, .*; pip install 'subarch\[mteb\]'"):
        tasks_of(["NanoBEIR"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retrieval": "harbours"}, "retrieval is not for the tasks that mteb names"),
        ({"against": "other"}, "against is not for the tasks that mteb names"),
        ({"part": "dev"}, "part is not for the tasks that mteb names"),
        ({"task": "rte"}, "task is not for the tasks that mteb names"),
    ],
)
def test_what_does_not_go_with_it(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        subarch.evaluate("plain", mteb="NanoBEIR", **given)


def test_one_model_at_a_time() -> None:
    with pytest.raises(InvalidConfig, match="2 models: tasks of mteb are run with one"):
        subarch.evaluate(["plain", "other"], mteb="NanoBEIR")


def test_the_length_has_a_least() -> None:
    with pytest.raises(InvalidConfig, match="max_length = 2 leaves nothing of a text"):
        subarch.evaluate("plain", mteb="NanoBEIR", max_length=2)
