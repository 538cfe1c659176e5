"""Every way to train, in miniature: options, starts, sources, and what is handed over in the end. Bad input is refused.

`test_pretraining` is about interruptions, `test_distributed` about many processes.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, pipeline

from forked import dies, fork
from subarch.cli.app import main
from subarch.errors import InvalidConfig, InvalidStudy
from subarch.learning.distill import Distiller
from subarch.learning.material import Material
from subarch.learning.signals import text_embedder
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract, pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.pretrain import CHECKPOINTS, configure, train
from subarch.pretraining.setup import decide
from subarch.pretraining.trainer import PretrainTrainer
from subarch.run.configuration import load
from subarch.run.records import Schedule
from tiny import add_modules, tiny_sentences, tiny_teacher
from tiny_pretrain import tensors, tiny_pretraining, weights
from tiny_run import OneProcess, tiny_config

pytestmark = [
    pytest.mark.usefixtures("quick_trainer"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="on a CPU, where runs agree bit for bit"),
]

CONFIGS = Path(__file__).parents[1] / "configs"
SHORT = {"steps": 2, "evaluations": 1}


@pytest.fixture(scope="module")
def reference(place: Path) -> Path:
    train(place / "reference", tiny_pretraining(place, **SHORT))
    return place / "reference"


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "pretraining.json").read_text(encoding="utf-8"))
    return found


def front_matter(run: Path) -> dict[str, Any]:
    card = (run / "pretrained" / "README.md").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


# Options


def test_it_learns_and_the_record_adds_up(place: Path, tmp_path: Path) -> None:
    config = tiny_pretraining(place, masked_lm=False, steps=30, evaluations=3)
    result = train(tmp_path / "run", config)
    assert result.losses == {"embedding": 1.0, "relations": 1.0}
    assert [row["step"] for row in result.heldout] == [0, 10, 20, 30]
    assert result.heldout[-1]["loss"] < 0.7 * result.heldout[0]["loss"]
    heldout = Material.load(config, tmp_path / "run").split(config, config.max_length - 2)[1]
    theirs = nn.functional.normalize(Teacher.load(place / "encoder").embed(heldout), dim=-1)
    constant = 1 - float(theirs.mean(0).norm())
    for row in result.heldout:
        assert row["loss"] == pytest.approx(row["embedding"] + row["relations"])
        assert row["embedding"] / row["error"] == pytest.approx(constant)
    # A step's tokens keep within the budget, and nearly fill it
    assert 0.9 * 512 * 30 < result.tokens / (1 - result.padding) <= 512 * 30
    assert 0 <= result.padding < 0.05
    assert result.seconds >= result.heldout[-1]["seconds"] > 0
    assert result.tokens_per_second == pytest.approx(result.tokens / result.seconds)


def test_frozen_embeddings_stay_and_have_no_optimiser_state(place: Path, tmp_path: Path) -> None:
    run, name = tmp_path / "run", "bert.embeddings.word_embeddings.weight"
    train(run, tiny_pretraining(place, freeze_embeddings=True, initialise="inherit", **SHORT))
    free = tmp_path / "free"
    train(free, tiny_pretraining(place, initialise="inherit", **SHORT))
    # Weight decay would move them too, had they only no gradient
    first = tmp_path / "first"
    train(first, tiny_pretraining(place, initialise="inherit", learning_rate=1e-30, **SHORT))
    assert torch.equal(tensors(run)[name], tensors(first)[name])
    assert not torch.equal(tensors(free)[name], tensors(first)[name])
    shape = tensors(run)[name].shape
    for where, expected in ((run, 0), (free, 1)):
        state = torch.load(where / CHECKPOINTS / "checkpoint-2" / "optimizer.pt", weights_only=True)["state"]
        assert sum(entry["exp_avg"].shape == shape for entry in state.values()) == expected


def test_sgd_is_the_rate_times_the_gradient(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    norm = PretrainTrainer._get_grad_norm

    def see(self: PretrainTrainer, model: Any, **given: Any) -> Any:
        seen["before"] = {name: p.detach().clone() for name, p in self.distiller.named_parameters()}
        seen["gradients"] = {
            name: p.grad.clone() for name, p in self.distiller.named_parameters() if p.grad is not None
        }
        return norm(self, model, **given)

    monkeypatch.setattr(PretrainTrainer, "_get_grad_norm", see)
    options = {"optimizer": "sgd", "clip": 0.0, "weight_decay": 0.0, "learning_rate": 0.25, "warm_up": 0.0}
    train(tmp_path / "run", tiny_pretraining(place, steps=1, evaluations=1, **options))
    after = tensors(tmp_path / "run" / CHECKPOINTS, "checkpoint-1")
    assert seen["gradients"]
    for name, value in after.items():
        assert torch.allclose(value, seen["before"][name] - 0.25 * seen["gradients"][name], atol=1e-7)


@pytest.mark.slow
def test_a_compiled_encoder_trains_alike_under_the_same_names(
    reference: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dynamo but without a compiler, which takes a minute."""
    compiled: list[nn.Module] = []

    def compile_(self: nn.Module, **options: Any) -> None:
        compiled.append(self)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager", **options)

    monkeypatch.setattr(nn.Module, "compile", compile_)
    train(tmp_path / "run", tiny_pretraining(place, compile=True, **SHORT))
    assert [type(module).__name__ for module in compiled] == ["BertModel"]
    ours, theirs = tensors(tmp_path / "run"), tensors(reference)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        # AdamW: biases of keys have no gradient but what rounding makes of it
        assert torch.allclose(value, theirs[name], atol=1e-5) or name.endswith("key.bias")


