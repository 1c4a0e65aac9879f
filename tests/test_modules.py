"""Copies of modules, and whether their weights still hold the same numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import zoo
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from visxai.models.pytorch import modules
from visxai.models.pytorch.capture import capture
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.modules import Weights, structural_copy
from visxai.models.pytorch.split import Split
from visxai.models.pytorch.tracing import alone, running


def _step(module: nn.Module, optimiser: type[torch.optim.Optimizer]) -> None:
    module(zoo.inputs(1)).sum().backward()
    optimiser(module.parameters(), lr=0.01).step()  # type: ignore[call-arg]
    module.zero_grad()


def _assign_data(module: nn.Module) -> None:
    module.head.weight.data = module.head.weight.data + 1  # type: ignore[union-attr, operator]


WRITES: dict[str, Callable[[nn.Module], object]] = {
    "sgd": lambda module: _step(module, torch.optim.SGD),
    "adam": lambda module: _step(module, torch.optim.Adam),
    "load_state_dict": lambda module: module.load_state_dict(
        zoo.randomise(zoo.Conv(), seed=7).state_dict()
    ),
    "initialiser": lambda module: nn.init.ones_(module.head.weight),  # type: ignore
    "another tensor in .data": _assign_data,
}


@pytest.mark.parametrize("write", WRITES)
def test_writes_to_weights_are_seen(write: str) -> None:
    module = zoo.randomise(zoo.Conv())
    model = TorchModel(module, name="conv")
    before = model.ref
    assert model.ref is before  # not computed again for nothing
    WRITES[write](module)
    assert model.ref.weights_sha256 == modules.weights_sha256(module) != before.weights_sha256
    assert (model.ref.name, model.ref.preprocess) == (before.name, before.preprocess)


def test_forwards_and_reading_leave_the_mark() -> None:
    module = zoo.randomise(zoo.Conv())
    weights = Weights(module, "given")
    module(zoo.inputs(1)).sum().backward()
    structural_copy(module)(zoo.inputs(1))
    assert weights.original
    assert weights.sha256() == "given"
    with torch.no_grad():
        module.head.bias += 1  # type: ignore[operator, union-attr]
    assert not weights.original
    assert weights.sha256() == modules.weights_sha256(module)


def test_writes_through_data_in_place_are_not_seen() -> None:
    """As documented: PyTorch counts no writes there."""
    module = zoo.randomise(zoo.Conv())
    weights = Weights(module)
    before = weights.mark()
    module.head.weight.data.mul_(2)  # type: ignore[union-attr, operator]
    assert weights.mark() == before


def _without_hooks(module: nn.Module) -> bool:
    return not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_copies_never_carry_what_a_forward_has_hooked() -> None:
    model, x = TorchModel(zoo.randomise(zoo.Conv())), zoo.inputs(2)
    with capture(model.module, "body"), capture(model.module, "stem"):
        parts: Split = model.split("body", x)
        made = (parts.trunk.module, parts.head.module, model.copied(), model.pristine)
        assert all(_without_hooks(module) for module in made)
        other = model.with_module(model.copied())
        assert _without_hooks(other.pristine)


def test_hooks_of_the_callers_own_stay() -> None:
    """Spectral norm of the older kind computes its weights in a hook."""
    plain = zoo.randomise(zoo.Conv())
    nn.utils.spectral_norm(plain.body)
    plain.eval()
    model, x = TorchModel(plain), zoo.inputs(2)
    with torch.no_grad():
        assert torch.allclose(model.scores(x), plain(x), atol=1e-5)
        parts = model.split("body", x)
        assert torch.allclose(parts.head(parts.trunk(x)), plain(x), atol=1e-5)


def _started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_tracer_waits_for_forwards_and_keeps_others_waiting() -> None:
    inside, leave, order = threading.Event(), threading.Event(), list[str]()

    def forward() -> None:
        with running(), running():
            inside.set()
            leave.wait(60)
            order.append("forward ends")

    def trace() -> None:
        with alone(), alone(), running():
            order.append("trace")

    first = _started(forward)
    assert inside.wait(60)
    second = _started(trace)
    second.join(0.2)
    assert second.is_alive()
    leave.set()
    for thread in (first, second):
        thread.join(60)
    assert order == ["forward ends", "trace"]

    with alone():
        third = _started(forward)
        third.join(0.2)
        assert len(order) == 2
    third.join(60)
    assert order[2:] == ["forward ends"]


def test_both_end_after_an_error() -> None:
    for block in (running, alone, running):
        with pytest.raises(KeyError), block():
            raise KeyError
    done = _started(lambda: TorchModel(zoo.Conv().eval()).scores(zoo.inputs(1)))
    done.join(60)
    assert not done.is_alive()


def test_a_forward_may_not_start_tracing() -> None:
    with pytest.raises(AssertionError), running(), alone():
        pass


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu", 0)])
def test_a_device_with_and_without_its_number_is_the_same(device: str | torch.device) -> None:
    module = zoo.module("conv")
    model = TorchModel(module, device=device)
    assert model.module.head.weight is module.head.weight  # type: ignore[union-attr]


def test_the_current_gpu_is_where_a_module_on_it_lies() -> None:
    with FakeTensorMode():
        on_gpu = torch.empty(1, device="cuda")
        assert modules._lies_on(on_gpu, "cuda")
        assert modules._lies_on(on_gpu, "cuda:0")
        assert not modules._lies_on(on_gpu, "cuda:1")
        assert not modules._lies_on(on_gpu, "cpu")
