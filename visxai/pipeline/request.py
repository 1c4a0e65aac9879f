"""The request of a run, which is checked and written as settings before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.engine.decision import Decision
from visxai.engine.settings import settings_of
from visxai.errors import Argument, ArgumentError, TargetError, UnknownName
from visxai.foreign import shown
from visxai.images.sources import Found
from visxai.pipeline.options import RunOptions
from visxai.pipeline.tasks import Style
from visxai.results.reading import about, parts

if TYPE_CHECKING:
    from visxai.engine.engine import Engine
    from visxai.engine.gate import Gate
    from visxai.methods.base import Method
    from visxai.metrics.base import Metric
    from visxai.models.interface import Model
    from visxai.target import Target

_CHUNK = 64


@dataclass(frozen=True)
class Request:
    """The request of a run, checked against its model.

    Attributes:
        methods: The methods.
        target: What to explain.
        gate: The condition that images must meet to be explained, None for all images.
        check: The metric that judges each map, None for no judgement.
        settings: The settings that OUT keeps, as values for JSON.
    """

    methods: tuple[Method, ...]
    target: Target
    gate: Gate | None
    check: Metric | None
    settings: dict[str, Any]
    decision: Decision  # on acceleration


def make_request(
    engine: Engine,
    options: RunOptions,
    images: int,
    earlier: Path | None,
    *,
    labelled: bool = False,
) -> Request:
    """Check the arguments of a run against its engine, and collect its settings.

    Args:
        engine: The engine of the run.
        options: The options of the run.
        images: The number of images that the engine will explain.
        earlier: The OUT that the run continues, None for a new one.
        labelled: Whether some images have labels.

    Returns:
        The checked request.

    Raises:
        VisxaiError: If an argument is wrong, or the model can't serve it.
    """
    from visxai.engine.engine import load_methods
    from visxai.engine.gate import Gate
    from visxai.metrics import load_check
    from visxai.target import Target

    loaded = load_methods(options.method)
    checked = None if options.check is None else load_check(options.check)
    aimed = Target.of(options.target, engine.model.labels)
    gate = None if options.only is None else Gate.of(options.only, engine.model.labels)
    if gate is not None and gate.right is not None:
        _check_answers(engine, gate, labelled)
    if aimed.kind in ("index", "callable"):
        raise TargetError(
            f"expected a target that can be written down, got {options.target!r}: use top1, "
            "class=207, any=281,282, diff=207,282 or above=0.5"
        )
    chunk = chunk_of(engine.batch_size, options.chunk_size, earlier)
    if options.style is not None:
        _check_style(options.style)
    # This raises for a method that the model can't serve, before acceleration prepares anything.
    settings = settings_of(engine, loaded, aimed)
    forwards = 0 if checked is None else checked.forwards()
    decision = accelerated(engine, loaded, images, earlier, forwards)
    settings |= {
        "only": None if gate is None else str(gate),
        "check": None if checked is None else repr(checked),
        "precision": engine.precision,
        "accelerate": str(decision),
        "chunk": chunk,
        "max_pixels": options.limits.max_pixels,
        "overlays": None if options.style is None else vars(options.style),
    }
    return Request(loaded, aimed, gate, checked, settings, decision)


def expected(
    found: Sequence[Found], labels: Sequence[str] | None, column: str | None = None
) -> list[Found]:
    """Find the class of each image's label among a model's labels.

    Args:
        found: The images.
        labels: The model's labels.
        column: The label column that the caller named, None for none.

    Returns:
        The same images, with the expected class of those that have a label.

    Raises:
        ArgumentError: If the model doesn't know a label, or a named column holds no labels.
    """
    from visxai.labels import class_finder

    finder, told = class_finder(labels), []
    for one in found:
        try:
            told.append(one if one.label is None else replace(one, expected=finder(one.label)))
        except ArgumentError as error:
            raise ArgumentError(
                expected="the model's labels in the label column",
                got=f"{one.label!r} for {shown(one.path)} ({error})",
                remedy=("leave labels out with ", Argument("label_column", "none")),
                field="label_column",
            ) from None
    if column is not None and all(one.label is None for one in told):
        raise ArgumentError(
            expected=f"labels in {column!r}",
            got="none",
            remedy=("leave ", Argument("label_column"), " out"),
            field="label_column",
        )
    return told


def answers(model: Model, right: Sequence[bool | None]) -> dict[str, int]:
    """Count the images with a label, and those of them whose label has the greatest score.

    Args:
        model: The model.
        right: Whether each image's label has the greatest score, None without a label.

    Returns:
        The counts "labelled" and "right". Empty without labels, and for a model with independent
        classes (sigmoid), which may rightly give another class the greatest score.
    """
    told = [one for one in right if one is not None]
    if not told or model.activation == "sigmoid":
        return {}
    return {"labelled": len(told), "right": sum(told)}


def _check_answers(engine: Engine, gate: Gate, labelled: bool) -> None:
    """Raise ArgumentError if labels or the model don't allow the gates "right" and "wrong"."""
    if engine.model.activation == "sigmoid":
        raise ArgumentError(
            f"expected a model that chooses one class to tell what is {gate}, got "
            f"{engine.model.ref.name}, whose classes are independent (sigmoid): use a condition on "
            "scores such as 'class=NAME<0.5'"
        )
    if not labelled:
        raise ArgumentError(
            f"expected images with labels to tell what is {gate}, got none: give a table with a "
            "label column, or a tar with .cls or .json beside its images"
        )


