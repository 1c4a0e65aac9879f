"""The metrics: cases computed by hand, perfect maps and their negations, invariance, seeds."""

from __future__ import annotations

import copy
import itertools
import warnings
from functools import cache

import pytest
import torch
import zoo
from torch import Tensor, nn

from visxai import methods, metrics
from visxai.errors import ArgumentError, UnknownName
from visxai.images.preprocess import Preprocess
from visxai.metrics import controls
from visxai.metrics.base import Ask, Case, Metric, area, explained, rank_correlation, ranked
from visxai.metrics.faithfulness import permuted
from visxai.metrics.infidelity import Infidelity
from visxai.metrics.model_randomisation import entropy, in_order, redraw
from visxai.metrics.road import imputed
from visxai.metrics.segmentation import average_precision
from visxai.models.budget import RowBudget
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Target

SIDE = 14
TARGET = Target.of("class=1")


class Linear(nn.Module):
    """Logits (0, sum of weight * mean over channels of x): what each pixel adds is known."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        y = (x.mean(1) * self.weight).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(y), y], 1)


def weights(seed: int = 3) -> Tensor:
    return torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def linear(weight: Tensor | None = None) -> TorchModel:
    module = Linear(weights() if weight is None else weight)
    return TorchModel(module, name="linear", preprocess=Preprocess(size=(SIDE, SIDE)))


def small(count: int = 3) -> Tensor:
    return zoo.inputs(count, SIDE)


def truth(model: TorchModel, x: Tensor) -> Tensor:
    """What each pixel adds to the logit (b, h, w)."""
    return (x.mean(1) * model.module.get_parameter("weight")).detach()


def values(spec: str | Metric, *given: object, **more: object) -> Tensor:
    return metrics.load(spec)(Case(*given, **more)).values  # type: ignore[arg-type]


@pytest.mark.parametrize("name", metrics.names())
def test_every_metric_documents_itself(name: str) -> None:
    metric = metrics.load(name)
    assert metric.about("").endswith("?") or metric.about("").endswith(".")
    assert metric.about("Cost")
    assert metric.about("Source")
    assert metrics.load(repr(metric)) == metric
    assert name == type(metric).__name__ or metric.name() == name


def test_the_suite_is_complete() -> None:
    assert set(metrics.names()) == {
        *("agreement", "completeness", "deletion", "difull", "energy_pointing", "faithfulness"),
        *("grid_pointing", "infidelity", "insertion", "max_sensitivity", "model_randomisation"),
        *("perturbation", "pointing", "road", "segmentation", "sparseness"),
    }


def test_unknown_names_and_options_list_the_choices() -> None:
    with pytest.raises(UnknownName, match="did you mean deletion"):
        metrics.load("deletoin")
    with pytest.raises(UnknownName, match="steps"):
        metrics.load("deletion(stops=3)")
    with pytest.raises(ArgumentError, match="at least 1 step"):
        metrics.load("deletion(steps=0)")
    with pytest.raises(UnknownName, match="random_map"):
        controls.load("random_mat")
    with pytest.raises(ArgumentError, match="faithfulness"):
        metrics.load_check("pointing")


def test_a_metric_says_what_its_case_lacks() -> None:
    case = Case(linear(), small(), TARGET, small().mean(1))
    assert metrics.load("pointing").missing(case) == "objects"
    assert metrics.load("deletion").missing(case) == ""
    with pytest.raises(ArgumentError, match="expected a case with method for max_sensitivity"):
        metrics.load("max_sensitivity")(case)


# ---- over every metric --------------------------------------------------------------------

OPTIONS = {
    "deletion": "deletion(steps=5)",
    "insertion": "insertion(steps=5)",
    "infidelity": "infidelity(draws=6)",
    "max_sensitivity": "max_sensitivity(draws=2)",
    "model_randomisation": "model_randomisation(stages=3)",
    "difull": "difull(sure=0.0, grids=5)",
    "grid_pointing": "grid_pointing(sure=0.0, grids=5)",
}
COUNT = 6


@cache
def varied() -> TorchModel:
    """A small CNN that gives the test's images different classes."""
    module = zoo.randomise(zoo.Conv(), seed=5)
    x = zoo.inputs(COUNT)
    with torch.no_grad():  # centred on the images, so that no class takes all
        module.head.bias -= module(x).mean(0)  # type: ignore[union-attr, operator]
    return TorchModel(module, name="varied", preprocess=zoo.PREPROCESS)


