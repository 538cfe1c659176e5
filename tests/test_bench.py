"""The benchmark: who is visited when, what the figures are, what is timed, what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import BertForMaskedLM

from subarch.cli import app as cli
from subarch.errors import (
    InvalidArchitecture,
    InvalidConfig,
    InvalidExport,
    InvalidStudy,
    InvalidTeacher,
    MissingExtra,
)
from subarch.exporting.graph import load_graph
from subarch.latency import bench as stage
from subarch.latency.bench import Subject, artifacts, bench, find, write_shape
from subarch.latency.config import RUNTIMES, BenchConfig
from subarch.latency.timing import PASSES, Task
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture, Inputs
from subarch.pipeline import bench as keep
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Bench
from tiny import POSITIONS, tiny_corpus, tiny_teacher, write_json
from tiny_export import exported, tiny_model

SIDE = 100
"""Of the matrices that are multiplied: 2 MFLOP a product."""


def config(**options: Any) -> BenchConfig:
    return load(BenchConfig, None, {"length": [16]} | options)


class FakeGroup:
    """In place of processes: every call takes as long as `milliseconds` says."""

    milliseconds: ClassVar[dict[str, float]] = {}
    visits: ClassVar[list[tuple[str, int, tuple[int, ...], int]]] = []
    tasks: ClassVar[dict[str, Task]] = {}
    open: ClassVar[set[str]] = set()

    def __init__(self, name: str, task: Task, count: int) -> None:
        self.name, self.count = name, count
        self.load_seconds, self.peak_bytes = [0.1, 0.3, 0.2][:count], [1000, 3000, 2000][:count]
        FakeGroup.tasks[name] = task

    def __enter__(self) -> FakeGroup:
        FakeGroup.open.add(self.name)
        return self

    def __exit__(self, *_: object) -> None:
        FakeGroup.open.remove(self.name)

    def visit(self, batch: int, lengths: Sequence[int], passes: int) -> list[list[float]]:
        FakeGroup.visits.append((self.name, batch, tuple(lengths), passes))
        return [[FakeGroup.milliseconds.get(self.name, 1.0)] * passes for _ in range(self.count)]


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for collected in (FakeGroup.milliseconds, FakeGroup.visits, FakeGroup.tasks):
        collected.clear()  # type: ignore[attr-defined]
    monkeypatch.setattr(stage, "Group", FakeGroup)
    monkeypatch.setattr(stage, "SIZE", SIDE)
    yield
    assert FakeGroup.open == set()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("bench") / "tiny", layers=1)


def test_all_are_visited_in_turn_and_the_first_round_is_not_timed(model: Path) -> None:
    heard = []
    options = config(runtime=["torch"], batch=[1, 4], length=[8, 16], rounds=2)
    found = bench([str(model), "1-1-8-16"], options, lambda *told: heard.append(told))
    settings = [(1, (8,)), (1, (16,)), (4, (8,)), (4, (16,))]
    stops = [(f"{name} in torch", *setting) for name in ("tiny", "1-1-8-16") for setting in settings]
    stops.append(("matrix products", 1, ()))
    assert FakeGroup.visits == [(*stop, passes) for passes in (0, PASSES, PASSES) for stop in stops]
    assert [(row.subject, row.batch, row.lengths) for row in found.rows] == [
        (name.removesuffix(" in torch"), *setting) for name, *setting in stops[:-1]
    ]
    assert all(row.passes == 2 * PASSES for row in found.rows)
    assert heard[-1] == ("measuring", 3, 3)
    assert Bench.model_validate_json(found.to_json(), strict=True) == found


def test_the_figures_by_hand() -> None:
    FakeGroup.milliseconds.update({"1-1-8-16 in torch": 2.0, "matrix products": 0.5})
    found = bench(["1-1-8-16"], config(runtime=["torch"], batch=[3], length=[10]))
    (row,) = found.rows
    operations = 4 * 10 * 8 * 8 + 2 * 10 * 10 * 8 + 2 * 10 * 8 * 16
    assert found.peak_gflops == pytest.approx(2 * SIDE**3 / 0.5e-3 / 1e9)
    assert (row.median_ms, row.q1_ms, row.q3_ms, row.p95_ms) == (2.0, 2.0, 2.0, 2.0)
    assert row.sentences_per_second == pytest.approx(3 / 2e-3)
    assert row.gflops == pytest.approx(2 * operations * 1500 / 1e9)
    assert row.share_of_peak == pytest.approx(row.gflops / 4)
    assert (row.peak_bytes, row.load_seconds) == (1000, 0.1)
    assert row.file_bytes > 4 * Architecture(1, 1, 8, 16).parameters(Inputs(30522)).total
    (subject,) = found.subjects
    assert (subject.name, subject.kind, subject.head) == ("1-1-8-16", "shape", "encoder")
    assert (subject.architecture, subject.parameters) == ("1-1-8-16", 248_904)


def test_processes_are_summed_and_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "usable_cores", lambda: 7)
    FakeGroup.milliseconds["1-1-8-16 in torch"] = 4.0
    found = bench(["1-1-8-16"], config(runtime=["torch"], processes=3, rounds=1))
    (row,) = found.rows
    assert row.sentences_per_second == pytest.approx(3 / 4e-3)
    assert row.median_ms == 4.0
    assert row.passes == 3 * PASSES
    assert found.peak_gflops == pytest.approx(3 * 2 * SIDE**3 / 1e-3 / 1e9)
    assert (row.peak_bytes, row.load_seconds) == (3000, 0.2)
    assert found.threads == 2
    assert {task.threads for task in FakeGroup.tasks.values()} == {2}


def test_lengths_of_a_corpus(model: Path, tmp_path: Path) -> None:
    corpus = tiny_corpus(tmp_path / "corpus.txt")
    options = config(runtime=["torch"], length=None, length_from=[str(corpus)], batch=[2])
    FakeGroup.milliseconds["tiny in torch"] = 24.0
    found = bench(["1-1-8-16", str(model)], options)
    row = found.rows[1]
    tokenizer = Teacher.load(model).tokenizer
    texts = corpus.read_text().strip().split("\n\n")
    sizes = sorted(len(ids) for ids in tokenizer(texts)["input_ids"])
    assert len(row.lengths) == 8
    assert list(row.lengths) == sorted(row.lengths)
    assert {*row.lengths} <= {*sizes}
    assert sizes[len(sizes) // 8] >= row.lengths[0] >= sizes[0]
    assert row.median_ms == 3.0  # 24 ms over eight lengths
    assert row.sentences_per_second == pytest.approx(2 * 8 / 24e-3)
    operations = [Architecture(1, 4, 32, 64).operations(Inputs(1), length) for length in row.lengths]
    assert row.gflops == pytest.approx(2e-9 * sum(operations) * 2 / 24e-3)


def test_a_corpus_with_shapes_alone(tmp_path: Path) -> None:
    options = config(length=None, length_from=[str(tiny_corpus(tmp_path / "corpus.txt"))], runtime=["torch"])
    with pytest.raises(InvalidConfig, match="no subject has a tokenizer"):
        bench(["1-1-8-16"], options)
    assert FakeGroup.visits == []


def test_what_is_named_becomes_a_subject(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_model(run / "selected", "masked-lm", layers=1)
    exported(run / "selected", run, runtime="onnx")
    names = [str(run), str(model), "2-1-8-16", str(run / "exported" / "onnx")]
    names.append(str(run / "exported" / "onnx" / "onnx" / "model.onnx"))
    found = find([*names, names[0]], config(vocabulary=50, positions=20), tmp_path / "scratch")
    assert [one.kind for one in found] == ["model", "model", "shape", "export", "export"]
    assert [one.name for one in found[:4]] == ["run", "tiny", "2-1-8-16", "exported/onnx"]
    assert found[4].name == "onnx/model.onnx"
    assert found[0].folder == run / "selected"
    assert [one.head for one in found] == ["masked-lm", "sentence", "encoder", "masked-lm", "masked-lm"]
    assert [one.longest for one in found] == [POSITIONS, POSITIONS, 20, POSITIONS, POSITIONS]
    assert [str(one.architecture) for one in found] == ["1-4-32-64", "1-4-32-64", "2-1-8-16", *["1-4-32-64"] * 2]
    (artifact,) = artifacts(found[3], ["torch", "openvino"], tmp_path)
    assert (artifact.runtime, artifact.path) == ("onnx", run / "exported" / "onnx" / "onnx" / "model.onnx")
    (same,) = artifacts(found[4], ["torch"], tmp_path)
    assert same.path == artifact.path
    # an export of a model that is there is taken, not written again
    (again,) = artifacts(found[0], ["onnx"], tmp_path / "unused")
    assert (again.path, again.bytes) == (artifact.path, artifact.path.stat().st_size)
    tiny_model(run / "selected", "masked-lm", layers=2)
    (changed,) = find([str(run)], config(), tmp_path / "scratch")
    (fresh,) = artifacts(changed, ["onnx"], tmp_path / "used")
    assert fresh.path.is_relative_to(tmp_path / "used")


@pytest.mark.slow
def test_every_runtime_gets_its_file(tmp_path: Path) -> None:
    (kept,) = find(["1-1-8-16-20"], config(vocabulary=50, positions=20), tmp_path / "kept")
    assert (kept.name, kept.inputs.vocabulary) == ("1-1-8-16-20", 20)
    assert json.loads((kept.folder / "config.json").read_text(encoding="utf-8"))["vocab_size"] == 20
    (shape,) = find(["1-1-8-16"], config(vocabulary=50, positions=20), tmp_path)
    found = {artifact.runtime: artifact for artifact in artifacts(shape, RUNTIMES, tmp_path)}
    assert list(found) == list(RUNTIMES)
    assert {name: artifact.engine for name, artifact in found.items()} == {
        name: name.removesuffix("-int8") for name in RUNTIMES
    }
    assert found["torch"].path == shape.folder
    for name, artifact in found.items():
        assert name == "torch" or artifact.path.is_file()
        assert artifact.bytes > 4 * 50 * 8 * (0.25 if "int8" in name else 1)
    weights = found["openvino"].path.with_suffix(".bin").stat().st_size
    assert found["openvino"].bytes == found["openvino"].path.stat().st_size + weights


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_shape_is_the_stock_model_of_it(family: str, tmp_path: Path) -> None:
    architecture, inputs = Architecture.parse("2-2-16-24"), Inputs(60, 24, 1)
    write_shape(architecture, inputs, tmp_path, family)
    graph = load_graph(tmp_path, "encoder")
    assert graph.model.config.model_type == family
    assert Architecture.from_config(graph.model.config) == architecture
    counted = sum(parameter.numel() for parameter in graph.model.parameters())
    assert counted == architecture.parameters(inputs).total
    (hidden,) = graph(torch.full((2, 5), 7), torch.ones(2, 5, dtype=torch.int64))
    assert hidden.shape == (2, 5, 16)
    assert bool(hidden.isfinite().all())


def test_a_masked_lm_head_is_counted(tmp_path: Path) -> None:
    """PyTorch's counter, which counts two operations a multiply-add, of the whole stock model."""
    from torch.utils.flop_counter import FlopCounterMode

    architecture, inputs = Architecture.parse("2-2-16-24"), Inputs(60, 24)
    settings: Any = architecture.to_config(inputs, attn_implementation="eager")
    stock = BertForMaskedLM(settings).eval()
    subject = Subject("", "model", tmp_path, tmp_path, "masked-lm", architecture, inputs, 24)
    with FlopCounterMode(display=False) as counter:
        stock(torch.full((1, 9), 7))
    assert 2 * subject.operations(9) == counter.get_total_flops()


