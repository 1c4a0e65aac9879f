"""The steps that turn a prepared batch into records."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visxai import methods
from visxai.engine.acceleration import Plan
from visxai.engine.explained import Explained
from visxai.engine.gate import Gate, is_right
from visxai.errors import ArgumentError, Failure, OutOfMemory
from visxai.images.prepared import Prepared
from visxai.labels import label_of
from visxai.methods.base import Maps, Method
from visxai.metrics.base import Case, Check
from visxai.models.budget import is_out_of_memory
from visxai.models.devices import versions
from visxai.models.interface import Model
from visxai.models.probe import Probe
from visxai.models.pytorch.agreement import three_rows
from visxai.models.pytorch.narrow import disagreement
from visxai.record.image import ImageExplanation
from visxai.record.scores import TOP, Scores
from visxai.target import Target, set_label

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


def _plain(figure: Any) -> Any:
    """Replace a NaN or infinite figure by None, since JSON has neither; flags and integers pass."""
    return figure if isinstance(figure, (bool, int)) or np.isfinite(figure) else None


@dataclass(frozen=True, eq=False)
class BatchExplainer:
    """Explains prepared batches: gates them, computes the maps, assembles the records.

    Attributes:
        model: The model.
        device: Where it runs.
        plan: What is decided on precision and acceleration. Where the precision was left to the
            engine, a method whose maps don't bear half precision computes in float32, and so does a
            network whose scores don't.
        refused: Why the network doesn't bear it, "" where it does, for each size of input.
    """

    model: Model
    device: torch.device
    plan: Plan
    refused: dict[tuple[int, ...], str] = field(default_factory=dict)

    def explain(
        self,
        batch: Sequence[Prepared | Failure],
        loaded: Sequence[Method],
        target: Target,
        only: Gate | None = None,
        check: Check | None = None,
    ) -> list[Explained | Failure]:
        """Explain a prepared batch; see `Engine.explain_prepared`.

        Blocks of rows shrink by themselves when memory runs out. What a batch needs besides them
        (its inputs, the samples of a path method) doesn't, so then the batch is halved.

        Raises:
            OutOfMemory: a single image doesn't fit.
        """
        try:
            return self._explain(batch, loaded, target, only, check)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the `except`: inside, the traceback would keep the batch's tensors alive.
        self._make_room(len(batch))
        middle = len(batch) // 2
        first, second = target.part(0, middle), target.part(middle, len(batch))
        return [
            *self.explain(batch[:middle], loaded, first, only, check),
            *self.explain(batch[middle:], loaded, second, only, check),
        ]

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

    def _explain(
        self,
        batch: Sequence[Prepared | Failure],
        loaded: Sequence[Method],
        target: Target,
        only: Gate | None,
        check: Check | None,
    ) -> list[Explained | Failure]:
        good = [(index, item) for index, item in enumerate(batch) if isinstance(item, Prepared)]
        if not good:
            return [item for item in batch if isinstance(item, Failure)]
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
        found: dict[int, list[ImageExplanation]] = {}
        if good:
            if target.kind == "index":
                target = Target.of([target.classes[index] for index, _ in good])
            items = [item for _, item in good]
            for method in loaded:
                probe = probe.fresh()
                rows = self._explained(probe, x, items, method, target, check)
                for row, explanation in rows:
                    found.setdefault(good[row][0], []).append(explanation)
        # The gate or the methods have already computed the clean scores: this costs no forward.
        known = probe if only is None else clean
        scored = iter(self._scored(known.scores(whole), everyone, gated))
        results: list[Explained | Failure] = []
        for index, item in enumerate(batch):
            if isinstance(item, Failure):
                results.append(item)
                continue
            scores, best = next(scored)
            mine = tuple(replace(one, top_scores=scores.top) for one in found.get(index, ()))
            right = None if item.expected is None else best == item.expected
            scores = replace(scores, explained=bool(mine))
            results.append(Explained(item.input, mine, scores, right))
        return results

    def _scored(
        self, scores: Tensor, items: Sequence[Prepared], gated: Sequence[float] | None
    ) -> Iterator[tuple[Scores, int]]:
        """Yield each image's greatest scores as the model reports them, and its best class.

        Args:
            scores: The model's raw scores (b, k).
            items: The images of the batch.
            gated: The score that the gate compared, for each image; None without a gate on scores.
        """
        classes = scores.topk(min(TOP, scores.shape[1]), dim=1).indices
        values = self.model.probabilities(scores).gather(1, classes)
        best = scores.argmax(1).tolist()
        for row, (top, told) in enumerate(zip(classes.tolist(), values.tolist(), strict=True)):
            labels = tuple(label_of(self.model.labels, index) for index in top)
            gate = None if gated is None else gated[row]
            yield Scores(items[row].input.path, tuple(top), labels, tuple(told), gate), best[row]

    def tensor(self, pixels: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        """Stack and normalise prepared pixels into the model's input.

        Args:
            pixels: The `pixels` of prepared images.

        Returns:
            (b, c, h, w) float32 in model space, on the model's device.
        """
        assert self.model.preprocess is not None
        stacked = torch.from_numpy(np.stack(pixels))
        if self.device.type == "cuda":
            stacked = stacked.pin_memory().to(self.device, non_blocking=True)
        return self.model.preprocess.normalise(stacked.to(self.device))

    def _explained(
        self,
        probe: Probe,
        x: Tensor,
        items: Sequence[Prepared],
        method: Method,
        target: Target,
        check: Check | None,
    ) -> Iterator[tuple[int, ImageExplanation]]:
        suited = self.suited(x, method)
        if suited.precision != probe.precision:
            probe = Probe(suited, x)
        began, prepared = time.perf_counter(), self.plan.prepared
        maps = self.maps(probe, x, method, target)
        aim, logits = probe.clean(x, target)
        shown = reported(probe, x, target)
        values, degenerate = tidy(maps.values)
        # One copy of all maps to the host instead of one a map.
        native = values.cpu().numpy()
        reran = probe.reran.cpu().tolist()
        # The seconds of the maps alone: without a check, and without preparing faster forms.
        seconds = time.perf_counter() - began - (self.plan.prepared - prepared)
        figures = dict(maps.quality)
        if check is not None:
            figures.update(check.quality(Case(probe, x, target, values, method)))
        quality = {name: figure.cpu().tolist() for name, figure in figures.items()}
        rows, flat = aim.rows.tolist(), degenerate.cpu().tolist()
        classes = [None] * len(rows) if aim.classes is None else aim.classes.tolist()
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
            "seconds": seconds / max(1, len(rows)),
        }
        for j, (row, score, logit) in enumerate(
            zip(rows, shown.tolist(), logits.tolist(), strict=True)
        ):
            yield (
                row,
                ImageExplanation(
                    input=items[row].input,
                    source=items[row].source,
                    id=items[row].id,
                    values=native[j],
                    class_index=classes[j],
                    label=self._label(target, classes[j]),
                    score=score,
                    logit=logit,
                    degenerate=flat[j],
                    precision=self._precision(probe, x) + " (rerun in fp32)" * reran[row],
                    quality={name: _plain(figure[j]) for name, figure in quality.items()},
                    **common,
                ),
            )

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

    def _label(self, target: Target, class_index: int | None) -> str:
        if class_index is None:
            return target.text
        if target.kind == "any":
            return target.name or set_label(self.model.labels, target.classes)
        label = label_of(self.model.labels, class_index)
        if target.kind == "diff":
            return f"{label} rather than {label_of(self.model.labels, target.classes[1])}"
        return label
