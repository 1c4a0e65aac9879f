"""What the demo computes: maps of a photograph, and scores of it with a part hidden.

Everything a visitor may ask for costs a known amount: methods come from a list with options of
ours, few maps are made at a time, and few requests are worked on at once.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visxai import methods, metrics
from visxai.demo.uploads import Upload, Uploads
from visxai.engine.engine import Engine
from visxai.errors import ArgumentError, Failure, ImageError, UnknownName, VisxaiError
from visxai.images.decoding import Limits
from visxai.images.prepared import Prepared
from visxai.labels import label_of
from visxai.methods.base import Method
from visxai.models.probe import Probe
from visxai.record.image import ImageExplanation
from visxai.references import Transform
from visxai.serve.errors import Missing, Overloaded
from visxai.target import Target

MODELS = ("efficientnet_lite0", "digits_vit")
METHODS = (
    *("grad_cam", "hires_cam", "layer_cam", "grad_cam_plus_plus", "cam", "ablation_cam"),
    *("attention_rollout", "chefer", "legrad", "saliency", "smooth_grad"),
    *("integrated_gradients", "occlusion", "rise(masks=400)", "partition_shap"),
)
_TOP = 5  # classes that are told, and the most of a target


@dataclass(frozen=True)
class Bounds:
    """What visitors may cost.

    Attributes:
        max_bytes: Of a photograph's file.
        max_pixels: Of a photograph.
        seconds: That decoding one may take.
        at_once: Requests that compute at the same time.
        waiting: Requests that wait for that.
        patience: Seconds that a request waits before it is answered with "busy".
        maps: Maps of one request.
        uploads: Photographs that are kept, in memory alone.
        total: Bytes of all photographs that are kept.
        kept: Explanations that are kept.
    """

    max_bytes: int = 20 * 2**20
    max_pixels: int = 50_000_000
    seconds: float = 20.0
    at_once: int = 2
    waiting: int = 32
    patience: float = 60.0
    maps: int = 20
    uploads: int = 128
    total: int = 512 * 2**20
    kept: int = 512


@dataclass(frozen=True)
class Made:
    """A finished map.

    Attributes:
        id: A name that nobody can guess.
        upload: The photograph.
        explanation: The explanation.
    """

    id: str
    upload: Upload
    explanation: ImageExplanation


@dataclass(frozen=True)
class Stroke:
    """A stroke of the brush.

    Attributes:
        radius: Of the brush, as a share of the photograph's width.
        points: (x, y) as shares of the photograph's width and height.
    """

    radius: float
    points: Sequence[tuple[float, float]]


class Studio:
    """The models, photographs and maps of the demo.

    Args:
        models: The names of the models on offer; each is loaded when it is first asked for.
        bounds: What visitors may cost.
        engines: Engines that are loaded already, by the model's name.
    """

    def __init__(
        self,
        models: Sequence[str] = MODELS,
        bounds: Bounds | None = None,
        engines: Mapping[str, Engine] | None = None,
    ) -> None:
        self.bounds = bounds or Bounds()
        self.models = tuple(dict.fromkeys(models))
        limits = Limits(max_bytes=self.bounds.max_bytes, max_pixels=self.bounds.max_pixels)
        self.uploads = Uploads(self.bounds.uploads, self.bounds.total, limits, self.bounds.seconds)
        self._engines = dict(engines or {})
        self._loading = threading.Lock()
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._lock = threading.Lock()
        self._room = threading.Semaphore(self.bounds.at_once)
        self._waiting = 0

    def close(self) -> None:
        """Stop the process that decodes."""
        self.uploads.close()

    def engine(self, model: str) -> Engine:
        """Return a model's engine, loaded once.

        Raises:
            UnknownName: The model isn't on offer.
            ModelError: It can't be loaded.
        """
        if model not in self.models:
            raise UnknownName("model", model, self.models)
        with self._loading:
            if model not in self._engines:
                self._engines[model] = Engine(model, accelerate="off")
            return self._engines[model]

    def choices(self, model: str) -> dict[str, Any]:
        """Tell what can be chosen for a model: methods, layers and classes."""
        engine = self.engine(model)
        served = []
        for spec in METHODS:
            method = methods.load(spec)
            try:
                engine.check(method)
            except VisxaiError:
                continue
            served.append({"spec": spec, "layer": _has_layer(method)})
        module = getattr(engine.model, "module", None)
        layers = [] if module is None else [name for name, _ in module.named_modules() if name]
        return {"methods": served, "layers": layers, "labels": list(engine.model.labels or ())}

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn to compute; raise Overloaded where too many wait, or for too long."""
        with self._lock:
            if self._waiting >= self.bounds.waiting + self.bounds.at_once:
                raise Overloaded(2)
            self._waiting += 1
        try:
            if not self._room.acquire(timeout=self.bounds.patience):
                raise Overloaded(5)
            try:
                yield
            finally:
                self._room.release()
        finally:
            with self._lock:
                self._waiting -= 1

    def explain(
        self,
        upload: str,
        model: str,
        specs: Sequence[str],
        target: str = "top1",
        layer: str | None = None,
        check: bool = False,
    ) -> list[Made]:
        """Explain a photograph.

        Args:
            upload: The photograph's id.
            model: The model's name.
            specs: Specs of `METHODS`.
            target: "top1" to "top5", or "class=" and a label or an index.
            layer: The layer that the methods look at which look at one; None is the model's own.
            check: Whether to judge each map by its faithfulness (128 forwards a map).

        Returns:
            The maps, by method and then by class.

        Raises:
            VisxaiError: Something isn't on offer, is too much, or the photograph can't be read.
        """
        engine, photo = self.engine(model), self.uploads.get(upload)
        loaded = [_method(spec, layer) for spec in dict.fromkeys(specs)]
        parsed = _target(target, engine)
        several = parsed.value if parsed.kind == "top" else 1
        count, most = len(loaded) * int(several), self.bounds.maps // (4 if check else 1)
        if not 1 <= count <= most:
            raise ArgumentError(
                expected=f"from 1 to {most} maps at a time",
                got=str(count),
                remedy="choose fewer methods or classes",
                field="methods",
            )
        judge = metrics.load_check("faithfulness") if check else None
        with self.turn():
            prepared = self._prepared(photo, model, engine)
            (found,) = engine.explain_prepared([prepared], loaded, parsed, None, judge)
        if isinstance(found, Failure):
            raise ImageError(found.reason)
        made = [Made(secrets.token_urlsafe(16), photo, one) for one in found.explanations]
        with self._lock:
            self._made |= {one.id: one for one in made}
            while len(self._made) > self.bounds.kept:
                self._made.popitem(last=False)
        return made

    def made(self, id: str) -> Made:
        """Return a finished map; raise Missing where it isn't kept."""
        with self._lock:
            if id not in self._made:
                raise Missing("a map")
            return self._made[id]

    def hide(
        self, upload: str, model: str, strokes: Sequence[Stroke], how: Literal["grey", "blur"]
    ) -> dict[str, Any]:
        """Score a photograph with and without what a brush covers.

        Args:
            upload: The photograph's id.
            model: The model's name.
            strokes: What to hide.
            how: "grey" paints it in the photograph's mean colour, "blur" blurs it.

        Returns:
            The strongest classes `before` and `after`, each with the scores of both, and the share
            of the model's view that is hidden, `area`.

        Raises:
            VisxaiError: Something isn't on offer, or the photograph can't be read.
        """
        engine, photo = self.engine(model), self.uploads.get(upload)
        with self.turn():
            prepared = self._prepared(photo, model, engine)
            if prepared.pixels.dtype != np.uint8:
                raise ArgumentError(
                    f"expected a model whose preprocessing is visxai's own, got {model}: choose "
                    "another model to hide regions"
                )
            mask = covered(strokes, prepared.input.transform)
            x = engine.tensor([prepared.pixels, hidden(prepared.pixels, mask, how)])
            rows = engine.model.probabilities(Probe(engine.model, x).scores(x)).cpu().numpy()

        def strongest(row: NDArray[np.float32]) -> list[dict[str, Any]]:
            order = np.argsort(-row, kind="stable")[:_TOP].tolist()
            scores = ((float(rows[0, at]), float(rows[1, at])) for at in order)
            return [
                {"label": label_of(engine.model.labels, at), "before": before, "after": after}
                for at, (before, after) in zip(order, scores, strict=True)
            ]

        return {
            "before": strongest(rows[0]),
            "after": strongest(rows[1]),
            "area": float(mask.mean()),
        }

    def _prepared(self, photo: Upload, model: str, engine: Engine) -> Prepared:
        preprocess = engine.model.preprocess
        if preprocess is None:
            raise ArgumentError(f"expected a model with preprocessing, got {model}")
        return self.uploads.prepared(photo, model, preprocess)


