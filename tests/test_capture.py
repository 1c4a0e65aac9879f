"""Capture: the right tensors, no graph below the cut, and nothing left behind."""

from __future__ import annotations

import threading

import pytest
import torch
import zoo
from torch import Tensor, nn

from visxai.errors import LayerError, UnknownName
from visxai.models.pytorch.capture import capture, find


def test_a_cut_gives_the_gradient_of_the_whole_graph() -> None:
    module, x = zoo.Conv().eval(), zoo.inputs()
    with capture(module, "body", cut=True) as seen:
        scores = module(x)
    (gradient,) = torch.autograd.grad(scores[:, 3].sum(), seen["body"])
    # The same by hand, out of place and with a whole graph.
    activation = module.body(module.stem(x).relu())
    by_hand = module.head(module.pool(activation.relu()).flatten(1))
    (expected,) = torch.autograd.grad(by_hand[:, 3].sum(), activation)
    assert torch.equal(seen["body"], activation)
    assert torch.equal(gradient, expected)


def test_the_in_place_relu_after_it_leaves_the_capture_alone() -> None:
    module = zoo.Conv().eval()
    with capture(module, "body", cut=True) as cut, torch.no_grad():
        module(zoo.inputs())
    with capture(module, "body") as read:
        module(zoo.inputs())
    assert (cut["body"] < 0).any()
    assert torch.equal(cut["body"], read["body"])


def test_nothing_is_saved_below_the_cut() -> None:
    module, x = zoo.Conv().eval(), zoo.inputs()
    saved: list[tuple[int, ...]] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tuple(tensor.shape))
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        capture(module, "last", cut=True),
    ):
        scores = module(x)
    assert scores.requires_grad
    # Only what pooling and the head need: nothing as large as the stem's output or the input.
    largest = max(torch.Size(shape).numel() for shape in saved)
    assert largest <= zoo.inputs().shape[0] * 12 * 8 * 8


def test_two_layers_share_one_graph() -> None:
    module, x = zoo.Conv().eval(), zoo.inputs()
    with capture(module, "stem", "body", cut=True) as seen:
        scores = module(x)
    low, high = torch.autograd.grad(scores[:, 0].sum(), [seen["stem"], seen["body"]])
    assert low.shape == seen["stem"].shape
    assert list(seen) == ["stem", "body"]
    with capture(module, "body", cut=True) as alone:
        scores = module(x)
    (expected,) = torch.autograd.grad(scores[:, 0].sum(), alone["body"])
    assert torch.allclose(high, expected)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x)).mean((2, 3))


def test_a_layer_that_runs_twice_or_never() -> None:
    module = Twice()
    with pytest.raises(LayerError, match="ran again"), capture(module, "layer", cut=True):
        module(zoo.inputs())
    with capture(module, "unused", cut=True) as seen:
        module(zoo.inputs())
    with pytest.raises(LayerError, match="did not"):
        seen["unused"]
    assert not module.layer._forward_hooks


def test_an_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean body"):
        find(zoo.Conv(), "bodi")
    long = nn.Sequential(*(nn.Identity() for _ in range(60)))
    with pytest.raises(UnknownName, match=r"one of 60, such as 59, 58, 57, 56$"):
        find(long, "features")
    with pytest.raises(UnknownName), capture(zoo.Conv(), ""):
        pass


def test_hooks_and_grad_mode_survive_an_exception() -> None:
    module = zoo.Conv()

    def interrupted() -> None:
        with capture(module, "body", cut=True):
            module(zoo.inputs())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not module.body._forward_hooks
    assert torch.is_grad_enabled()


class Tupled(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner = _Inner(kind)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        return (out["a"] if self.kind == "dict" else out[0]).mean((2, 3))


class _Inner(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        out = self.conv(x)
        return {"dict": {"b": None, "a": out}, "tuple": (out, 1), "list": [out, None]}[self.kind]


@pytest.mark.parametrize("kind", ["dict", "tuple", "list"])
def test_layers_that_output_structures(kind: str) -> None:
    module = Tupled(kind)
    with capture(module, "inner", cut=True) as seen:
        scores = module(zoo.inputs())
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), seen["inner"])
    assert gradient.abs().sum() > 0
    assert gradient[:, 0].abs().sum() == 0


def test_inference_mode_inputs_and_callers() -> None:
    module = zoo.Conv()
    with torch.inference_mode():
        x = zoo.inputs()
        with capture(module, "body", cut=True) as seen:
            scores = module(x)
        with torch.inference_mode(False):
            (gradient,) = torch.autograd.grad(scores[:, 0].sum(), seen["body"])
        assert torch.is_inference_mode_enabled()
    assert gradient.abs().sum() > 0


def test_threads_see_their_own_forwards() -> None:
    module = zoo.Conv().eval()
    x = zoo.inputs(4)
    expected = [module.body(module.stem(x[i : i + 1]).relu()) for i in range(4)]
    wrong: list[object] = []

    def work(index: int) -> None:
        try:
            for _ in range(50):
                with capture(module, "body", cut=True) as seen:
                    scores = module(x[index : index + 1])
                torch.autograd.grad(scores.sum(), seen["body"])
                if not torch.allclose(seen["body"], expected[index], atol=1e-5):
                    wrong.append(index)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not module.body._forward_hooks