def case_of(keep: Tensor, model: TorchModel | None = None) -> Case:
    model, x = model or varied(), zoo.inputs(COUNT)[keep]
    method, other = methods.load("grad_cam(relu=False)"), methods.load("saliency")
    target = Target.of("top1")
    inside = torch.zeros(COUNT, zoo.SIZE, zoo.SIZE, dtype=torch.bool)
    for index in range(COUNT):
        inside[index, 5 * index : 5 * index + 30, 8:40] = True
    maps, others = (explained(m, Probe(model, x), x, target) for m in (method, other))
    return Case(model, x, target, maps, method, inside[keep], others)


def test_the_test_model_has_classes_enough() -> None:
    assert len(varied().scores(zoo.inputs(COUNT)).argmax(1).unique()) >= 4


@pytest.mark.parametrize("name", metrics.names())
def test_figures_dont_depend_on_batch_or_order(name: str) -> None:
    metric = metrics.load(OPTIONS.get(name, name))
    everything = torch.arange(COUNT)
    reference = metric(case_of(everything))
    assert reference.values.dtype == torch.float32
    assert reference.values.isfinite().all()
    assert all(len(curve) == len(reference.values) for curve in reference.curves.values())
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    again = metric(case_of(order))
    if metric.per == "grid":  # the same grids, whatever the order of the pool
        assert torch.allclose(again.values, reference.values, atol=1e-5)
        return
    assert torch.allclose(again.values, reference.values[order], atol=1e-5)
    for index in (0, 3):
        single = metric(case_of(everything[index : index + 1]))
        assert torch.allclose(single.values[0], reference.values[index], atol=1e-5)


@pytest.mark.parametrize("name", metrics.names())
def test_small_blocks_give_the_same_figures(name: str) -> None:
    metric = metrics.load(OPTIONS.get(name, name))
    model = copy.copy(varied())
    model.budget = RowBudget(limit=3)
    few = metric(case_of(torch.arange(COUNT), model)).values
    assert torch.allclose(few, metric(case_of(torch.arange(COUNT))).values, atol=1e-5)


@pytest.mark.parametrize("name", metrics.names())
def test_nothing_of_the_model_is_changed(name: str) -> None:
    model = TorchModel(copy.deepcopy(varied().module), preprocess=zoo.PREPROCESS)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    random, case = torch.get_rng_state(), case_of(torch.arange(COUNT), model)
    metrics.load(OPTIONS.get(name, name))(case)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[key], value) for key, value in model.module.state_dict().items())
    assert not any(
        part._forward_hooks or part._forward_pre_hooks for part in model.module.modules()
    )


@pytest.mark.parametrize("name", metrics.names())
def test_several_classes_equal_one_at_a_time(name: str) -> None:
    metric = metrics.load(OPTIONS.get(name, name))
    if metric.per == "grid":
        pytest.skip("explains the grids' own classes")
    model, x, target = varied(), zoo.inputs(2), Target.of("top2")
    method = methods.load("grad_cam(relu=False)")
    inside = torch.zeros(2, zoo.SIZE, zoo.SIZE, dtype=torch.bool)
    inside[:, 8:40, 8:40] = True

    def found(x: Tensor, target: Target, inside: Tensor) -> tuple[Case, Tensor]:
        maps = explained(method, Probe(model, x), x, target)
        case = Case(model, x, target, maps, method, inside, maps.flip(1))
        return case, metric(case).values

    case, both = found(x, target, inside)
    assert case.aim.classes is not None
    for number in range(4):
        row = int(case.aim.rows[number])
        one = Target.of(int(case.aim.classes[number]))
        _, alone = found(x[row : row + 1], one, inside[row : row + 1])
        assert torch.allclose(alone[0], both[number], atol=1e-5)


