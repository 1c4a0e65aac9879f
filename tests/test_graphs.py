"""Forms that are recorded and replayed: when, for which shapes, and that outputs stay apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from visxai.models.pytorch import graphs
from visxai.models.pytorch.agreement import Form
from visxai.models.pytorch.graphs import Graphed, Recording


class Recorder:
    """A GPU in small: a replay computes what was recorded from the same memory into the same."""

    def __init__(self) -> None:
        self.calls: list[int] = []  # rows of each call of the form itself
        self.recorded: list[int] = []
        self.error: Exception | None = None

    def form(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return x.square() + 1

    def record(self, form: Form, x: Tensor) -> Recording:
        if self.error is not None:
            raise self.error
        self.recorded.append(len(x))
        inputs, output = torch.full_like(x, float("nan")), torch.full_like(x, float("nan"))

        def replay() -> None:
            output.copy_(inputs.square() + 1)

        return Recording(inputs, output, replay)


def test_a_shape_that_comes_again_is_replayed() -> None:
    recorder = Recorder()
    graphed = Graphed(recorder.form, recorder.record)
    xs = [torch.randn(4, 3, generator=torch.Generator().manual_seed(n)) for n in range(6)]
    found = [graphed(x) for x in xs]
    for x, one in zip(xs, found, strict=True):  # none was overwritten by a later replay
        assert torch.equal(one, x.square() + 1)
    assert (recorder.calls, recorder.recorded) == ([4], [4])
    graphed(xs[0][:3])  # the last batch of a run, smaller than the others
    assert (recorder.calls, recorder.recorded) == ([4, 3], [4])
    graphed(xs[0].t().contiguous().t())  # another layout in memory
    assert recorder.calls == [4, 3, 4]


def test_few_shapes_are_recorded() -> None:
    recorder = Recorder()
    graphed = Graphed(recorder.form, recorder.record)
    for rows in range(1, graphs.MOST + 3):
        for _ in range(3):
            graphed(torch.ones(rows, 2))
    assert recorder.recorded == list(range(1, graphs.MOST + 1))
    assert recorder.calls[-3:] == [graphs.MOST + 2] * 3


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("operation not permitted")]
)
def test_what_cannot_be_recorded_runs_as_it_is(error: Exception) -> None:
    recorder = Recorder()
    recorder.error = error
    graphed, x = Graphed(recorder.form, recorder.record), torch.ones(2, 2)
    for _ in range(4):
        assert torch.equal(graphed(x), x.square() + 1)
    recorder.error = None
    graphed(x)
    assert (recorder.recorded, recorder.calls) == ([], [2] * 5)