@pytest.mark.parametrize("name", ["no/such/model", "4-8-1024", "4-8-1024-768-2-2", "4x8"])
def test_neither_a_folder_nor_a_shape(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=f"{name}: is neither a path nor a shape"):
        find([name], config(), tmp_path)


def test_a_shape_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchitecture, match="not divisible by 3 heads"):
        find(["1-3-32-64"], config(), tmp_path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidTeacher, match="empty: holds no model"):
        find([str(tmp_path / "empty")], config(), tmp_path)


def test_a_file_that_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InvalidExport, match="no exported model"):
        find([str(tmp_path / "model.onnx")], config(), tmp_path)


def test_an_unknown_family(model: Path, tmp_path: Path) -> None:
    settings = json.loads((model / "config.json").read_text()) | {"model_type": "gpt2"}
    write_json(Path(shutil.copytree(model, tmp_path / "gpt")) / "config.json", settings)
    with pytest.raises(InvalidTeacher, match="'gpt2' is not supported"):
        bench([str(tmp_path / "gpt")], config())


def test_an_export_that_was_changed_since_its_parity(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_model(run / "selected", "encoder", layers=1)
    exported(run / "selected", run, runtime="onnx")
    file = run / "exported" / "onnx" / "onnx" / "model.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    for name in (run, run / "exported" / "onnx", file):
        with pytest.raises(InvalidExport, match="was changed after it was compared with PyTorch"):
            bench([str(name)], config(runtime=["onnx"]))
    assert FakeGroup.visits == []


def test_a_length_beyond_the_positions(model: Path) -> None:
    with pytest.raises(InvalidConfig, match=f"length 65: tiny reads at most {POSITIONS} tokens"):
        bench([str(model), "1-1-8-16"], config(runtime=["torch"], length=[16, 65]))


def test_a_runtime_that_is_not_installed(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incomplete = {"complete": False, "missing": ["openvino>=2026.1"], "command": "python -m pip install openvino"}
    found = {"openvino": incomplete, "onnx": {"complete": True, "missing": []}}
    for place in ("subarch.exporting.runtimes.extras", "subarch.latency.bench.extras"):
        monkeypatch.setattr(place, lambda: found)
    with pytest.raises(MissingExtra, match=r"subarch\[openvino\]"):
        bench([str(model)], config(runtime=["torch", "openvino-int8"]))
    rows = bench(["1-1-8-16"], config(vocabulary=50)).rows
    assert [row.runtime for row in rows] == ["torch", "onnx", "onnx-int8"]  # without being asked for: what is there


def test_length_and_corpus_exclude_each_other() -> None:
    with pytest.raises(InvalidConfig, match="exclude each other"):
        config(length=[3], length_from=["docs"])
    assert load(BenchConfig, None, {}).lengths == (32, 128)
    with pytest.raises(InvalidConfig, match="--runtime: runtime"):
        config(runtime=["tflite"])


def test_a_full_disk_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("subarch.latency.bench.write", full)
    with pytest.raises(InvalidExport, match="No space left on device; free some space, or set TMPDIR"):
        bench([str(model)], config(runtime=["onnx"]))


def test_what_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "of" / "bench"
    found = keep(["1-1-8-16"], config(runtime=["torch"]), place, "subarch bench 1-1-8-16")
    assert RunFolder(place).read(Bench) == found
    assert found.command == "subarch bench 1-1-8-16"
    page = (place / "bench.html").read_text()
    assert "the fastest is 1-1-8-16 in torch" in page
    assert {path.name for path in place.iterdir()} == {"bench.json", "bench.html"}


def test_nothing_is_left_of_one_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig):
        keep(["nothing"], config(), tmp_path / "bench", "subarch bench nothing")
    assert not (tmp_path / "bench").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidStudy, match="choose another with --run"):
        keep(["1-1-8-16"], config(), tmp_path / "file" / "bench", "subarch bench 1-1-8-16")
    assert FakeGroup.visits == []


