"""Methods that paint over parts of the image, on functions whose answers are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError
from visxai.methods._masked import cells, parts_of
from visxai.methods.hsic import dependence
from visxai.methods.kernel_shap import coalitions
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target

SIZE = 8
SPECS = (
    "rise(masks=50, output='logit')",
    "hsic(samples=40, grid=2, output='logit')",
    "sobol(samples=16, grid=2, output='logit')",
    "lime(segments=(2, 2), samples=40)",
    "kernel_shap(segments=(2, 2))",
    "partition_shap(max_evaluations=30, grid=4)",
)
SEEDED = [spec for spec in SPECS if not spec.startswith("partition")]


class OfCells(nn.Module):
    """Scores (n, 2) from the mean of each cell of a 2 x 2 grid: function(cells (n, 4)) and 0."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], grid: int | tuple[int, int] = 2
    ) -> None:
        super().__init__()
        self.function, self.grid = function, grid

    def forward(self, x: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(x.mean(1), self.grid).flatten(1)
        score = self.function(means)
        return torch.stack([score, torch.zeros_like(score)], 1)


def explained(function: Callable[[Tensor], Tensor], spec: str, x: Tensor, grid: int = 2) -> Tensor:
    model = TorchModel(OfCells(function, grid), activation="none")
    return compute(methods.load(spec), model, x, Target.of(0)).values


def images(count: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) + 0.5


ONES = torch.ones(1, 3, SIZE, SIZE)
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 0.0])


def additive(m: Tensor) -> Tensor:
    return m @ WEIGHTS + 3


def interacting(m: Tensor) -> Tensor:
    return m[:, 0] * m[:, 1] + 2 * m[:, 2] - m[:, 1] * m[:, 2] * m[:, 3] + 0.3


@pytest.mark.parametrize("spec", SPECS)
def test_a_constant_model_gives_zeros(spec: str) -> None:
    maps = explained(lambda m: 0 * m[:, 0] + 7.3, spec, images(2))
    assert torch.equal(maps, torch.zeros_like(maps))


@pytest.mark.parametrize("spec", SEEDED)
def test_a_seed_gives_the_same_map_and_another_another(spec: str) -> None:
    x = images()
    first, again = explained(interacting, spec, x), explained(interacting, spec, x)
    assert torch.equal(first, again)
    if "kernel" not in spec:  # which takes all coalitions there are
        other = explained(interacting, spec[:-1] + ", seed=1)", x)
        assert not torch.allclose(first, other, rtol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_global_generators_are_left_alone(spec: str) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    explained(interacting, spec, images())
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("spec", SPECS)
def test_output_is_what_the_target_reads(spec: str) -> None:
    model = TorchModel(OfCells(interacting))
    x = images()
    spec = spec.replace(", output='logit'", "")
    logit, probability = (
        compute(methods.load(f"{spec[:-1]}, output={output!r})"), model, x, Target.of(0)).values
        for output in ("logit", "probability")
    )
    by_hand = TorchModel(
        OfCells(lambda m: torch.stack([interacting(m), 0 * m[:, 0]], 1).softmax(1)[:, 0]),
        activation="none",
    )
    found = compute(methods.load(f"{spec[:-1]}, output='logit')"), by_hand, x, Target.of(0)).values
    assert torch.allclose(probability, found, atol=1e-5)
    assert not torch.allclose(probability, logit, atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        "rise(masks=0)",
        "rise(show=1.0)",
        "hsic(samples=41)",
        "sobol(grid=200)",
        "sobol(output='odds')",
        "lime(segments=0)",
        "lime(ridge=0.0)",
        "kernel_shap(segments=(8, 8), samples=20)",
        "partition_shap(max_evaluations=2)",
    ],
)
def test_options_that_make_no_sense_are_refused(spec: str) -> None:
    with pytest.raises(ArgumentError, match="expected"):
        methods.load(spec)


def test_cells_cover_the_image_and_differ_by_one_pixel() -> None:
    labels = cells((7, 10), (3, 4))
    assert labels.shape == (1, 7, 10)
    assert labels.unique().tolist() == list(range(12))
    assert labels.flatten().bincount().min() >= 2 * 2
    assert labels.flatten().bincount().max() <= 3 * 3


def test_superpixels_of_an_image_do_not_depend_on_its_mates() -> None:
    pytest.importorskip("skimage")
    x = nn.functional.interpolate(images(3), 48, mode="bilinear")
    together, counts = parts_of(x, 12)
    for index in range(3):
        alone, count = parts_of(x[index : index + 1], 12)
        assert torch.equal(alone[0], together[index])
        assert count == counts[index : index + 1]


