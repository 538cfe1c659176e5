"""Linear layers by oneDNN, attention by products: on some processors twice as fast as what torch calls.

On x86, torch leaves matrix products in fp32 to MKL, which keeps AMD's processors off their AVX-512: 95 GFLOP/s on a
core of an EPYC, and 205 with oneDNN, which torch has for 16-bit products. Within `products` a linear layer in fp32 on a
CPU goes to oneDNN, forward and backward. Results differ from MKL's by rounding only (another order of sums).

In 16 bits on a CPU, the backward pass of torch's fused attention takes more than half of a training step of a small
encoder (docs/throughput.md). Up to `SHORT` tokens attention is computed there as two products and a softmax. Longer
texts, and passes without a gradient, are left to the fused kernel, which needs no memory for the square of the length.

    >>> with products():             # or, around a function: @products()
    ...     loss = model(**batch).loss
    >>> loss.backward()              # needs no `with` of its own
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import register_flop_formula

# With MKL it is x86: elsewhere torch's own choice is right. The operator is the one that compiled models call.
AVAILABLE = (
    torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


SHORT = 128
"""Tokens up to which attention in 16 bits is faster unfused, forward and backward."""


@contextmanager
def products() -> Iterator[None]:
    """Within it, linear layers are computed by oneDNN where torch would take MKL, and short attention unfused."""
    with _Products() if AVAILABLE else nullcontext():
        yield


class _Products(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is functional.linear and not kwargs and _fits(args[0], args[1]):
            return torch.ops.subarch.linear(args[0], args[1], args[2] if len(args) > 2 else None)
        if func is functional.scaled_dot_product_attention and _is_short(args[0], args[1]):
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _is_short(query: Tensor, key: Tensor) -> bool:
    """(B, A, L, H/A) in 16 bits on a CPU, of few tokens, with a backward pass to come."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[-2] <= SHORT
        and query.requires_grad
        and torch.is_grad_enabled()
    )


def _fits(states: Tensor, weight: Tensor) -> bool:
    """In fp32 on a CPU, and not about to become bf16."""
    return (
        states.device.type == "cpu"
        and states.dtype == weight.dtype == torch.float32
        and states.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _forward(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., K) states, (N, K) weight, (N,) bias or None -> (..., N)."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return found


def _shape(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return states.new_empty((*states.shape[:-1], len(weight)))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    states, weight = ctx.saved_tensors
    to_states, to_weight, to_bias = ctx.needs_input_grad
    flat, inputs = gradient.reshape(-1, gradient.shape[-1]), states.reshape(-1, states.shape[-1])
    return (
        torch.ops.subarch.linear(gradient, weight.T, None) if to_states else None,
        # Contiguous: given each text's first token, as a head reads it, oneDNN falls back to a loop 50 times as slow
        torch.ops.subarch.linear(flat.T, inputs.contiguous().T, None) if to_weight else None,
        flat.sum(0) if to_bias else None,
    )


# An operator of our own: torch.compile calls it as it is, where it would take the inner one's weights for constants
_linear = torch.library.custom_op(
    "subarch::linear", _forward, mutates_args=(), schema="(Tensor states, Tensor weight, Tensor? bias) -> Tensor"
)
_linear.register_fake(_shape)
_linear.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.subarch.linear)
def _operations(states: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
    """Of shapes; for PyTorch's counter, two a multiply-add."""
    return 2 * math.prod(states) * weight[0]
