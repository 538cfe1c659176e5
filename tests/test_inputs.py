"""A result is returned only for the input that it was made from; any other is refused by name, and costs nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from subarch.errors import InvalidStudy, InvalidTeacher
from subarch.extraction.config import ExtractConfig
from subarch.finetuning.config import FinetuneConfig
from subarch.finetuning.finetune import finetune
from subarch.pipeline import extract
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.pretrain import train
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.inputs import Content, StageInputs, changes, claim, of_file, of_model
from tasks_tiny import LABELS, topics
from tiny_pretrain import tiny_pretraining
from tiny_run import OneProcess, tiny_config

pytestmark = pytest.mark.usefixtures("quick_trainer")

BEFORE = StageInputs(
    config={"steps": 100, "seed": 0, "threads": 2, "teacher": "models/a"},
    sources={"teacher": Content(path="models/a", hash="1"), "corpus": Content(path="text", hash="2")},
)


def after(config: dict[str, Any] | None = None, **sources: tuple[str, str] | None) -> StageInputs:
    """The same with changes; None removes a source."""
    found = dict(BEFORE.sources)
    for role, given_ in sources.items():
        if given_ is None:
            del found[role]
        else:
            found[role] = Content(path=given_[0], hash=given_[1])
    return StageInputs(config=BEFORE.config | (config or {}), sources=found)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (after(), []),
        (after(teacher=("moved/a", "1")), []),
        (after({"threads": 8, "teacher": "moved/a"}), []),
        (after(teacher=("models/a", "9")), ["the teacher models/a has other content now"]),
        (after(teacher=("models/b", "9")), ["the teacher is models/b now and was models/a"]),
        (after(teacher=None), ["there is no teacher now"]),
        (after(model=("models/m", "3")), ["there is a model now (models/m)"]),
        (after({"steps": 5}), ["steps = 5 now and was 100"]),
        (after({"new": True}), ["new = True now and was None"]),
        (
            after({"seed": 1, "steps": 5}, corpus=("text", "3")),
            ["the corpus text has other content now", "steps = 5 now and was 100", "seed = 1 now and was 0"],
        ),
    ],
)
def test_changes_are_named(now: StageInputs, says: list[str]) -> None:
    assert changes(BEFORE, now, free={"threads", "teacher"}) == says


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
)
def test_only_the_same_is_no_change(one: dict[str, int], other: dict[str, int]) -> None:
    def inputs(values: dict[str, int]) -> tuple[StageInputs, StageInputs]:
        sources = {role: Content(path="x", hash=str(value)) for role, value in values.items()}
        return StageInputs(config=values, sources={}), StageInputs(config={}, sources=sources)

    for before, now in zip(inputs(one), inputs(other), strict=True):
        assert (changes(before, now) == []) == (one == other)
        assert len(changes(before, now)) == sum(one.get(key) != other.get(key) for key in one | other)


def test_what_is_begun_is_bound_to_its_input(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    claim(folder, after({"steps": 5}), begun=False)
    claim(folder, BEFORE, begun=False)  # nothing was made from the first: no reason to insist on it
    claim(folder, BEFORE, begun=True)
    with pytest.raises(InvalidStudy) as refused:
        claim(folder, after({"steps": 5}), begun=True)
    assert str(refused.value) == (
        f"{tmp_path}: the input changed since this was started: steps = 5 now and was 100; restore it, begin again "
        "with --restart, or choose another folder"
    )
    assert folder.read(StageInputs) == BEFORE
    claim(folder, after({"threads": 8}), begun=True, free={"threads"})
    claim(folder, BEFORE, begun=False, name="other.inputs")
    assert sorted(os.listdir(tmp_path)) == ["inputs.json", "other.inputs.json"]


def test_what_was_made_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"did not record what it read, .*--restart"):
        claim(RunFolder(tmp_path), BEFORE, begun=True)
    assert os.listdir(tmp_path) == []


MODEL = {"config.json": True, "model.safetensors": True, "tokenizer.json": True, "vocab.txt": True}
MODEL |= {"sentencepiece.model": True, "2_Dense/model.safetensors": True, "1_Pooling/config.json": True}
MODEL |= {"README.md": False, "report.html": False, "report.json": False, "predictions-rte-dev.jsonl": False}
MODEL |= {"onnx/model.onnx": False, "onnx/parity.json": False, "metrics.json": False, ".lock": False}


@pytest.mark.parametrize("name", MODEL)
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_a_model_is_what_computes_not_what_is_told_about_it(tmp_path: Path, name: str, how: str) -> None:
    for one in MODEL:
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).write_text(one, encoding="utf-8")
    before = of_model(tmp_path, InvalidTeacher)
    if how == "changed":
        (tmp_path / name).write_text("other", encoding="utf-8")
    else:
        (tmp_path / name).unlink()
    assert (of_model(tmp_path, InvalidTeacher) != before) == MODEL[name]


def test_a_copy_is_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text("{}", encoding="utf-8")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert of_model(tmp_path / "a", InvalidTeacher).hash == of_model(tmp_path / "b", InvalidTeacher).hash


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidTeacher, match=r"missing.txt: cannot be read: .*No such file"):
        of_file(tmp_path / "missing.txt", InvalidTeacher)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")

    def denied(*_: object, **__: object) -> None:  # these tests may run as root, who may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InvalidTeacher, match=r"cannot be read: permission denied$"):
        of_model(tmp_path, InvalidTeacher)


# The stages


class Changes:
    """Ways in which the input of a stage changes under the same names, and how it is put back."""

    def __init__(self, *files: Path) -> None:
        self._before = {path: path.read_bytes() for path in files}

    def undo(self) -> None:
        for path, content in self._before.items():
            path.write_bytes(content)


def other_weights(folder: Path) -> None:
    """Weights of the same shapes, as a training again would leave them."""
    path = folder / "model.safetensors"
    save_file({name: tensor + 1e-3 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def fewer_lines(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: 1 + len(lines) // 2]), encoding="utf-8")


def swapped_labels(path: Path) -> None:
    swapped = {LABELS[0]: LABELS[1], LABELS[1]: LABELS[0]}
    rows = [line.rsplit(",", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(f"{text},{swapped.get(label, label)}\n" for text, label in rows), encoding="utf-8")


def grown(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n\nThis sentence was added to the text later.\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a corpus, a task; a finished extraction, pretraining and fine-tuning."""
    folder = tmp_path_factory.mktemp("world")
    for part, count, seed in (("train", 24, 0), ("dev", 12, 1), ("test", 12, 2)):
        rows = [f"{one.texts[0]},{LABELS[n % 3]}\n" for n, one in enumerate(topics(count, seed))]
        (folder / f"{part}.csv").write_text("text,topic\n" + "".join(rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(extraction(folder), folder / "run")
    train(folder / "run", pretraining(folder))
    finetune(folder / "run" / "pretrained", finetuning(folder), folder / "run")
    return folder


def extraction(folder: Path, **changes: Any) -> ExtractConfig:
    return tiny_config(folder, epsilon=13, **changes)


def pretraining(folder: Path, **changes: Any) -> PretrainConfig:
    options = {"architecture": "1-4-16-32", "steps": 2, "evaluations": 1}
    return tiny_pretraining(folder, masked_lm=False, **options | changes)


def finetuning(folder: Path, **changes: Any) -> FinetuneConfig:
    options = {"task": "topics", "data": str(folder), "first": "text", "label": "topic", "learning_rate": [1e-2]}
    options |= {"batch_size": [8], "epochs": 1, "seeds": [0], "max_length": 16, "threads": 1}
    return load(FinetuneConfig, None, options | changes)


Stage = Callable[[Path], object]

STAGES: dict[str, tuple[Stage, dict[str, tuple[Callable[[Path], None], str]]]] = {
    "extract": (
        lambda folder: extract(extraction(folder), folder / "run", resume=True),
        {
            "the teacher": (
                lambda folder: other_weights(folder / "teacher"),
                "the teacher {}/teacher has other content",
            ),
            "the corpus": (lambda folder: grown(folder / "corpus.txt"), "the corpus {}/corpus.txt has other content"),
            "half of it": (lambda folder: fewer_lines(folder / "corpus.txt"), "the corpus {}/corpus.txt has other"),
        },
    ),
    "pretrain": (
        lambda folder: train(folder / "run", pretraining(folder)),
        {
            "the teacher": (
                lambda folder: other_weights(folder / "encoder"),
                "the teacher {}/encoder has other content",
            ),
            "the corpus": (lambda folder: grown(folder / "corpus.txt"), "the corpus {}/corpus.txt has other content"),
        },
    ),
    "finetune": (
        lambda folder: finetune(folder / "run" / "pretrained", finetuning(folder), folder / "run"),
        {
            "labels": (
                lambda folder: swapped_labels(folder / "train.csv"),
                "the set of training examples {}/train.csv",
            ),
            "half": (lambda folder: fewer_lines(folder / "train.csv"), "the set of training examples {}/train.csv"),
            "test": (lambda folder: fewer_lines(folder / "test.csv"), "the set of held-out examples {}/test.csv"),
            "weights": (lambda folder: other_weights(folder / "run" / "pretrained"), "the model {}/run/pretrained has"),
        },
    ),
}


def contents(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "report.html")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize(("stage", "kind"), [(stage, kind) for stage, (_, kinds) in STAGES.items() for kind in kinds])
def test_a_finished_result_is_not_returned_for_other_input(
    world: Path, stage: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    run, kinds = STAGES[stage]
    change, says = kinds[kind]
    made = Changes(*(path for path in world.rglob("*") if path.is_file()))
    before, trained = contents(world / "run"), OneProcess.submitted
    try:
        change(world)
        changed = contents(world / "run")
        with pytest.raises(InvalidStudy) as refused:
            run(world)
        assert says.format(world) in str(refused.value)
        assert contents(world / "run") == changed
    finally:
        made.undo()
    run(world)  # what was put back is the same again
    again = contents(world / "run")
    if stage != "extract":  # an extraction concludes again from its trials
        assert again == before
    assert OneProcess.submitted == trained


def test_pretrained_again_the_fine_tuned_model_is_of_weights_that_are_gone(world: Path, tmp_path: Path) -> None:
    """The project's own flow: pretrain, finetune, pretrain --restart, finetune."""
    folder = shutil.copytree(world, tmp_path / "world")
    finetune(folder / "run" / "pretrained", finetuning(folder), folder / "run")
    train(folder / "run", pretraining(folder, steps=3), restart=True)
    before = contents(folder / "run" / "finetuned" / "topics")
    with pytest.raises(InvalidStudy, match=r"the model .*pretrained has other content now; .*--restart"):
        finetune(folder / "run" / "pretrained", finetuning(folder), folder / "run")
    assert contents(folder / "run" / "finetuned" / "topics") == before
    finetune(folder / "run" / "pretrained", finetuning(folder), folder / "run", restart=True)
    assert contents(folder / "run" / "finetuned" / "topics") != before


@pytest.mark.parametrize("stage", ["extract", "pretrain", "finetune"])
def test_a_configuration_that_was_edited_is_refused_by_its_key(world: Path, stage: str) -> None:
    run = world / "run"
    stages: dict[str, Callable[[], object]] = {
        "extract": lambda: extract(extraction(world, seed=3), run, resume=True),
        "pretrain": lambda: train(run, pretraining(world, seed=3)),
        "finetune": lambda: finetune(run / "pretrained", finetuning(world, max_length=12), run),
    }
    with pytest.raises(InvalidStudy, match=r"seed = 3 now and was 0|max_length = 12 now and was 16"):
        stages[stage]()


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_input_that_cannot_be_read_costs_no_finished_result_even_with_restart(world: Path, stage: str) -> None:
    run = world / "run"
    before = contents(run)
    stages: dict[str, Callable[[], object]] = {
        "pretrain": lambda: train(run, pretraining(world, teacher=world / "missing"), restart=True),
        "finetune": lambda: finetune(world / "missing", finetuning(world), run, restart=True),
    }
    with pytest.raises(InvalidTeacher):
        stages[stage]()
    assert contents(run) == before


def test_a_moved_world_is_the_same(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    folder, trained = shutil.copytree(world, tmp_path / "world"), OneProcess.submitted
    before = {name: content for name, content in contents(folder / "run").items() if name.endswith(".safetensors")}
    extract(extraction(folder), folder / "run", resume=True)
    train(folder / "run", pretraining(folder))
    finetune(folder / "run" / "pretrained", finetuning(folder), folder / "run")
    assert OneProcess.submitted == trained
    after_ = contents(folder / "run")
    assert {name: after_[name] for name in before} == before
