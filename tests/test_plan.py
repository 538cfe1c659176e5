"""The plan: closed forms against counted operations, built tensors and saved activations; budgets; bad input."""

from __future__ import annotations

import json
import math
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from subarch.cli import app as cli
from subarch.errors import InvalidArchitecture, InvalidConfig, InvalidCorpus, InvalidTeacher
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture, Inputs
from subarch.planning import cost, pace
from subarch.planning.config import PEAK_TFLOPS, PlanConfig
from subarch.planning.cost import Job, Pace
from subarch.planning.plan import Plan, at_peak, draw_up, plan, read_teacher
from subarch.pretraining.setup import StepTimes, step_times
from subarch.run.configuration import load
from subarch.text.corpus import build
from tiny import tiny_corpus, tiny_teacher, tiny_tokenizer

LENGTH, SEQUENCES = 20, 8
INPUTS = Inputs(vocabulary=300, positions=24, token_types=1)
MODERN = Inputs(vocabulary=300, positions=24, token_types=0, family="modernbert", biases=("decoder",))
BOTH = pytest.mark.parametrize("inputs", [INPUTS, MODERN], ids=["bert", "modernbert"])
STUDENT, TEACHER = Architecture(2, 2, 32, 48), Architecture(3, 4, 64, 96)
LOSSES = [
    ("mlm",),
    ("logits",),
    ("logits", "mlm"),
    ("embedding",),
    ("relations",),
    ("hidden",),
    ("embedding", "relations"),
    ("logits", "mlm", "hidden", "relations"),
]


def job(losses: tuple[str, ...], inputs: Inputs = INPUTS, **changes: Any) -> Job:
    teacher = None if losses == ("mlm",) else TEACHER
    size = LENGTH * SEQUENCES
    values = {"length": LENGTH, "batch_tokens": size, "micro_tokens": size, **changes}
    return Job(STUDENT, inputs, losses, teacher, **values)


