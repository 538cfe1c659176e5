"""The whole way on a tiny teacher: what it leaves and says, that it goes on wherever it is stopped, what it refuses.

Times are made up (`Clock`, `FakeGroup`), so that a run and its continuation decide the same.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sentence_transformers import SentenceTransformer

import subarch
from forked import dies, fork
from subarch import pipeline
from subarch.cli import app as cli
from subarch.compressing import compress as stage
from subarch.compressing.compress import Outline, compress, export_all
from subarch.compressing.config import CompressConfig
from subarch.errors import InvalidConfig, InvalidExport, InvalidStudy, InvalidTeacher
from subarch.exporting.size import megabytes
from subarch.extraction.config import ExtractConfig
from subarch.extraction.study import Study
from subarch.latency.timing import Task
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pretraining.trainer import PretrainTrainer
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Bench, Compressed, Conclusion, Pretraining, Selection, Serving
from task_layouts import write
from tasks_tiny import topics
from tiny import tiny_corpus, tiny_teacher
from tiny_run import OneProcess

SEARCH: dict[str, Any] = {"batch_size": [16], "repeats": 0, "audit": 0, "steps": 6, "max_length": 16}
TRAINING: dict[str, Any] = {"steps": 4, "minutes": None, "batch_tokens": 256, "evaluations": 1}


class Clock:
    """Instead of `Candidates`: nothing is built, and the latencies follow from the shape."""

    block = 10**6

    def __init__(self, *_: object) -> None: ...

    @contextmanager
    def calls(self, names: Sequence[str]) -> Iterator[dict[str, str]]:
        yield {name: name for name in names}

    @staticmethod
    def visits(calls: dict[str, Any], rounds: int, *_: object) -> dict[str, list[list[float]]]:
        found = {}
        for name in calls:
            depth = {"teacher": 3, "student": 1}.get(name.split()[0]) or Architecture.parse(name).depth
            found[name] = [[0.1 + depth]] * rounds
        return found


class FakeGroup:
    """Instead of processes: a pass takes so long in a runtime, of the teacher four times as long."""

    milliseconds = {"torch": 2.0, "onnx-int8": 0.5}  # noqa: RUF012
    load_seconds, peak_bytes = [0.1], [1000]

    def __init__(self, name: str, task: Task, count: int) -> None:
        of_teacher = "teacher" in str(task.path)
        self.time = self.milliseconds.get(name.split(" in ")[-1], 1.0) * (4 if of_teacher else 1)

    def __enter__(self) -> FakeGroup:
        return self

    def __exit__(self, *_: object) -> None: ...

    def visit(self, batch: int, lengths: Sequence[int], passes: int) -> list[list[float]]:
        return [[self.time] * passes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    tiny_teacher(folder / "teacher")
    tiny_corpus(folder / "corpus.txt")
    axes = {"depth": [0, 1, 2], "heads": [4], "hidden": [16, 32], "intermediate": [16, 64]}
    (folder / "space.yaml").write_text(yaml.safe_dump(axes))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _quick(place: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        patch.setattr("subarch.extraction.latencies.Candidates", Clock)
        patch.setattr("subarch.latency.measuring.visits", Clock.visits)
        patch.setattr("subarch.latency.bench.Group", FakeGroup)
        patch.setattr("subarch.latency.bench.SIZE", 10)
        patch.setattr(stage, "installed", lambda: ["torch", "onnx-int8"])
        patch.setattr(stage, "examine", lambda seconds: {"warnings": ["it is loaded"]})
        patch.setattr(stage, "PACE", 0.01)
        patch.setenv("SUBARCH_CACHE", str(place / "cache"))
        yield


def options(place: Path, **changes: Any) -> dict[str, Any]:
    given = {"teacher": str(place / "teacher"), "corpus": [str(place / "corpus.txt")], "faster": "2x", "minutes": 5}
    return {key: value for key, value in (given | changes).items() if value is not None}


def whole_way(place: Path, run: Path, **told: Any) -> Compressed:
    search = SEARCH | {"space": str(place / "space.yaml")}
    settings = load(CompressConfig, None, options(place))
    return compress(settings, run, search=search, training=TRAINING, **told)


class Way:
    """A finished run, and what it said on the way."""

    def __init__(self, place: Path) -> None:
        pytest.importorskip("onnxruntime")
        self.path = place / "run"
        self.said: list[str] = []
        self.heard: list[str] = []
        self.found = whole_way(
            place, self.path, say=self.said.append, report=lambda what, done, total: self.heard.append(what)
        )


@pytest.fixture(scope="module")
def way(place: Path) -> Way:
    return Way(place)


def read(way: Way, kind: Any) -> Any:
    return RunFolder(way.path).read(kind)


# What it comes to


def test_it_says_warnings_then_the_plan_then_what_was_decided(way: Way) -> None:
    warning, plan, decided, training = way.said
    assert warning == "warning: it is loaded"
    assert plan == read(way, Outline).sentence
    assert plan.startswith("plan: 5 minutes, of which at most 2.25 for the search (")
    assert decided == (
        "asked for: 2x as fast as the teacher, in what serves fastest here, onnx-int8 on 1 thread: 2.00\xa0ms, "
        f"{way.found.teacher_serving.best().bytes / 1e6:.1f}\xa0MB"  # type: ignore[union-attr]
    )
    assert training.startswith("training: ")
    stages = list(dict.fromkeys(what.split(":")[0] for what in way.heard))
    assert stages == ["plan", "teacher", "search", "training", "files"]


def test_the_search_is_limited_in_the_runtime_that_serves(way: Way) -> None:
    config = RunFolder(way.path).config(ExtractConfig)
    assert (config.runtime, config.latency_threads, config.max_latency_ratio) == ("onnx-int8", 1, 0.5)
    assert (config.minutes, config.objective, config.error) == (2.25, "error", "embedding")
    winner = read(way, Selection).winner
    assert Architecture.parse(winner.architecture).depth == 1  # of three layers a half of the teacher's latency
    assert read(way, Pretraining).architecture == winner.architecture == way.found.architecture


def test_every_file_is_timed_and_judged_beside_the_teachers(way: Way) -> None:
    ours, theirs = way.found.serving, way.found.teacher_serving
    assert ours is not None
    assert theirs is not None
    assert ours == read(way, Serving)
    assert [(file.runtime, file.threads, file.median_ms) for file in ours.files] == [
        ("torch", 1, 2.0),
        ("onnx-int8", 1, 0.5),
    ]
    assert [(file.runtime, file.median_ms) for file in theirs.files] == [("torch", 8.0), ("onnx-int8", 2.0)]
    in_torch, in_int8 = (file.fidelity for file in ours.files)
    # The same figure as the training's own, measured another way
    assert in_torch == pytest.approx(1 - read(way, Pretraining).heldout[-1]["error"], rel=1e-3)
    assert in_int8 == pytest.approx(in_torch, rel=0.1)
    assert in_int8 != in_torch
    assert theirs.files[0].fidelity == 1.0
    assert 0.5 < theirs.files[1].fidelity < 1  # type: ignore[operator]
    assert [file.folder for file in ours.files] == ["pretrained", "exported/onnx-int8"]
    assert [file.folder for file in theirs.files] == [None, "teacher/exported/onnx-int8"]
    assert len(read(way, Bench).rows) == 4
    assert "This model and its teacher in each runtime" in (way.path / "report.html").read_text()


def test_it_ends_in_five_lines(way: Way, place: Path) -> None:
    found, run = way.found, way.path
    assert found.certified
    got, against, certain, where, how = found.lines
    assert got.startswith(f"got        {found.architecture}, ")
    assert "onnx-int8 on 1 thread: 0.50\xa0ms" in got
    assert "the teacher's fp32 (torch on 1 thread: 8.00\xa0ms" in against
    assert against.count("16.0× as fast") == 1
    assert "the teacher's int8 (onnx-int8 on 1 thread: 2.00\xa0ms" in against
    assert "in the same runtime: 4.0×" in against
    assert "after 6 steps of training" in certain
    assert str(run / "exported/onnx-int8") in where
    assert str(run / "report.html") in where
    first, second = (line.strip() for line in how.removeprefix("load").splitlines())
    names: dict[str, Any] = {}
    exec(f"{first}\n{second}", names)
    assert np.isfinite(names["model"].encode(["the boat"])).all()


def test_the_loaded_file_embeds_as_the_folder_does(way: Way) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["the old boat sees a gull", "one bell"]
    ours = subarch.load_model(way.path / "exported" / "onnx-int8", threads=1).encode(texts)
    stock = SentenceTransformer(str(way.path / "pretrained"), device="cpu").encode(texts)
    cosines = (ours * stock).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(stock, axis=1)
    assert cosines.min() > 0.95
    assert subarch.load_model(way.path).encode(texts) == pytest.approx(stock, abs=1e-6)


def command(
    *words: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["subarch", *map(str, words)])
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0), *capsys.readouterr()
    return 0, *capsys.readouterr()


def test_the_same_command_shows_what_there_is(
    way: Way, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = OneProcess.submitted
    words = ("compress", place / "teacher", "--corpus", place / "corpus.txt", "--faster", "2x", "--minutes", "5")
    code, out, _ = command(*words, "--run", way.path, capsys=capsys, monkeypatch=monkeypatch)
    assert (code, out.splitlines()) == (0, "\n".join(way.found.lines).splitlines())
    code, out, err = command(*words, "--run", way.path, "--json", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, json.loads(out)) == (0, way.found.to_dict())
    assert OneProcess.submitted == asked
    code, _, err = command(*words, "--seed", "1", "--run", way.path, capsys=capsys, monkeypatch=monkeypatch)
    assert code == 1
    assert "seed = 1 now and was 0" in " ".join(err.split())


# Going on


class Stopped(Exception):
    """Stands for a kill between two stages."""


@pytest.mark.slow
def test_stopped_before_each_stage_it_goes_on_and_comes_to_the_same(
    way: Way, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Stopped

    run, asked = tmp_path / "run", OneProcess.submitted
    stages = ((stage, "_of_start"), (pipeline, "extract"), (pipeline, "pretrain"), (stage, "_of_student"))
    for module, name in (*stages, (stage, "_finished")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stop)
            with pytest.raises(Stopped):
                whole_way(place, run)
        if name == "extract":
            trained = OneProcess.submitted
    found = whole_way(place, run)
    assert OneProcess.submitted - asked == len(RunFolder(run).read(Selection).candidates)
    assert trained == asked  # not before the search
    kept = ("architecture", "parameters", "error", "certificate", "asked")
    assert [getattr(found, name) for name in kept] == [getattr(way.found, name) for name in kept]
    assert found.serving is not None
    assert way.found.serving is not None
    assert found.serving.files == way.found.serving.files
    weights = [(folder / "pretrained" / "model.safetensors").read_bytes() for folder in (run, way.path)]
    assert weights[0] == weights[1]


def test_files_that_are_there_are_kept_and_damaged_ones_made_again(way: Way, tmp_path: Path) -> None:
    home = shutil.copytree(way.path / "teacher", tmp_path / "teacher")
    file = home / "exported" / "onnx-int8" / "onnx" / "model.onnx"
    before = file.stat().st_mtime_ns, file.read_bytes()
    places, refused = export_all(way.path.parent / "teacher", home)
    assert (file.stat().st_mtime_ns, file.read_bytes(), refused) == (*before, {})
    file.write_bytes(before[1] + b"x")
    assert export_all(way.path.parent / "teacher", home)[0] == places
    assert file.read_bytes() == before[1]


def test_a_runtime_whose_file_is_not_like_pytorch_is_left_out_with_the_reason(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InvalidExport("the cosine falls to 0.5")

    monkeypatch.setattr(pipeline, "export", refuse)
    model = way.path / "pretrained"
    assert export_all(model, tmp_path) == ({"torch": model}, {"onnx-int8": "the cosine falls to 0.5"})


# Limits on time


def test_a_search_out_of_time_ends_with_what_it_has_and_claims_nothing(place: Path, tmp_path: Path) -> None:
    given = SEARCH | {"space": str(place / "space.yaml"), "minutes": 1e-6, "cost": "operations", "max_parameters": 9000}
    named = {"teacher": str(place / "teacher"), "corpus": [str(place / "corpus.txt")]}
    config = load(ExtractConfig, None, named | given)
    asked = OneProcess.submitted
    found = pipeline.extract(config, tmp_path / "run")
    assert OneProcess.submitted - asked == 1
    assert found.winner is not None
    assert found.certificate is not None
    assert not found.certificate.closed
    assert stage.certified(found) == (
        False,
        f"nothing, the search was not finished (1 of {found.certificate.candidates} candidates trained): others may be "
        "better after 6 steps of training",
    )
    # With more time it goes on
    more = pipeline.extract(config.model_copy(update={"minutes": None}), tmp_path / "run", resume=True)
    assert more.certificate is not None
    assert more.certificate.closed


def test_where_no_candidate_meets_the_limit_the_nearest_is_named(
    place: Path, way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = RunFolder(way.path / "teacher").read(Serving)
    monkeypatch.setattr(stage, "_of_start", lambda *_: (tmp_path / "run" / "teacher").mkdir() or served)
    search = SEARCH | {"space": str(place / "space.yaml")}
    settings = load(CompressConfig, None, options(place, faster="100x"))
    found = compress(settings, tmp_path / "run", search=search)
    assert (found.architecture, found.serving) == (None, None)
    assert found.lines[0].startswith("nothing: no candidate meets the limits; ")
    assert not (tmp_path / "run" / "pretrained").exists()


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"faster": "abc"}, "faster 'abc' is no number of times above 1; write it as in 4x"),
        ({"faster": "1x"}, "'1x' is no number of times above 1"),
        ({"faster": "0.5"}, "'0.5x' is no number of times above 1"),
        ({"max_latency_ms": 3.0}, "faster and max_latency_ms are two limits; give one"),
        ({"max_megabytes": 3.0}, "faster and max_megabytes are two limits; give one"),
        ({"task": "mrpc"}, "task and data belong together"),
        ({"task": "mrpc", "data": "glue"}, "task 'mrpc' gives the inputs, instead of a corpus"),
        ({"corpus": None}, "corpus is missing: give text like what the model will read"),
        ({"minutes": 0}, "--minutes"),
        ({"keep": 1.0}, "--keep"),
    ],
)
def test_options_that_do_not_go_together_are_refused(place: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        load(CompressConfig, None, options(place, **changes))
    assert message in str(refused.value)


def test_a_limit_may_be_a_number_and_four_times_is_the_default(place: Path) -> None:
    assert load(CompressConfig, None, options(place, faster=3)).ratio == pytest.approx(1 / 3)
    assert load(CompressConfig, None, options(place, faster=None)).faster == "4x"
    assert load(CompressConfig, None, options(place, faster=None, max_latency_ms=2.0)).ratio is None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"teacher": "none/such/folder"}, InvalidTeacher, "no such folder"),
        ({"keep": 0.9, "faster": None}, InvalidConfig, "keep 0.9: the teacher teacher embeds texts and is not fine-"),
        ({"task": "mrpc", "data": "glue", "corpus": None}, InvalidConfig, "fine-tune the teacher first"),
    ],
)
def test_teachers_that_do_not_fit_are_refused_before_anything_is_measured(
    place: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as refused:
        compress(load(CompressConfig, None, options(place, **changes)), tmp_path / "run")
    assert message in str(refused.value)
    assert not (tmp_path / "run" / "outline.json").exists()


def test_recorded_vectors_have_no_latency_to_be_faster_than(place: Path, tmp_path: Path) -> None:
    texts = (place / "corpus.txt").read_text().split("\n\n")
    rows = [{"text": text, "vector": [1.0, float(n % 7)]} for n, text in enumerate(texts)]
    (tmp_path / "vectors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = options(place, teacher=str(tmp_path / "vectors.jsonl"), start_from=str(place / "teacher"))
    with pytest.raises(InvalidConfig, match="has no latency that a student could be compared with; give max_latency"):
        compress(load(CompressConfig, None, given), tmp_path / "run")


def test_the_folder_of_another_run_is_refused(place: Path, way: Way, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidStudy, match="is not empty and holds no compression"):
        whole_way(place, tmp_path)
    other = tiny_teacher(tmp_path / "other" / "teacher", seed=1)
    settings = load(CompressConfig, None, options(place, teacher=str(other)))
    with pytest.raises(InvalidStudy, match=r"the teacher is .*other/teacher now and was "):
        compress(settings, way.path)


def test_a_run_of_extract_does_not_begin_in_another_folder(tmp_path: Path) -> None:
    """What `compress` leaves before a search is let be; nothing else is."""
    (tmp_path / "outline.json").write_text("{}")
    with pytest.raises(InvalidStudy, match="is not empty and not a run folder"):
        RunFolder.create(tmp_path, load(ExtractConfig, None, {"teacher": "t", "corpus": ["c"]}), resume=False)


# Whole ways of other kinds, and kills


@pytest.mark.slow
def test_killed_in_the_middle_of_stages_no_finished_trial_is_lost_and_it_comes_to_the_same(
    way: Way, place: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def killed(where: Any, name: str, call: int) -> None:
        def work() -> None:
            setattr(where, name, dies(getattr(where, name), call, after=True))
            whole_way(place, run)

        assert fork(work) == [-signal.SIGKILL]

    killed(pipeline, "export", 1)
    killed(Study, "record", 2)
    killed(Study, "record", 1)
    killed(PretrainTrainer, "_save_checkpoint", 1)
    killed(pipeline, "export", 1)
    found = whole_way(place, run)
    keys = [(row.architecture, row.seed) for row in RunFolder(run).read(Conclusion).trials]
    assert len(keys) == len(set(keys)) == len(read(way, Conclusion).trials)
    assert (found.architecture, found.error) == (way.found.architecture, way.found.error)
    assert found.serving is not None
    assert way.found.serving is not None
    assert found.serving.files == way.found.serving.files


@pytest.mark.slow
def test_a_teacher_of_a_task_is_compressed_with_its_labels(place: Path, tmp_path: Path) -> None:
    rows = {part: topics(count, seed) for seed, (part, count) in enumerate((("train", 480), ("dev", 60)))}
    for part, examples in rows.items():
        lines = [f"{one.texts[0]}\t{one.label}" for one in examples if one.label in (0, 1)]
        write(tmp_path / "data" / "SST-2" / f"{part}.tsv", "\n".join(["sentence\tlabel", *lines]) + "\n")
    quick = {"learning_rate": [3e-3], "epochs": 2, "seeds": [0], "max_length": 16}
    home, data = tmp_path / "fine", str(tmp_path / "data")
    subarch.finetune(place / "teacher", task="sst2", data=data, run=home, **quick)
    teacher, search = home / "finetuned" / "sst2", SEARCH | {"space": str(place / "space.yaml")}
    training = TRAINING | {"steps": 30}
    given = {"teacher": str(teacher), "task": "sst2", "data": data, "faster": "2x", "minutes": 5}
    found = compress(load(CompressConfig, None, given), tmp_path / "run", search=search, training=training)
    assert found.scores is not None
    assert found.serving is not None
    assert (found.head, found.scores.task, found.scores.metric) == ("classification", "sst2", "accuracy")
    assert found.scores.theirs > 0.8
    assert found.model in ("pretrained", "finetuned/sst2")
    assert {file.runtime for file in found.serving.files} == {"torch", "onnx-int8"}
    assert "held-out accuracy" in found.lines[1]
    names: dict[str, Any] = {}
    exec("\n".join(line.strip() for line in found.lines[4].removeprefix("load").splitlines()), names)
    inputs = {name: np.ones((1, 4), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    assert names["session"](inputs)["logits"].shape == (1, 2)
    # The same inputs as a corpus of one's own; the fastest that keeps a share of the score
    labelled = [{"text": one.texts[0], "label": "np"[one.label]} for one in rows["train"] if one.label in (0, 1)]
    named = {"n": "negative", "p": "positive"}
    text = "".join(json.dumps(row | {"label": named[row["label"]]}) + "\n" for row in labelled)
    own = write(tmp_path / "own.jsonl", text)
    given = {"teacher": str(teacher), "corpus": [str(own)], "keep": 0.3, "minutes": 5}
    found = compress(load(CompressConfig, None, given), tmp_path / "keep", search=search, training=training)
    assert found.scores is not None
    assert (found.asked, found.scores.task) == ({"keep": 0.3}, "held-out inputs")
    assert RunFolder(tmp_path / "keep").config(ExtractConfig).objective == "latency"
    assert found.serving is not None
    assert all(file.fidelity is not None for file in found.serving.files)


@pytest.mark.slow
def test_a_limit_on_bytes_cuts_the_vocabulary_and_the_files_are_judged_with_it(place: Path, tmp_path: Path) -> None:
    axes = {"depth": [1], "heads": [4], "hidden": [32], "intermediate": [64], "vocabulary": ["all", 90]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(axes))
    search = SEARCH | {"space": str(tmp_path / "space.yaml")}
    inputs, shapes = Teacher.load(place / "teacher").inputs(32), np.array([[1, 4, 32, 64, 0], [1, 4, 32, 64, 90]])
    limit = megabytes(shapes, inputs, "bert", "onnx-int8").mean()
    settings = load(CompressConfig, None, options(place, faster=None, max_megabytes=float(limit)))
    found = compress(settings, tmp_path / "run", search=search, training=TRAINING)
    assert found.architecture == "1-4-32-64-90"
    assert found.serving is not None
    assert found.serving.best().bytes / 1e6 <= limit
    in_torch = next(file for file in found.serving.files if file.runtime == "torch")
    error = RunFolder(tmp_path / "run").read(Pretraining).heldout[-1]["error"]
    assert in_torch.fidelity == pytest.approx(1 - error, rel=1e-3)


@pytest.mark.slow
def test_another_encoder_to_start_from_and_recorded_vectors(place: Path, tmp_path: Path) -> None:
    teacher = SentenceTransformer(str(place / "teacher"), device="cpu")
    texts = [text for text in (place / "corpus.txt").read_text().split("\n\n") if text.strip()]
    rows = [
        {"text": text, "vector": vector.tolist()} for text, vector in zip(texts, teacher.encode(texts), strict=True)
    ]
    (tmp_path / "vectors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = tiny_teacher(tmp_path / "start", seed=5)
    given = options(place, teacher=str(tmp_path / "vectors.jsonl"), corpus=None, faster=None, max_latency_ms=1.5)
    given |= {"start_from": str(start)}
    search = SEARCH | {"space": str(place / "space.yaml")}
    found = compress(load(CompressConfig, None, given), tmp_path / "run", search=search, training=TRAINING)
    assert found.serving is not None
    assert found.teacher_serving is None
    assert found.lines[1] == "against    vectors.jsonl, which has no latency"