def test_ranks_break_ties_by_position() -> None:
    maps = torch.tensor([[[1.0, 3.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert ranked(maps).tolist() == [[[2, 0], [1, 3]], [[0, 1], [2, 3]]]


def test_area_is_the_mean_height() -> None:
    axis = torch.tensor([0.0, 0.5, 1.0])
    assert area(torch.tensor([[1.0, 0.5, 0.0]]), axis).item() == pytest.approx(0.5)
    assert area(torch.tensor([[1.0, 1.0]]), torch.tensor([0.1, 0.9])).item() == pytest.approx(1)


@pytest.mark.parametrize("name", ["deletion", "insertion"])
def test_curves_equal_a_loop_over_pixels(name: str) -> None:
    model, x = linear(), small(2)
    maps, steps = truth(model, x), 7
    found = metrics.load(f"{name}(steps={steps})")(Case(model, x, TARGET, maps))
    from visxai.metrics._ranked import blurred

    for index in range(2):
        order = sorted(range(SIDE**2), key=lambda p: -float(maps[index].flatten()[p]))
        curve = []
        for step in range(steps + 1):
            start, end = x[index], torch.zeros_like(x[index])
            if name == "insertion":
                start, end = blurred(x)[index], x[index]
            image = start.clone().flatten(1)
            for p in order[: step * SIDE**2 // steps]:
                image[:, p] = end.flatten(1)[:, p]
            curve.append(float(model.scores(image.reshape(1, 3, SIDE, SIDE)).softmax(1)[0, 1]))
        assert found.curves[name][index].tolist() == pytest.approx(curve, abs=1e-5)
        by_hand = sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / steps
        assert float(found.values[index]) == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("spec", ["deletion(steps=14)", "insertion(steps=14)", "road"])
def test_the_true_map_is_best_and_its_negation_worst(spec: str) -> None:
    # Insertion's blur changes every pixel, so what counts is how much each pixel adds over it.
    from visxai.metrics._ranked import blurred

    model, x = linear(), small()
    maps = truth(model, x - blurred(x)) if "insertion" in spec else truth(model, x)
    metric = metrics.load(spec)
    sign = -1 if metric.better == "lower" else 1
    best, worst = (sign * values(metric, model, x, TARGET, m) for m in (maps, -maps))
    assert (best > worst).all()
    if spec == "road":  # imputation lets neighbours speak: no order is best by construction
        return
    for seed in range(5):
        other = torch.randn(maps.shape, generator=torch.Generator().manual_seed(seed))
        between = sign * values(metric, model, x, TARGET, other)
        assert ((best > between) & (between > worst)).all()


def test_a_set_of_classes_is_judged_by_its_sum() -> None:
    model, x = varied(), zoo.inputs(2)
    case = Case(model, x, Target.of("any=1,4"), torch.rand(2, 4, 4))
    expected = model.scores(x).softmax(1)[:, [1, 4]].sum(1)
    assert torch.allclose(case.clean(case.certainty), expected)


def test_perturbation_of_the_deciding_pixel() -> None:
    """One pixel decides: blackened first the class is lost at once, last it is kept to the end."""
    weight = torch.zeros(SIDE, SIDE)
    weight[3, 4] = 10
    model = linear(weight)
    x = model.preprocess.normalise(torch.full((1, SIDE, SIDE, 3), 255, dtype=torch.uint8))  # type: ignore[union-attr]
    found = metrics.load("perturbation")(Case(model, x, TARGET, weight.unsqueeze(0)))
    assert found.values.tolist() == [1.0]
    assert found.figures["positive"].tolist() == [0.0]
    assert found.figures["negative"].tolist() == [1.0]
    assert values("perturbation", model, x, TARGET, -weight.unsqueeze(0)).tolist() == [-1.0]


def test_perturbation_is_black_before_the_normalisation() -> None:
    """A dark pixel's class: only true black, -mean / std, brings it."""
    weight = torch.full((SIDE, SIDE), -1.0)
    preprocess = Preprocess(size=(SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = TorchModel(Linear(weight), preprocess=preprocess)
    x = torch.full((1, 3, SIDE, SIDE), 0.2)  # grey, above the mean: class 0
    found = metrics.load("perturbation")(Case(model, x, Target.of("class=0"), torch.ones(1, 2, 2)))
    # Black is -1, so the mean falls below 0 between 10 % (0.08) and 20 % (-0.04).
    assert found.curves["positive"].tolist() == [[1.0] + [0.0] * 8]


def test_the_check_passes_truth_and_fails_its_negation() -> None:
    model, x = linear(), small()
    for sign, passed in ((1, True), (-1, False)):
        found = metrics.load("faithfulness")(Case(model, x, TARGET, sign * truth(model, x)))
        assert found.figures["faithful"].tolist() == [passed] * 3
        difference = found.values - found.figures["faithfulness_controls"]
        assert (sign * difference > 0).all()
    for flat in (torch.ones(3, 7, 7), torch.full((3, 10, 10), 0.1), torch.full((3, 1, 1), 0.1)):
        found = metrics.load("faithfulness")(Case(model, x, TARGET, flat))
        assert found.figures["faithful"].tolist() == [False] * 3


def test_the_check_is_insertion_less_deletion() -> None:
    model, x = linear(), small()
    case = Case(model, x, TARGET, torch.rand(3, 7, 7))
    parts = [
        values(f"{name}(steps=8)", model, x, TARGET, case.maps)
        for name in ("insertion", "deletion")
    ]
    assert torch.allclose(metrics.load("faithfulness")(case).values, parts[0] - parts[1], atol=1e-6)


def test_permuted_cells_keep_their_values() -> None:
    maps = torch.arange(2 * 14 * 14, dtype=torch.float32).reshape(2, 14, 14)
    orders = torch.stack([torch.arange(49), torch.arange(49).flip(0)])
    found = permuted(maps, 7, orders)
    assert torch.equal(found[0], maps[0])
    assert torch.equal(found[1, :2, :2], maps[0, 12:, 12:])
    assert torch.equal(found[3].flatten().sort().values, maps[1].flatten().sort().values)
    assert permuted(torch.rand(1, 8, 5), 7, orders).shape == (2, 14, 7)


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        ("deletion(steps=9)", 2 * 8 + 1),
        ("insertion(steps=9)", 2 * 8 + 2),
        ("perturbation", 2 * 18),
        ("road", 2 * 18),
        ("completeness", 2),
        ("infidelity(draws=5)", 2 * 5),
        ("faithfulness", 2 * 126 + 2 + 1),
    ],
)
def test_cost_is_what_the_docstring_says(spec: str, rows: int) -> None:
    """Rows beyond the clean images', for two images with a map each."""
    model, x = linear(), small(2)
    case = Case(Probe(model, x), x, TARGET, torch.rand(2, 7, 7))
    case.clean(case.certainty)
    seen: list[int] = []
    plain = model.forward

    def counted(x: Tensor, *rest: object) -> Tensor:
        seen.append(len(x))
        return plain(x, *rest)  # type: ignore[arg-type]

    model.forward = counted  # type: ignore[method-assign]
    metrics.load(spec)(case)
    assert sum(seen) == rows
    told = metrics.load(spec).forwards()  # of a map, the clean images' and a batch's aside
    assert 2 * told - 2 <= rows <= 2 * told + 3


def test_imputation_solves_the_weighted_means() -> None:
    """Against the dense system, written from the definition."""
    size, generator = 9, torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, size, size, generator=generator)
    removed = torch.rand(2, 1, size, size, generator=generator) < 0.7
    found = imputed(x, removed)
    for n in range(2):
        gone = [(i, j) for i in range(size) for j in range(size) if removed[n, 0, i, j]]
        place = {at: k for k, at in enumerate(gone)}
        a, b = torch.zeros(len(gone), len(gone)), torch.zeros(len(gone), 3)
        for (i, j), k in place.items():
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    at = (i + di, j + dj)
                    if (di, dj) == (0, 0) or not (0 <= at[0] < size and 0 <= at[1] < size):
                        continue
                    weight = 1 / 6 if 0 in (di, dj) else 1 / 12
                    a[k, k] += weight
                    if at in place:
                        a[k, place[at]] -= weight
                    else:
                        b[k] += weight * x[n, :, at[0], at[1]]
        solved = torch.linalg.solve(a, b)
        expected = x[n].clone()
        for (i, j), k in place.items():
            expected[:, i, j] = solved[k]
        assert torch.allclose(found[n], expected, atol=1e-3)


def test_imputation_agrees_with_a_published_one() -> None:
    """pytorch-grad-cam's sparse solve, without its noise."""
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    x = zoo.inputs(1, 24)
    mask = (torch.rand(24, 24, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    with warnings.catch_warnings():  # its own, about numpy
        warnings.simplefilter("ignore")
        theirs = road.NoisyLinearImputer(noise=0.0)(x[0], mask)
    ours = imputed(x, mask[None, None] == 0)[0]
    assert (ours - theirs).abs().max() < 2e-3


def test_imputing_rows_alone_or_together_is_the_same() -> None:
    x = zoo.inputs(2, 20)
    removed = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(2)) < 0.8
    removed[0, :, :, 2:] = True
    both = imputed(x, removed)
    assert torch.allclose(imputed(x[1:], removed[1:])[0], both[1], atol=1e-5)


def located(spec: str, maps: Tensor, inside: Tensor) -> Tensor:
    return values(spec, linear(), small(len(maps)), TARGET, maps, objects=inside)


def test_pointing_allows_its_tolerance() -> None:
    maps = torch.zeros(3, SIDE, SIDE)
    maps[0, 2, 2] = maps[1, 2, 9] = maps[2, 2, 10] = 1
    inside = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    inside[:, :5, :5] = True
    assert located("pointing(tolerance=5)", maps, inside).tolist() == [1, 1, 0]
    assert located("pointing(tolerance=0)", maps, inside).tolist() == [1, 0, 0]


def test_energy_is_the_positive_share() -> None:
    maps = torch.zeros(3, SIDE, SIDE)
    maps[0, 0, 0], maps[0, 9, 9], maps[0, 1, 1] = 3, 1, -5
    maps[1, 9, 9] = 2
    inside = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    inside[:, :5, :5] = True
    assert located("energy_pointing", maps, inside).tolist() == [0.75, 0, 0]


def test_segmentation_by_hand() -> None:
    maps = torch.zeros(2, SIDE, SIDE)
    inside = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    inside[:, :4] = True
    maps[0, :4] = 1  # the object itself
    maps[1, 4:] = 1  # all but the object
    found = metrics.load("segmentation")(Case(linear(), small(2), TARGET, maps, objects=inside))
    assert found.values.tolist() == [1, 0]
    assert found.figures["pixel_accuracy"].tolist() == [1, 0]
    assert found.figures["average_precision"][0] == 1
    maps[0, :2] = 0  # half of it: 2 of 4 rows, and 10 of 12 for the background
    half = located("segmentation", maps[:1], inside[:1])
    assert half.tolist() == pytest.approx([(2 / 4 + 10 / 12) / 2])


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, -0.3])
def test_a_flat_map_outlines_nothing(value: float) -> None:
    maps, inside = torch.full((1, SIDE, SIDE), value), torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    inside[:, :5] = True
    background = (SIDE - 5) / SIDE  # all is background: of the object nothing is found
    assert located("segmentation", maps, inside).tolist() == pytest.approx([background / 2])


def test_average_precision_by_hand_and_with_ties() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 0.5, 0.5], [0.9, 0.5, 0.5, 0.1]])
    marks = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 1]]).bool()
    by_hand = [(1 + 2 / 3) / 2, 1 / 4, (1 / 3 + 2 / 4) / 2]
    assert average_precision(scores, marks).tolist() == pytest.approx(by_hand)


