"""The engine of fused models: images with texts, one score, and what each of the two added.

engine = Engine("harmful.toml")
(found,) = engine.explain([("photo.jpg", "what a day")])
found.values           Shapley values of the image and of the text
found.image.heatmap()  where in the image, found.text.top() by which words
"""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from visxai.engine import engine as images
from visxai.engine.redaction import How, Redaction
from visxai.engine.reproduction import Reproduction
from visxai.errors import ArgumentError
from visxai.fused.card import Card
from visxai.fused.rules import shares
from visxai.record.image import ImageExplanation
from visxai.record.pair import PairExplanation
from visxai.record.text import TextExplanation
from visxai.references import ModelRef, PairRef
from visxai.target import Target
from visxai.text import engine as texts
from visxai.text.redaction import TextRedaction

METHOD = "modality_shapley()"
_GREY = 127  # of the blank image, of 255
_SIDE = 224  # of the blank image, in pixels

Pair = tuple[Any, str]


@dataclass(frozen=True, eq=False)
class PairRedaction:
    """An image and a text whose strongest parts are hidden, and the fused scores.

    Attributes:
        image: The redacted image.
        text: The redacted text.
        label: The label of the fused score.
        before: The fused score of the originals.
        image_alone: That of the redacted image with the original text.
        text_alone: That of the original image with the redacted text.
        after: That of both redacted.
    """

    image: Redaction
    text: TextRedaction
    label: str
    before: float
    image_alone: float
    text_alone: float
    after: float

    def __str__(self) -> str:
        return (
            f"with {self.image.area:.0%} of the image and {len(self.text.words)} "
            f"word{'' if len(self.text.words) == 1 else 's'} hidden, {self.label} "
            f"{'falls' if self.after < self.before else 'goes'} from {self.before:.2f} to "
            f"{self.after:.2f} ({self.image_alone:.2f} with the image's part alone, "
            f"{self.text_alone:.2f} with the text's)"
        )