def chunk_of(batch: int, chunk_size: int | None, earlier: Path | None = None) -> int:
    """Choose the images of a chunk.

    Args:
        batch: The batch size.
        chunk_size: The requested number of images; None for that of the earlier run if it fits
            the batch size, otherwise for the first multiple of the batch size from 64 on.
        earlier: The OUT that the run continues, None for a new one.

    Returns:
        The number of images, a multiple of the batch size.

    Raises:
        ArgumentError: If the requested number isn't such a multiple.
    """
    if chunk_size is None and (run := _finished(earlier)) is not None:
        known = run["settings"].get("chunk")
        if isinstance(known, int) and known > 0 and known % batch == 0:
            return known
    if chunk_size is None:
        return batch * max(1, -(-_CHUNK // batch))
    if chunk_size < 1 or chunk_size % batch:
        raise ArgumentError(
            f"expected a chunk size that is a multiple of the batch size {batch}, got "
            f"{chunk_size}: use {batch * max(1, chunk_size // batch)}"
        )
    return chunk_size


def accelerated(
    engine: Engine,
    methods: Sequence[Method],
    images: int,
    earlier: Path | None,
    forwards: int = 0,
) -> Decision:
    """Decide on precision and acceleration for the whole of OUT.

    Args:
        engine: The engine of the run. If it may still choose and an earlier run finished some
            chunks, it chooses what that run chose.
        methods: The methods of the run.
        images: The number of images that the engine will explain.
        earlier: The OUT that the run continues, None for a new one.
        forwards: The forwards of the check of one map, 0 without a check.

    Returns:
        The decision on acceleration and its reason, such as "onnx (run long enough)".
    """
    from visxai.metrics.controls import RandomMap

    run = _finished(earlier)
    if run is not None:
        kept = run["settings"]
        engine.settle(Decision.of(str(kept.get("accelerate", "off"))), kept.get("precision"))
    reason = engine.plan(methods, images)
    if forwards:
        # A random map costs one forward and no more.
        rows = images * len(methods) * forwards
        reason = engine.plan(RandomMap(), rows, of_check=True)
    return Decision(engine.accelerate, reason)


def _finished(earlier: Path | None) -> dict[str, Any] | None:
    """Read the run.json of an OUT with finished images; return None for any other."""
    return about(earlier) if earlier is not None and parts(earlier) else None


def _check_style(style: Style) -> None:
    from visxai.drawing import colours

    if style.format not in ("jpg", "webp", "png"):
        formats = ("jpg", "webp", "png")
        raise UnknownName("overlay format", style.format, formats, "(or none, style=None)")
    if style.colormap is not None:
        colours.lut(style.colormap)