def test_sparseness_by_hand() -> None:
    maps = torch.zeros(4, SIDE, SIDE)
    maps[0] = -2
    maps[1, 3, 3] = 5
    maps[2] = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) - 0.5
    found = values("sparseness", linear(), small(4), TARGET, maps)
    assert found[0].item() == pytest.approx(0, abs=1e-6)
    assert found[1].item() == pytest.approx(1 - 1 / SIDE**2)
    # Chalasani et al., equation 5: 1 - 2 sum_k a_k / |a| (d - k + 1/2) / d, a sorted upward.
    a, d = maps[2].abs().flatten().double().sort().values, SIDE**2
    k = torch.arange(1, d + 1)
    assert found[2].item() == pytest.approx(float(1 - 2 * (a / a.sum() * (d - k + 0.5) / d).sum()))
    assert found[3].isnan()


def test_completeness_of_contributions_is_exact() -> None:
    model, x = linear(), small()
    maps = truth(model, x)
    assert values("completeness", model, x, TARGET, maps).tolist() == pytest.approx(
        [0] * 3, abs=1e-4
    )
    assert values("completeness", model, x, TARGET, 2 * maps).tolist() == pytest.approx(
        [1] * 3, abs=1e-3
    )
    assert values("completeness", model, x, TARGET, -maps).tolist() == pytest.approx(
        [2] * 3, abs=1e-3
    )
    assert values("completeness", model, 0 * x, TARGET, maps).isnan().all()


