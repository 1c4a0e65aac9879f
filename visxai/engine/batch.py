"""The steps that turn a prepared batch into records."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visxai import methods
from visxai.engine.acceleration import Plan
from visxai.engine.explained import Explained
from visxai.engine.gate import Gate, is_right
from visxai.engine.records import FIGURE, Computed, records, reported_scores, result_of, scored
from visxai.engine.transfer import Transfer
from visxai.errors import ArgumentError, Failure, OutOfMemory
from visxai.images.prepared import Prepared
from visxai.methods.base import Maps, Method
from visxai.metrics.base import Case, Check
from visxai.models.budget import is_out_of_memory
from visxai.models.devices import versions
from visxai.models.interface import Model
from visxai.models.probe import Probe
from visxai.models.pytorch.agreement import three_rows
from visxai.models.pytorch.narrow import disagreement
from visxai.record.image import ImageExplanation
from visxai.target import Target

Results = list[Explained | Failure]

# What an error about a method that the model can't serve names first: one of each family.
_FIRST = ("grad_cam", "layer_cam", "integrated_gradients", "occlusion", "rise")


def compute(method: Method, model: Model, x: Tensor, target: Target) -> Maps:
    """Compute a method's maps, whatever grad mode the caller is in.

    Args:
        method: The method; it enables gradients itself where it needs them.
        model: The model that it asks.
        x: Inputs (b, 3, h, w) in model space, on the model's device.
        target: What to explain.

    Returns:
        The maps, one for each row that the target aims at.
    """
    with torch.inference_mode(False), torch.no_grad():
        # A clone leaves inference mode, whose tensors can't be saved for a backward.
        return method(model, x.clone() if x.is_inference() else x, target)


def reported(probe: Probe, x: Tensor, target: Target) -> Tensor:
    """Return the score that the model reports for each map of a batch.

    Args:
        probe: The model as this batch sees it.
        x: Inputs (b, 3, h, w) in model space.
        target: What is explained.

    Returns:
        (r,) the probability of each map's class. For a set of classes it is the sum of their
        probabilities where they exclude each other (softmax) and the greatest otherwise; for a
        callable it is the callable's value.
    """
    case = Case(probe, x, target)
    return case.clean(case.certainty)


def tidy(values: Tensor) -> tuple[Tensor, Tensor]:
    """Make maps finite float32, and mark the degenerate ones.

    Args:
        values: Maps (r, u, v).

    Returns:
        The maps (r, u, v) float32, all zero in place of a map with a value that isn't finite; and
        (r,) bool, whether each map was degenerate, that is flat or not finite.
    """
    finite = values.isfinite().flatten(1).all(1)
    values = torch.where(finite[:, None, None], values, torch.zeros_like(values)).float()
    low, high = values.flatten(1).aminmax(dim=1)
    peak = torch.maximum(low.abs(), high.abs())
    return values, ~finite | (high - low <= 1e-6 * peak)


@dataclass(frozen=True, eq=False)
class BatchExplainer:
    """Explains prepared batches: gates them, computes the maps, assembles the records.

    A batch's records are made when they are asked for. On a GPU, which computes by itself once a
    batch is begun, the next one can be begun before that (`ahead`).

    Attributes:
        model: The model.
        device: Where it runs.
        plan: What is decided on precision and acceleration. Where the precision was left to the
            engine, a method whose maps don't bear half precision computes in float32, and so does a
            network whose scores don't.
        transfer: The way of inputs to the device and of maps back.
        refused: Why the network doesn't bear it, "" where it does, for each size of input.
    """

    model: Model
    device: torch.device
    plan: Plan
    transfer: Transfer
    refused: dict[tuple[int, ...], str] = field(default_factory=dict)

    @property
    def ahead(self) -> int:
        """Return how many batches are begun before the records of an earlier one are made."""
        return self.transfer.streams.ahead

    def begin(
        self,
        batch: Sequence[Prepared | Failure],
        loaded: Sequence[Method],
        target: Target,
        only: Gate | None = None,
        check: Check | None = None,
    ) -> Callable[[], Results]:
        """Begin to explain a prepared batch; see `Engine.begin_prepared`.

        Blocks of rows shrink by themselves when memory runs out. What a batch needs besides them
        (its inputs, the samples of a path method) doesn't, so then the batch is halved.

        Raises:
            OutOfMemory: a single image doesn't fit.
        """
        try:
            return self._begin(batch, loaded, target, only, check)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the `except`: inside, the traceback would keep the batch's tensors alive.
        self._make_room(len(batch))
        middle = len(batch) // 2
        halves = (
            (batch[:middle], target.part(0, middle)),
            (batch[middle:], target.part(middle, len(batch))),
        )
        begun = [self.begin(half, loaded, part, only, check) for half, part in halves]
        return lambda: [result for finish in begun for result in finish()]

    def attribute(self, x: Tensor, method: Method, target: Target) -> Tensor:
        """Compute the tidy maps (r, u, v) of inputs x (b, 3, h, w), halved where memory runs out.

        Raises:
            OutOfMemory: a single image doesn't fit.
        """
        try:
            return tidy(self.maps(Probe(self.suited(x, method), x), x, method, target).values)[0]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._make_room(len(x))
        middle = len(x) // 2
        first, second = target.part(0, middle), target.part(middle, len(x))
        halves = ((x[:middle], first), (x[middle:], second))
        return torch.cat([self.attribute(half, method, aimed) for half, aimed in halves])

    def suited(self, x: Tensor, method: Method | None = None) -> Model:
        """Return the model in the engine's precision, or in float32 where that was left to choose.

        Args:
            x: inputs (b, c, h, w); the first of a size check whether the network bears it.
            method: the method to compute; None asks for the scores alone.
        """
        precision = self.plan.precision
        if precision == self.model.precision or (method is not None and not method.bears_half):
            return self.model
        half, size = self.model.in_precision(precision), tuple(x.shape[1:])
        if size not in self.refused:
            rows = three_rows(x)
            self.refused[size] = disagreement(half.scores(rows), self.model.scores(rows))
        return self.model if self.refused[size] else half

    def _precision(self, probe: Probe, x: Tensor) -> str:
        """Describe the precision that a probe computes in, for a record."""
        why = self.refused.get(tuple(x.shape[1:]))
        if probe.precision == self.plan.precision or not why:
            return probe.precision
        return f"{probe.precision} (not {self.plan.precision}: {why})"

    def _make_room(self, images: int) -> None:
        """Free what the allocator keeps on a GPU, or raise OutOfMemory if `images` is 1."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if images <= 1:
            raise OutOfMemory(
                "expected one image's inputs and maps to fit in memory, but they did not: use a "
                "smaller input or fewer steps, or free the device's memory"
            )

    def _begin(
        self,
        batch: Sequence[Prepared | Failure],
        loaded: Sequence[Method],
        target: Target,
        only: Gate | None,
        check: Check | None,
    ) -> Callable[[], Results]:
        good = [(index, item) for index, item in enumerate(batch) if isinstance(item, Prepared)]
        if not good:
            failures: Results = [item for item in batch if isinstance(item, Failure)]
            return lambda: failures
        everyone = [item for _, item in good]
        whole = self.tensor([item.pixels for item in everyone])
        probe = clean = Probe(self.suited(whole), whole)
        x = whole
        gated: list[float] | None = None
        if only is not None:
            at = reported(probe, x, only.target)
            passes = only.open(at)
            if only.right is None:
                gated = at.tolist()
            else:
                passes = is_right(probe, x, [item.expected for item in everyone], only.right)
            keep = passes.nonzero().squeeze(1)
            good = [good[row] for row in keep.tolist()]
            probe, x = probe.part(keep)
        computed: list[Computed] = []
        if good:
            if target.kind == "index":
                target = Target.of([target.classes[index] for index, _ in good])
            items = [item for _, item in good]
            for method in loaded:
                probe = probe.fresh()
                computed.append(self._computed(probe, x, items, method, target, check))
        # The gate or the methods have already computed the clean scores: this costs no forward.
        known = probe if only is None else clean
        told = reported_scores(self.model, known.scores(whole))
        parts = [told, *(one.tensors for one in computed)]
        coming = self.transfer.download([t for part in parts for t in part.values()])
        places = [index for index, _ in good]

        def finish() -> Results:
            there = iter(coming.result())
            scores, *maps = ({name: next(there) for name in part} for part in parts)
            found: dict[int, list[ImageExplanation]] = {}
            for one, tensors in zip(computed, maps, strict=True):
                # The device's seconds between the two moments, less the host's for preparing faster
                # forms. A GPU may have spent some of those on an earlier batch, before the first
                # moment: then the difference is too small, and 0 at the least.
                between = self.transfer.streams.seconds(one.began, one.ended)
                spent = max(0.0, between - one.prepared)
                for row, explanation in records(self.model, one, tensors, spent):
                    found.setdefault(places[row], []).append(explanation)
            each = scored(self.model, scores, everyone, gated)
            return [
                item if isinstance(item, Failure) else result_of(item, found.get(index, ()), each)
                for index, item in enumerate(batch)
            ]

        return finish

    def tensor(self, pixels: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        """Stack and normalise prepared pixels into the model's input.

        Args:
            pixels: The `pixels` of prepared images.

        Returns:
            (b, c, h, w) float32 in model space, on the model's device.
        """
        assert self.model.preprocess is not None
        return self.model.preprocess.normalise(self.transfer.upload(pixels))

    def _computed(
        self,
        probe: Probe,
        x: Tensor,
        items: Sequence[Prepared],
        method: Method,
        target: Target,
        check: Check | None,
    ) -> Computed:
        """Compute a method's maps and figures of x (b, 3, h, w), without waiting for them."""
        suited, streams = self.suited(x, method), self.transfer.streams
        if suited.precision != probe.precision:
            probe = Probe(suited, x)
        began, prepared = streams.moment(), self.plan.prepared
        maps = self.maps(probe, x, method, target)
        aim, logits = probe.clean(x, target)
        shown = reported(probe, x, target)
        values, degenerate = tidy(maps.values)
        # The seconds of the maps alone: without a check, and without preparing faster forms.
        ended, prepared = streams.moment(), self.plan.prepared - prepared
        figures, reran = dict(maps.quality), probe.reran  # not what the check itself runs again
        if check is not None:
            figures.update(check.quality(Case(probe, x, target, values, method)))
        tensors = {
            "values": values,
            "degenerate": degenerate,
            "scores": shown,
            "logits": logits,
            "rows": aim.rows,
            "reran": reran,
            **({} if aim.classes is None else {"classes": aim.classes}),
            **{FIGURE + name: figure for name, figure in figures.items()},
        }
        common: dict[str, Any] = {
            "model": self.model.ref,
            "method": repr(method),
            "two_sided": method.two_sided,
            "target": str(target),
            "layer": method.layer_of(probe, x),
            "device": str(self.device),
            "accelerate": self.plan.described(probe.accelerated(method.needs)),
            "versions": versions(),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        precision = self._precision(probe, x)
        return Computed(tensors, items, target, precision, began, ended, prepared, common)

    def check(self, method: Method) -> None:
        """Raise ArgumentError, which names methods to take, if the model can't serve `method`."""
        missing = method.needs & ~self.model.offers
        if missing:
            remedy = self.model.remedy(missing)
            usable = [
                name
                for name in methods.names()
                if methods.find(name).needs & ~self.model.offers == type(missing)(0)
            ]
            first = [name for name in _FIRST if name in usable] or usable[:4]
            listed = f"use one of {', '.join(first)}"
            if len(usable) > len(first):
                listed += (
                    f", or of {len(usable) - len(first)} more (`visxai methods` and "
                    "visxai.methods.names() list all with what they need)"
                )
            raise ArgumentError(
                f"expected a method that {self.model.ref.name} can serve, but {method.name()} "
                f"needs {missing}: {f'{remedy}, or ' if remedy else ''}{listed}"
            )

    def maps(self, model: Model, x: Tensor, method: Method, target: Target) -> Maps:
        """Compute a method's maps, once it is known that the model can serve it."""
        self.check(method)
        return compute(method, model, x, target)
