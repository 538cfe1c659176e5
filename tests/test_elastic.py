"""Parts of a network: what they compute, what they are taught, and that nothing else differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subarch.errors import InvalidStudy
from subarch.extraction.config import ExtractConfig
from subarch.extraction.elastic import Elastic, part
from subarch.extraction.estimate import estimate
from subarch.extraction.trial import Settings, weights_path
from subarch.extraction.workbench import Workbench
from subarch.models.inherit import inherit
from subarch.models.student import Student, load_weights
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.run.configuration import load
from tiny import tiny_corpus, tiny_teacher

THETA = Settings(6, 5e-3, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    tiny_teacher(folder / "sentence", layers=3)
    tiny_teacher(folder / "masked", layers=3, masked_lm=True, modules=False)
    tiny_corpus(folder / "corpus.txt")
    (folder / "space.yaml").write_text(
        "depth: [0, 1, 2, 3]\nheads: [4]\nhidden: [16, 32]\nintermediate: [16, 32, 64]\n"
    )
    return folder


def opened(folder: Path, name: str = "sentence", **changes: Any) -> Workbench:
    values = {"teacher": folder / name, "corpus": [str(folder / "corpus.txt")], "max_length": 24, "heldout": 8}
    values |= {"steps": 6, "batch_size": [8], "space": str(folder / "space.yaml")}
    return Workbench.open(load(ExtractConfig, None, values | changes), folder / f"run-{name}")


@pytest.fixture(scope="module")
def bench(folder: Path) -> Workbench:
    return opened(folder)


def whole_of(bench: Workbench, hidden: int = 32, intermediate: int = 64) -> tuple[Architecture, Student]:
    shape = Architecture(3, 4, hidden, intermediate)
    return shape, bench.student(shape)


def loaded(bench: Workbench, shape: Architecture, state: dict[str, torch.Tensor]) -> Student:
    student = Student(shape, bench.blueprint).eval()
    student.load_state_dict(state)
    return student


def test_the_whole_is_a_part_of_itself(bench: Workbench) -> None:
    shape, network = whole_of(bench)
    state = network.state_dict()
    found = part(state, shape, shape, bench.anatomy)
    assert found.keys() == state.keys()
    assert all(found[name] is state[name] for name in state)


@pytest.mark.parametrize(("depth", "intermediate"), [(1, 16), (2, 64), (3, 32), (0, 0)])
def test_a_part_of_the_untrained_network_keeps_what_inheritance_keeps(
    bench: Workbench, depth: int, intermediate: int
) -> None:
    """All but the biases of the feed-forward block, which take over what dropped neurons add on average."""
    own = Architecture(depth, 4 if depth else 0, 32, intermediate)
    whole, network = whole_of(bench)
    assert bench.material.teacher is not None
    assert bench.anatomy is not None
    inherited = inherit(own, bench.blueprint, bench.material.teacher, bench.anatomy).state_dict()
    found = part(network.state_dict(), own, whole, bench.anatomy)
    assert found.keys() == inherited.keys()
    for name, tensor in inherited.items():
        if not (intermediate < 64 and name.endswith(".output.dense.bias") and ".attention." not in name):
            torch.testing.assert_close(found[name], tensor)


def test_parts_are_nested(bench: Workbench) -> None:
    """A part of a part is a part."""
    whole, network = whole_of(bench)
    middle, small = Architecture(2, 4, 32, 32), Architecture(1, 4, 32, 16)
    at_once = part(network.state_dict(), small, whole, bench.anatomy)
    state = part(network.state_dict(), middle, whole, bench.anatomy)
    by_steps = part(state, small, middle, bench.anatomy)
    assert at_once.keys() == by_steps.keys()
    assert all(torch.equal(at_once[name], by_steps[name]) for name in at_once)


def test_surplus_neurons_and_layers_beyond_the_teacher_stand_last(folder: Path) -> None:
    bench = opened(folder)
    whole = Architecture(5, 4, 32, 96)  # the teacher has 3 layers of 64
    state = bench.student(whole).state_dict()
    found = part(state, Architecture(4, 4, 32, 80), whole, bench.anatomy)
    name = "model.encoder.layer.{}.intermediate.dense.weight"
    for layer in range(4):
        assert torch.equal(found[name.format(layer)], state[name.format(layer)][:80])
    assert name.format(4) not in found


@pytest.mark.parametrize(
    "own",
    [Architecture(1, 4, 16, 16), Architecture(1, 2, 32, 16), Architecture(4, 4, 32, 16), Architecture(1, 4, 32, 65)],
)
def test_what_is_no_part_is_refused(bench: Workbench, own: Architecture) -> None:
    whole, network = whole_of(bench)
    with pytest.raises(ValueError, match="no part of 3-4-32-64"):
        part(network.state_dict(), own, whole, bench.anatomy)


@pytest.mark.parametrize("name", ["sentence", "masked"])
def test_the_loss_is_the_mean_over_parts_and_so_is_the_gradient(folder: Path, name: str) -> None:
    """Against each part as a student of its own, its gradients put back where its parameters came from."""
    bench = opened(folder, name, error="embedding" if name == "sentence" else "logits")
    whole, network = whole_of(bench)
    family = [Architecture(1, 4, 32, 16), Architecture(2, 4, 32, 32), whole]  # one in between: all three, always
    rows = np.arange(4)
    loss = Elastic(bench.signal, whole, family, bench.blueprint, bench.anatomy, 0).loss(network, rows, 0)
    loss.backward()
    sizes = {key: value.numel() for key, value in network.named_parameters()}
    numbers = torch.arange(sum(sizes.values())).split(list(sizes.values()))
    of = {key: some.view_as(value) for (key, value), some in zip(network.named_parameters(), numbers, strict=True)}
    expected, losses = torch.zeros(sum(sizes.values())), []
    for shape in family:
        student = loaded(bench, shape, part(network.state_dict(), shape, whole, bench.anatomy))
        losses.append(bench.signal.loss(student, rows, 0))
        (losses[-1] / len(family)).backward()
        origin = part(of, shape, whole, bench.anatomy)
        for key, value in student.named_parameters():
            assert value.grad is not None
            expected[origin[key].reshape(-1)] += value.grad.reshape(-1)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    for (key, value), part_of in zip(network.named_parameters(), expected.split(list(sizes.values())), strict=True):
        assert value.grad is not None, key
        torch.testing.assert_close(value.grad.reshape(-1), part_of)


def test_trained_together_the_small_part_learns_and_repeats_bit_for_bit(folder: Path) -> None:
    bench = opened(folder)
    whole = Architecture(3, 4, 32, 64)
    small = Architecture(1, 4, 32, 16)
    settings = Settings(40, 5e-3, 8)

    def parts_error(elastic: bool) -> float:
        network = bench.student(whole)
        family = SearchSpace.load(bench.config.space).parts(whole)
        signal = Elastic(bench.signal, whole, family, bench.blueprint, bench.anatomy, 0)
        estimate(network, signal if elastic else bench.signal, settings)
        return bench.signal.error(loaded(bench, small, part(network.state_dict(), small, whole, bench.anatomy)))

    together = parts_error(elastic=True)
    assert together < 0.9 * parts_error(elastic=False)
    assert together == parts_error(elastic=True)


def test_the_sandwich_holds_the_largest_the_smallest_and_two_others(bench: Workbench) -> None:
    whole = Architecture(3, 4, 32, 64)
    family = SearchSpace.load(bench.config.space).parts(whole)
    assert (family[0], family[-1], len(family)) == (Architecture(1, 4, 32, 16), whole, 9)
    seen: list[list[tuple[int, int]]] = []

    class Recording:
        lengths = bench.signal.lengths
        error = bench.signal.error

        def loss(self, student: Student, rows: Any, epoch: int) -> torch.Tensor:
            config = student.encoder.config
            seen[-1].append((config.num_hidden_layers, config.intermediate_size))
            return next(student.parameters()).sum()

    elastic = Elastic(Recording(), whole, family, bench.blueprint, bench.anatomy, 0)
    network = bench.student(whole)
    for _ in range(20):
        seen.append([])
        elastic.loss(network, np.arange(4), 0)
    assert all(len(set(step)) == len(step) == 4 and {(3, 64), (1, 16)} <= set(step) for step in seen)
    assert len({shape for step in seen for shape in step}) == 9


def test_a_warm_trial_begins_where_its_parent_ended(folder: Path) -> None:
    bench = opened(folder)
    parent, small = Architecture(3, 4, 32, 64), Architecture(2, 4, 32, 16)
    with pytest.raises(InvalidStudy, match="cannot be read"):
        bench.train(small, replace(THETA, parent=parent, parent_steps=5))
    bench.train(parent, THETA, weights_path(bench.run, parent, THETA))
    trial = bench.train(
        small, replace(THETA, steps=2, parent=parent, parent_steps=6), bench.run / "nobody's.safetensors"
    )
    network = loaded(bench, small, part(_saved(bench, parent), small, parent, bench.anatomy))
    assert trial.curve[0].error == bench.signal.error(network)
    assert trial.error != trial.curve[0].error
    assert not (bench.run / "nobody's.safetensors").exists()


def _saved(bench: Workbench, shape: Architecture) -> dict[str, torch.Tensor]:
    return load_weights(Student(shape, bench.blueprint), weights_path(bench.run, shape, THETA)).state_dict()