@pytest.mark.parametrize("noise", ["gaussian", "square"])
def test_infidelity_of_a_linear_model(noise: str) -> None:
    """The gradient foretells noise and the contributions foretell removal, at any scale."""
    model, x = linear(), small()
    weight = model.module.get_parameter("weight").detach()
    maps = weight.repeat(3, 1, 1) if noise == "gaussian" else truth(model, x)
    metric = metrics.load(f"infidelity(noise={noise!r})")
    found = [metric(Case(model, x, TARGET, factor * maps)) for factor in (1, 100, -1)]
    for exact in found[:2]:
        assert exact.figures["explained"].tolist() == pytest.approx([1] * 3, abs=1e-4)
    assert found[2].figures["explained"].tolist() == pytest.approx([0] * 3, abs=1e-6)
    assert (found[2].values > 100 * found[0].values).all()
    other = metric(Case(model, x, TARGET, torch.rand(3, SIDE, SIDE)))
    assert ((other.values > found[0].values) & (other.values <= found[2].values)).all()


def test_infidelity_is_its_definition() -> None:
    model, x = varied(), zoo.inputs(1)
    metric = Infidelity(draws=5)
    maps = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(4))
    case = Case(model, x, TARGET, maps)
    noise = 0.2 * torch.randn(5, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    forecast = (noise * case.pixels[0]).sum((1, 2, 3))
    change = model.scores(x)[0, 1] - model.scores(x - noise)[:, 1]
    scale = max(0.0, float((forecast * change).mean() / forecast.square().mean()))
    expected = (scale * forecast - change).square().mean()
    assert metric(case).values.item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_infidelity_knows_no_scale(factor: float) -> None:
    model, x = linear(), small()
    case = Case(model, x, TARGET, truth(model, x))
    scaled = Case(model, x, TARGET, factor * truth(model, x))
    metric = metrics.load("infidelity(noise='square')")
    assert torch.allclose(metric(scaled).values, metric(case).values, rtol=1e-3, atol=1e-6)
    assert metric(scaled).figures["explained"].tolist() == pytest.approx([1] * 3, abs=1e-4)


def test_max_sensitivity_of_known_methods() -> None:
    """A gradient of a linear model never moves; gradient times input moves as the input does."""
    model, x = linear(), small()

    def sensitivity(name: str, **options: object) -> Tensor:
        method = methods.load(name)
        maps = explained(method, model, x, TARGET)
        return values("max_sensitivity(draws=3, radius=0.1)", model, x, TARGET, maps, method)

    assert sensitivity("saliency").tolist() == pytest.approx([0] * 3, abs=1e-5)
    generator = torch.Generator().manual_seed(0)
    weight = model.module.get_parameter("weight").detach()
    draws = [0.1 * (2 * torch.rand(3, SIDE, SIDE, generator=generator) - 1) for _ in range(3)]
    clean = truth(model, x)
    changes = [(truth(model, x + e) - clean).flatten(1).norm(dim=1) for e in draws]
    expected = torch.stack(changes).amax(0) / clean.flatten(1).norm(dim=1)
    assert torch.allclose(sensitivity("input_x_gradient"), expected, rtol=1e-4)
    assert weight.shape == (SIDE, SIDE)


def test_agreement_is_spearmans() -> None:
    maps = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def agreement(other: Tensor) -> Tensor:
        return values("agreement", linear(), small(), TARGET, maps, others=other)

    assert agreement(maps.exp()).tolist() == pytest.approx([1] * 3)
    assert agreement(-maps).tolist() == pytest.approx([-1] * 3)
    assert agreement(torch.zeros(3, 7, 7)).tolist() == [0] * 3
    stats = pytest.importorskip("scipy.stats")
    tied = (maps.flip(1) * 4).round()
    expected = [
        stats.spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(maps, tied, strict=True)
    ]
    assert agreement(tied).tolist() == pytest.approx(expected, abs=1e-6)
    assert rank_correlation(
        torch.tensor([[1.0, 2, 2, 4]]), torch.tensor([[1.0, 2, 3, 4]])
    ).item() == (pytest.approx(3 / 10**0.5))


@pytest.mark.parametrize("kind", ["conv", "resnet18", "vit", "timm_registers", "hf_vit", "swin"])
def test_every_parameter_is_drawn_anew(kind: str) -> None:
    plain = zoo.model(kind)
    module = copy.deepcopy(plain.module)
    found = in_order(plain.with_module(module), zoo.inputs(1))
    assert len(found) == len({id(p) for p in found}) == len(list(module.parameters()))
    for tensor in found:
        before = tensor.detach().clone()
        redraw(tensor, 0)
        assert not torch.equal(before, tensor)


def test_the_order_is_the_forwards_not_the_registrations() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.token = nn.Parameter(torch.zeros(1))
            self.stem = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(x).mean((2, 3)) + self.token)

    model = TorchModel(Backwards())
    names = {id(p): name for name, p in model.module.named_parameters()}
    order = [names[id(p)] for p in in_order(model, small(1))]
    assert order == ["token", "stem.weight", "stem.bias", "head.weight", "head.bias"]