def test_rise_is_the_mean_of_scores_weighted_by_the_masks() -> None:
    x = images(2)
    method: Any = methods.load("rise(masks=70, centred=False)")
    masks = method.drawn(x)(torch.arange(70))
    scores = torch.stack([additive(_means(one * masks.unsqueeze(1))) for one in x])
    expected = torch.einsum("bn,nhw->bhw", scores, masks) / masks.sum(0)
    assert torch.allclose(explained(additive, repr(method), x), expected, rtol=1e-4)
    centred = explained(additive, "rise(masks=70)", x)
    level = scores.mean(1)[:, None, None]
    assert torch.allclose(centred, expected - level, atol=1e-4)


def test_rise_masks_are_smooth_random_and_in_range() -> None:
    method: Any = methods.load("rise(masks=2000, grid=4, show=0.3)")
    masks = method.drawn(torch.zeros(1, 3, 30, 20))(torch.arange(2000))
    assert masks.shape == (2000, 30, 20)
    assert masks.min() >= 0
    assert masks.max() <= 1
    # Every pixel is shown as often as any other: 0.3, standard error 0.01.
    assert (masks.mean(0) - 0.3).abs().max() < 0.05
    assert (masks[:, 1:] - masks[:, :-1]).abs().max() < 0.2


def test_rise_of_a_linear_model_ranks_cells_by_weight() -> None:
    found = explained(additive, "rise(masks=3000, grid=4)", ONES)[0]
    means = nn.functional.adaptive_avg_pool2d(found[None, None], 2).flatten()
    assert means.argsort().tolist() == WEIGHTS.argsort().tolist()


def test_dependence_is_the_trace_of_centred_kernels() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(5, 20, generator=generator).argsort(1) < 10).double().T
    scores = torch.randn(2, 20, generator=generator).double()
    centre = torch.eye(20).double() - 1 / 20
    for row, y in zip(dependence(masks - 0.5, scores), scores, strict=True):
        outer = torch.exp(-((y[:, None] - y) ** 2) / (2 * y.var(correction=0)))
        for cell in range(5):
            inner = (masks[:, cell, None] == masks[:, cell]).double()
            expected = torch.trace(inner @ centre @ outer @ centre) / 19**2
            assert torch.isclose(row[cell], expected, rtol=1e-6)


def test_hsic_of_an_independent_cell_is_nothing() -> None:
    found = explained(additive, "hsic(samples=1000, grid=2)", ONES)[0].flatten()
    assert found[3] < 0.01 * found[1]  # weights 0 and -2
    assert found.argsort(descending=True).tolist()[:3] == [1, 0, 2]


def test_sobol_of_an_additive_function() -> None:
    found = explained(additive, "sobol(samples=1024, grid=2)", ONES)[0].flatten()
    assert torch.allclose(found, WEIGHTS**2 / (WEIGHTS**2).sum(), atol=0.02)


def test_sobol_of_a_product_holds_the_interaction() -> None:
    found = explained(lambda m: m[:, 0] * m[:, 1], "sobol(samples=1024, grid=2)", ONES)
    expected = torch.tensor([4 / 7, 4 / 7, 0, 0])  # E[u^2] Var(u) / Var(uv), u and v uniform
    assert torch.allclose(found[0].flatten(), expected, atol=0.02)


def test_lime_recovers_a_linear_models_weights() -> None:
    x = images(2)
    found = explained(additive, "lime(segments=(2, 2), samples=60, ridge=1e-6)", x)
    expected = (_means(x) * WEIGHTS).reshape(2, 2, 2)
    assert torch.allclose(found, expected, atol=1e-4)


def test_limes_fit_is_weighted_ridge_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    method: Any = methods.load("lime(segments=(2, 2), samples=60, ridge=2.0, kernel_width=0.4)")
    z = method._presence(4)
    y = interacting(z)
    kernel = torch.exp(-((1 - z.mean(1).sqrt()) ** 2) / (2 * 0.4**2))
    peer = linear.Ridge(alpha=2.0).fit(z.numpy(), y.numpy(), sample_weight=kernel.numpy())
    assert np.allclose(method._fit(z) @ y, peer.coef_, atol=1e-9)


@pytest.mark.parametrize("spec", ["kernel_shap(segments=(2, 2))", "partition_shap(grid=2)"])
def test_shapley_values_of_a_linear_model_are_exact(spec: str) -> None:
    x = images(2)
    expected = (_means(x) * WEIGHTS).reshape(2, 2, 2)
    assert torch.allclose(explained(additive, spec, x), expected, atol=1e-4)


def test_kernel_shap_with_all_coalitions_is_the_shapley_value() -> None:
    x = images(2)
    found = explained(interacting, "kernel_shap(segments=(2, 2))", x).flatten(1)
    for row, means in zip(found, _means(x), strict=True):
        assert torch.allclose(row, shapley(means), atol=1e-4)


def test_kernel_shap_sampled_tends_to_the_shapley_value() -> None:
    x = images()
    all_of_them = explained(_of_nine, "kernel_shap(segments=(3, 3), samples=510)", x, grid=3)
    sampled = explained(_of_nine, "kernel_shap(segments=(3, 3), samples=200)", x, grid=3)
    assert (sampled - all_of_them).abs().max() < 0.1 * all_of_them.abs().max()
    assert coalitions(9, 510, 0)[0].unique(dim=0).shape[0] == 510