def test_names_are_as_long_as_it_takes(tmp_path: Path) -> None:
    for name in ("a/m", "b/m", "c/model"):
        tiny_teacher(tmp_path / name, layers=1)
    found = find([str(tmp_path / name) for name in ("a/m", "b/m", "c/model")], config(), tmp_path)
    assert [one.name for one in found] == ["a/m", "b/m", "c/model"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["subarch", "bench", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return (int(left.value.code or 0), *capsys.readouterr())

    words = ["1-1-8-16", "2-1-8-16", "--runtime", "torch", "--batch", "2", "--batch", "4", "--length", "8"]
    words += ["--rounds", "1", "--processes", "2", "--run", str(tmp_path / "bench")]
    code, out, _ = call(*words)
    assert code == 0
    assert all(text in out for text in ("batch 2, 8 tokens", "batch 4, 8 tokens", "2-1-8-16", "2 processes of "))
    assert str(tmp_path / "bench" / "bench.html") in out.replace("\n", "")
    code, out, _ = call(*words, "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["batch"] for row in found["rows"]] == [2, 4, 2, 4]
    assert found["command"] == shlex.join(["subarch", "bench", *words, "--json"])
    code, out, err = call("9-9-9", "--json", "--run", str(tmp_path / "none"))
    assert (code, out) == (1, "")
    assert "InvalidConfig: 9-9-9: is neither a path nor a shape" in " ".join(err.split())
