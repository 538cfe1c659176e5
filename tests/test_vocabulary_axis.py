"""The vocabulary as an axis of the search: what candidates read, inherit and leave, from a space to a stock folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from subarch.errors import InvalidArchitecture, InvalidConfig, InvalidStudy, InvalidVocabulary
from subarch.exporting.config import ExportConfig
from subarch.exporting.export import export
from subarch.extraction.trial import Settings
from subarch.extraction.verify import verify
from subarch.extraction.workbench import Workbench, _vocabularies, blueprint_of, make_basis, space_of
from subarch.latency.measuring import torch_calls
from subarch.models.student import Student, load_weights
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.pipeline import extract, select
from subarch.pretraining.pretrain import train
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, Latencies, Space
from subarch.show.search import facts
from tiny import tiny_teacher
from tiny_pretrain import tiny_pretraining
from tiny_run import AXES, OneProcess, tiny_config

pytestmark = pytest.mark.usefixtures("one_process")
CERTIFIED: dict[str, Any] = {"strategy": "certified", "delta": 0.02, "repeats": 0, "audit": 1}
VOCABULARIES = {
    "depth": [0, 1, 2],
    "heads": [4],
    "hidden": [16, 32],
    "intermediate": [64],
    "vocabulary": ["all", 60, 90],
}
SHAPE = Architecture.parse("1-4-16-64-60")
THETA = Settings(6, 2e-3, 16)


def world(folder: Path, family: str = "bert", **settings: Any) -> Path:
    """A folder with a teacher, and a space that has vocabularies."""
    tiny_teacher(folder / "teacher", family=family, **settings)
    (folder / "space.yaml").write_text(yaml.safe_dump(VOCABULARIES), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def bench(made: Path) -> Workbench:
    return Workbench.open(tiny_config(made), made / "bench")


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_rows_are_inherited_and_ids_renumbered(tmp_path: Path, family: str) -> None:
    bench = Workbench.open(tiny_config(world(tmp_path, family)), tmp_path / "run")
    own = bench.keeping(60)
    whole, cut = bench.material.tokenizer, own.material.tokenizer
    reader = own.material.reader
    assert reader is not None
    assert len(cut) == len(reader.kept) == 60
    # Of the same name before and after
    assert whole.convert_ids_to_tokens(reader.kept.tolist()) == cut.convert_ids_to_tokens(list(range(60)))
    student, other = own.student(SHAPE), bench.student(Architecture.parse("1-4-16-64"))
    tables = [one.encoder.get_input_embeddings().weight for one in (student, other)]
    assert torch.equal(tables[0], tables[1][torch.from_numpy(reader.kept)])
    assert student.encoder.config.pad_token_id == cut.pad_token_id
    assert bench.train(SHAPE, THETA).error is not None
    # Whole pieces of text, in the same order
    texts = own.material.split(bench.config, 10**6)[0].texts
    assert texts is not None
    assert texts[3] == bench.material.split(bench.config, 10**6)[0].texts[3]  # type: ignore[index]


def test_a_student_without_loss_of_tokens_is_the_one_of_the_whole_vocabulary(made: Path, bench: Workbench) -> None:
    """A text whose tokens are all kept has the same vector."""
    own = bench.keeping(90)
    text = own.material.tokenizer.decode(list(range(60, 80)))
    vectors = []
    for one, shape in ((own, "2-4-16-64-90"), (bench, "2-4-16-64")):
        ids = one.material.tokenizer(text, return_tensors="pt")
        vectors.append(one.student(Architecture.parse(shape)).eval()(ids["input_ids"], ids["attention_mask"]))
    assert torch.allclose(*vectors, atol=1e-6)


def test_training_the_rows_that_occur_composes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.learning.material.PAYS", 1.0)
    config = tiny_config(world(tmp_path, vocab_size=2000), heldout=4, steps=1, batch_size=[1])
    bench = Workbench.open(config, tmp_path / "run")
    own = bench.keeping(100)
    assert own.rows is not None
    assert len(own.rows) < 100
    reduced, shape = tmp_path / "reduced.safetensors", Architecture.parse("1-4-16-64-100")
    theta = Settings(1, 2e-3, 1)
    first = bench.train(shape, theta, reduced)
    found = load_weights(Student(shape, own.blueprint), reduced, lambda: bench.material.start)
    own.rows = None
    second = bench.train(shape, theta, tmp_path / "whole.safetensors")
    assert first.error == second.error
    expected = load_weights(Student(shape, own.blueprint), tmp_path / "whole.safetensors")
    for (name, one), two in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert reduced.stat().st_size != (tmp_path / "whole.safetensors").stat().st_size


def test_a_search_with_vocabularies_from_space_to_stock_folder(made: Path) -> None:
    run = made / "searched"
    selection = extract(tiny_config(made, **CERTIFIED, max_megabytes=0.027), run)
    assert selection.winner is not None
    winner = Architecture.parse(selection.winner.architecture)
    assert winner.vocabulary in (60, 90)
    assert (selection.objective.max_megabytes, selection.objective.megabytes_in) == (0.027, "torch")
    assert selection.winner.megabytes is not None
    written = sum(file.stat().st_size for file in (run / "selected").rglob("*.safetensors"))
    assert selection.winner.megabytes * 1e6 == pytest.approx(written, rel=0.01)
    shown = {fact.name for fact in facts(selection)}
    assert shown >= {"Parameters", "Encoder layers", "Embeddings", "Map to the output", "File"}
    over = [one for one in selection.candidates if (one.megabytes or 0) > 0.027]
    assert all("over the file size limit" in (one.reason or "") for one in over)
    assert selection.certificate is not None
    assert selection.certificate.candidates == 3 * 2 * 3
    assert len(verify(run)) == 4
    basis = RunFolder(run).read(Basis)
    assert [one.size for one in basis.vocabularies] == [60, 90]
    assert RunFolder(run).read(Space).vocabulary == (0, 60, 90)
    # A stock folder with the cut tokenizer, whose vectors are those of our own student
    stock, tokenizer = (
        SentenceTransformer(str(run / "selected"), device="cpu"),
        AutoTokenizer.from_pretrained(run / "selected"),
    )
    assert len(tokenizer) == winner.vocabulary == stock[0].auto_model.config.vocab_size
    texts = ["the old boat sees a rope.", "kitchen number 12: the cook", "pupil chalk"]
    ids = tokenizer(texts, padding=True, return_tensors="pt")
    weights = next((run / "weights").glob(f"{winner}_*_seed0*"))
    student = load_weights(Student(winner, blueprint_of(basis, winner.vocabulary)), weights).eval()
    own = torch.nn.functional.normalize(student(ids["input_ids"], ids["attention_mask"]), dim=-1)
    assert np.allclose(stock.encode(texts), own.detach().numpy(), atol=1e-5)
    # Asked again, by another limit, from the same trials
    again = select(run, {"max_parameters": 4500})
    assert again.winner is not None
    assert again.winner.parameters <= 4500 < selection.winner.parameters


@pytest.mark.slow
def test_a_limit_in_int8_is_that_of_the_file_that_export_writes(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run, limit = tmp_path / "run", 0.075
    config = tiny_config(made, **CERTIFIED, runtime="onnx-int8", max_megabytes=limit, objective="w")
    selection = extract(config, run)
    verify(run)
    assert selection.winner is not None
    assert selection.winner.megabytes is not None
    parity = export(run / "selected", load(ExportConfig, None, {"quantize": "int8", "min_cosine": 0.5}), run)
    (file,) = (run / "exported").rglob("model.onnx")
    assert file.stat().st_size <= limit * 1e6
    assert file.stat().st_size == pytest.approx(selection.winner.megabytes * 1e6, rel=0.01)
    assert (parity.variant, parity.text.source) == ("onnx-int8", "the run's corpus, held-out part")
    assert parity.calibrated_on is not None
    none = select(run, {"max_megabytes": 0.001})
    assert none.nearest is not None
    assert set(none.nearest.limits) == {"max_megabytes"}
    assert "over the file size limit" in none.nearest.sentence


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_every_family_is_handed_over_with_its_vocabulary(tmp_path: Path, family: str) -> None:
    folder = world(tmp_path, family)
    axes = {"depth": [2], "heads": [4], "hidden": [16], "intermediate": [64], "vocabulary": [60]}
    (folder / "space.yaml").write_text(yaml.safe_dump(axes), encoding="utf-8")
    run = tmp_path / "run"
    selection = extract(tiny_config(folder, **CERTIFIED), run)
    assert selection.winner is not None
    assert selection.winner.architecture == "2-4-16-64-60"
    verify(run)
    basis, shape = RunFolder(run).read(Basis), Architecture.parse("2-4-16-64-60")
    weights = next((run / "weights").glob("2-4-16-64-60_*_seed0*"))
    student = load_weights(Student(shape, blueprint_of(basis, 60)), weights).eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "selected")
    texts = ["the old boat sees a rope.", "kitchen number 12: the cook and the heavy oven", "pupil"]
    ids = tokenizer(texts, padding=True, return_tensors="pt")
    own = torch.nn.functional.normalize(student(ids["input_ids"], ids["attention_mask"]), dim=-1)
    stock = SentenceTransformer(str(run / "selected"), device="cpu")
    assert np.allclose(stock.encode(texts), own.detach().numpy(), atol=1e-5)
    export(run / "selected", load(ExportConfig, None, {}), run)


@pytest.mark.slow
def test_the_papers_scheme_goes_by_operations_on_equally_many_tokens(made: Path, tmp_path: Path) -> None:
    config = tiny_config(made, strategy="fptas", epsilon=4)
    selection = extract(config, tmp_path / "run")
    basis = RunFolder(tmp_path / "run").read(Basis)
    inputs = blueprint_of(basis).inputs
    space = SearchSpace.load(made / "space.yaml")

    def rank(shape: Architecture) -> tuple[int, int, Architecture]:
        return shape.operations(inputs, config.latency_length), shape.parameters(inputs).total, shape

    ordered = [str(one) for one in sorted(space, key=rank)]
    assert {one.architecture for one in selection.candidates} == {*ordered[::4], ordered[-1]}
    assert selection.maximum_point == "2-4-32-64"


def test_an_exclusion_by_a_smaller_vocabulary_is_refused(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    extract(tiny_config(made, **CERTIFIED | {"delta": 0.6, "audit": 0}), run)
    file = run / "selection.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    found = record["certificate"]
    assert "intermediate size and vocabulary than a trained candidate" in found["sentence"]
    small = [one for one in found["trained"] if one.endswith(("-60", "-90"))]
    name = next(one for one in found["excluded"] if not one.endswith(("-60", "-90")))
    verify(run)
    assert small
    found["excluded"][name] = small[0]
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(InvalidStudy, match="which is smaller in depth, hidden or intermediate size or vocabulary"):
        verify(run)


@pytest.mark.slow
def test_a_run_goes_on_with_the_vocabularies_that_it_has(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = extract(tiny_config(made, **CERTIFIED), run)
    (stamps,) = ({path: path.stat().st_mtime_ns for path in run.glob("vocabularies/*/*")},)
    assert stamps
    asked = OneProcess.submitted
    again = extract(tiny_config(made, **CERTIFIED), run, resume=True)
    assert OneProcess.submitted == asked
    assert again.certificate == first.certificate
    assert {path: path.stat().st_mtime_ns for path in run.glob("vocabularies/*/*")} == stamps
    (run / "vocabularies" / "60" / "kept.safetensors").write_bytes(b"junk")
    with pytest.raises(InvalidStudy, match=r"vocabularies/60: cannot be read .*delete the folder to make it again"):
        Workbench.open(tiny_config(made, **CERTIFIED), run).keeping(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [{}, {"architecture": "1-4-16-64-60", "initialise": "inherit"}],
)
def test_a_pretraining_reads_with_the_vocabulary_of_the_search(
    made: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    selection = extract(tiny_config(made, **CERTIFIED, max_parameters=6000), run)
    assert selection.winner is not None
    kept = (run / "vocabularies" / "60" / "kept.safetensors").read_bytes()
    architecture = given.get("architecture", selection.winner.architecture)
    config = tiny_pretraining(made, **{"architecture": architecture, "max_length": 24} | given)
    record = train(run, config)
    assert record.losses == {"embedding": 1.0}
    assert record.heldout[-1]["embedding"] < record.heldout[0]["embedding"]
    card = (run / "pretrained" / "README.md").read_text(encoding="utf-8")
    assert "depth, heads, hidden, intermediate, vocabulary" in card
    assert "map to the output" in card
    stock = SentenceTransformer(str(run / "pretrained"), device="cpu")
    assert len(stock.tokenizer) == Architecture.parse(architecture).vocabulary
    assert np.isfinite(stock.encode(["the old boat sees a rope."])).all()
    assert (run / "vocabularies" / "60" / "kept.safetensors").read_bytes() == kept


def test_each_candidate_is_timed_and_counted_on_its_own_tokens(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def measured(calls: Mapping[str, Callable[[], Any]], rounds: int, *_: Any) -> dict[str, list[list[float]]]:
        """In place of a clock: each model is called once."""
        for name, call in calls.items():
            assert call()
            seen.add(name)
        return {name: [[1.0]] * rounds for name in calls}

    monkeypatch.setattr("subarch.latency.measuring.visits", measured)
    monkeypatch.setenv("SUBARCH_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    config = tiny_config(made, cost="latency", strategy="exhaustive", max_parameters=1, latency_length=20)
    selection = extract(config, run)
    latencies, basis = RunFolder(run).read(Latencies), RunFolder(run).read(Basis)
    tokens = {one.size: one.tokens for one in basis.vocabularies}
    assert basis.tokens is not None
    assert tokens[60] >= tokens[90] >= basis.tokens
    longer = {str(size): round(20 * mean / basis.tokens) for size, mean in tokens.items()}
    assert latencies.settings.longer == longer
    assert selection.nearest is not None
    nearest = selection.nearest.row
    shape = Architecture.parse(nearest.architecture)
    inputs = blueprint_of(basis).inputs
    assert nearest.operations == shape.operations(inputs, longer.get(str(shape.vocabulary), 20))
    assert seen >= {"1-4-16-64", "1-4-16-64-60", "2-4-32-64-90"}
    other = extract(config.model_copy(update={"length_from": "corpus"}), tmp_path / "other")
    found = RunFolder(tmp_path / "other").read(Latencies).settings
    assert other.latency is not None
    assert found.longer is not None
    assert isinstance(found.length, tuple)
    for own in found.longer.values():
        assert isinstance(own, tuple)
        assert all(a >= b for a, b in zip(own, found.length, strict=True))


def test_models_get_inputs_of_their_own_lengths_and_vocabularies() -> None:
    class Given(torch.nn.Module):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return ids

    with torch_calls({"a": Given(), "b": Given()}, 500, 2, (4, 9), 1, {"b": (8, (6, 30))}) as calls:
        found: dict[str, Any] = {name: call() for name, call in calls.items()}
    assert [one.shape for one in found["a"]] == [(2, 4), (2, 9)]
    assert [one.shape for one in found["b"]] == [(2, 6), (2, 30)]
    assert found["b"][1].max() < 8 <= found["a"][1].max() < 500


def test_what_compares_tokens_is_refused_by_name(made: Path, tmp_path: Path) -> None:
    config = tiny_pretraining(made, architecture="1-4-16-64-60", loss_hidden=1.0, loss_embedding=1.0)
    with pytest.raises(InvalidConfig, match="loss_hidden compares token by token, and a student of 1-4-16-64-60"):
        train(tmp_path / "run", config)
    with pytest.raises(InvalidConfig, match="error 'mlm' compares token by token, so all candidates have to have the"):
        Workbench.open(tiny_config(world(tmp_path, masked_lm=True), error="mlm"), tmp_path / "mlm")
    with pytest.raises(InvalidConfig, match="vocabulary 60: students have a tokenizer of their own"):
        Workbench.open(tiny_config(made, teacher=None, error="mlm", initialise="scratch"), tmp_path / "scratch")


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, ()),
        ({"max_parameters": 10**6}, (2000, 5000)),
        ({"max_megabytes": 1.0}, (2000, 5000)),
        ({"objective": "w"}, (2000, 5000)),
        ({"objective": "w", "error": "mlm"}, ()),
        ({"objective": "w", "initialise": "scratch"}, ()),
    ],
)
def test_the_space_auto_has_vocabularies_where_size_matters(
    made: Path, tmp_path: Path, given: dict[str, Any], sizes: tuple[int, ...]
) -> None:
    config = tiny_config(made, **{"space": "auto"} | given)
    found = _vocabularies(config, tmp_path, 10_000)
    assert tuple(sorted(found)) == sizes
    assert _vocabularies(config, tmp_path, 2500) == ()  # halves below the least


def test_the_vocabularies_of_auto_are_those_that_the_corpus_can_have(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subarch.extraction.workbench._vocabularies", lambda *_: (4, 70, 90))
    config = tiny_config(made, space="auto", objective="w")
    basis = make_basis(RunFolder.create(tmp_path / "run", config, resume=False), config, lambda *_: None)
    assert space_of(config, None, basis).vocabulary == (0, 70, 90)  # 4 are fewer than the characters


def test_sizes_that_cannot_be(made: Path, bench: Workbench, tmp_path: Path) -> None:
    with pytest.raises(InvalidArchitecture, match=r"a vocabulary of 126 tokens: the corpus uses \d+ of the 127"):
        bench.keeping(126)
    with pytest.raises(InvalidVocabulary, match="a vocabulary of 4 tokens is too small"):
        bench.keeping(4)
    # What the corpus does not fill becomes what it uses
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(AXES | {"vocabulary": [126, 90, "all"]}), encoding="utf-8")
    config = tiny_config(made, space=str(tmp_path / "space.yaml"))
    with pytest.warns(
        UserWarning, match=r"the corpus uses (\d+) tokens, so a vocabulary of 126 has no more than these"
    ):
        basis = make_basis(RunFolder.create(tmp_path / "run", config, resume=False), config, lambda *_: None)
    sizes = [one.size for one in basis.vocabularies]
    assert sizes[0] == 90
    assert 90 < sizes[1] < 126