def covered(strokes: Sequence[Stroke], transform: Transform) -> NDArray[np.bool_]:
    """Draw strokes on a model's view.

    Args:
        strokes: The strokes, as shares of the upright photograph.
        transform: How the photograph became the view.

    Returns:
        (h, w), whether each pixel of the view is covered.
    """
    import cv2

    (width, height), (left, top, w, h) = transform.resized, transform.crop
    mask = np.zeros((h, w), np.uint8)
    for stroke in strokes:
        points = [(round(x * width - left), round(y * height - top)) for x, y in stroke.points]
        radius = max(1, round(stroke.radius * width))
        for start, end in zip(points, [*points[1:], points[-1]], strict=True):
            cv2.line(mask, start, end, 1, 2 * radius)
            cv2.circle(mask, end, radius, 1, -1)
            cv2.circle(mask, start, radius, 1, -1)
    return mask.astype(bool)


def hidden(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], how: Literal["grey", "blur"]
) -> NDArray[np.uint8]:
    """Return a copy of pixels (h, w, 3) whose masked part is the mean colour, or blurred."""
    import cv2

    made = pixels.copy()
    if how == "blur":
        soft = cv2.GaussianBlur(pixels, (0, 0), max(pixels.shape[:2]) / 16)
        made[mask] = soft[mask]
    else:
        made[mask] = pixels.reshape(-1, pixels.shape[-1]).mean(0).round().astype(np.uint8)
    return made


def _has_layer(method: Method) -> bool:
    return any(one.name == "layer" for one in fields(method))


def _method(spec: str, layer: str | None) -> Method:
    if spec not in METHODS:
        raise UnknownName("method", spec, METHODS)
    method = methods.load(spec)
    return replace(method, layer=layer) if layer and _has_layer(method) else method  # type: ignore[call-arg]


def _target(text: str, engine: Engine) -> Target:
    parsed = Target.of(text, engine.model.labels)
    if parsed.kind == "class" or (parsed.kind == "top" and int(parsed.value) <= _TOP):
        return parsed
    raise ArgumentError(
        expected=f"a target of top1 to top{_TOP}, or class= and a label",
        got=repr(text[:80]),
        remedy="write top1, top5 or class=tabby",
        field="target",
    )
