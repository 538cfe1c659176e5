"""The workbench: what it identifies, what it computes once, and weights that come back as they went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from subarch.errors import InvalidCorpus, InvalidStudy, InvalidTeacher
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings
from subarch.extraction.workbench import Workbench, space_of, warn_beyond, warn_unlimited
from subarch.learning import targets
from subarch.models.inherit import inherit
from subarch.models.student import Student, load_weights, save_weights
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.run.configuration import load
from tiny import tiny_corpus, tiny_sentences, tiny_teacher

SHAPE = Architecture(1, 4, 32, 24)
THETA = Settings(4, 5e-3, 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teachers, corpora and tasks, by name."""
    folder = tmp_path_factory.mktemp("made")
    for seed in (0, 1):
        tiny_teacher(folder / f"sentence{seed}", layers=2, seed=seed)
        tiny_corpus(folder / f"corpus{seed}.txt", seed=seed)
        rows = [dict(zip(("query", "document"), line.split(": "), strict=True)) for line in tiny_sentences(12, seed)]
        (folder / f"task{seed}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    tiny_teacher(folder / "masked", masked_lm=True, modules=False, layers=2)
    return folder


def config(made: Path, **changes: Any) -> ExtractConfig:
    values = {"teacher": made / "sentence0", "corpus": [str(made / "corpus0.txt")], "max_length": 24, "heldout": 8}
    return load(ExtractConfig, None, values | {"steps": 4, "batch_size": [8]} | changes)


@pytest.fixture(scope="module")
def bench(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench.open(config(made), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def masked_bench(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench.open(config(made, teacher=made / "masked", error="logits"), tmp_path_factory.mktemp("masked"))


SCRATCH = {"teacher": None, "error": "mlm", "initialise": "scratch"}
MATTERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("teacher", {}, {"teacher": "sentence1"}),
    ("corpus", {}, {"corpus": "corpus1.txt"}),
    ("max_length", {}, {"max_length": 16}),
    ("heldout", {}, {"heldout": 4}),
    ("initialise", {}, {"initialise": "scratch"}),
    ("threads_per_worker", {}, {"threads_per_worker": 2}),
    ("error", {"teacher": "masked", "error": "mlm"}, {"error": "logits"}),
    ("task", {"error": "task", "task": "task0.jsonl"}, {"task": "task1.jsonl"}),
    ("vocabulary_size", SCRATCH | {"vocabulary_size": 300}, {"vocabulary_size": 310}),
]


def located(made: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """File names -> their places."""
    values = changes | {key: made / changes[key] for key in ("teacher", "task") if changes.get(key)}
    return values | ({"corpus": [str(made / changes["corpus"])]} if "corpus" in changes else {})


@pytest.mark.parametrize(("key", "base", "change"), MATTERS, ids=[key for key, _, _ in MATTERS])
def test_the_identity_changes_with_what_an_error_depends_on(
    made: Path, tmp_path: Path, key: str, base: dict[str, Any], change: dict[str, Any]
) -> None:
    one = Workbench.open(config(made, **located(made, base)), tmp_path / "one").identity
    other = Workbench.open(config(made, **located(made, base | change)), tmp_path / "other").identity
    assert one.keys() == other.keys()
    changed = {name for name in one if one[name] != other[name]}
    # another vocabulary makes other tokens of the same text
    assert changed == ({key, "corpus"} if key == "vocabulary_size" else {key})
    assert json.loads(json.dumps(one)) == one  # the study keeps it as JSON
    page = (Path(__file__).parents[1] / "docs" / "study.md").read_text(encoding="utf-8")
    assert [name for name in one if f"| `{name}` |" not in page] == []


def test_the_identity_does_not_change_with_the_settings_of_a_trial(
    made: Path, bench: Workbench, tmp_path: Path
) -> None:
    free = {"steps": 6, "learning_rate": [1e-4], "batch_size": [4], "seed": 3, "space": "demo", "workers": 2}
    choice = {"epsilon": 2, "strategy": "exhaustive", "latency_length": 16, "max_parameters": 10_000}
    assert Workbench.open(config(made, **free, **choice), tmp_path).identity == bench.identity


@pytest.mark.parametrize(
    "changes",
    [{}, {"error": "task", "task": "task0.jsonl"}, {"teacher": "masked", "error": "logits"}, SCRATCH],
    ids=["embedding", "task", "logits", "mlm"],
)
def test_opening_again_computes_nothing_again(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(targets, "SHARD", 16)
    settings = config(made, vocabulary_size=300, **located(made, changes))
    first = Workbench.open(settings, tmp_path / "run")
    before = snapshot(tmp_path / "run")
    assert any(path.startswith("corpus/") for path in before)
    assert any(path.startswith("targets/") for path in before) == (settings.error != "mlm")
    assert any(name.startswith("anatomy-") for name in before) == (settings.initialise == "inherit")
    assert not any(".tmp" in path for path in before)
    again = Workbench.open(settings, tmp_path / "run")
    assert snapshot(tmp_path / "run") == before
    assert again.identity == first.identity
    # a longer search keeps what a shorter one left; four steps of 8 need 16 more than the 400 of their bucket
    longer = Workbench.open(settings.model_copy(update={"batch_size": [16]}), tmp_path / "run")
    after = snapshot(tmp_path / "run")
    assert before.items() <= after.items()
    # and all of them train alike
    errors = [[point.error for point in one.train(SHAPE, THETA).curve] for one in (first, again, longer)]
    assert errors[0] == errors[1] == errors[2]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Relative path -> (bytes, modification time) of every file that is not a lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_progress_is_told(made: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    Workbench.open(config(made), tmp_path, lambda what, done, total: told.append((what, done, total)))
    names = list(dict.fromkeys(what for what, _, _ in told))
    assert names == ["reading the corpus (tokens)", "teacher targets", "what candidates start from"]
    assert all(done <= total for what, done, total in told if what == "teacher targets")


def test_training_gives_a_trial_and_its_weights(bench: Workbench, tmp_path: Path) -> None:
    trial = bench.train(SHAPE, THETA, tmp_path / "weights" / "one.safetensors")
    assert trial.key == (SHAPE, THETA)
    assert trial.error == trial.curve[-1].error > 0
    assert (trial.threads, trial.reason, trial.number) == (torch.get_num_threads(), None, -1)
    assert trial.seconds > trial.curve[-1].seconds > 0
    student = load_weights(bench.student(SHAPE), tmp_path / "weights" / "one.safetensors")
    assert bench.signal.error(student.eval()) == trial.error


def test_a_diverged_training_is_a_failed_trial(bench: Workbench, tmp_path: Path) -> None:
    trial = bench.train(SHAPE, Settings(40, 1e30, 8), tmp_path / "one.safetensors")
    assert (trial.error, trial.curve) == (None, ())
    assert trial.reason is not None
    assert "at step" in trial.reason
    assert not (tmp_path / "one.safetensors").exists()


def test_a_student_is_inherited_or_drawn_from_the_seed(made: Path, bench: Workbench, tmp_path: Path) -> None:
    assert bench.material.teacher is not None
    assert bench.anatomy is not None
    own = bench.student(SHAPE, seed=1)
    expected = inherit(SHAPE, bench.blueprint, bench.material.teacher, bench.anatomy)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), expected.parameters(), strict=True))
    scratch = Workbench.open(config(made, initialise="scratch"), tmp_path)
    one, same, other = (scratch.student(SHAPE, seed).encoder.embeddings.word_embeddings.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, own.encoder.embeddings.word_embeddings.weight)


# Weights


def disturbed(student: Student) -> Student:
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    return student


@pytest.mark.parametrize("name", ["bench", "masked_bench"])
@pytest.mark.parametrize("shape", [SHAPE, Architecture(2, 2, 16, 8), Architecture(0, 0, 32, 0)], ids=str)
def test_weights_come_back(request: pytest.FixtureRequest, tmp_path: Path, name: str, shape: Architecture) -> None:
    bench: Workbench = request.getfixturevalue(name)
    student, path = disturbed(bench.student(shape)), tmp_path / "deep" / "er" / "a.b.safetensors"
    save_weights(student, path)
    again = load_weights(bench.student(shape), path)
    for key, value in student.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    if student.masked_lm:  # tied still, and stored once
        assert again.head.predictions.decoder.weight is again.encoder.embeddings.word_embeddings.weight
    assert path.stat().st_size < 4 * sum(p.numel() for p in student.parameters()) + 10_000
    assert [file.name for file in path.parent.iterdir()] == ["a.b.safetensors"]


@pytest.mark.parametrize(
    "other",
    [
        Architecture(1, 4, 32, 25),  # other shapes
        Architecture(2, 4, 32, 24),  # a layer is missing from the file
        Architecture(0, 0, 32, 0),  # the file has one too many
        Architecture(1, 4, 16, 24),
    ],
    ids=str,
)
def test_weights_of_another_architecture_are_refused(bench: Workbench, tmp_path: Path, other: Architecture) -> None:
    save_weights(bench.student(SHAPE), tmp_path / "a.safetensors")
    with pytest.raises(InvalidStudy, match=r"a.safetensors: its weights are of another architecture; delete the file"):
        load_weights(bench.student(other), tmp_path / "a.safetensors")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999, None])
def test_damaged_weights_are_refused(bench: Workbench, tmp_path: Path, share: float | None) -> None:
    path = tmp_path / "a.safetensors"
    if share is not None:
        save_weights(bench.student(SHAPE), path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InvalidStudy, match=r"a.safetensors: cannot be read .+; delete the file"):
        load_weights(bench.student(SHAPE), path)


def test_weights_that_cannot_be_written_leave_nothing(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(bench.student(SHAPE), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


# Other errors


def test_masked_lm_from_scratch_needs_no_teacher(made: Path, tmp_path: Path) -> None:
    bench = Workbench.open(config(made, **SCRATCH, vocabulary_size=300), tmp_path)
    assert len(bench.material.tokenizer) == 300
    assert bench.material.teacher is None
    assert bench.anatomy is None
    assert bench.blueprint.inputs.vocabulary == 300
    shape = Architecture(1, 2, 16, 16)
    trial = bench.train(shape, Settings(40, 1e-2, 8))
    assert trial.error is not None
    # from all tokens alike, ln 300 = 5.7, to their frequencies
    assert trial.curve[0].error == pytest.approx(5.7, abs=0.2)
    assert trial.error < 5
    # the tokenizer in the run folder is the one that is used from then on
    again = Workbench.open(config(made, **SCRATCH, vocabulary_size=300), tmp_path)
    assert again.material.tokenizer.get_vocab() == bench.material.tokenizer.get_vocab()
    assert again.train(shape, Settings(4, 1e-2, 8)).error == bench.train(shape, Settings(4, 1e-2, 8)).error


def test_a_masked_lm_teacher_hands_down_its_head(masked_bench: Workbench) -> None:
    trial = masked_bench.train(SHAPE, Settings(20, 5e-3, 8))
    assert trial.error is not None
    assert trial.error < trial.curve[0].error


def test_a_teacher_without_a_head_is_refused_before_anything_is_computed(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidTeacher, match="no masked-LM head"):
        Workbench.open(config(made, error="logits"), tmp_path)
    assert not (tmp_path / "targets").exists()


def test_too_little_to_measure_on_is_refused(made: Path, tmp_path: Path) -> None:
    few = tiny_corpus(tmp_path / "few.txt", documents=25, seed=1)  # of which the hash holds out one
    with pytest.raises(InvalidCorpus, match="1 held-out sequences; give more text"):
        Workbench.open(config(made, corpus=[str(few)]), tmp_path)


def test_the_space_auto_lies_below_what_candidates_start_from(made: Path, bench: Workbench) -> None:
    start, basis = bench.material.start, bench.basis()
    assert start is not None
    space = space_of(config(made), None, basis)
    assert start.architecture in space
    assert (max(space.depth), max(space.hidden)) == (start.architecture.depth, start.architecture.hidden)
    modern = basis.blueprint.model_copy(update={"family": "modernbert"})
    assert 0 in space.depth
    assert 0 not in space_of(config(made), None, basis.model_copy(update={"blueprint": modern})).depth
    scratch = space_of(config(made, initialise="scratch"), None, basis)
    assert scratch.to_dict() == SearchSpace.load("minilm").to_dict()


def test_a_search_without_a_limit_says_what_comes_of_it(made: Path, recwarn: pytest.WarningsRecorder) -> None:
    for limit in ({"max_latency_ratio": 0.5}, {"max_latency_ms": 1.0}, {"max_parameters": 9}, {"max_megabytes": 8.0}):
        warn_unlimited(config(made, **limit))
    warn_unlimited(config(made, objective="w"))
    assert not recwarn.list
    with pytest.warns(UserWarning, match="nothing limits the candidates, so the largest will have the least error"):
        warn_unlimited(config(made))


def test_a_space_beyond_the_start_says_what_that_does(
    made: Path, bench: Workbench, recwarn: pytest.WarningsRecorder
) -> None:
    basis = bench.basis()
    warn_beyond(config(made), space_of(config(made), None, basis), basis)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"depth 6, of the start 2; hidden 384, of the start .*begin random"):
        warn_beyond(config(made), SearchSpace.load("minilm"), basis)
