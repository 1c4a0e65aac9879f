"""The engine for texts: gates, computes and assembles batches of texts.

engine = Engine("toxicity")
results = engine.explain(["You are an idiot"], method="integrated_gradients", target="class=toxic")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from visxai.engine.gate import Gate
from visxai.engine.reproduction import Reproduction
from visxai.errors import ArgumentError
from visxai.labels import Labels, label_of, read_labels
from visxai.models.interface import Activation
from visxai.process import collect_as_usual, keep_memory
from visxai.record.image import Prediction
from visxai.record.text import TextExplanation
from visxai.target import Target
from visxai.text import batch as batches
from visxai.text import loading, methods
from visxai.text.batch import ExplainedText, reference
from visxai.text.methods.base import TextMethod
from visxai.text.model import Encoded, TextModel
from visxai.text.pooling import Pooled
from visxai.text.redaction import TextRedaction, redacted_words

Methods = str | TextMethod | Sequence[str | TextMethod]
_TEXTS = 64  # texts whose rows share forwards


class Engine:
    """An explainer of texts with one model on one device.

    An engine may be used from several threads at once.

    Args:
        model: A name (`visxai.text.names()`), "hf:" and a folder or a name of Hugging Face, an
            nn.Module with its `tokenizer`, or a function from a list of texts to scores (n, k),
            which serves the methods that need nothing but scores.
        tokenizer: The tokenizer of a module of your own, of Hugging Face.
        labels: Names of the classes, or a file of them, in place of the model's own.
        activation: What turns scores into probabilities: "softmax", "sigmoid" or "none".
        embedding: The dotted name of a module's word embedding, where it isn't found by itself.
        device: "auto" (CUDA if available; a module of your own stays where it is) or a torch
            device.
        batch_size: The most texts of usual length (128 pieces) in one forward.

    Raises:
        ArgumentError: An argument is wrong, or two don't go together.
        ModelError: The model or its weights can't be loaded.
    """

    def __init__(
        self,
        model: str | nn.Module | TextModel | Callable[[list[str]], Any] = loading.DEFAULT,
        *,
        tokenizer: Any = None,
        labels: Labels | None = None,
        activation: Activation | None = None,
        embedding: str | None = None,
        device: str | torch.device = "auto",
        batch_size: int = 64,
    ) -> None:
        if activation not in (None, "softmax", "sigmoid", "none"):
            raise ArgumentError(
                f"expected an activation of softmax, sigmoid or none, got {activation!r}"
            )
        if batch_size < 1:
            raise ArgumentError(f"expected a batch_size of at least 1, got {batch_size}")
        given: dict[str, Any] = {
            "labels": read_labels(labels),
            "activation": activation,
            "batch_size": batch_size,
        }
        if isinstance(model, TextModel):
            self.model = model
        elif isinstance(model, str):
            self.model = loading.load(model, device=device, **given)
        else:
            own = {"tokenizer": tokenizer, "embedding": embedding, "device": device}
            self.model = loading.wrap(model, **own, **given)
        self.device = self.model.device
        if self.device.type == "cpu":
            keep_memory()
        collect_as_usual()

    def __repr__(self) -> str:
        return f"visxai.text.Engine({self.model.ref.name!r}, device={str(self.device)!r})"

    # ---- texts in, records out -----------------------------------------------------------------

    def explain(
        self,
        texts: str | Iterable[str],
        method: Methods = "integrated_gradients",
        target: Any = "top1",
        *,
        only: str | Gate | None = None,
        paths: Sequence[str | None] | None = None,
    ) -> list[TextExplanation]:
        """Explain texts, one or many, in order.

        Args:
            texts: A text, or several.
            method: One method or several, also in one string with commas between them.
            target: What to explain, such as "top1", "class=toxic" or "above=0.5".
            only: A condition on the scores, such as "class=toxic>0.5"; texts that don't meet it
                give no result.
            paths: Where each text came from, for the records.

        Returns:
            One `TextExplanation` per text, method and class of the target.

        Raises:
            ArgumentError: The model can't serve a method, or an argument is wrong.
            TargetError: The target doesn't fit the model or the number of texts.
        """
        many = as_texts(texts)
        if paths is not None and len(paths) != len(many):
            raise ArgumentError(
                f"expected a path for each of {len(many)} texts, got {len(paths)}: pass as many"
            )
        parsed = Target.of(target, self.model.labels)
        parsed.check(len(many))
        return list(self.stream(many, method, parsed, only=only, paths=paths))

    def stream(
        self,
        texts: Iterable[str],
        method: Methods = "integrated_gradients",
        target: Any = "top1",
        *,
        only: str | Gate | None = None,
        paths: Iterable[str | None] | None = None,
    ) -> Iterator[TextExplanation]:
        """Explain texts lazily, some at a time; arguments are checked at once, as for `explain`."""
        loaded = self.methods(method)
        parsed = Target.of(target, self.model.labels)
        gate = None if only is None else Gate.of(only, self.model.labels)
        if gate is not None and gate.right is not None:
            raise ArgumentError(
                f"expected a condition on scores such as top1<0.6, got {gate}: that is for runs "
                "over texts with labels (visxai explain reviews.csv)"
            )
        return self._stream(
            iter(texts), loaded, parsed, gate, None if paths is None else iter(paths)
        )

    def _stream(
        self,
        texts: Iterator[str],
        loaded: Sequence[TextMethod],
        target: Target,
        gate: Gate | None,
        paths: Iterator[str | None] | None,
    ) -> Iterator[TextExplanation]:
        start = 0
        while batch := list(islice(texts, _TEXTS)):
            names = [None] * len(batch) if paths is None else list(islice(paths, len(batch)))
            part = target.part(start, start + len(batch))
            for one in self.explain_batch(batch, loaded, part, gate, names):
                yield from one.explanations
            start += len(batch)

    def explain_batch(
        self,
        texts: Sequence[str],
        loaded: Sequence[TextMethod],
        target: Target,
        only: Gate | None = None,
        paths: Sequence[str | None] | None = None,
        expected: Sequence[int | None] | None = None,
    ) -> list[ExplainedText]:
        """Explain a batch of texts.

        Args:
            texts: The texts.
            loaded: The methods.
            target: What to explain; a per-text target has a class for each text.
            only: The gate that texts must pass to be explained; all are scored.
            paths: Where each text came from.
            expected: The class of each text's label, for the gates "wrong" and "right".

        Returns:
            One result for each text.
        """
        for method in loaded:
            self.check(method)
        encoded = self.model.encode([clean(text) for text in as_texts(texts)])
        return batches.explain(self.model, encoded, loaded, target, only, paths, expected)

    # ---- methods, scores, reproduction ---------------------------------------------------------

    def methods(self, method: Methods) -> tuple[TextMethod, ...]:
        """Load methods from specs, and check that the model can serve them.

        Raises:
            UnknownName: No method for texts has this name.
            ArgumentError: A spec is wrong, or the model can't serve a method.
        """
        loaded = methods.load_all(method)
        for one in loaded:
            self.check(one)
        return loaded

    def check(self, method: TextMethod) -> None:
        """Raise ArgumentError, which lists usable methods, if the model can't serve `method`."""
        offers = self.model.offers
        if method.needs in offers:
            return
        usable = [name for name in methods.names() if methods.find(name).needs in offers]
        raise ArgumentError(
            expected=f"a method that {self.model.ref.name} can serve",
            got=f"{method.name()}, which needs {method.needs}",
            remedy=f"use one of {', '.join(usable)}",
            field="method",
        )

    def predict(self, texts: str | Iterable[str]) -> list[Prediction]:
        """Predict the classes of texts, in order, with every class's score."""
        labels = None if self.model.labels is None else tuple(self.model.labels)
        found = []
        for encoded, pooled in self._pooled(texts):
            rows = self.model.probabilities(pooled.scores).cpu().numpy()
            for one, row in zip(encoded, rows, strict=True):
                best = int(row.argmax())
                told = label_of(labels, best), float(row[best]), labels
                found.append(Prediction(reference(one, None), row, best, *told))
        return found

    def score(self, texts: str | Iterable[str], target: Any = "top1") -> list[float]:
        """Score the target for each text, as the model reports it.

        Args:
            texts: A text, or several.
            target: A target of one map a text.

        Raises:
            TargetError: The target doesn't fit the model or the number of texts.
        """
        many = as_texts(texts)
        parsed = Target.of(target, self.model.labels)
        parsed.check(len(many))
        found: list[float] = []
        for encoded, pooled in self._pooled(many):
            part = parsed.part(len(found), len(found) + len(encoded))
            found += pooled.reported(part).tolist()
        return found

    def redact(self, explanation: TextExplanation, *, share: float = 0.5) -> TextRedaction:
        """Hide the fewest words with a share of the positive values, and score what is left.

        Args:
            explanation: The explanation whose values say what to hide.
            share: The part of the sum of the positive values to hide, 0 to 1.

        Returns:
            The redacted text and the scores before and after; its `str()` is a sentence for people.

        Raises:
            ArgumentError: Another model made the explanation, or its target was a callable.
        """
        target = self._target_of(explanation)
        hidden, redacted = redacted_words(explanation, share)
        (after,) = self.score(redacted, target)
        return TextRedaction(redacted, explanation.label, hidden, explanation.score, after)

    def _pooled(self, texts: str | Iterable[str]) -> Iterator[tuple[list[Encoded], Pooled]]:
        many = [clean(text) for text in as_texts(texts)]
        for start in range(0, len(many), _TEXTS * 16):
            encoded = self.model.encode(many[start : start + _TEXTS * 16])
            yield encoded, Pooled.of(self.model, encoded)

    def reproduce(self, record: TextExplanation | Mapping[str, Any]) -> Reproduction:
        """Compute a stored explanation again from the text it holds, and compare the two.

        Args:
            record: A `TextExplanation` or its `to_dict()`.

        Raises:
            ArgumentError: Another model made the record, or its target was a callable.
        """
        old = record if isinstance(record, TextExplanation) else TextExplanation.from_dict(record)
        target = self._target_of(old)
        (new,) = self.explain([old.text], old.method, target, paths=[old.input.path])
        peak = float(np.abs(old.values).max(initial=0.0)) or 1.0
        same = new.values.shape == old.values.shape
        worst = float(np.abs(new.values - old.values).max(initial=0.0)) if same else np.inf
        return Reproduction(
            new,
            worst / peak,
            abs(new.score - old.score),
            new.input.source_sha256 == old.input.source_sha256,
        )

    def _target_of(self, record: TextExplanation) -> str | int:
        """Return the target that reproduces a record, once its model is found to be this one."""
        ours = self.model.ref
        if record.model.weights_sha256 != ours.weights_sha256:
            raise ArgumentError(
                f"expected the model {record.model.name} with weights "
                f"{record.model.weights_sha256[:12]}…, got {ours.name} with "
                f"{ours.weights_sha256[:12]}…: use the engine that made the record"
            )
        written = record.target.startswith(("any=", "diff=")) or "=any:" in record.target
        target = record.target if written else record.class_index
        if target is None:
            raise ArgumentError(
                f"expected a record whose target can be written down, got {record.target!r}: "
                "explain the text again with the same callable"
            )
        return target


def as_texts(texts: str | Iterable[Any]) -> list[str]:
    """List texts; raise ArgumentError for anything that isn't text."""
    many = [texts] if isinstance(texts, str) else list(texts)
    for place, one in enumerate(many):
        if not isinstance(one, str):
            raise ArgumentError(
                expected="texts",
                got=f"{type(one).__name__} at place {place}",
                remedy="pass strings; leave out cells without text",
                field="texts",
            )
    return many


def clean(text: str) -> str:
    """Replace halves of surrogate pairs, which are no characters and which no file can hold."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