def test_a_map_of_the_image_alone_survives_randomisation() -> None:
    model, x = varied(), zoo.inputs(2)
    for name in controls.names():
        method = controls.load(name)
        maps = explained(method, model, x, TARGET)
        found = metrics.load("model_randomisation(stages=2)")(Case(model, x, TARGET, maps, method))
        assert found.curves["similarity"].tolist() == [[pytest.approx(1)] * 3] * 2


def test_randomisation_stages_reach_from_the_input_or_the_scores() -> None:
    """However it goes, the last stage has drawn everything, each tensor from its own seed."""
    model, x = varied(), zoo.inputs(2)
    method = methods.load("saliency")
    maps = explained(method, model, x, TARGET)
    found = {
        order: metrics.load(f"model_randomisation(order={order!r}, stages=6)")(
            Case(model, x, TARGET, maps, method)
        )
        for order in ("bottom_up", "top_down")
    }
    for scores in found.values():
        assert scores.curves["similarity"].shape == (2, 7)
        assert torch.allclose(scores.values, scores.curves["similarity"][:, 1:].mean(1))
    ends = [scores.figures["randomised"] for scores in found.values()]
    assert torch.allclose(ends[0], ends[1], atol=1e-3)


def test_entropy_of_histograms() -> None:
    maps = torch.stack([torch.zeros(10, 10), torch.arange(100.0).reshape(10, 10)])
    assert entropy(maps, 100).tolist() == pytest.approx([0, torch.tensor(100.0).log().item()])
    two = torch.zeros(1, 2, 2)
    two[0, 0, 0] = 1
    assert entropy(two, 10).item() == pytest.approx(
        -(0.25 * torch.tensor(0.25).log() + 0.75 * torch.tensor(0.75).log()).item()
    )


