"""Matrix products of float32 on a CPU by oneDNN, where MKL (torch's usual choice) leaves half of the machine unused.

On AMD's CPUs MKL computes in 256-bit registers though 512 are there: 95 to 107 GFLOPS on one core where oneDNN, which
torch has with it, makes 170 to 250 of the same tensors (docs/experiments/training.md). The weights stay as they are,
and take no memory beside; for decoding, where few rows are multiplied, :func:`packed` may keep a second copy in the
library's own layout, which gains on Intel's CPUs too (docs/experiments/generation.md). The same products are added in
another order, in the same precision, so that a logit may differ by about 1e-5 of its size.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from redinstruct.checkpoints.host import host_bytes, resident

LEAST = 3 << 20
"""Multiplications below which the call costs more than it saves: measured with 16 to 256 rows and 128 to 1,536 wide."""

FEW = 256
"""Rows above which a packed weight gains nothing."""


@cache
def wide() -> bool:
    """Whether packed weights gain here: 512-bit registers, and a torch with oneDNN. (Other CPUs were not tried.)"""
    try:
        made = _by_onednn(torch.ones((4, 8)), torch.ones((2, 8)), None)
    except (RuntimeError, AttributeError):  # another torch
        return False
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512") and bool((made == 8).all())


@cache
def usable() -> bool:
    """Whether weights that stay as they are gain too: on such CPUs of AMD, while Intel's gain nothing."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:  # another system
        return False
    return "AuthenticAMD" in about and wide()


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``functional.linear``: ``rows`` [..., in] times ``weight`` [out, in] transposed, plus ``bias`` [out]."""
    if weight.dtype != torch.float32 or not _worth_it(rows, weight.shape[0]) or not usable():
        return functional.linear(rows, weight, bias)
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (rows, weight, bias)):
        made: Tensor = _Product.apply(rows, weight, bias)  # type: ignore[no-untyped-call, unused-ignore]
        return made
    return _by_onednn(rows, weight, bias)


def _worth_it(rows: Tensor, outputs: int) -> bool:
    """Whether rows [..., in] are of a kind that oneDNN multiplies here, and many enough for it."""
    plain = rows.dtype == torch.float32 and rows.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return plain and rows.numel() * outputs >= LEAST


class Product(nn.Linear):
    """A linear layer that goes by :func:`product`."""

    def forward(self, rows: Tensor) -> Tensor:
        """``rows`` [..., in] to [..., out]."""
        return product(rows, self.weight, self.bias)


class PackedProduct(Product):
    """One whose weight stands a second time as oneDNN lays it out, for as long as the weight is not written to."""

    copy: tuple[int, Tensor] | None = None
    """The version of the weight that was packed, and the packed one."""

    def forward(self, rows: Tensor) -> Tensor:
        """``rows`` [..., in] to [..., out]."""
        held, few = self.copy, rows.numel() <= FEW * self.in_features
        usual = torch.is_grad_enabled() or not few or not _worth_it(rows, self.out_features)
        if usual or held is None or held[0] != self.weight._version:
            return product(rows, self.weight, self.bias)
        return _by_onednn(rows, held[1], self.bias)


def quickened(model: Any) -> Any:
    """The model, its plain linear layers made ones that go by :func:`product`; its tensors are the same."""
    if usable():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Product
    return model


def packed(model: Any) -> Any:
    """A model that is only asked, its weights packed too where as much memory is free twice over; else as it is.

    A step of 32 rows spends about a fifth less on its products.
    """
    layers: list[Any] = [module for module in model.modules() if type(module) in (nn.Linear, Product)]
    size = sum(layer.weight.nbytes for layer in layers)
    fits = all(layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 for layer in layers)
    if layers and fits and wide() and 2 * size <= host_bytes() - resident():
        for layer in layers:
            layer.__class__ = PackedProduct
            made = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), 32)
            layer.copy = (layer.weight._version, made)
    return model


def _by_onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, weight, bias, "none", [], "")
    return found


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _by_onednn(rows, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        of_rows = product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        flat = grad.reshape(-1, grad.shape[-1])
        of_weight = product(flat.t(), rows.reshape(-1, rows.shape[-1]).t()) if ctx.needs_input_grad[1] else None
        of_bias = flat.sum(0) if ctx.needs_input_grad[2] else None
        return of_rows, of_weight, of_bias
