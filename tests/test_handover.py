"""What is handed over is stock: other people's libraries load it and compute what was trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline
from transformers.utils import logging

from subarch.extraction.workbench import Workbench
from subarch.learning.signals import text_embedder
from subarch.models.student import Blueprint, Student, hand_over
from subarch.models.teacher import Teacher, assemble
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract
from subarch.run.folder import RunFolder
from subarch.run.records import Basis
from tiny import tiny_sentences, tiny_teacher, write_json
from tiny_run import OneProcess, load_winner, tiny_config

TEXTS = [*tiny_sentences(30, seed=3), "boat", "the The THE", " ".join(["captain"] * 100)]


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        yield


def drawn(architecture: str, teacher: Teacher, masked_lm: bool = False) -> Student:
    """A student whose every weight matters."""
    student = Student(Architecture.parse(architecture), Blueprint.of_teacher(teacher, masked_lm)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            gain = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim == 2 else 0.1) + gain
            )
    return student


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Sentence encoders


@pytest.mark.parametrize("architecture", ["2-4-32-24", "1-2-16-24", "0-0-32-0", "0-0-8-0"])
@pytest.mark.parametrize(
    ("family", "pooling", "modules", "prefix", "lower_case"),
    [
        ("bert", "mean", True, "", False),
        ("bert", "cls", True, "the old: ", True),
        ("roberta", "mean", False, "", False),
    ],
)
def test_sentence_transformers_computes_what_the_student_does(
    tmp_path: Path, architecture: str, family: str, pooling: str, modules: bool, prefix: str, lower_case: bool
) -> None:
    source = tiny_teacher(tmp_path / "teacher", family=family, pooling=pooling, modules=modules)
    prompts = {"document": "", "query": prefix} if prefix else {}
    if prefix:
        about = {"prompts": prompts, "default_prompt_name": "query", "similarity_fn_name": "dot"}
        write_json(source / "config_sentence_transformers.json", about)
    if lower_case:
        write_json(source / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": True})
    teacher = Teacher.load(source)
    student = drawn(architecture, teacher)
    hand_over(student, teacher.tokenizer, teacher.recipe, tmp_path / "selected")

    theirs = SentenceTransformer(str(tmp_path / "selected"), device="cpu")
    ours = text_embedder(student, teacher)(TEXTS)
    found = theirs.encode(TEXTS)
    assert theirs.max_seq_length == teacher.recipe.max_length
    assert theirs.similarity_fn_name == ("dot" if prefix else "cosine")
    assert {name: text for name, text in theirs.prompts.items() if name in prompts} == prompts
    assert found.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(found, unit(ours) if modules else ours, rtol=1e-4, atol=1e-5)
    if architecture[0] != "0" or pooling == "mean":  # without layers the first token knows nothing of the others
        assert np.ptp(unit(ours) @ unit(ours).T) > 0.05


def test_a_student_has_the_width_to_which_its_teacher_cuts_embeddings(tmp_path: Path) -> None:
    source = tiny_teacher(tmp_path / "teacher")
    write_json(source / "config_sentence_transformers.json", {"truncate_dim": 12})
    teacher = Teacher.load(source)
    student = drawn("2-4-16-24", teacher)
    hand_over(student, teacher.tokenizer, teacher.recipe, tmp_path / "selected")
    found = SentenceTransformer(str(tmp_path / "selected"), device="cpu").encode(TEXTS)
    assert found.shape == (len(TEXTS), 12)
    np.testing.assert_allclose(found, text_embedder(student, teacher)(TEXTS), rtol=1e-4, atol=1e-5)


def test_auto_classes_load_a_sentence_encoder(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "teacher"))
    student = drawn("2-2-16-24", teacher)
    hand_over(student, teacher.tokenizer, teacher.recipe, tmp_path / "selected")
    model, tokenizer = (
        AutoModel.from_pretrained(tmp_path / "selected"),
        AutoTokenizer.from_pretrained(tmp_path / "selected"),
    )
    assert Architecture.from_config(model.config) == Architecture.parse("2-2-16-24")
    batch = tokenizer(TEXTS[:8], padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        torch.testing.assert_close(found, student.hidden(batch["input_ids"], batch["attention_mask"]))


def test_the_folder_is_replaced_whole_and_the_old_one_stays_where_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "teacher"))
    folder = tmp_path / "selected"
    hand_over(drawn("1-2-16-24", teacher), teacher.tokenizer, teacher.recipe, folder)
    assert (folder / "2_Dense").is_dir()
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError("No space left on device")

    other = drawn("1-4-32-24", teacher)
    for owner, name in ((other.model, "save_pretrained"), (teacher.tokenizer, "save_pretrained"), (json, "dumps")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OSError, match="No space"):
                hand_over(other, teacher.tokenizer, teacher.recipe, folder)
        assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        assert sorted(os.listdir(tmp_path)) == ["selected", "teacher"]
    (tmp_path / ".selected.partial").mkdir()  # left by a kill
    (tmp_path / ".selected.partial" / "rest").write_text("")
    hand_over(other, teacher.tokenizer, teacher.recipe, folder)
    assert not (folder / "2_Dense").exists()
    assert not (folder / "rest").exists()
    assert sorted(os.listdir(tmp_path)) == ["selected", "teacher"]


def test_the_progress_bars_of_others_are_left_as_they_were(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "teacher"))
    capfd.readouterr()
    hand_over(drawn("0-0-8-0", teacher), teacher.tokenizer, teacher.recipe, tmp_path / "selected")
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr().err == ""


# Whole runs: the recorded error is that of the folder, as others load it


@pytest.mark.parametrize(("pooling", "hidden"), [("mean", 32), pytest.param("cls", 16, marks=pytest.mark.slow)])
def test_the_selected_folder_has_the_recorded_distance(tmp_path: Path, pooling: str, hidden: int) -> None:
    source = tiny_teacher(tmp_path / "teacher", pooling=pooling)
    space = tmp_path / "space.yaml"
    space.write_text(f"depth: [0, 2]\nheads: [4]\nhidden: [{hidden}]\nintermediate: [32]\n")
    config = tiny_config(tmp_path, space=str(space), epsilon=1, steps=12)
    selection = extract(config, tmp_path / "run").to_dict()
    assert selection["winner"]["architecture"] == f"2-4-{hidden}-32"

    theirs = SentenceTransformer(str(tmp_path / "run" / "selected"), device="cpu")
    assert (tmp_path / "run" / "selected" / "2_Dense").is_dir() == (hidden < 32)
    bench = Workbench.open(config, tmp_path / "run")
    segments = [bench.signal.heldout[row] for row in range(len(bench.signal.heldout))]  # type: ignore[attr-defined]
    teacher = SentenceTransformer(str(source), device="cpu")
    batch = assemble(segments, bench.material.tokenizer, Teacher.load(source).recipe)
    with torch.inference_mode():
        features = {"input_ids": batch.ids, "attention_mask": batch.mask}
        found, target = (model(dict(features))["sentence_embedding"] for model in (theirs, teacher))
    distance = 1 - torch.nn.functional.cosine_similarity(found, target).mean().item()
    constant = RunFolder(tmp_path / "run").read(Basis).constant_distance
    assert distance == pytest.approx(constant * selection["winner"]["error"], abs=1e-5)  # targets are kept in 16 bits
    assert 0.001 < distance < 0.5

    student = load_winner(tmp_path / "run")
    ours = text_embedder(student, Teacher.load(source))(TEXTS)
    np.testing.assert_allclose(theirs.encode(TEXTS), unit(ours), rtol=1e-4, atol=1e-5)


def test_the_selected_folder_has_the_prompts_and_the_similarity_of_the_teacher(tmp_path: Path) -> None:
    source = tiny_teacher(tmp_path / "teacher")
    about = {"prompts": {"query": "the old: ", "document": "", "long": "a boat: "}, "default_prompt_name": "long"}
    write_json(source / "config_sentence_transformers.json", about | {"similarity_fn_name": "dot"})
    extract(tiny_config(tmp_path), tmp_path / "run")
    written = json.loads((tmp_path / "run" / "selected" / "config_sentence_transformers.json").read_text())
    assert written == about | {"similarity_fn_name": "dot"}
    assert Teacher.load(tmp_path / "run" / "selected").recipe.prefix == "a boat: "


def test_a_masked_lm_from_scratch_loads_and_fills_masks(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        teacher=None,
        error="mlm",
        initialise="scratch",
        vocabulary_size=300,
        epsilon=13,
        objective="w",
    )
    selection = extract(config, tmp_path / "run").to_dict()
    assert selection["teacher"] is None
    assert 0 < selection["winner"]["error"] < 8
    check_masked_lm(tmp_path / "run", selection, vocabulary=300)


@pytest.mark.slow
def test_a_distilled_masked_lm_under_a_floor_that_the_maximum_point_sets(tmp_path: Path) -> None:
    shutil.rmtree(tiny_teacher(tmp_path / "teacher"))
    tiny_teacher(tmp_path / "teacher", masked_lm=True, modules=False)
    asked = OneProcess.submitted
    config = tiny_config(
        tmp_path, error="logits", objective="latency", keep=0.3, cost="latency", max_parameters=25_000, epsilon=4
    )
    selection = extract(config, tmp_path / "run").to_dict()
    conclusion = json.loads((tmp_path / "run" / "conclusion.json").read_text())
    reference = json.loads((tmp_path / "run" / "basis.json").read_text())["reference_error"]
    first = conclusion["trials"][0]
    assert (first["architecture"], first["error"]) == ("3-4-32-64", reference)  # T, though it is too large to be chosen
    assert OneProcess.submitted - asked == len(conclusion["trials"])  # once
    assert selection["objective"]["max_error"] == pytest.approx(reference - np.log(0.3))
    winner = selection["winner"]
    assert winner["parameters"] <= 25_000
    allowed = [row for row in selection["candidates"] if row["parameters"] <= 25_000]
    allowed = [row for row in allowed if row["error"] <= selection["objective"]["max_error"]]
    assert winner["latency_ms"] == min(row["latency_ms"] for row in allowed)
    check_masked_lm(tmp_path / "run", selection, vocabulary=len(Teacher.load(tmp_path / "teacher").tokenizer))
    again = extract(config, tmp_path / "run", resume=True).to_dict()
    assert again == selection


def check_masked_lm(run: Path, selection: dict[str, Any], vocabulary: int) -> None:
    """The folder loads as a masked-LM with the trained weights, tied as they were, and fills a mask."""
    folder = run / "selected"
    model, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.vocab_size == vocabulary
    student = load_winner(run)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(TEXTS[:4], padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        torch.testing.assert_close(found, student.head(student.hidden(batch["input_ids"], batch["attention_mask"])))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    fill = pipeline("fill-mask", model=str(folder), device="cpu")
    answers = fill(f"the old {tokenizer.mask_token} sees the boat.")
    assert len(answers) == 5
    assert sum(answer["score"] for answer in answers) <= 1
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert "modules.json" not in names
    assert len(load_file(folder / "model.safetensors")) == len(dict(model.named_parameters()))