def built(work: Job, attention: str = "sdpa") -> tuple[Any, Any, dict[str, Tensor]]:
    """A distiller, its teacher's side and a batch."""
    torch.manual_seed(0)
    teacher = pace.made_up(work) if work.teacher else None
    distiller, side = pace.build(work, teacher)
    distiller.student.model.set_attn_implementation(attention)
    if teacher:
        teacher.masked_lm.set_attn_implementation(attention)
    return distiller.train(), side, pace.text(work, work.micro_tokens // work.length)


def targets(side: Any, batch: dict[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = side.live(batch["ids"], batch["mask"], batch["where"]) if side else {}
    return found


# Operations


@BOTH
@pytest.mark.parametrize("losses", LOSSES, ids="+".join)
def test_operations_equal_those_counted(losses: tuple[str, ...], inputs: Inputs) -> None:
    work = job(losses, inputs)
    distiller, side, batch = built(work, "eager")
    with FlopCounterMode(display=False) as teacher:
        found = targets(side, batch)
    with FlopCounterMode(display=False) as student:
        distiller(**batch, targets=found)["loss"].backward()
    # The teacher's relations are made where the losses are: products without a backward pass
    relations = 2 * 3 * LENGTH**2 * TEACHER.hidden * SEQUENCES if "relations" in losses else 0
    unreached = 0
    if losses == ("relations",):  # two thirds of what the last layer does after its queries, keys and values
        hidden = STUDENT.hidden
        maps = 3 if work.is_modern else 2
        above = LENGTH * hidden**2 + 2 * LENGTH**2 * hidden + maps * LENGTH * hidden * STUDENT.intermediate
        unreached = 2 * 2 * above * SEQUENCES
    assert student.get_total_flops() - relations + unreached == 2 * SEQUENCES * cost.training_operations(work)
    assert teacher.get_total_flops() + relations == 2 * SEQUENCES * cost.teacher_operations(work)


@BOTH
def test_the_forward_pass_alone_equals_what_is_counted(inputs: Inputs) -> None:
    work = job(("mlm",), inputs)
    distiller, _, batch = built(work, "eager")
    with FlopCounterMode(display=False) as counter:
        distiller(**batch)
    assert counter.get_total_flops() == 2 * SEQUENCES * cost.student_operations(work)


def test_operations_of_bort_by_hand() -> None:
    # 4 layers, n = 512, H = 1024, I = 768: 4 n H² + 2 n² H + 2 n H I; the head at 76.8 positions: H² + 50265 H;
    # behind the last layer's attention, H² + 2 H I, nothing at the others
    work = Job(Architecture.parse("4-8-1024-768"), Inputs(50265, 514, 1), ("mlm",), length=512)
    layers = 4 * (4 * 512 * 1024**2 + 2 * 512**2 * 1024 + 2 * 512 * 1024 * 768)
    layers -= (512 - 76.8) * (1024**2 + 2 * 1024 * 768)
    head = 76.8 * (1024**2 + 50265 * 1024)
    assert cost.student_operations(work) == pytest.approx(layers + head, rel=1e-12)
    assert cost.training_operations(work) == pytest.approx(3 * (layers + head), rel=1e-12)
    assert cost.teacher_operations(work) == 0


# Memory


@BOTH
@pytest.mark.parametrize("losses", LOSSES, ids="+".join)
def test_weights_gradients_and_optimizer_equal_the_tensors(losses: tuple[str, ...], inputs: Inputs) -> None:
    work = job(losses, inputs)
    distiller, side, batch = built(work)
    weights = list(distiller.parameters())
    optimizer = torch.optim.AdamW([weight for weight in weights if weight.requires_grad], fused=True)
    distiller(**batch, targets=targets(side, batch))["loss"].backward()
    optimizer.step()
    kept = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    memory = cost.student_memory(work)
    assert memory.weights == sum(weight.nbytes for weight in weights) == 4 * cost.student_parameters(work)
    # What no loss reaches has no gradient and no state
    unreached = sum(weight.nbytes for weight in weights if weight.grad is None)
    assert memory.gradients - unreached == sum(weight.grad.nbytes for weight in weights if weight.grad is not None)
    assert memory.optimizer - 2 * unreached == sum(tensor.nbytes for tensor in kept)
    if losses not in (("relations",), ("hidden",)):
        assert unreached == 0


@BOTH
def test_a_teacher_weighs_what_it_is_built_of(inputs: Inputs) -> None:
    with_head, without = job(("logits",), inputs), job(("embedding",), inputs)
    teacher = pace.made_up(with_head)
    assert cost.teacher_parameters(with_head) == sum(p.numel() for p in teacher.masked_lm.parameters())
    assert cost.teacher_parameters(without) == sum(p.numel() for p in teacher.encoder.parameters())
    assert cost.teacher_memory(job(("mlm",))).total == 0


def saved_bytes(work: Job) -> int:
    """Bytes of all storages that a forward pass keeps for the backward pass, weights apart."""
    distiller, side, batch = built(work)
    apart = {weight.untyped_storage().data_ptr() for weight in distiller.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in apart:
            kept[storage.data_ptr()] = storage  # held, so that no other storage takes its address
        return tensor

    found = targets(side, batch)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=work.precision == "bf16"),
    ):
        distiller(**batch, targets=found)
    return sum(storage.nbytes() for storage in kept.values())


@BOTH
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("losses", LOSSES, ids="+".join)
def test_activations_are_those_saved_for_the_backward_pass(
    losses: tuple[str, ...], precision: str, inputs: Inputs
) -> None:
    work = job(losses, inputs, precision=precision, cpu=True)
    assert cost.student_activations(work) == pytest.approx(saved_bytes(work), rel=0.05 if precision == "fp32" else 0.15)


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the bytes of the tensors made under it that are still alive, and the most there were; weights apart."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        self.seen = {weight.untyped_storage()._cdata for weight in [*model.parameters(), *model.buffers()]}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.seen:
                    self.seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@BOTH
@pytest.mark.parametrize("losses", [case for case in LOSSES if case != ("mlm",)], ids="+".join)
def test_the_teachers_memory_is_what_is_alive_at_most(losses: tuple[str, ...], inputs: Inputs) -> None:
    work = job(losses, inputs)
    _, side, batch = built(work)
    with Live(side.teacher.masked_lm) as live:
        targets(side, batch)
    assert cost.teacher_memory(work).activations == pytest.approx(live.most, rel=0.05)


@pytest.mark.parametrize("intermediate", [32, 256])
def test_the_peak_of_a_gated_teacher_is_in_either_block(intermediate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "TEACHER", Architecture(3, 4, 64, intermediate))
    test_the_teachers_memory_is_what_is_alive_at_most(("hidden",), MODERN)


# Speed and totals


def test_the_pace_of_a_peak_by_hand() -> None:
    work = job(("logits",))
    found = at_peak(work, 2.0, 0.25, "other")
    assert found.student_token == pytest.approx(2 * cost.training_operations(work) / LENGTH / 0.5e12)
    assert found.teacher_token == pytest.approx(2 * cost.teacher_operations(work) / LENGTH / 0.5e12)
    assert (found.optimizer_step, found.source) == (0, {"device": "other", "peak_tflops": 2.0, "utilisation": 0.25})


def test_totals_by_hand() -> None:
    work = job(("logits",), batch_tokens=1000)
    found = plan(work, Pace(3e-6, 1e-6, 2e-3, {}), tokens=1e9, corpus=4e8, gpus=4)
    # Each of four devices takes 2 ms a step, 1000 tokens a step: 8 µs a token
    assert found.student.hours == pytest.approx(1e9 * (3e-6 + 8e-6) / 3600)
    assert found.teacher.hours == pytest.approx(1e9 * 1e-6 / 3600)
    assert found.both.hours == pytest.approx(1e9 * 12e-6 / 3600) == 4 * found.both.wall_hours
    assert found.both.tokens_per_second == pytest.approx(1 / 12e-6)
    assert (found.steps, found.epochs) == (1e6, 2.5)
    per_token = 2 * (cost.training_operations(work) + cost.teacher_operations(work)) / LENGTH
    assert found.both.flops == pytest.approx(1e9 * per_token)
    total = cost.student_memory(work).total + cost.teacher_memory(work).total
    assert found.both.memory_bytes.total == total


def test_hours_tell_the_tokens_that_take_them() -> None:
    work, speed = job(("logits",)), Pace(3e-6, 1e-6, 2e-3, {})
    found = plan(work, speed, hours=2.0)
    assert found.both.hours == pytest.approx(2.0)
    assert plan(work, speed, tokens=found.tokens).student == found.student


def test_without_a_length_of_training_there_are_no_totals() -> None:
    found = plan(job(("mlm",)), Pace(3e-6, 0.0, 0.0, {}))
    assert found.tokens is found.steps is found.epochs is None
    assert found.both.hours is None
    assert "hours" not in found.to_dict()["both"]
    assert found.teacher.tokens_per_second is None


@pytest.mark.parametrize("losses", [("mlm",), ("logits", "mlm"), ("embedding", "relations")], ids="+".join)
def test_a_measured_pace_is_that_of_training_steps(losses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    work = job(losses)
    seen: list[Any] = []

    def watched(*given: Any, precision: str) -> StepTimes:
        assert precision == "fp32"
        seen.append(given)
        return step_times(*given, precision=precision)

    monkeypatch.setattr(pace, "step_times", watched)
    found = pace.measure(work, None, seconds=0.01)
    ((distiller, side, *_),) = seen
    assert set(distiller.weights) == set(losses)
    assert (side is None) == (losses == ("mlm",))
    size, passes = LENGTH * SEQUENCES, found.source["passes"]
    assert (found.source["tokens_per_pass"], passes >= 3) == (size, True)
    times = found.source["seconds"]
    assert found.student_token > 0
    assert found.student_token == pytest.approx(times["student"] / size)
    assert found.optimizer_step == times["optimizer"] > 0
    assert (found.teacher_token > 0) == (side is not None)
    rate = 2e-9 * SEQUENCES * cost.training_operations(work) / times["student"]
    assert found.source["gflops"]["student"] == pytest.approx(rate)


# From a configuration


BORT = {"architecture": "4-8-1024-768", "teacher": "24-16-1024-4096", "device": "v100", "precision": "bf16"}


def drawn(**options: Any) -> Plan:
    return draw_up(load(PlanConfig, None, BORT | options))


def test_the_weights_of_roberta_large_and_bort() -> None:
    found = drawn()
    assert found.losses == ("logits", "mlm")
    assert found.teacher.parameters == 355_412_057  # 355 M, as RoBERTa-large's card says
    assert found.student.parameters == 76_211_289  # 77.3 M of docs/reproduction.md, without pooler, 514 positions
    assert drawn(teacher=None).losses == ("mlm",)


@pytest.mark.parametrize("device", sorted(PEAK_TFLOPS))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_known_devices(device: str, precision: str) -> None:
    found = drawn(device=device.upper(), precision=precision, utilisation=0.5)
    flops = found.both.flops_per_token
    assert found.both.tokens_per_second == pytest.approx(PEAK_TFLOPS[device][precision] * 0.5e12 / flops)


def test_how_long(tmp_path: Path) -> None:
    assert drawn(steps=10, batch_tokens=1000).tokens == 10_000
    corpus = build([tiny_corpus(tmp_path / "text.txt")], tiny_tokenizer(), tmp_path / "corpus")
    size = sum(len(piece) + 2 for piece in corpus.segments("train", 10))
    given = {"corpus": tmp_path / "corpus", "length": 12}
    once = drawn(**given)
    assert (once.tokens, once.epochs) == (size, 1)
    assert drawn(**given, epochs=2.5).tokens == 2.5 * size
    assert drawn(**given, steps=10, batch_tokens=size).epochs == 10
    budget = drawn(**given, hours=10)
    assert budget.both.hours == pytest.approx(10)
    assert budget.epochs == pytest.approx((budget.tokens or 0) / size)


def test_a_teacher_folder_tells_shape_tables_and_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked = Teacher.load(tiny_teacher(tmp_path / "masked", masked_lm=True))
    plain = Teacher.load(tiny_teacher(tmp_path / "plain", family="roberta"))
    for teacher, losses in ((masked, ("logits", "mlm")), (plain, ("embedding", "relations"))):
        found = drawn(architecture="1-2-16-8", teacher=str(teacher.folder), length=16)
        assert (found.teacher_architecture, found.losses) == (str(teacher.architecture), losses)
        model = teacher.masked_lm or teacher.encoder
        assert found.teacher.parameters == sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr(pace, "SECONDS", 0.01)
    measured = drawn(architecture="1-2-16-8", teacher=str(plain.folder), length=16, batch_tokens=64, device="here")
    assert measured.both.tokens_per_second > 0
    assert measured.pace["device"] == str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    with pytest.raises(InvalidTeacher, match="no masked-LM head, which loss logits needs"):
        drawn(teacher=str(plain.folder), loss=["logits"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": None, "loss": ["embedding"]}, "loss 'embedding' needs a teacher"),
        ({"loss": ["mlm", "no"]}, r"--loss: loss\[1\] = 'no'"),
        ({"loss": []}, "--loss"),
        ({"length": 1024}, "length 1024 is more than the 514 positions"),
        ({"length": 512, "micro_tokens": 511}, "512 tokens does not fit .*micro_tokens 511"),
        ({"steps": 1, "hours": 2}, "steps 1 and hours 2.0 both set the duration"),
        ({"epochs": 2}, "epochs 2 are passes over a corpus; give the corpus"),
        ({"device": "abacus"}, "device 'abacus' has no known peak, only v100, a100, h100 have; give peak_tflops"),
        ({"utilisation": 1.5}, "--utilisation"),
        ({"hours": math.nan}, "--hours"),
        ({"gpu": 2}, "the nearest known key is 'gpus'"),
    ],
)
def test_bad_questions(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        drawn(**options)


def test_bad_shapes_folders_and_corpora(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchitecture, match="with the whole vocabulary; leave out -9000"):
        drawn(architecture="4-8-1024-768-9000")
    with pytest.raises(InvalidArchitecture, match="not divisible by 7 heads"):
        drawn(architecture="4-7-1024-768")
    with pytest.raises(InvalidTeacher, match="teacher 'some/where' is neither a folder nor an architecture"):
        drawn(teacher="some/where")
    with pytest.raises(InvalidTeacher, match=r"config\.json: missing"):
        drawn(teacher=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": "two"}')
    with pytest.raises(InvalidTeacher, match="num_hidden_layers"):
        drawn(teacher=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "mpnet"}')
    with pytest.raises(InvalidTeacher, match=r"model type 'mpnet' has no known number of operations.*12-12-768-3072"):
        drawn(teacher=str(tmp_path))


def test_a_teacher_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "distilbert", "architectures": ["DistilBertForMaskedLM"]}')
    teacher = read_teacher(str(tmp_path))
    assert (str(teacher.architecture), teacher.has_head) == ("6-12-768-3072", True)
    assert teacher.inputs == Inputs(30522, 512, 1)


def test_bad_corpora(tmp_path: Path) -> None:
    with pytest.raises(InvalidCorpus, match="no readable corpus"):
        drawn(corpus=tmp_path)


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = [part for key, value in BORT.items() for part in (f"--{key}", value)]

    def output(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["subarch", "plan", *words, *more])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert not left.value.code
        return capsys.readouterr().out

    told = json.loads(output("--loss", "logits", "--loss", "mlm", "--hours", "288", "--gpus", "8", "--json"))
    assert told == drawn(hours=288, gpus=8).to_dict()
    shown = output("--hours", "288", "--gpus", "8")
    for word in ("student", "teacher", "both", "hours on 8", "30% of 125 TFLOP/s assumed", "288"):
        assert word in shown
    assert "teacher" not in output("--loss", "mlm")
