"""fp32 on a GPU computes in float32: TensorFloat-32 is off while it does, and back afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
import zoo

from visxai.models.interface import Model
from visxai.models.pytorch.exact import exact_float32
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target

CUDA = torch.device("cuda")


def switches() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.fixture(params=[(True, "highest"), (True, "high"), (False, "highest")])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[bool, str]]:
    found = switches()
    torch.backends.cudnn.allow_tf32, _ = request.param
    torch.set_float32_matmul_precision(request.param[1])
    yield request.param
    torch.backends.cudnn.allow_tf32 = found[0]
    torch.set_float32_matmul_precision(found[1])


def test_switches_are_off_inside_and_back_outside(before: tuple[bool, str]) -> None:
    with exact_float32(CUDA):
        assert switches() == (False, "highest")
        with exact_float32(CUDA):
            assert switches() == (False, "highest")
        assert switches() == (False, "highest")
    assert switches() == before


def test_switches_come_back_after_an_error(before: tuple[bool, str]) -> None:
    with pytest.raises(KeyError), exact_float32(CUDA):
        raise KeyError
    assert switches() == before


def test_a_cpu_leaves_the_switches_alone(before: tuple[bool, str]) -> None:
    with exact_float32(torch.device("cpu")):
        assert switches() == before


def test_threads_that_overlap_turn_the_switches_back_once(before: tuple[bool, str]) -> None:
    begun, leave, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        with exact_float32(CUDA):
            begun.set()
            leave.wait(30)
            seen.append(switches())

    thread = threading.Thread(target=other)
    with exact_float32(CUDA):
        thread.start()
        assert begun.wait(30)
    leave.set()
    thread.join()
    assert seen == [(False, "highest")]
    assert switches() == before


@pytest.mark.parametrize(("precision", "exact"), [("fp32", True), ("bf16", False)])
def test_every_block_of_fp32_and_no_other_is_exact(
    precision: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, str]] = []
    plain = TorchModel.forward

    def forward(self: TorchModel, *arguments: object) -> torch.Tensor:
        if self.precision == precision:
            seen.append(switches())
        return plain(self, *arguments)  # type: ignore[arg-type]

    model, x = TorchModel(zoo.module("conv")).in_precision(precision), zoo.inputs()
    model.layer(x)
    model.split(model.layer(x), x)
    monkeypatch.setattr(TorchModel, "forward", forward)
    monkeypatch.setattr(
        Model,
        "_computing",
        lambda self: exact_float32(CUDA if self.precision == "fp32" else torch.device("cpu")),
    )
    outside, target = switches(), Target.of("class=2")
    model.scores(x)
    model.at_layers(x, target)
    replay = model.replay(x, target)
    assert set(seen) == {(False, "highest") if exact else outside}
    seen.clear()
    precision, exact = "fp32", True  # ablation's heads are float32 whatever the model's precision
    replay.head(torch.arange(3), replay.activation)
    assert seen == [(False, "highest")]
    assert switches() == outside
