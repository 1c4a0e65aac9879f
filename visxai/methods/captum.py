"""Captum's further methods: any captum attribution of the input, under visxai's contracts.

    captum:NAME(option=value)        M = sum over channels of captum.attr.NAME's attribution

Gradient attributions are summed over the channels, with their sign; perturbation attributions,
which captum repeats in every channel, are averaged over them, so that they hold the score's
change itself. Captum's own options have captum's names and defaults; visxai adds

* baseline: a number in model space, 'mean', 'blur' or a tensor, where captum takes baselines;
* grid: cells a side that are painted together, where captum takes a feature mask (default 8);
* seed: where captum draws. Each map is then computed alone with the same seed, so it never
  depends on the other images of its batch.

Lime is fitted by ridge regression (alpha 1) and KernelShap by least squares, neither of which
needs another package. Captum draws from the global generators and warns through Python's global
filters, so its calls take turns under a lock, and generators and filters are put back.

DeepLift supports only some activations, each a module used once. Where it can't follow the
network, its contributions don't add up to the score's change: a relative error beyond 10 % raises
an error, a smaller one is recorded as `completeness`. GuidedBackprop and Deconvolution change
nothing but torch.nn.ReLU, and a model without any is refused.

    visxai.Engine().explain("cat.jpg", method="captum:GradientShap(n_samples=8)")

Cost: that of captum's algorithm, found by running it once on a network that only counts, plus
one forward, and one more for DeepLift's check.
Source: Kokhlikyan et al., Captum: a unified and generic model interpretability library for
PyTorch, 2020.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError, ModelError, UnknownName
from visxai.methods._maps import baseline_like
from visxai.methods._masked import cells
from visxai.methods.base import Cost, Maps, Method
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.quiet import warnings_of
from visxai.target import Target

RECTIFIED = ("Deconvolution", "GuidedBackprop")
FITTED = {"KernelShap": 0.0, "Lime": 1.0}  # the ridge penalty of each
PERTURBED = ("FeatureAblation", "Occlusion", "ShapleyValueSampling", *FITTED)
DRAWN = ("GradientShap", "ShapleyValueSampling", *FITTED)
NAMES = (
    *("DeepLift", "GradientShap", "InputXGradient", "IntegratedGradients", "Saliency"),
    *RECTIFIED,
    *PERTURBED,
)
REFUSED = {
    "LRP": "layer-wise relevance propagation is left out of visxai",
    "LayerLRP": "layer-wise relevance propagation is left out of visxai",
    "FeaturePermutation": "it swaps features between images, so a map would depend on its batch",
    "ShapleyValues": "it runs through every order of the features; kernel_shap is exact sooner",
    "DeepLiftShap": "it needs a data set of baselines, which a spec can't name",
}
# Arguments that visxai sets itself, or that don't change the map.
HIDDEN = {
    *("self", "kwargs", "model", "forward_func", "inputs", "target", "baselines", "feature_mask"),
    *("additional_forward_args", "return_convergence_delta", "show_progress", "abs_"),
    *("custom_attribution_func", "return_input_shape", "interpretable_model", "similarity_func"),
    *("perturb_func", "use_weights"),
}
INCOMPLETE = 0.1

_LOCK = threading.RLock()


@dataclass(frozen=True, repr=False)
class Captum(Method):
    """A captum attribution; see the module's docstring.

    Attributes:
        algorithm: The name of the attribution in captum.attr.
        baseline: The baseline in model space: a number, 'mean', 'blur' or a tensor; None where
            captum takes none.
        grid: Cells a side that are painted together; None where captum takes no feature mask.
        seed: Seed of captum's draws; None where captum draws nothing.
        options: Captum's own options, as pairs of name and value.
    """

    algorithm: str
    baseline: float | str | Tensor | None = None
    grid: int | None = None
    seed: int | None = None
    options: tuple[tuple[str, Any], ...] = ()

    needs = Need.SCORES | Need.MODULE

    @property
    def two_sided(self) -> bool:
        return self.algorithm != "Saliency" or not dict(self.options).get("abs", True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.algorithm in REFUSED:
            raise ArgumentError(
                f"expected a captum attribution that visxai runs, got {self.algorithm}: "
                f"{REFUSED[self.algorithm]}, so choose one of {', '.join(sorted(NAMES))}"
            )
        if self.algorithm not in NAMES:
            raise UnknownName("captum attribution", self.algorithm, sorted(NAMES))
        taken, defaults, required = _arguments(self.algorithm)
        given = dict(self.options)
        for option in given:
            if option in HIDDEN or option not in taken:
                known = [*(taken - HIDDEN), *self._ours()]
                raise UnknownName(f"option of captum:{self.algorithm}", option, sorted(known))
        if missing := required - set(given):
            raise ArgumentError(
                f"expected captum:{self.algorithm} with {', '.join(sorted(missing))}: see captum's "
                "documentation for values"
            )
        ours = self._ours()
        for name in ("baseline", "grid", "seed"):
            value = getattr(self, name)
            if name not in ours and value is not None:
                raise ArgumentError(
                    f"expected captum:{self.algorithm} without {name}, which it has no use for, "
                    f"got {name}={value!r}"
                )
            object.__setattr__(self, name, ours.get(name) if value is None else value)
        self._require((self.grid or 1) >= 1, "a grid of at least 1 cell a side", self.grid)
        object.__setattr__(self, "options", tuple({**defaults, **given}.items()))

    def _ours(self) -> dict[str, Any]:
        """Return the options of visxai that this algorithm takes, with their defaults."""
        taken = _arguments(self.algorithm)[0]
        return {
            **({"baseline": 0.0} if "baselines" in taken else {}),
            **({"grid": 8} if "feature_mask" in taken else {}),
            **({"seed": 0} if self.algorithm in DRAWN else {}),
        }

    @classmethod
    def of(cls, member: str, options: Mapping[str, Any]) -> Method:
        """Build the attribution `member` names; raise ArgumentError without a member."""
        if not member:
            raise ArgumentError(
                "expected captum:NAME, got captum alone: choose a NAME of "
                f"{', '.join(sorted(NAMES))}"
            )
        ours = {name: options[name] for name in ("baseline", "grid", "seed") if name in options}
        rest = tuple((name, value) for name, value in options.items() if name not in ours)
        return cls(member, **ours, options=rest)

    def __repr__(self) -> str:
        ours = [(name, getattr(self, name)) for name in ("baseline", "grid", "seed")]
        given = [*((name, value) for name, value in ours if value is not None), *self.options]
        return f"captum:{self.algorithm}({', '.join(f'{n}={v!r}' for n, v in given)})"

    __str__ = __repr__

    @property
    def brief(self) -> str:
        """The spec: captum's own defaults aren't told from what was given."""
        return repr(self)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        baseline = None
        if self.baseline is not None:
            baseline = baseline_like(x, self.baseline).expand_as(x)
        name = model.ref.name

        def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
            self._check(network, name)
            paint = None if baseline is None else baseline[aim.rows[which]]
            try:
                return self._attributed(network, inputs, which, paint)
            except (RuntimeError, AssertionError) as error:
                if is_out_of_memory(error):
                    raise
                raise ModelError(
                    f"expected a model that captum's {self.algorithm} can explain, but with "
                    f"{name} it says {str(error).split('. ')[0]!r}: use another method"
                ) from error

        maps = model.through(x, aim, run)
        if self.algorithm != "DeepLift":
            return Maps(maps)
        assert baseline is not None
        start = model.values(
            Rows(len(x), 1, tuple(x.shape[1:]), lambda image, _: baseline[image]), aim
        )[:, 0]
        return Maps(maps, {"completeness": _completeness(maps, clean - start, name)})

    def cost(self, model: Model, x: Tensor) -> Cost:
        """Count the rows by running the algorithm once on a network that only counts."""
        count = Count()
        one = x[:1].detach().float().clone()
        with torch.inference_mode(False), torch.enable_grad():
            paint = None if self.baseline is None else torch.zeros_like(one)
            self._attributed(count, one, torch.zeros(1, dtype=torch.long, device=x.device), paint)
        return Cost(1 + count.forwards + (self.algorithm == "DeepLift"), count.backwards)

    def _check(self, network: nn.Module, name: str) -> None:
        """Refuse a model on which the algorithm would be the plain gradient under another name."""
        if self.algorithm in RECTIFIED and not any(
            isinstance(part, nn.ReLU) for part in network.modules()
        ):
            raise ModelError(
                f"expected a model with torch.nn.ReLU modules, the only ones that captum's "
                f"{self.algorithm} changes, but {name} has none: use input_x_gradient or saliency"
            )

    def _attributed(
        self, network: nn.Module, inputs: Tensor, which: Tensor, baseline: Tensor | None
    ) -> Tensor:
        """Compute the maps (n, h, w), float32, of inputs (n, c, h, w)."""
        if self.seed is not None and len(inputs) > 1:
            # Captum draws for the batch as a whole; row by row, every row gets the same draws.
            return torch.cat(
                [
                    self._attributed(
                        network,
                        inputs[i : i + 1],
                        which[i : i + 1],
                        None if baseline is None else baseline[i : i + 1],
                    )
                    for i in range(len(inputs))
                ]
            )
        setup = _setup(self.algorithm)
        options = dict(self.options)
        arguments = {name: value for name, value in options.items() if name not in setup}
        if baseline is not None:
            arguments["baselines"] = baseline
        if self.grid is not None:
            grid = (min(self.grid, inputs.shape[2]), min(self.grid, inputs.shape[3]))
            mask = cells(tuple(inputs.shape[2:]), grid).to(inputs.device)
            arguments["feature_mask"] = mask.repeat(inputs.shape[1], 1, 1).unsqueeze(0)
        with _quiet(self.seed, inputs.device):
            attribution = _algorithm(self.algorithm)(
                network, **{name: value for name, value in options.items() if name in setup}
            )
            if self.algorithm in FITTED:
                attribution.interpretable_model = _ridge(FITTED[self.algorithm])
            found = attribution.attribute(
                inputs, target=0, additional_forward_args=(which,), **arguments
            )
        maps: Tensor = found.detach().float()
        return maps.mean(1) if self.algorithm in PERTURBED else maps.sum(1)


class Count(nn.Module):
    """A network that outputs the sum of each input, and counts its rows in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        """Sum each input (n, c, h, w) to a score (n, 1), and count the rows."""
        self.forwards += len(x)
        out = x.flatten(1).sum(1, keepdim=True)
        if out.requires_grad:
            out.register_hook(self._back)  # type: ignore[no-untyped-call]
        return out

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@contextmanager
def _quiet(seed: int | None, device: torch.device) -> Iterator[None]:
    """Serialise captum's calls: mute its warnings, seed the global generators and restore them."""
    on_gpu = device.type == "cuda"
    with _LOCK, warnings_of():
        if seed is None:
            yield
            return
        state = np.random.get_state()  # noqa: NPY002
        with torch.random.fork_rng([device] if on_gpu else []):
            try:
                np.random.seed(seed)  # noqa: NPY002
                torch.default_generator.manual_seed(seed)
                if on_gpu:
                    with torch.cuda.device(device):
                        torch.cuda.manual_seed(seed)
                yield
            finally:
                np.random.set_state(state)  # noqa: NPY002


