"""The steps that turn a batch of encoded texts into records: score, gate, explain, assemble."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visxai.engine.gate import Gate
from visxai.labels import label_of
from visxai.models.devices import versions
from visxai.record.scores import TOP, Scores
from visxai.record.text import TextExplanation
from visxai.references import TextRef
from visxai.target import Target, set_label
from visxai.text.methods.base import TextMethod
from visxai.text.model import Encoded, TextModel
from visxai.text.pooling import Pooled


@dataclass(frozen=True)
class ExplainedText:
    """The engine's result for one text.

    Attributes:
        explanations: The text's explanations, in the order of the methods; none behind a gate.
        scores: The greatest scores that the model gives the text.
        best: The class with the greatest score.
    """

    explanations: tuple[TextExplanation, ...]
    scores: Scores
    best: int


def explain(
    model: TextModel,
    encoded: Sequence[Encoded],
    loaded: Sequence[TextMethod],
    target: Target,
    only: Gate | None = None,
    paths: Sequence[str | None] | None = None,
    expected: Sequence[int | None] | None = None,
) -> list[ExplainedText]:
    """Explain encoded texts; see `Engine.explain_batch`."""
    if not encoded:
        return []
    pooled = Pooled.of(model, encoded)
    names = [None] * len(encoded) if paths is None else list(paths)
    inputs = [reference(one, path) for one, path in zip(encoded, names, strict=True)]
    passes, gated = _gated(pooled, only, expected)
    found: list[list[TextExplanation]] = [[] for _ in encoded]
    if passes:
        if target.kind == "index":
            target = Target.of([target.classes[index] for index in passes])
        chosen = pooled.part(passes)
        for method in loaded:
            for row, made in _explained(chosen, inputs, passes, method, target):
                found[row].append(made)
    return [
        ExplainedText(tuple(made), replace(told, explained=bool(made)), best)
        for made, (told, best) in zip(found, _scored(pooled, inputs, gated), strict=True)
    ]


def _gated(
    pooled: Pooled, only: Gate | None, expected: Sequence[int | None] | None
) -> tuple[list[int], list[float] | None]:
    """Return the texts that pass a gate, and the score that it compared for each text."""
    count = len(pooled.scores)
    if only is None:
        return list(range(count)), None
    if only.right is not None:
        best = pooled.scores.argmax(1).tolist()
        known = expected or [None] * count
        right = [label == index for label, index in zip(known, best, strict=True)]
        return [
            row for row in range(count) if known[row] is not None and right[row] is only.right
        ], None
    reported = pooled.reported(only.target)
    return only.open(reported).nonzero().squeeze(1).tolist(), reported.tolist()


def _scored(
    pooled: Pooled, inputs: Sequence[TextRef], gated: Sequence[float] | None
) -> Iterator[tuple[Scores, int]]:
    """Yield each text's greatest scores as the model reports them, and its best class."""
    model, scores = pooled.model, pooled.scores
    classes = scores.topk(min(TOP, scores.shape[1]), dim=1).indices
    values = model.probabilities(scores).gather(1, classes)
    best = scores.argmax(1).tolist()
    for row, (top, told) in enumerate(zip(classes.tolist(), values.tolist(), strict=True)):
        labels = tuple(label_of(model.labels, index) for index in top)
        gate = None if gated is None else gated[row]
        yield Scores(inputs[row].path, tuple(top), labels, tuple(told), gate), best[row]


def _explained(
    pooled: Pooled,
    inputs: Sequence[TextRef],
    rows: Sequence[int],
    method: TextMethod,
    target: Target,
) -> Iterator[tuple[int, TextExplanation]]:
    """Yield a method's explanations, each with the place of its text in the batch."""
    model, began = pooled.model, time.perf_counter()
    aim = pooled.aim(target)
    mapped = pooled.explain(method, aim)
    seconds = (time.perf_counter() - began) / max(1, len(aim))
    shown = pooled.reported(target).tolist()
    classes = [None] * len(aim) if aim.classes is None else aim.classes.tolist()
    common: dict[str, Any] = {
        "model": model.ref,
        "method": repr(method),
        "two_sided": method.two_sided,
        "target": str(target),
        "layer": model.layer if method.needs.name == "GRADIENT" else None,
        "device": str(model.device),
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": seconds,
    }
    for j, row in enumerate(aim.rows.tolist()):
        one = mapped[j]
        yield (
            rows[row],
            TextExplanation(
                input=inputs[rows[row]],
                values=one.values,
                class_index=classes[j],
                label=_label(model.labels, target, classes[j]),
                score=shown[j],
                logit=one.logit,
                degenerate=one.degenerate,
                quality=one.quality,
                **common,
            ),
        )


def _label(labels: Sequence[str] | None, target: Target, class_index: int | None) -> str:
    if class_index is None:
        return target.text
    if target.kind == "any":
        return target.name or set_label(labels, target.classes)
    label = label_of(labels, class_index)
    if target.kind == "diff":
        return f"{label} rather than {label_of(labels, target.classes[1])}"
    return label


def reference(one: Encoded, path: str | None) -> TextRef:
    """Make the reference of an encoded text."""
    digest = hashlib.sha256(one.text.encode()).hexdigest()
    return TextRef(one.text, one.spans, digest, path)