class Engine:
    """An explainer of images with texts.

    Args:
        card: The card's file (`visxai.fused.card`), or a card.
        image: An engine of images in place of the card's image model, for a module of your own.
        text: An engine of texts in place of the card's text model.
        device: "auto" or a torch device, of the models that the card names.

    Raises:
        ArgumentError: A target isn't one class or a set, or a model's scores are no probabilities.
        ModelError: The card or a model can't be loaded.
    """

    def __init__(
        self,
        card: str | os.PathLike[str] | Card,
        *,
        image: images.Engine | None = None,
        text: texts.Engine | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.card = card if isinstance(card, Card) else Card.read(card)
        self.image = image or images.Engine(self.card.image.model, device=device)
        self.text = text or texts.Engine(self.card.text.model, device=device)
        for name, engine, part in (
            ("image", self.image, self.card.image),
            ("text", self.text, self.card.text),
        ):
            aimed = Target.of(part.target, engine.model.labels)
            if aimed.kind not in ("class", "any") or engine.model.activation == "none":
                raise ArgumentError(
                    expected=f"a probability of one class or a set from the {name} model",
                    got=f"the target {part.target} with the activation {engine.model.activation}",
                    remedy="use a target such as class=toxic or any=413,764 in the card",
                    field="card",
                )

    def __repr__(self) -> str:
        return f"visxai.fused.Engine({self.card.name!r}, rule={str(self.card.rule)!r})"

    @property
    def ref(self) -> ModelRef:
        """The identity of the fused model: both models' weights, targets and the rule."""
        image, text = self.image.model.ref, self.text.model.ref
        rule, targets = str(self.card.rule), (self.card.image.target, self.card.text.target)
        parts = [image.weights_sha256, text.weights_sha256, *targets, rule]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return ModelRef(self.card.name, digest, f"{image.name} and {text.name} by {rule}")

    @cached_property
    def blank(self) -> tuple[float, float]:
        """The scores of a grey image and of an empty text, which stand for a part left out."""
        grey = np.full((_SIDE, _SIDE, 3), _GREY, np.uint8)
        (image,) = self.image.score([grey], self.card.image.target)
        (text,) = self.text.score([""], self.card.text.target)
        return image, text

    def explain(
        self, pairs: Iterable[Pair], *, paths: Sequence[str | None] | None = None
    ) -> list[PairExplanation]:
        """Explain images with texts, in order.

        Args:
            pairs: Images as `visxai.Engine.explain` takes them, each with a text.
            paths: Where each pair came from, for the records.

        Raises:
            ImageError: An image can't be read.
            ArgumentError: A pair has no image or no text, or there aren't as many paths.
        """
        many = _checked(pairs)
        if paths is not None and len(paths) != len(many):
            raise ArgumentError(
                f"expected a path for each of {len(many)} pairs, got {len(paths)}: pass as many"
            )
        if not many:
            return []
        card = self.card
        seen = self.image.explain(
            [image for image, _ in many], card.image.method, card.image.target
        )
        said = [text for _, text in many]
        read = self.text.explain(said, card.text.method, card.text.target, paths=paths)
        found = [one for one in seen if isinstance(one, ImageExplanation)]
        return self.join(found, read, paths=paths)

    def join(
        self,
        images: Sequence[ImageExplanation],
        texts: Sequence[TextExplanation],
        *,
        paths: Sequence[str | None] | None = None,
    ) -> list[PairExplanation]:
        """Join explanations of images and of their texts, for the card's targets.

        Args:
            images: The images' explanations by `self.image`.
            texts: Those of their texts by `self.text`, in the same order.
            paths: Where each pair came from, for the records.

        Returns:
            One explanation a pair, with what each part added to the fused score.
        """
        card, ref, found = self.card, self.ref, []
        for at, (image, text) in enumerate(zip(images, texts, strict=True)):
            parts = shares(card.rule, image.score, text.score, self.blank)
            score = card.rule(image.score, text.score)
            found.append(
                PairExplanation(
                    input=PairRef(image.input, text.input, None if paths is None else paths[at]),
                    model=ref,
                    values=np.array([parts.image, parts.text], np.float32),
                    method=METHOD,
                    target=f"{card.image.target} {card.rule.name} {card.text.target}",
                    class_index=None,
                    label=card.label,
                    score=score,
                    logit=score,
                    device=str(self.image.device),
                    precision=image.precision,
                    degenerate=not (parts.image or parts.text),
                    versions=image.versions,
                    created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    seconds=image.seconds + text.seconds,
                    image=image,
                    text=text,
                    rule=str(card.rule),
                    base_value=parts.base,
                    interaction=parts.interaction,
                )
            )
        return found

    def score(self, pairs: Iterable[Pair]) -> list[float]:
        """Compute the fused score of each pair, in order, without maps."""
        many = _checked(pairs)
        if not many:
            return []
        seen = self.image.score([image for image, _ in many], self.card.image.target)
        read = self.text.score([text for _, text in many], self.card.text.target)
        return [self.card.rule(p, q) for p, q in zip(seen, read, strict=True)]

    def redact(
        self,
        explanation: PairExplanation,
        image: Any = None,
        *,
        share: float = 0.5,
        how: How = "blur",
    ) -> PairRedaction:
        """Hide the strongest area of the image and the strongest words, and score what is left.

        Args:
            explanation: The explanation whose maps say what to hide.
            image: The original image; None for the explanation's own original.
            share: The part of each map's positive values to hide, 0 to 1.
            how: How the image is hidden: "blur" or "fill" (grey).

        Raises:
            ArgumentError: Another model made the explanation, or an argument is wrong.
        """
        picture = self.image.redact(explanation.image, image, share=share, how=how)
        words = self.text.redact(explanation.text, share=share)
        rule = self.card.rule
        return PairRedaction(
            picture,
            words,
            explanation.label,
            explanation.score,
            rule(picture.after, words.before),
            rule(picture.before, words.after),
            rule(picture.after, words.after),
        )

    def reproduce(
        self, record: PairExplanation | Mapping[str, Any], image: Any = None
    ) -> tuple[Reproduction, Reproduction, Reproduction]:
        """Compute a stored explanation again: the pair's values, the image's map and the text's.

        Args:
            record: A `PairExplanation` or its `to_dict()`.
            image: The original image; None for the original that the record names.

        Raises:
            ArgumentError: Another model made the record.
        """
        old = record if isinstance(record, PairExplanation) else PairExplanation.from_dict(record)
        if old.model.weights_sha256 != self.ref.weights_sha256:
            raise ArgumentError(
                f"expected the fused model {old.model.name} ({old.model.preprocess}), got "
                f"{self.ref.name} ({self.ref.preprocess}): use the card that made the record"
            )
        seen = self.image.reproduce(old.image, image)
        read = self.text.reproduce(old.text)
        source = old.image.original_source() if image is None else image
        (new,) = self.explain([(source, old.text.text)], paths=[old.input.path])
        peak = float(np.abs(old.values).max(initial=0.0)) or 1.0
        whole = Reproduction(
            new,
            float(np.abs(new.values - old.values).max()) / peak,
            abs(new.score - old.score),
            seen.same_image and read.same_image,
        )
        return whole, seen, read


def _checked(pairs: Iterable[Pair]) -> list[Pair]:
    """List pairs; raise ArgumentError for one that lacks its image or whose text is no text."""
    many = list(pairs)
    for place, one in enumerate(many):
        if len(one) != 2 or one[0] is None or not isinstance(one[1], str):
            raise ArgumentError(
                expected="an image with a text",
                got=f"{_kinds(one)} at place {place}",
                remedy="pass (image, text); a text may be empty, and texts without an image are "
                "explained by visxai.text.Engine",
                field="pairs",
            )
    return many


def _kinds(one: Any) -> str:
    """Name the kinds of a tuple's members."""
    return ", ".join(type(part).__name__ for part in one)