def test_the_efficient_form_compares_entropies() -> None:
    model, x = varied(), zoo.inputs(2)
    method = methods.load("saliency")
    maps = explained(method, model, x, TARGET)
    metric = metrics.load("model_randomisation(form='efficient')")
    found = metric(Case(model, x, TARGET, maps, method))
    assert metric.better == "higher"
    rise = found.figures["randomised_entropy"] / found.figures["entropy"] - 1
    assert torch.allclose(found.values, rise)


def test_controls_know_nothing_of_the_model() -> None:
    x = zoo.inputs(3)
    for name in controls.names():
        method = controls.load(name)
        one, two = (explained(method, zoo.model(kind), x, TARGET) for kind in ("conv", "resnet18"))
        assert torch.equal(one, two)
        assert method.cost(zoo.model("conv"), x).forwards == 1
        assert torch.equal(explained(method, zoo.model("conv"), x[1:2], TARGET)[0], one[1])
    random = explained(controls.load("random_map"), zoo.model("conv"), x, TARGET)
    assert random.shape == (3, 7, 7)
    assert not torch.equal(random[0], random[1])
    gaussian = explained(controls.load("centred_gaussian"), zoo.model("conv"), x, TARGET)
    assert torch.allclose(gaussian, gaussian.flip(1))
    assert gaussian[0].argmax() // 64 in (31, 32)


def test_asks_are_named_as_the_fields_of_a_case() -> None:
    assert [str(flag) for flag in Ask] == ["maps", "method", "objects", "others"]