def _completeness(maps: Tensor, change: Tensor, name: str) -> Tensor:
    """Measure the relative error of each map's sum (r,); raise ModelError beyond 10 %.

    Args:
        maps: Maps (r, h, w).
        change: The score's change from the baseline to the image (r,).
        name: The model's name, for the error.
    """
    missing = (maps.sum((1, 2)) - change).abs()
    # Where contributions cancel, rounding makes the relative error of the change meaningless.
    scale = torch.maximum(change.abs(), 0.05 * maps.abs().sum((1, 2)))
    worst = float((missing / scale.clamp_min(1e-6)).max()) if len(maps) else 0.0
    if worst > INCOMPLETE:
        raise ModelError(
            f"expected DeepLift's contributions to add up to the score's change, but for {name} "
            f"they miss it by {worst:.0%}, since it has activations that captum can't follow "
            "(of another kind, called as functions, or used twice): use integrated_gradients"
        )
    return missing / change.abs().clamp_min(0.01)


def _algorithm(name: str) -> Any:
    with _LOCK, warnings_of():
        from captum import attr  # imports matplotlib, which only this method needs

        return getattr(attr, name)


@cache
def _setup(name: str) -> frozenset[str]:
    """List the arguments of the constructor of a captum attribution."""
    return frozenset(inspect.signature(_algorithm(name).__init__).parameters)


