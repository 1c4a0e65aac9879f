"""How often a batch waits for its device: a bounded number of times, whatever its rows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import visxai
from visxai import methods
from visxai.engine.batch import compute
from visxai.engine.engine import load_methods
from visxai.models.blocks import maps_of, runs_of
from visxai.models.budget import RowBudget
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.modules import Weights
from visxai.target import Target

# What a GPU must have finished everything for: a number, or a shape that depends on numbers.
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")


class Waits(TorchDispatchMode):
    """Counts the operations that wait for a device, with their places."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition("::")[2].partition(".")[0]
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in args[1]
        )
        self.count += masked or name.startswith(_WAITING)
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Count waits by operations, and by the copies that no operation shows."""
    with Waits() as waits, monkeypatch.context() as patched:
        for name in ("tolist", "numpy", "cpu"):
            plain = getattr(torch.Tensor, name)

            def wrapped(self: Any, *args: Any, plain: Callable[..., Any] = plain) -> Any:
                waits.count += 1
                return plain(self, *args)

            patched.setattr(torch.Tensor, name, wrapped)
        yield waits


def waits(spec: str, target: str, images: int, monkeypatch: pytest.MonkeyPatch) -> int:
    model, x = TorchModel(zoo.module("vit" if "legrad" in spec else "conv")), zoo.inputs(images)
    model.budget = RowBudget(4)
    method = methods.load(spec)
    compute(method, Probe(model, x), x, Target.of(target))  # what is learned of a model once
    with counted(monkeypatch) as found:
        compute(method, Probe(model, x), x, Target.of(target))
    return int(found.count)


@pytest.mark.parametrize("target", ["top1", "top2", "class=3", "diff=1,2", "any=1,2"])
@pytest.mark.parametrize(
    ("few", "many"),
    [
        ("occlusion(window=32, stride=32)", "occlusion(window=16, stride=8)"),
        ("rise(masks=4)", "rise(masks=32)"),
        ("smooth_grad(copies=2)", "smooth_grad(copies=24)"),
        (
            "integrated_gradients(schedule='gauss_legendre', steps=2)",
            "integrated_gradients(schedule='gauss_legendre', steps=24)",
        ),
        ("score_cam(top=2)", "score_cam(top=12)"),
    ],
)
def test_more_rows_wait_no_more(
    few: str, many: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewest = waits(few, target, 2, monkeypatch)
    assert waits(many, target, 2, monkeypatch) == fewest <= 2


@pytest.mark.parametrize("spec", ["grad_cam", "saliency", "legrad"])
def test_more_images_wait_no_more(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fewest = waits(spec, "top1", 2, monkeypatch)
    assert waits(spec, "top1", 4, monkeypatch) == fewest <= 2


@pytest.mark.parametrize("methods_of", [1, 3])
def test_a_batch_is_begun_without_waiting_for_its_records(
    methods_of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    engine = visxai.Engine(
        zoo.module("conv"), preprocess=zoo.PREPROCESS, accelerate="off", precision="fp32"
    )
    batch = [engine.prepare(one) for one in pixels]
    loaded = load_methods(["grad_cam", "saliency", "occlusion(window=32, stride=32)"][:methods_of])
    found = []
    for images in (batch[:2], batch):
        engine.begin_prepared(images, loaded, Target.of("top2"))
        with counted(monkeypatch) as waits:
            finish = engine.begin_prepared(images, loaded, Target.of("top2"))
        found.append(waits.count)
        assert sum(len(one.explanations) for one in finish()) == 2 * len(images) * methods_of
    assert found == [found[0]] * 2
    assert found[0] <= 1


def test_the_counter_sees_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(4.0)
    calls: list[Callable[[], Any]] = [
        lambda: x.sum().item(),
        lambda: bool(x.any()),
        lambda: int(x.max()),
        lambda: x.tolist(),
        lambda: x.cpu(),
        lambda: x.nonzero(),
        lambda: x[x > 1],
    ]
    for call in calls:
        with counted(monkeypatch) as found:
            call()
        assert found.count >= 1
    with counted(monkeypatch) as found:
        (x + 1)[torch.tensor([0, 1])]
    assert found.count == 0


@pytest.mark.parametrize("target", ["top2", "class=3", "diff=1,2", "any=1,2"])
@pytest.mark.parametrize("spec", ["occlusion(window=16, stride=8)", "rise(masks=8)"])
def test_a_gpu_of_no_substance_computes_maps(
    spec: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fake tensors have a device and no numbers: reading one raises, and so does mixing devices.
    # Autograd's backward needs a real device, so methods without gradients stand for the others.
    monkeypatch.setattr(Weights, "mark", lambda _: ())
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            module, x = zoo.Conv().eval(), torch.empty(2, 3, 64, 64)
        found = compute(methods.load(spec), TorchModel(module), x, Target.of(target)).values
    assert found.device == torch.device("cuda", 0)
    assert found.shape[0] == (4 if target == "top2" else 2)


@pytest.mark.parametrize(("turns", "limit", "each_has"), [(5, 3, 1), (2, 7, 2), (1, 4, 3)])
def test_runs_are_where_the_maps_lie(turns: int, limit: int, each_has: int) -> None:
    images, classes = 4, torch.arange(10).sin().repeat(4, 1)
    aim = Target.of(f"top{each_has}").aim(classes, classes)
    for first in range(0, images * turns, limit):
        rows = torch.arange(first, min(first + limit, images * turns))
        for number, (chosen, which) in enumerate(maps_of(aim, rows // turns)):
            assert chosen == slice(None)
            for index, low, high in runs_of(first, len(rows), turns, each_has, number):
                assert (which == index).nonzero().flatten().tolist() == list(range(low, high))


def test_targets_know_how_many_maps_each_image_has() -> None:
    scores = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    for target in ("top2", "class=1", "any=1,2", "diff=1,2", "above=0.1"):
        aim = Target.of(target).aim(scores, scores.softmax(1))
        counts = set(aim.rows.bincount(minlength=3).tolist())
        for each in (aim, aim.part(1, 3), aim.images(torch.tensor([0, 2])), aim.each()):
            if each.each_has is not None:
                expected = torch.arange(len(each)) // each.each_has
                assert torch.equal(each.rows, expected)
        assert aim.each_has is None or counts == {aim.each_has}
