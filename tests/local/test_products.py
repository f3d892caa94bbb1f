"""Matrix products by oneDNN: the same numbers and gradients, wherever it is used."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytestmark = pytest.mark.local
torch = pytest.importorskip("torch")

from redinstruct.checkpoints import products  # noqa: E402


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products, and any CPU that torch has oneDNN on."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "LEAST", 1)
    monkeypatch.setattr(products, "usable", lambda: True)
    monkeypatch.setattr(products, "wide", lambda: True)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each product that oneDNN makes."""
    counted: list[int] = []
    made = products._by_onednn

    def counting(*given: Any) -> Any:
        counted.append(1)
        return made(*given)

    monkeypatch.setattr(products, "_by_onednn", counting)
    return counted


def _gradients(work: Any, *tensors: Any) -> list[Any]:
    torch.manual_seed(1)
    out = work(*tensors)
    (out * torch.randn(out.shape)).sum().backward()
    found = [out.detach(), *(one.grad for one in tensors if one.grad is not None)]
    for one in tensors:
        one.grad = None
    return found


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 7), (1, 7), (0, 7)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_product_has_the_values_and_gradients_of_linear(
    shape: tuple[int, ...], bias: bool, frozen: bool, taken: list[int]
) -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(shape, requires_grad=True), torch.randn(4, 7, requires_grad=not frozen)
    given = (rows, weight, torch.randn(4, requires_grad=not frozen)) if bias else (rows, weight)
    ours, usual = _gradients(products.product, *given), _gradients(torch.nn.functional.linear, *given)
    assert len(ours) == len(usual)
    assert bool(taken) == bool(rows.numel())
    for one, other in zip(ours, usual, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_precisions_keep_torchs_own_products(dtype: str, taken: list[int]) -> None:
    rows, weight = torch.randn(3, 7).to(getattr(torch, dtype)), torch.randn(4, 7).to(getattr(torch, dtype))
    assert torch.equal(products.product(rows, weight), torch.nn.functional.linear(rows, weight))
    assert not taken


def test_a_quickened_model_has_the_same_tensors_and_can_be_copied(taken: list[int]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2, bias=False))
    rows, names = torch.randn(4, 6), list(model.state_dict())
    before = model(rows).detach()
    quick = products.quickened(model)
    other = copy.deepcopy(quick)
    torch.nn.init.zeros_(other[2].weight)
    assert list(quick.state_dict()) == names
    torch.testing.assert_close(quick(rows), before)
    assert not other(rows).any()
    assert len(taken) == 4


def _asked(layer: Any, rows: Any) -> Any:
    with torch.inference_mode():
        return layer(rows)


def _layers() -> Any:
    torch.manual_seed(0)
    return products.quickened(torch.nn.Sequential(torch.nn.Linear(48, 96), torch.nn.Linear(96, 32, bias=False)))


@pytest.mark.parametrize("rows", [1, 2, 31, products.FEW, products.FEW + 1])
def test_a_packed_model_says_the_same_as_before(rows: int) -> None:
    model, given = _layers(), torch.randn(rows, 48)
    before = _asked(model, given)
    made = products.packed(model)
    assert all(isinstance(layer, products.PackedProduct) for layer in made)
    assert torch.allclose(_asked(made, given), before, rtol=1e-5, atol=1e-6)
    assert torch.allclose(_asked(made, given[None]), before[None], rtol=1e-5, atol=1e-6)


def test_a_weight_that_is_written_to_after_packing_is_the_one_that_counts() -> None:
    model, given = products.packed(_layers()), torch.randn(3, 48)
    before = _asked(model, given)
    with torch.no_grad():
        model[0].weight.mul_(2.0)
        model[0].bias.mul_(2.0)
    assert torch.allclose(_asked(model, given), 2 * before, rtol=1e-4, atol=1e-5)


def test_a_packed_model_can_still_be_learnt_from() -> None:
    model = products.packed(_layers())
    model(torch.randn(3, 48)).sum().backward()
    assert all(layer.weight.grad is not None for layer in model)


def test_without_twice_the_memory_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4 * (48 * 96 + 96 * 32)
    for free, packs in ((2 * size - 1, False), (2 * size, True)):
        monkeypatch.setattr(products, "resident", lambda: 1000.0)
        monkeypatch.setattr(products, "host_bytes", lambda free=free: 1000.0 + free)
        assert all(isinstance(layer, products.PackedProduct) == packs for layer in products.packed(_layers()))


def test_where_packed_weights_alone_gain_many_rows_go_as_torch_has_them(
    monkeypatch: pytest.MonkeyPatch, taken: list[int]
) -> None:
    monkeypatch.setattr(products, "usable", lambda: False)
    model, few, many = _layers(), torch.randn(3, 48), torch.randn(2 * products.FEW, 48)
    assert [type(layer) for layer in model] == [torch.nn.Linear] * 2
    before = _asked(model, few), _asked(model, many)
    made = products.packed(model)
    assert torch.equal(_asked(made, many), before[1])
    assert not taken
    assert torch.allclose(_asked(made, few), before[0], rtol=1e-5, atol=1e-6)
    assert len(taken) == 2


def test_on_a_narrow_cpu_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "wide", lambda: False)
    assert not any(isinstance(layer, products.PackedProduct) for layer in products.packed(_layers()))


def test_a_model_of_another_precision_is_not_packed() -> None:
    assert not any(isinstance(layer, products.PackedProduct) for layer in products.packed(_layers().bfloat16()))