@pytest.mark.parametrize(
    "spec",
    [
        "kernel_shap(segments=(4, 4), samples=60)",
        "kernel_shap(segments=10, samples=60)",
        "kernel_shap(segments=1, samples=4)",
        "kernel_shap(segments=(1, 1))",
        "partition_shap(max_evaluations=4)",
        "partition_shap(max_evaluations=30, grid=8)",
        "partition_shap(max_evaluations=30, grid=5, baseline='mean')",
        "partition_shap(grid=1)",
    ],
)
def test_values_sum_to_the_change_of_the_score(spec: str) -> None:
    if "segments=1" in spec:
        pytest.importorskip("skimage")
    x = images(2)
    paint = x.mean((2, 3), keepdim=True).expand_as(x) if "mean" in spec else 0 * x
    expected = interacting(_means(x)) - interacting(_means(paint))
    found = explained(interacting, spec, x).sum((1, 2))
    assert torch.allclose(found, expected, atol=1e-4)


def test_partition_shap_is_the_mean_over_orders_that_keep_halves_together() -> None:
    x = torch.rand(1, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(8, generator=torch.Generator().manual_seed(3))

    def function(m: Tensor) -> Tensor:
        return m @ weight + m[:, 1] * m[:, 4] * m[:, 7] + (m[:, 0] - m[:, 5]).relu()

    def orders(cell: list[int], width: int) -> list[list[int]]:
        """The orders of a box of cells: those of its halves, along the longer axis, swapped."""
        if len(cell) == 1:
            return [cell]
        half = [c % 4 - cell[0] % 4 < width // 2 for c in cell]
        if width <= len(cell) // width:
            half = [c // 4 == cell[0] // 4 for c in cell]
            inside = width
        else:
            inside = width // 2
        one = orders([c for c, h in zip(cell, half, strict=True) if h], inside)
        two = orders([c for c, h in zip(cell, half, strict=True) if not h], inside)
        return [a + b for a in one for b in two] + [b + a for a in one for b in two]

    every = orders(list(range(8)), 4)
    assert len(every) == 2**7
    means, expected = x.mean(1).flatten(), torch.zeros(8)
    for order in every:
        shown = torch.zeros(9, 8)
        for turn, cell in enumerate(order):
            shown[turn + 1 :, cell] = means[cell]
        expected[order] += function(shown).diff() / len(every)
    module = OfCells(function, (2, 4))
    method = methods.load("partition_shap(max_evaluations=1000, grid=4)")
    found = compute(method, TorchModel(module, activation="none"), x, Target.of(0)).values
    assert torch.allclose(found.flatten(), expected, atol=1e-5)


def test_partition_shap_equals_the_package_that_named_it() -> None:
    shap = pytest.importorskip("shap")
    x = images()[:, :, :4, :4]
    weight = torch.randn(16, generator=torch.Generator().manual_seed(3))

    def function(m: Tensor) -> Tensor:
        return m @ weight + (m[:, 1] * m[:, 4] * m[:, 11]) + (m[:, 0] - m[:, 15]).relu()

    def scores(pixels: Any) -> Any:
        means = torch.as_tensor(np.asarray(pixels)).float().mean(3).flatten(1)
        return function(means).numpy()[:, None]

    # One channel: the package would halve a pixel's channels too.
    picture = x.mean(1)[0].unsqueeze(2).numpy()
    masker = shap.maskers.Image(np.zeros_like(picture), picture.shape)
    found = shap.Explainer(scores, masker)(picture[None], max_evals=20000, silent=True)
    ours = explained(function, "partition_shap(max_evaluations=20000, grid=4)", x, grid=4)
    assert np.allclose(ours[0], found.values[0].sum((2, 3)), atol=1e-4)


def test_partition_shap_opens_what_matters_first() -> None:
    """One cell of 64 holds all: twelve forwards find it, where a raster would take 64."""
    x = torch.ones(1, 3, SIZE, SIZE)
    found = explained(lambda m: m[:, 37], "partition_shap(max_evaluations=130, grid=8)", x, grid=8)
    assert found[0].flatten().argmax() == 37
    assert found[0].flatten()[37] > 0.5


def _means(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x.mean(1), 2).flatten(1)


def _of_nine(m: Tensor) -> Tensor:
    return m @ torch.linspace(-1, 1, 9) + m[:, 0] * m[:, 4] - m[:, 3] * m[:, 8]


def shapley(means: Tensor) -> Tensor:
    """Shapley values (4,) of `interacting` at the cells' means, over all orders."""
    total = torch.zeros(4)
    for order in itertools.permutations(range(4)):
        shown = torch.zeros(4)
        before = interacting(shown[None])
        for cell in order:
            shown[cell] = means[cell]
            after = interacting(shown[None])
            total[cell] += (after - before)[0]
            before = after
    return total / math.factorial(4)