@cache
def _arguments(name: str) -> tuple[frozenset[str], Mapping[str, Any], frozenset[str]]:
    """Inspect an attribution: its arguments, its options' defaults, and its required options."""
    signatures = [inspect.signature(part) for part in _parts(name)]
    every = {key: value for one in signatures for key, value in one.parameters.items()}
    plain = (bool, int, float, str, tuple)
    defaults = {
        key: value.default
        for key, value in every.items()
        if key not in HIDDEN and isinstance(value.default, plain)
    }
    required = {
        key
        for key, value in every.items()
        if key not in HIDDEN and value.default is inspect.Parameter.empty
    }
    return frozenset(every), defaults, frozenset(required)


def _parts(name: str) -> tuple[Any, Any]:
    found = _algorithm(name)
    return found.__init__, found.attribute


@cache
def _ridge_class() -> type[Any]:
    from captum._utils.models.model import Model as Fitted

    class Ridge(Fitted):  # type: ignore[misc]
        """Weighted ridge regression with a free intercept."""

        def __init__(self, alpha: float) -> None:
            self.alpha = alpha

        def fit(self, train_data: Any, **_: Any) -> None:
            rows = list(train_data)
            features, scores, weights = (
                torch.cat([row[i].double().cpu() for row in rows]) for i in range(3)
            )
            scores, weights = scores.reshape(-1, 1), weights.reshape(-1, 1)
            total = weights.sum()
            features = features - (weights * features).sum(0) / total
            scores = scores - (weights * scores).sum(0) / total
            gram = features.T @ (weights * features)
            gram += self.alpha * torch.eye(len(gram), dtype=gram.dtype)
            # The pseudo-inverse gives zero to weights that too few samples leave undetermined.
            self.weights: Tensor = torch.linalg.pinv(gram, hermitian=True) @ (
                features.T @ (weights * scores)
            )

        def representation(self) -> Tensor:
            return self.weights.T.to(torch.float32)

        def __call__(self, x: Tensor) -> Tensor:
            return x.double() @ self.weights

    return Ridge


def _ridge(alpha: float) -> Any:
    return _ridge_class()(alpha)
