"""Model randomisation: does the map change when what the model has learnt is destroyed?

    cascading:  value = mean over stages s of  Spearman( M, M_s )
    efficient:  value = (H(M_all) - H(M)) / H(M),    H the entropy of the map's histogram

M_s explains the same class of the model with the s first of `stages` parts of its parameters
drawn anew: part after part from the input up (`order='bottom_up'`) or from the scores down
('top_down'), the earlier ones staying random; M_all has none of the learnt ones left. Maps are
compared at native resolution, equal values sharing their mean rank, and a flat map's correlation
is 0. The curve `similarity` holds every stage, the figure `randomised` the last.

All parameters are drawn, attention's joint projections, class tokens and position embeddings
included, in the order the forward first meets them; parts hold about as many tensors. Each tensor
is drawn from a normal of its own mean and standard deviation (0.02 where that is zero), so that
signals keep their scale, the buffers of norms still fit and a half-random model still computes;
the paper draws as the architecture's initialisation does. The original model is left unchanged.

The efficient form needs a single map instead of `stages`. H counts `bins` equal bins between the
map's extremes, at pixel resolution; a good map's entropy rises as the features that it points at
are destroyed.

    metrics.load("model_randomisation(stages=8)")

Lower is better for the cascading form, higher for the efficient one. A low value is necessary, not
sufficient: noise that is drawn anew for every map also gets a low value.

Cost: `stages` times the method (efficient: once), and one forward for the order.
Source: Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018; Hedström et al., A fresh look
at sanity checks for saliency maps, xAI 2024 (efficient).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from visxai.methods._maps import upsample
from visxai.metrics.base import Ask, Case, Metric, Scores, explained, rank_correlation
from visxai.models.interface import Need
from visxai.models.probe import Probe
from visxai.models.pytorch.model import TorchModel
from visxai.target import Settled


@dataclass(frozen=True, repr=False)
class ModelRandomisation(Metric):
    """Similarity to the maps of a randomised model; see the module's docstring.

    Attributes:
        form: 'cascading' or 'efficient'.
        order: 'bottom_up' or 'top_down'.
        stages: Parts of the parameters that are drawn one after the other.
        bins: Bins of the histogram of the efficient form.
        seed: Seed of the parameters.
    """

    form: Literal["cascading", "efficient"] = "cascading"
    order: Literal["bottom_up", "top_down"] = "bottom_up"
    stages: int = 8
    bins: int = 100
    seed: int = 0

    asks = Ask.MAPS | Ask.METHOD
    needs = Need.MODULE
    better = "lower"

    def __post_init__(self) -> None:
        super().__post_init__()
        forms, orders = ("cascading", "efficient"), ("bottom_up", "top_down")
        self._require(self.form in forms, f"a form of {' or '.join(forms)}", self.form)
        self._require(self.order in orders, f"an order of {' or '.join(orders)}", self.order)
        self._require(self.stages >= 1, "at least 1 stage", self.stages)
        self._require(self.bins >= 2, "at least 2 bins", self.bins)
        if self.form == "efficient":  # the better direction depends on the form
            object.__setattr__(self, "better", "higher")

    def score(self, case: Case) -> Scores:
        assert case.method is not None
        plain = case.plain
        assert isinstance(plain, TorchModel)
        case.method.layer_of(
            plain, case.x
        )  # chooses the layer on the model with its learnt parameters
        module = copy.deepcopy(plain.pristine)
        tensors = in_order(plain.with_module(module), case.x)
        drawn = {id(t): number for number, t in enumerate(tensors)}
        if self.order == "top_down":
            tensors = tensors[::-1]
        stages = 1 if self.form == "efficient" else min(self.stages, len(tensors))
        target, similarity = Settled.on_aim(case.target, case.aim), []
        maps = case.native
        for stage in range(stages):
            low, high = (len(tensors) * (stage + step) // stages for step in (0, 1))
            for tensor in tensors[low:high]:
                redraw(tensor, self.seed + 1_000_003 * drawn[id(tensor)])
            # A new model each time, without what was cached about the last one.
            model = plain.with_module(module)
            maps = explained(case.method, Probe(model, case.x), case.x, target)
            similarity.append(rank_correlation(case.native.flatten(1), maps.flatten(1)))
        if self.form == "efficient":
            size = tuple(case.x.shape[2:])
            before, after = (entropy(m, self.bins) for m in (case.pixels, upsample(maps, size)))
            rise = torch.where(before > 0, (after - before) / before, torch.nan)
            return Scores(rise, {"entropy": before, "randomised_entropy": after})
        curve = torch.stack([torch.ones_like(similarity[0]), *similarity], 1)
        axis = torch.arange(stages + 1, device=curve.device) / stages
        return Scores(
            curve[:, 1:].mean(1), {"randomised": curve[:, -1]}, {"similarity": curve}, axis
        )


def in_order(model: TorchModel, x: Tensor) -> list[nn.Parameter]:
    """List every parameter of the model's module once, in the order of the forward on x.

    The order is that in which the forward first enters the modules that own the parameters; those
    of a module that is never entered follow its parent's.
    """
    entered: dict[nn.Module, int] = {}

    def enter(part: nn.Module, _: Any) -> None:
        entered.setdefault(part, len(entered))

    parts = dict(model.module.named_modules())
    handles = [part.register_forward_pre_hook(enter) for part in parts.values()]
    try:
        model.scores(x[:1])
    finally:
        for handle in handles:
            handle.remove()

    def place(name: str) -> int:
        while name and parts[name] not in entered:
            name = name.rpartition(".")[0]
        return entered.get(parts[name], 0)

    found: dict[int, nn.Parameter] = {}
    for name in sorted(parts, key=place):
        for tensor in parts[name].parameters(recurse=False):
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def redraw(tensor: Tensor, seed: int) -> None:
    """Fill a float tensor, in place, from a normal of its own mean and standard deviation.

    The standard deviation is 0.02 for a constant tensor; other types of tensors are left unchanged.
    """
    if not tensor.is_floating_point():
        return
    plain = tensor.detach().float()
    spread = float(plain.std(correction=0)) or 0.02
    draws = torch.randn(plain.shape, generator=torch.Generator().manual_seed(seed))
    tensor.data.copy_(float(plain.mean()) + spread * draws)


def entropy(maps: Tensor, bins: int) -> Tensor:
    """Compute the entropy (r,) in nats of the histogram of maps (r, h, w), 0 for a flat map."""
    flat = maps.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    place = (flat - low) / torch.where(high > low, high - low, 1) * bins
    index = place.long().clamp(max=bins - 1)
    counts = torch.zeros(len(flat), bins, device=maps.device)
    counts.scatter_add_(1, index, torch.ones_like(flat))
    found: Tensor = torch.special.entr(counts / flat.shape[1]).sum(1)
    return found
