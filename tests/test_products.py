"""Linear layers by oneDNN and unfused attention agree with torch's own, forward and backward, where they are used."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from subarch.models.products import AVAILABLE, SHORT, products

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this torch has no oneDNN beside MKL")


class Seen(TorchDispatchMode):
    """Notes which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", [(7,), (5, 7), (3, 5, 7)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_as_torch_itself(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    states = torch.randn(shape, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(4, 7, requires_grad=True)
    bias = torch.randn(4, requires_grad=True) if with_bias else None
    leaves = [states, weight] + ([bias] if bias is not None else [])
    weights = torch.randn(*shape[:-1], 4)

    def run() -> list[torch.Tensor]:
        output = functional.linear(states, weight, bias)
        return [output, *torch.autograd.grad((output * weights).sum(), leaves)]

    expected = run()
    with products(), Seen() as seen:
        found = run()
    assert "subarch::linear" in seen.names
    assert not {"aten::addmm", "aten::mm", "aten::linear"} & seen.names
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_transposed_factors_and_a_backward_pass_behind_the_context() -> None:
    torch.manual_seed(1)
    states = torch.randn(7, 5).T.requires_grad_()
    weight = torch.randn(7, 4).T.requires_grad_()
    with products():
        output = functional.linear(states, weight)
    torch.testing.assert_close(output, states @ weight.T)
    output.square().sum().backward()
    torch.testing.assert_close(states.grad, 2 * (states @ weight.T) @ weight)
    torch.testing.assert_close(weight.grad, 2 * (states @ weight.T).T @ states)


def test_no_gradient_for_what_is_frozen() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 7), requires_grad=False)
    states = torch.ones(5, 7, requires_grad=True)
    with products(), Seen() as seen:
        functional.linear(states, weight).sum().backward()
    assert weight.grad is None
    assert torch.equal(states.grad, torch.full((5, 7), 4.0))  # type: ignore[arg-type]
    assert "aten::sum.dim_IntList" not in seen.names  # no bias, no sum over rows


def test_other_arithmetic_is_left_to_torch() -> None:
    states, weight = torch.randn(5, 7), torch.randn(4, 7)
    with products(), Seen() as seen:
        functional.linear(states.double(), weight.double())
        functional.linear(states[:0], weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert functional.linear(states, weight).dtype == torch.bfloat16
    assert "subarch::linear" not in seen.names


def test_outside_nothing_changes() -> None:
    with products():
        pass
    with Seen() as seen:
        functional.linear(torch.randn(5, 7), torch.randn(4, 7))
    assert "subarch::linear" not in seen.names


@pytest.mark.slow
def test_compiles() -> None:
    torch.manual_seed(2)
    layer = torch.nn.Linear(7, 4)
    states = torch.randn(5, 7)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with products():
        found = compiled(states)
    found.sum().backward()
    torch.testing.assert_close(found, functional.linear(states, layer.weight, layer.bias))
    torch.testing.assert_close(layer.weight.grad, states.sum(0).expand(4, 7))


FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


def attention(length: int, dtype: torch.dtype, gradient: bool = True) -> tuple[set[str], list[torch.Tensor]]:
    """Operators of a forward pass within `products`; output and gradients, beside those without it."""
    torch.manual_seed(2)
    leaves = [torch.randn(2, 3, length, 8, dtype=dtype).requires_grad_(gradient) for _ in range(3)]
    mask = torch.ones(2, 1, length, length, dtype=torch.bool)
    mask[1, :, :, length // 2 :] = False

    def run() -> list[torch.Tensor]:
        output = functional.scaled_dot_product_attention(*leaves, attn_mask=mask)
        return [output, *torch.autograd.grad(output.square().sum(), leaves)] if gradient else [output]

    expected = run()
    with products(), Seen() as seen:
        found = run()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    return seen.names, found


def test_attention_in_16_bits_is_unfused_where_that_is_faster() -> None:
    names, found = attention(SHORT, torch.bfloat16)
    assert FUSED not in names
    assert all(tensor.isfinite().all() for tensor in found)
    assert FUSED in attention(SHORT + 1, torch.bfloat16)[0]
    assert FUSED in attention(16, torch.bfloat16, gradient=False)[0]
    assert FUSED in attention(16, torch.float32)[0]
