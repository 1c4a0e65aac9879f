"""The engine, which turns images into explanations in batches on one device.

It reads its input images and writes no files.

engine = Engine("efficientnet_lite0")
results = engine.explain(["cat.jpg"], method="grad_cam", target="top1")
"""

from __future__ import annotations

import copy
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from visxai import methods, metrics
from visxai.engine import comparing, redaction, reproduction
from visxai.engine.acceleration import Plan
from visxai.engine.batch import BatchExplainer, Results, reported
from visxai.engine.decision import Decision
from visxai.engine.explained import Explained
from visxai.engine.gate import Gate
from visxai.engine.given import (
    checked_ids,
    counted,
    identified,
    in_batches,
    iterate_images,
    list_images,
)
from visxai.engine.transfer import transfer_of
from visxai.errors import ArgumentError, Failure, ImageError
from visxai.images import decoding, objects
from visxai.images.address import Origin
from visxai.images.prepared import Prepared
from visxai.images.preprocess import Preprocess
from visxai.labels import label_of
from visxai.methods._maps import upsample
from visxai.methods.base import Method
from visxai.metrics.base import Check, Metric
from visxai.models import cards, loading
from visxai.models.budget import RowBudget, is_out_of_memory
from visxai.models.devices import PRECISIONS, pick_device
from visxai.models.interface import Model
from visxai.models.probe import Probe
from visxai.process import collect_as_usual, keep_memory
from visxai.record.collection import Explanations
from visxai.record.image import ImageExplanation, Prediction
from visxai.references import ImageRef
from visxai.spec import split_specs
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.labels import Labels
    from visxai.models.interface import Activation

Methods = str | Method | Sequence[str | Method]


