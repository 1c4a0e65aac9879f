"""What is asked of a folder run: told, checked and written down before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.engine.settings import settings_of
from visxai.errors import ArgumentError, TargetError, UnknownName
from visxai.foreign import shown
from visxai.images.decoding import Limits
from visxai.images.sources import Found
from visxai.pipeline.tasks import Style
from visxai.results.reading import about, parts

if TYPE_CHECKING:
    from visxai.engine.engine import Engine, Methods
    from visxai.engine.gate import Gate
    from visxai.methods.base import Method
    from visxai.metrics.base import Metric
    from visxai.models.interface import Model
    from visxai.target import Target

_CHUNK = 64


@dataclass(frozen=True)
class Asked:
    """What a run is asked for, checked against its model, and the settings that its OUT keeps."""

    methods: tuple[Method, ...]
    target: Target
    gate: Gate | None
    check: Metric | None
    settings: dict[str, Any]


def ask(
    engine: Engine,
    method: Methods,
    target: Any,
    images: int,
    earlier: Path | None,
    *,
    only: str | Gate | None,
    check: str | Metric | None,
    style: Style | None,
    limits: Limits,
    chunk_size: int | None,
    labelled: bool = False,
) -> Asked:
    """What is asked of a run of some images over an engine, `earlier` being the OUT it goes on
    in; raises VisxaiError for wrong arguments. labelled: some images have classes of their own."""
    from visxai.engine.engine import load_methods
    from visxai.engine.gate import Gate
    from visxai.metrics import load_check
    from visxai.target import Target

    loaded = load_methods(method)
    checked = None if check is None else load_check(check)
    aimed = Target.of(target, engine.model.labels)
    gate = None if only is None else Gate.of(only, engine.model.labels)
    if gate is not None and gate.right is not None:
        _check_answers(engine, gate, labelled)
    if aimed.kind in ("index", "callable"):
        raise TargetError(
            f"expected a target that can be written down, got {target!r}: use top1, class=207, "
            "any=281,282, diff=207,282 or above=0.5"
        )
    chunk = chunk_of(engine.batch_size, chunk_size, earlier)
    if style is not None:
        _check_style(style)
    # A method that the model can't serve is told before anything is prepared for it.
    settings = settings_of(engine, loaded, aimed)
    settings |= {
        "only": None if gate is None else str(gate),
        "check": None if checked is None else repr(checked),
        "accelerate": accelerated(
            engine,
            loaded,
            images,
            earlier,
            0 if checked is None else checked.forwards(),
        ),
        "chunk": chunk,
        "max_pixels": limits.max_pixels,
        "overlays": None if style is None else vars(style),
    }
    return Asked(loaded, aimed, gate, checked, settings)


def expected(
    found: Sequence[Found], labels: Sequence[str] | None, column: str | None = None
) -> list[Found]:
    """The same images with the classes that their labels name for a model with these labels.

    column: the one that was asked for by name. Raises ArgumentError for a label that the model
    doesn't know, and where the column told none.
    """
    from visxai.labels import class_finder

    finder, told = class_finder(labels), []
    for one in found:
        try:
            told.append(one if one.label is None else replace(one, expected=finder(one.label)))
        except ArgumentError as error:
            raise ArgumentError(
                f"expected the model's labels in the label column, got {one.label!r} for "
                f"{shown(one.path)} ({error}); --label-column none leaves labels out"
            ) from None
    if column is not None and all(one.label is None for one in told):
        raise ArgumentError(f"expected labels in {column!r}, got none: leave --label-column out")
    return told


def answers(model: Model, right: Sequence[bool | None]) -> dict[str, int]:
    """Counts the images with a label, and those of them whose label has the greatest score.

    right: of each image whether it has, None without a label. A model with independent classes
    counts nothing: it may rightly give another class the greatest score.
    """
    told = [one for one in right if one is not None]
    if not told or model.activation == "sigmoid":
        return {}
    return {"labelled": len(told), "right": sum(told)}


def _check_answers(engine: Engine, gate: Gate, labelled: bool) -> None:
    """Raise ArgumentError unless it can be told whether the model is right."""
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
    """The images of a chunk for a batch size: where none are asked for, those of an earlier run."""
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
) -> str:
    """What is decided of acceleration for the whole of OUT, and why: "onnx (run long enough)".

    forwards: those that each method's map is judged with. Where an earlier run left something
    finished, an engine that may choose chooses the same.
    """
    from visxai.metrics.controls import RandomMap

    run = _finished(earlier)
    if run is not None:
        decided, _, reason = str(run["settings"].get("accelerate", "off")).partition(" (")
        engine.settle(decided, reason.removesuffix(")"))
    reason = engine.plan(methods, images)
    if forwards:
        # A random map costs one forward and no more.
        reason = engine.plan(RandomMap(), images * len(methods) * forwards)
    return f"{engine.accelerate} ({reason})"


def _finished(earlier: Path | None) -> dict[str, Any] | None:
    """The run.json of an OUT in which something is finished."""
    return about(earlier) if earlier is not None and parts(earlier) else None


def _check_style(style: Style) -> None:
    from visxai.drawing import colours

    if style.format not in ("jpg", "webp", "png"):
        formats = ("jpg", "webp", "png")
        raise UnknownName("overlay format", style.format, formats, "(or none, style=None)")
    if style.colormap is not None:
        colours.lut(style.colormap)