@pytest.mark.slow
def test_bf16_computes_otherwise_and_keeps_weights_in_32_bits(reference: Path, place: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", tiny_pretraining(place, precision="bf16", **SHORT))
    ours, theirs = record(tmp_path / "run")["heldout"][-1], record(reference)["heldout"][-1]
    assert ours["loss"] != theirs["loss"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.02)
    assert {value.dtype for value in tensors(tmp_path / "run").values()} == {torch.float32}


def test_minutes_are_steps_that_fit_and_stay_what_they_were(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*args: Any, **given: Any) -> Schedule:
        found = decide(*args, **given)
        return found.model_copy(update={"steps": 3})

    monkeypatch.setattr("subarch.pretraining.pretrain.decide", measured)
    config = tiny_pretraining(place, steps=None, minutes=0.01, evaluations=3)

    def killed() -> None:
        PretrainTrainer.training_step = dies(PretrainTrainer.training_step, 2)  # type: ignore[method-assign]
        train(tmp_path / "run", config)

    assert fork(killed) == [-signal.SIGKILL]
    monkeypatch.setattr("subarch.pretraining.pretrain.decide", lambda *_: pytest.fail("it was decided before"))
    assert train(tmp_path / "run", config).steps == 3


def test_events_for_tensorboard(reference: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(reference / "events"))
    events.Reload()
    expected = record(reference)
    found = [(event.step, event.value) for event in events.Scalars("eval/loss")]
    assert found == [(row["step"], pytest.approx(row["loss"])) for row in expected["heldout"]]
    assert [event.value for event in events.Scalars("train/loss")] == [
        pytest.approx(row["loss"]) for row in expected["curve"]
    ]


# Starts and sources


def test_without_a_teacher(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(run, tiny_pretraining(place, teacher=None, targets=None, vocabulary_size=400, **SHORT))
    assert (result.losses, result.started, result.teacher) == ({"mlm": 1.0}, "random weights", None)
    fill = pipeline("fill-mask", model=str(run / "pretrained"), device="cpu")
    assert len(fill(f"the old boat {fill.tokenizer.mask_token} the harbour")) == 5
    assert "base_model" not in front_matter(run)


@pytest.mark.slow
def test_streaming_is_resumed_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for shard in range(3):
        lines = [json.dumps({"text": text}) for text in tiny_sentences(250, seed=shard)]
        (folder / f"{shard}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = tiny_pretraining(
        place, corpus=[f"datasets:{folder}"], streaming=True, heldout=4, steps=24, evaluations=8, dropout=0.1
    )
    result = train(tmp_path / "whole", config)

    def killed() -> None:
        PretrainTrainer.training_step = dies(PretrainTrainer.training_step, 20)  # type: ignore[method-assign]
        train(tmp_path / "killed", config)

    assert fork(killed) == [-signal.SIGKILL]
    assert train(tmp_path / "killed", config).tokens == result.tokens
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_the_architecture_and_the_weights_of_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    run = tmp_path / "run"
    selection = extract(tiny_config(tmp_path), run).to_dict()
    config = configure(run, None, {"steps": 1, "learning_rate": 1e-30, "batch_tokens": 256, "heldout": 4, "threads": 1})
    assert config.architecture == selection["winner"]["architecture"]
    assert str(config.teacher) == str(tmp_path / "teacher")
    assert config.max_length == 16
    result = pretrain(run, config)
    assert result.started == "the search's own training of it"
    selected = load_file(run / "selected" / "model.safetensors")
    for name, value in tensors(run).items():
        assert torch.allclose(value, selected[name], atol=1e-7)  # at a rate of next to nothing
    assert "optimal in" in (run / "pretrained" / "README.md").read_text(encoding="utf-8")
    other = load(
        PretrainConfig, None, config.model_dump(mode="json") | {"architecture": "3-4-32-48", "initialise": "search"}
    )
    with pytest.raises(InvalidConfig, match="left no weights of 3-4-32-48; select it there first"):
        pretrain(run, other, restart=True)


# What is handed over


def test_a_masked_lm_student_is_stock(reference: Path) -> None:
    folder = reference / "pretrained"
    ids = torch.tensor([[2, 30, 31, 32, 3]])
    with torch.no_grad():
        language_model = AutoModelForMaskedLM.from_pretrained(folder).eval()
        encoder = AutoModel.from_pretrained(folder).eval()
        theirs = language_model(input_ids=ids, output_hidden_states=True)
        assert torch.allclose(encoder(input_ids=ids).last_hidden_state, theirs.hidden_states[-1], atol=1e-6)
    assert theirs.logits.shape == (1, 5, language_model.config.vocab_size)
    # The weights, tied ones included, are those of the last checkpoint
    trained = tensors(reference / CHECKPOINTS, "checkpoint-2")
    for name, value in language_model.named_parameters():
        assert torch.equal(value, trained[f"student.model.{name}"]), name
    fill = pipeline("fill-mask", model=str(folder), device="cpu")
    assert len(fill("the old [MASK] sees the boat")) == 5
    assert not (folder / "modules.json").exists()
    front = front_matter(reference)
    assert (front["library_name"], front["pipeline_tag"]) == ("transformers", "fill-mask")
    assert front["base_model"] == "masked-lm"


@pytest.mark.parametrize(
    ("masked_lm", "pooling", "architecture", "losses"),
    [
        (False, "mean", "1-4-16-32", {}),  # another width: Dense
        (False, "cls", "1-4-32-32", {}),
        (True, "mean", "1-4-16-32", {"loss_mlm": 0.5, "loss_embedding": 1.0}),  # both
    ],
)
def test_a_sentence_student_embeds_as_it_was_trained_to(
    tmp_path: Path, masked_lm: bool, pooling: str, architecture: str, losses: dict[str, float]
) -> None:
    folder = tiny_teacher(tmp_path / "teacher", masked_lm=masked_lm, modules=False)
    add_modules(folder, pooling)
    config = tiny_pretraining(tmp_path, teacher=folder, architecture=architecture, **SHORT, **losses)
    train(tmp_path / "run", config)
    teacher = Teacher.load(folder)
    masked = bool(losses)
    student = Student(Architecture.parse(architecture), Blueprint.of_teacher(teacher, masked, True)).eval()
    state = tensors(tmp_path / "run" / CHECKPOINTS, "checkpoint-2")
    own = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
    missing = student.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) == student.tied_names
    texts = tiny_sentences(20, seed=5)
    teacher = dataclasses.replace(teacher, recipe=dataclasses.replace(teacher.recipe, max_length=64))
    expected = text_embedder(student, teacher)(texts)
    model = SentenceTransformer(str(tmp_path / "run" / "pretrained"), device="cpu")
    found = model.encode(texts)
    assert found.shape == (20, 32)
    assert np.abs(found - expected / np.linalg.norm(expected, axis=1, keepdims=True)).max() < 1e-5
    assert front_matter(tmp_path / "run")["library_name"] == "sentence-transformers"
    if masked:
        fill = pipeline("fill-mask", model=str(tmp_path / "run" / "pretrained"), device="cpu")
        assert len(fill("the old [MASK] sees the boat")) == 5


# Bad input, through the command


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Any, str]:
    """The exit code, and standard error in one line."""
    monkeypatch.setattr(sys, "argv", ["subarch", "pretrain", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, " ".join(capsys.readouterr().err.split())


def test_bad_input_ends_with_1_and_words(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    headless = tiny_pretraining(place, masked_lm=False).teacher
    headed = tiny_pretraining(place).teacher
    small = ["--steps", 2, "--max-length", 32, "--threads", 1, "--vocabulary-size", 400]
    corpus = ["--corpus", place / "corpus.txt", *small, "--architecture", "1-4-16-32"]

    def refused(number: int, *words: object) -> str:
        code, said = command(monkeypatch, capsys, tmp_path / str(number), *words)
        assert code == 1
        assert not (tmp_path / str(number) / "pretraining.json").exists()
        return said

    assert "head" in refused(1, "--teacher", headless, "--loss-logits", 1, *corpus)
    assert "less than one batch of 1,000,000" in refused(2, "--teacher", headed, "--batch-tokens", 1000000, *corpus)
    assert "less than one batch" in refused(3, "--batch-tokens", 1000000, *corpus)  # no teacher either
    assert "loss_logits" in refused(4, "--loss-logits", 1, *corpus)
    assert "no architecture was selected there" in refused(5, "--teacher", headed, *corpus[:-2])
    assert "loss-logit" in command(monkeypatch, capsys, tmp_path / "6", "--loss-logit", 1)[1]
    (tmp_path / "file").touch()
    assert "cannot be made" in command(monkeypatch, capsys, tmp_path / "file" / "run", "--teacher", headed, *corpus)[1]


def test_vocabularies_that_differ_are_refused(place: Path, tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_pretraining(place).teacher)  # type: ignore[arg-type]
    blueprint = Blueprint.of_teacher(teacher, masked_lm=True)
    smaller = dataclasses.replace(blueprint, inputs=dataclasses.replace(blueprint.inputs, vocabulary=50))
    student = Student(Architecture.parse("1-4-16-32"), smaller)
    with pytest.raises(InvalidConfig, match=rf"teacher has {blueprint.inputs.vocabulary} tokens, the student 50"):
        Distiller(student, {"logits": 1.0}, teacher)


def test_two_trainings_in_one_folder(place: Path, tmp_path: Path) -> None:
    from subarch.run.folder import RunFolder

    with RunFolder(tmp_path), pytest.raises(InvalidStudy, match="another process is working in this run"):
        train(tmp_path, tiny_pretraining(place, **SHORT))


# The paper's configuration


def test_the_papers_run_in_miniature(tmp_path: Path) -> None:
    """Every key as shipped but what makes it large: teacher, corpus, architecture, steps, lengths and batches."""
    paper = load(PretrainConfig, CONFIGS / "bort.yaml", {}).model_dump(mode="json", exclude_none=True)
    teacher = tiny_teacher(tmp_path / "teacher", family="roberta", masked_lm=True, modules=False)
    texts = tmp_path / "texts"
    texts.mkdir()
    lines = [json.dumps({"text": text}) for text in tiny_sentences(400)]
    (texts / "0.jsonl").write_text("\n".join(lines), encoding="utf-8")
    small = {
        "teacher": teacher,
        "corpus": [f"datasets:{texts}"],
        "architecture": "2-4-32-24",
        "steps": 4,
        "max_length": 32,
        "batch_tokens": 512,
        "micro_tokens": 256,
        "threads": 1,
    }
    config = load(PretrainConfig, None, paper | small)
    assert config.evaluations == load(PretrainConfig, CONFIGS / "bort.yaml", {}).evaluations
    result = train(tmp_path / "run", config)
    assert result.losses == {"mlm": 0.1, "logits": 0.5}
    assert result.steps == 4
    assert result.heldout[-1]["loss"] < result.heldout[0]["loss"]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "run" / "pretrained")
    assert model.config.model_type == "roberta"