class Engine:
    """An explainer of images with one model on one device.

    An engine may be used from several threads at once. It notices weights that are updated in
    place, except edits through `.data` (docs/design.md). On a CPU the process keeps the memory it
    frees for its next forward (`visxai.process.keep_memory`).

    Args:
        model: A name (`visxai models`), "torchvision:…", "timm:…", "hf:…", "onnx:FILE",
            "keras:FILE", a Keras model, or an nn.Module, which is left as it is: visxai runs a copy
            that shares its weights. Batch norms need running statistics, so that images of a batch
            don't change each other's scores. A Hugging Face image classification pipeline stands
            for its module, and a function from pixels (n, c, h, w) to scores (n, k) serves the
            methods that need nothing but scores.
        preprocess: The preprocessing. This and the next four arguments complete or override what
            the model knows about itself.
        labels: Names of the classes, or a file of them; for a CLIP-like model the prompts that it
            compares images with.
        activation: What turns scores into probabilities: "softmax", "sigmoid" or "none".
        layer: The layer, or layers, that methods look at where they name none.
        output: A function from what the model returns to its scores (n, k).
        checkpoint: A file of weights for a torchvision or timm architecture.
        device: "auto" (CUDA if available; a module of your own stays where it is) or a torch
            device.
        precision: "auto", "fp32", "bf16" or "fp16", of the model's forward and backward. "auto" is
            half precision once a run is long enough to earn its preparation back, where this
            machine was measured to gain by it; gradients at the input, and networks whose scores
            it changes, stay in float32. Maps are always float32. Rows that half precision loses are
            computed again in float32, which the image's record says. fp32 on a GPU runs without
            TF32.
        accelerate: "auto", "off", "onnx", "openvino" or "compile": how to run forwards that need no
            autograd graph, and gradients at the input. "auto" chooses it together with the
            precision, by what was measured of the model on this machine; records say what ran.
        batch_size: The images of a batch and the rows of one forward; None is 16, and 64 on CUDA,
            where forwards over many rows (windows, masks, adaptive points of a path) grow to 512 as
            long as memory allows. Mean slopes take a path's points in one forward, image by image.

    Raises:
        ArgumentError: If an argument has an unknown value, or two don't go together.
        ModelError: If the model or its weights can't be loaded.
    """

    def __init__(
        self,
        model: str | nn.Module | Model | Callable[[Tensor], Any] = cards.DEFAULT,
        *,
        preprocess: Any = None,
        labels: Labels | None = None,
        activation: Activation | None = None,
        layer: str | nn.Module | Sequence[str | nn.Module] | None = None,
        output: Any = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device = "auto",
        precision: str = "auto",
        accelerate: str = "auto",
        batch_size: int | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ArgumentError(
                f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}: use 'auto'"
            )
        if activation not in (None, "softmax", "sigmoid", "none"):
            raise ArgumentError(
                f"expected an activation of softmax, sigmoid or none, got {activation!r}"
            )
        if batch_size is not None and batch_size < 1:
            raise ArgumentError(f"expected a batch_size of at least 1, got {batch_size}")
        given = {
            "preprocess": preprocess,
            "labels": labels,
            "activation": activation,
            "layer": layer,
            "output": output,
        }
        if isinstance(model, str):
            self.model = loading.load(
                model, device=pick_device(device), checkpoint=checkpoint, **given
            )
        elif checkpoint is not None:
            raise ArgumentError(
                "expected checkpoint= with a model's name, got it with a model: load the weights "
                "into the module before"
            )
        elif isinstance(model, Model):
            # A copy over the same network: precision, rows and acceleration are this engine's.
            self.model = copy.copy(model)
        else:
            self.model = loading.wrap(model, device, given)
        self.device = self.model.device
        if self.device.type == "cpu":
            keep_memory()
        collect_as_usual()
        usual, most = (64, 512) if self.device.type == "cuda" else (16, 16)
        self.batch_size = batch_size or usual
        self.model.budget = RowBudget(self.batch_size, batch_size or most)
        self._plan = Plan(self.model, accelerate, precision)
        self._batches = BatchExplainer(
            self.model, self.device, self._plan, transfer_of(self.device)
        )

    def __repr__(self) -> str:
        return (
            f"Engine({self.model.ref.name!r}, device={str(self.device)!r}, "
            f"precision={self.precision!r}, accelerate={self.accelerate!r}, "
            f"batch_size={self.batch_size})"
        )

    @property
    def precision(self) -> str:
        """Return the precision decided so far: "fp32", "bf16" or "fp16"."""
        return self._plan.precision

    @property
    def accelerate(self) -> str:
        """Return the acceleration decided so far: "off", "onnx", "openvino" or "compile"."""
        return self._plan.decision.kind

    def plan(self, method: Methods, images: int, *, of_check: bool = False) -> str:
        """Decide on precision and acceleration for a run of `images` more images.

        Args:
            method: The methods of the run.
            images: The number of images to come.
            of_check: Whether these are the images that a check or a metric scores, which don't make
                the run itself longer.

        Returns:
            The reason of the decision on acceleration, as a phrase for records.
        """
        if not of_check:
            self._plan.expect(images)
        if self._plan.open and isinstance(self.model.preprocess, Preprocess):
            try:
                blank = self.tensor([self.model.preprocess.blank()])
                example = functools.partial(self._example, blank)
                self._plan.consider(load_methods(method), blank, images, example)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):  # else the run itself says what to do
                    raise
        return self._plan.reason

    def _example(self, blank: Tensor) -> Tensor:
        """Return the photograph that travels with visxai as an input, or `blank` without colours.

        A run's own images aren't read yet when its forms are chosen.
        """
        from visxai.images.example import PHOTOGRAPH  # which a short run doesn't need

        prepared = self.prepare(PHOTOGRAPH, "record") if blank.shape[1] == 3 else None
        return self.tensor([prepared.pixels]) if isinstance(prepared, Prepared) else blank

    def settle(self, decision: Decision | None = None, precision: str | None = None) -> None:
        """Adopt an earlier run's choices, where "auto" hasn't decided yet.

        Args:
            decision: Its decision on acceleration; None leaves that open.
            precision: Its precision; None leaves that open.
        """
        self._plan.settle(decision, precision)

    def probe(self, x: Tensor) -> Probe:
        """Return the model for a batch of inputs x (b, c, h, w), in the engine's precision.

        Where the precision was left to the engine, it is float32 for a network whose scores half
        precision changes.
        """
        return Probe(self._batches.suited(x), x)

    # ---- images in, records out ------------------------------------------------------------

    def explain(
        self,
        images: Any,
        method: Methods = "grad_cam",
        target: Any = "top1",
        *,
        only: str | Gate | None = None,
        check: str | Metric | None = None,
        on_error: Literal["raise", "record"] = "raise",
        ids: Iterable[str] | None = None,
        progress: bool | Callable[[int, int], None] = False,
    ) -> Explanations:
        """Explain images, one or many, in input order.

        Args:
            images: Paths, folders, bytes, open files, PIL images, arrays or uint8 tensors (h, w),
                (h, w, 3 or 4) or (3 or 4, h, w), or batches of them (b, ...); arrays hold uint8,
                or floats in 0..1. Data sets and loaders of such images, with or without labels,
                are read sample by sample.
            method: One method or several, also in one string with commas between them.
            target: What to explain, such as "top1", "class=207" or a class index.
            only: A condition on the scores, such as "class=nsfw>0.5"; images that don't meet it
                cost their forward and give no result.
            check: A metric whose figures go into the records' quality, such as "faithfulness"
                (128 more forwards a map, in batches; `quality["faithful"]` says whether the map
                beats its permutations).
            on_error: "raise", or "record" for a `Failure` in the place of each image that can't
                be read.
            ids: Your own identifier of each image, kept as `id` in its records.
            progress: True shows a bar; a function is called with the number of images done and
                of all images, before the first batch and after each.

        Returns:
            One `ImageExplanation` per image, method and class of the target: a list that a notebook
            shows as cards, and whose `figure()` draws all side by side.

        Raises:
            ImageError: If an image can't be read and on_error is "raise".
            ArgumentError: If the model can't serve a method, or an argument is wrong.
            TargetError: If the target doesn't fit the model or the number of images.
        """
        many = list_images(images)
        parsed = Target.of(target, self.model.labels)
        parsed.check(len(many))
        own = None if ids is None else checked_ids(ids, len(many))
        self.plan(method, len(many))
        with counted(progress, len(many)) as tell:
            found = self._checked(
                many, method, parsed, only, check, on_error, own, tell, self.ahead
            )
            return Explanations(found)

    def compare(
        self,
        images: Any,
        method: Methods = "grad_cam",
        target: Any = "top1",
        *,
        layers: Sequence[str] = (),
        models: Sequence[Any] = (),
    ) -> Explanations:
        """Explain images with several methods, layers or models, to be seen side by side.

        Args:
            images: As for `explain`.
            method: One method or several.
            target: As for `explain`; name a class to ask all models the same.
            layers: Layers that each method looks at in turn, instead of the one it would choose.
            models: Other models: engines, or what `Engine` accepts as a model.

        Returns:
            All explanations; `compare(...).figure()` draws a column for each method, layer and
            model, and a notebook shows them as cards.

        Raises:
            ArgumentError: A model can't serve a method, a method looks at no layer, or a model
                comes twice.
        """
        return comparing.compare(self, images, load_methods(method), target, layers, models)

    def stream(
        self,
        images: Iterable[Any],
        method: Methods = "grad_cam",
        target: Any = "top1",
        *,
        only: str | Gate | None = None,
        check: str | Metric | None = None,
        on_error: Literal["raise", "record"] = "raise",
    ) -> Iterator[ImageExplanation | Failure]:
        """Explain images lazily; a batch is read when its first result is requested.

        The arguments are checked at once, and mean what they mean for `explain`.

        Args:
            images: As for `explain`, in any number.
            method: As for `explain`.
            target: As for `explain`.
            only: As for `explain`.
            check: As for `explain`.
            on_error: As for `explain`.

        Returns:
            An iterator over the results of `explain`, in input order.

        Raises:
            ArgumentError: If an argument is wrong.
            TargetError: If the target or the condition can't be parsed.
        """
        return self._checked(images, method, target, only, check, on_error)

    def _checked(
        self,
        images: Iterable[Any],
        method: Methods,
        target: Any,
        only: str | Gate | None,
        check: str | Metric | None,
        on_error: str,
        ids: Sequence[str] | None = None,
        tell: Callable[[int], object] = lambda done: None,
        ahead: int = 0,
    ) -> Iterator[ImageExplanation | Failure]:
        """Check the arguments of `stream`, then explain; `tell` gets the number of images done.

        `ahead` batches are read and begun before an earlier one's results: none where somebody
        waits for each result, or for the images themselves.
        """
        if on_error not in ("raise", "record"):
            raise ArgumentError(f"expected on_error of 'raise' or 'record', got {on_error!r}")
        loaded = load_methods(method)
        parsed = Target.of(target, self.model.labels)
        gate = None if only is None else Gate.of(only, self.model.labels)
        if gate is not None and gate.right is not None:
            raise ArgumentError(
                f"expected a condition on scores such as top1<0.6, got {gate}: that is for runs "
                "over images with labels (visxai explain labels.csv, or visxai.pipeline.explain)"
            )
        checked = None if check is None else metrics.load_check(check)
        sources = iterate_images(images)
        return self._stream(sources, loaded, parsed, gate, checked, on_error, ids, tell, ahead)

    def _stream(
        self,
        sources: Iterator[Any],
        loaded: tuple[Method, ...],
        target: Target,
        gate: Gate | None,
        check: Metric | None,
        on_error: str,
        ids: Sequence[str] | None,
        tell: Callable[[int], object],
        ahead: int,
    ) -> Iterator[ImageExplanation | Failure]:
        start, begun = 0, deque[tuple[Callable[[], Results], int]]()

        def finished() -> Iterator[ImageExplanation | Failure]:
            finish, done = begun.popleft()
            for one in finish():
                if isinstance(one, Failure):
                    yield one
                else:
                    yield from one.explanations
            tell(done)

        for batch in in_batches(sources, self.batch_size):
            prepared = [self.prepare(source, on_error) for source in batch]
            if ids is not None:
                prepared = identified(prepared, ids[start:])
            part = target.part(start, start + len(batch))
            start += len(batch)
            begun.append((self.begin_prepared(prepared, loaded, part, gate, check), start))
            if len(begun) > ahead:
                yield from finished()
        while begun:
            yield from finished()

    def prepare(self, source: Any, on_error: str = "raise") -> Prepared | Failure:
        """Decode an image, then resize and crop it for the model, on the CPU.

        Args:
            source: An image as for `explain`, or a Failure.
            on_error: "raise", or "record" to return a Failure for an image that can't be read.

        Returns:
            The prepared image, or its failure.

        Raises:
            ImageError: If the image can't be read, or is a Failure, and on_error is "raise".
            ArgumentError: If the model has no preprocessing.
        """
        if isinstance(source, Failure):
            if on_error == "raise":
                raise ImageError(source.reason)
            return source
        preprocess = self.model.preprocess
        if preprocess is None:
            raise ArgumentError(
                f"{cards.without_preprocess(self.model.ref.name)}, or explain tensors with "
                "attribute()"
            )
        try:
            if hasattr(source, "read") and not isinstance(source, Origin):
                # A file can be read only once, and the record may need its original again.
                source = objects.content(source, decoding.Limits().max_bytes)
            photo = decoding.decode(source)
            pixels, transform = preprocess.crop(photo)
        except ImageError as error:
            if on_error == "raise":
                raise
            path = str(source) if isinstance(source, (str, Path)) else None
            return Failure(path, str(error), type(error).__name__)
        reference = ImageRef(
            photo.image.width, photo.image.height, transform, photo.sha256, photo.path
        )
        return Prepared(pixels, reference, None if photo.path else source)

    def explain_prepared(
        self,
        batch: Sequence[Prepared | Failure],
        loaded: Sequence[Method],
        target: Target,
        only: Gate | None = None,
        check: Check | None = None,
    ) -> list[Explained | Failure]:
        """Explain a prepared batch.

        Args:
            batch: Prepared images, and failures in the places of those that couldn't be read.
            loaded: The methods.
            target: What to explain; a per-image target has a class for each place of the batch.
            only: The gate that images must pass to be explained; all images are scored.
            check: The metric that judges each map.

        Returns:
            One result for each place of the batch: the image's explanations and scores, or the
            failure given there.

        Raises:
            ArgumentError: If the model can't serve a method.
            TargetError: If the target doesn't fit the model's scores.
        """
        return self.begin_prepared(batch, loaded, target, only, check)()

    def begin_prepared(
        self,
        batch: Sequence[Prepared | Failure],
        loaded: Sequence[Method],
        target: Target,
        only: Gate | None = None,
        check: Check | None = None,
    ) -> Callable[[], Results]:
        """Begin to explain a prepared batch, as `explain_prepared` does.

        On a GPU, which then computes by itself, the next batch can be begun before this one's
        records are made; see `ahead`.

        Args:
            batch: As for `explain_prepared`.
            loaded: As for `explain_prepared`.
            target: As for `explain_prepared`.
            only: As for `explain_prepared`.
            check: As for `explain_prepared`.

        Returns:
            A function that waits for the maps and returns the results, which is called once.

        Raises:
            ArgumentError: If the model can't serve a method.
            TargetError: If the target doesn't fit the model's scores.
        """
        return self._batches.begin(batch, loaded, target, only, check)

    @property
    def ahead(self) -> int:
        """Return how many batches it pays to begin before an earlier one's records are made."""
        return self._batches.ahead

    def tensor(self, pixels: Sequence[np.ndarray[Any, Any]]) -> Tensor:
        """Stack and normalise prepared pixels into the model's input.

        Args:
            pixels: The `pixels` of prepared images.

        Returns:
            (b, c, h, w) float32 in model space, on the model's device.
        """
        return self._batches.tensor(pixels)

    def check(self, method: Method) -> None:
        """Raise ArgumentError, which lists usable methods, if the model can't serve `method`."""
        self._batches.check(method)

    # ---- tensors, scores, reproduction -------------------------------------------------------

    def attribute(
        self, x: Tensor, method: str | Method = "grad_cam", target: Any = "top1"
    ) -> Tensor:
        """Compute maps for tensors that are already preprocessed.

        Args:
            x: Inputs (b, c, h, w), floating point, in model space.
            method: One method.
            target: What to explain.

        Returns:
            (maps, h, w) float32 on x's device: native maps, upsampled bilinearly
            (align_corners=False) and unscaled; one map per image, or as many as the target has
            classes, image by image.

        Raises:
            ArgumentError: If x isn't such a tensor, or the model can't serve the method.
            TargetError: If the target doesn't fit the model or the number of images.
        """
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ArgumentError(
                f"expected a float tensor (batch, channels, height, width), got {got}: "
                "normalise images yourself, or pass them to explain()"
            )
        self._check_axes(x)
        parsed = Target.of(target, self.model.labels)
        parsed.check(len(x))
        (loaded,) = load_methods(method)
        inside = x.detach().to(self.device)
        self._plan.expect(len(x))
        self._plan.consider((loaded,), inside, len(x), lambda: inside)
        values = self._batches.attribute(inside, loaded, parsed)
        return upsample(values, tuple(x.shape[2:])).to(x.device)

    def _check_axes(self, x: Tensor) -> None:
        """Raise ArgumentError for a tensor whose channels come last."""
        last = x.shape[3] in (1, 3, 4) and x.shape[1] != x.shape[3]
        if last and self.model.channels == x.shape[3]:
            raise ArgumentError(
                f"expected a tensor (batch, channels, height, width), got {tuple(x.shape)}, whose "
                "channels come last: pass x.permute(0, 3, 1, 2)"
            )

    def predict(self, images: Any) -> list[Prediction]:
        """Predict the classes of images, one forward each, in input order.

        Args:
            images: As for `explain`.

        Returns:
            One `Prediction` per image, with every class's score as the model reports it.

        Raises:
            ImageError: If an image can't be read.
        """
        found = []
        for batch in in_batches(list_images(images), self.batch_size):
            prepared = [item for item in map(self.prepare, batch) if isinstance(item, Prepared)]
            x = self.tensor([item.pixels for item in prepared])
            scores = self.probe(x).scores(x)
            probabilities = self.model.probabilities(scores).cpu().numpy()
            labels = None if self.model.labels is None else tuple(self.model.labels)
            for item, row in zip(prepared, probabilities, strict=True):
                best = int(row.argmax())
                found.append(
                    Prediction(
                        item.input, row, best, label_of(labels, best), float(row[best]), labels
                    )
                )
        return found

    def reproduce(
        self, record: ImageExplanation | dict[str, Any], image: Any = None
    ) -> reproduction.Reproduction:
        """Compute a stored explanation again, and compare the two.

        Args:
            record: An `ImageExplanation` or its `to_dict()`.
            image: The original image; None for the original that the record names.

        Returns:
            The new explanation and its differences from the record.

        Raises:
            ArgumentError: If another model made the record, or its target was a callable.
        """
        return reproduction.reproduce(self._as_recorded(record), record, image)

    def _as_recorded(self, record: ImageExplanation | dict[str, Any]) -> Engine:
        """Return this engine, computing in a record's precision where it may still choose."""
        kept = record.get("precision") if isinstance(record, dict) else record.precision
        precision = str(kept).partition(" ")[0]
        if not self._plan.free or precision == self.precision:
            return self
        if precision not in self.model.precisions:
            return self
        return Engine(self.model, precision=precision, accelerate="off", batch_size=self.batch_size)

    def redact(
        self,
        explanation: ImageExplanation,
        image: Any = None,
        *,
        share: float = 0.5,
        how: redaction.How = "blur",
    ) -> redaction.Redaction:
        """Hide the smallest area with a share of the positive attribution, and score the rest.

        Args:
            explanation: The explanation whose map says what to hide.
            image: The original image; None for the explanation's own original.
            share: The part of the map's positive attribution to hide, 0 to 1.
            how: "blur" or "fill" (grey).

        Returns:
            The redacted image and the scores before and after; its `str()` is a sentence for
            people.

        Raises:
            ArgumentError: If another model made the explanation, or `how` has no such choice.
        """
        return redaction.redact(self, explanation, image, share, how)

    def score(self, images: Any, target: Any = "top1") -> list[float]:
        """Score the target for each image, with one forward and no map.

        Args:
            images: As for `explain`.
            target: A target of one map an image.

        Returns:
            The target's scores, in input order, as the model reports them.

        Raises:
            ImageError: If an image can't be read.
            TargetError: If the target doesn't fit the model or the number of images.
        """
        many = list_images(images)
        parsed = Target.of(target, self.model.labels)
        parsed.check(len(many))
        found: list[float] = []
        for start in range(0, len(many), self.batch_size):
            batch = [self.prepare(source) for source in many[start : start + self.batch_size]]
            x = self.tensor([item.pixels for item in batch if isinstance(item, Prepared)])
            probe, part = self.probe(x), parsed.part(start, start + len(batch))
            found += reported(probe, x, part).tolist()
        return found


def load_methods(method: Methods) -> tuple[Method, ...]:
    """Load methods from specs or methods.

    Args:
        method: One spec or method, several of them, or a string of several specs with commas
            between them.

    Returns:
        The methods, in the given order.

    Raises:
        ArgumentError: If no method is given or a spec is wrong.
    """
    given = [method] if isinstance(method, Method) else method
    given = split_specs(given) if isinstance(given, str) else list(given)
    if not given:
        raise ArgumentError("expected at least one method, got none: try 'grad_cam'")
    return tuple(methods.load(one) for one in given)
