"""The records of a batch: from what was computed on the device to explanations and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from visxai.engine.explained import Explained
from visxai.images.prepared import Prepared
from visxai.labels import label_of
from visxai.models.interface import Model
from visxai.record.image import ImageExplanation
from visxai.record.scores import TOP, Scores
from visxai.target import Target, set_label

FIGURE = "figure: "  # before the names of figures of quality among the tensors


@dataclass(frozen=True)
class Computed:
    """A method's maps of a batch, on the device, with all that their records say besides.

    Attributes:
        tensors: What is copied to the host: the maps, their scores and figures, by name.
        items: The images.
        target: What is explained.
        precision: What the maps were computed in.
        began: The moment before the maps.
        ended: The moment after them.
        prepared: The seconds between them that preparing faster forms took.
        common: What all records share.
    """

    tensors: dict[str, Tensor]
    items: Sequence[Prepared]
    target: Target
    precision: str
    began: Any
    ended: Any
    prepared: float
    common: dict[str, Any]


def reported_scores(model: Model, scores: Tensor) -> dict[str, Tensor]:
    """Return the classes (b, n) with the greatest raw scores (b, k), as the model reports them.

    Returns:
        The classes and their reported scores (b, n), and each image's best class (b,).
    """
    classes = scores.topk(min(TOP, scores.shape[1]), dim=1).indices
    values = model.probabilities(scores).gather(1, classes)
    return {"classes": classes, "scores": values, "best": scores.argmax(1)}


def scored(
    model: Model,
    told: dict[str, Tensor],
    items: Sequence[Prepared],
    gated: Sequence[float] | None,
) -> Iterator[tuple[Scores, int]]:
    """Yield each image's greatest scores as the model reports them, and its best class.

    Args:
        model: The model.
        told: What `reported_scores` found, on the host.
        items: The images of the batch.
        gated: The score that the gate compared, for each image; None without a gate on scores.
    """
    best, classes, values = (told[n].tolist() for n in ("best", "classes", "scores"))
    for row, (top, scores) in enumerate(zip(classes, values, strict=True)):
        labels = tuple(label_of(model.labels, index) for index in top)
        gate = None if gated is None else gated[row]
        yield Scores(items[row].input.path, tuple(top), labels, tuple(scores), gate), best[row]


def records(
    model: Model, computed: Computed, there: dict[str, Tensor], seconds: float
) -> Iterator[tuple[int, ImageExplanation]]:
    """Yield the record of each map with the number of its image.

    Args:
        model: The model.
        computed: What was computed.
        there: Its tensors, on the host.
        seconds: The seconds that the maps took.
    """
    native = there.pop("values").numpy()
    told = {name: tensor.tolist() for name, tensor in there.items()}
    rows = told["rows"]
    seconds = seconds / max(1, len(rows))
    classes = told.get("classes", [None] * len(rows))
    quality = {n.removeprefix(FIGURE): f for n, f in told.items() if n.startswith(FIGURE)}
    for j, row in enumerate(rows):
        item = computed.items[row]
        yield (
            row,
            ImageExplanation(
                input=item.input,
                source=item.source,
                id=item.id,
                values=native[j],
                class_index=classes[j],
                label=_label(model, computed.target, classes[j]),
                score=told["scores"][j],
                logit=told["logits"][j],
                degenerate=told["degenerate"][j],
                precision=computed.precision + " (rerun in fp32)" * told["reran"][row],
                quality={name: _plain(figure[j]) for name, figure in quality.items()},
                seconds=seconds,
                **computed.common,
            ),
        )


def result_of(
    item: Prepared, explanations: Sequence[ImageExplanation], each: Iterator[tuple[Scores, int]]
) -> Explained:
    """Return the result of an image, whose scores are the next of `each`."""
    scores, best = next(each)
    mine = tuple(replace(one, top_scores=scores.top) for one in explanations)
    right = None if item.expected is None else best == item.expected
    return Explained(item.input, mine, replace(scores, explained=bool(mine)), right)


def _plain(figure: Any) -> Any:
    """Replace a NaN or infinite figure by None, since JSON has neither; flags and integers pass."""
    return figure if isinstance(figure, (bool, int)) or np.isfinite(figure) else None


def _label(model: Model, target: Target, class_index: int | None) -> str:
    if class_index is None:
        return target.text
    if target.kind == "any":
        return target.name or set_label(model.labels, target.classes)
    label = label_of(model.labels, class_index)
    if target.kind == "diff":
        return f"{label} rather than {label_of(model.labels, target.classes[1])}"
    return label
