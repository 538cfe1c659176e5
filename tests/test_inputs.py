"""A result is returned only for the input that it was made from; any other is refused by name, and costs nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subarch.errors import InvalidStudy, InvalidTeacher
from subarch.run.folder import RunFolder
from subarch.run.inputs import Source, StageInputs, changes, claim, of_file, of_model

BEFORE = StageInputs(
    config={"steps": 100, "seed": 0, "threads": 2, "teacher": "models/a"},
    sources={"teacher": Source(path="models/a", hash="1"), "corpus": Source(path="text", hash="2")},
)


def after(config: dict[str, Any] | None = None, **sources: tuple[str, str | None] | None) -> StageInputs:
    """The same with changes; None removes a source."""
    found = dict(BEFORE.sources)
    for role, given_ in sources.items():
        if given_ is None:
            del found[role]
        else:
            found[role] = Source(path=given_[0], hash=given_[1])
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


def test_of_what_has_no_hash_the_name_counts() -> None:
    before, other = (
        StageInputs(config={}, sources={"corpus": Source(path=f"datasets:{name}", hash=None)}) for name in "ab"
    )
    assert changes(before, before) == []
    assert changes(before, other) == ["the corpus is datasets:b now and was datasets:a"]


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
)
def test_only_the_same_is_no_change(one: dict[str, int], other: dict[str, int]) -> None:
    def inputs(values: dict[str, int]) -> tuple[StageInputs, StageInputs]:
        sources = {role: Source(path="x", hash=str(value)) for role, value in values.items()}
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
