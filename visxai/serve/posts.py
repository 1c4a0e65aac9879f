"""Posts: an image with a text, decided on by one score of two models, explained part by part.

A post is flagged where the score of a fused model (`visxai.fused`) is above a threshold. Its record
holds what the image and the text added to that score, and a map within each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visxai.fused.card import Card
from visxai.fused.engine import Engine
from visxai.ledger.canonical import canonical, sha256
from visxai.moderation import FLAG, PASS, Decision, Moderator, Policy, Rule
from visxai.record.pair import PairExplanation
from visxai.serve import text_checks
from visxai.serve.image_with_text import Seen
from visxai.serve.precise import Checked, check_image
from visxai.serve.texts import TextModerator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from visxai.engine import engine as images
    from visxai.serve.config import Config, PostSettings, Precise
    from visxai.text import engine as texts

_WITH = " with "  # between the methods of both parts, as jobs name them


class PostModerator:
    """Decides on posts by a threshold on a fused score, and explains them.

    Args:
        engine: The engine with both models.
        settings: The threshold, the category, its severity and ground.
        policy: The policy's name.

    Attributes:
        policy: The policy, of one rule.
        preprocess: How the image model's input is cut, which decoders do.
        model_key: The hash of the models and the rule, by which workers know their jobs.

    Raises:
        VisxaiError: A method doesn't fit its model.
    """

    def __init__(self, engine: Engine, settings: PostSettings, policy: str) -> None:
        card = engine.card
        self.engine, self.limit = engine, settings.threshold
        category = settings.category or card.label
        when = f"score>{self.limit:g}"
        rule = Rule(category, when, settings.severity, settings.ground)
        self.policy = Policy(policy, (rule,))
        # The parts have no thresholds of their own: these two score and explain.
        image, text = (
            Policy(policy, (Rule(part.model, f"{part.target}>1"),))
            for part in (card.image, card.text)
        )
        self._images = Moderator(engine.image, image, card.image.method)
        self._texts = TextModerator(engine.text, text, card.text.method)
        engine.text.methods(settings.precise)
        self._precise = settings.precise
        self.preprocess = engine.image.model.preprocess
        told = (engine.image.model.ref.preprocess, engine.text.model.ref.preprocess)
        self.model_key = sha256(canonical([engine.ref.weights_sha256, *told]))
        self._target = f"{card.image.target} {card.rule.name} {card.text.target}"
        _ = engine.blank  # now, and not in the first post's time

    @classmethod
    def open(cls, config: Config, image: images.Engine, text: texts.Engine | None) -> PostModerator:
        """Load the models that the card of the settings names, unless the service has them.

        Args:
            config: The settings.
            image: The engine of the service's images.
            text: The engine of its texts, None where it takes none.

        Raises:
            VisxaiError: A model can't be loaded, or doesn't fit the settings.
        """
        from visxai.engine import engine as images

        settings = config.post
        assert settings is not None
        card, own = Card.read(settings.model), config.model
        plain = not (own.checkpoint or own.labels or own.activation)
        if card.image.model != own.name or not plain:
            told = own.model_dump(include={"device", "precision", "accelerate"})
            image = images.Engine(card.image.model, **told, batch_size=config.limits.batch)
        if config.text is None or card.text.model != config.text.model:
            text = None
        device = own.device if config.text is None else config.text.device
        engine = Engine(card, image=image, text=text, device=device)
        return cls(engine, settings, config.policy.name)

    def method_of(self, tier: str, precise: str) -> str:
        """Name the methods of both parts.

        Args:
            tier: "fast" or "precise".
            precise: The method of the precise tier for images.
        """
        card = self.engine.card
        both = (card.image.method, card.text.method) if tier == "fast" else (precise, self._precise)
        return _WITH.join(both)

    def decide(self, batch: Sequence[Seen]) -> list[Decision]:
        """Decide on posts with one forward of each model, without explaining any."""
        image = self._images.decide([one.image for one in batch])
        text = self._texts.decide([one.text.encode("utf-8") for one in batch])
        rule = self.engine.card.rule
        return [self.judge([rule(p.score, q.score)]) for p, q in zip(image, text, strict=True)]

    def judge(self, scores: Sequence[float]) -> Decision:
        """Apply the threshold to a fused score."""
        (score,), (rule,) = scores, self.policy.rules
        flagged = score > self.limit
        told = {rule.category: score}
        severity = rule.severity if flagged else 0
        decision = FLAG if flagged else PASS
        return Decision(decision, rule.category, score, self.limit, told, severity, self._target)

    def explain(self, batch: Sequence[Seen], method: str) -> list[PairExplanation]:
        """Explain posts.

        Args:
            batch: The posts.
            method: The methods of both parts, as `method_of` names them.
        """
        card = self.engine.card
        image, _, text = method.partition(_WITH)
        seen = self._images.explain([one.image for one in batch], card.image.target, image)
        read = self._texts.explain([one.text for one in batch], card.text.target, text)
        return self.engine.join(seen, read)

    def check(
        self,
        settings: Precise,
        post: Seen,
        whole: NDArray[Any] | None,
        method: str,
        fast: PairExplanation | None,
    ) -> Checked[PairExplanation]:
        """Explain a post precisely, and check the explanation.

        Args:
            settings: The tier's settings.
            post: The post.
            whole: (h, w, 3) uint8, the upright image.
            method: The methods of both parts.
            fast: The fast tier's explanation, None where there is none.

        Returns:
            The explanation with the figures of each part (`image` as of images, `text` as of texts)
            and `counterfactual`: the fused score before and after the strongest half of the
            evidence in both is hidden, and in each alone.
        """
        card = self.engine.card
        image, _, text = method.partition(_WITH)
        seen = check_image(
            self._images,
            settings,
            post.image,
            whole,
            card.image.target,
            image,
            None if fast is None else fast.image,
        )
        read = text_checks.check(
            self._texts, post.text, card.text.target, text, None if fast is None else fast.text
        )
        (made,) = self.engine.join([seen.explanation], [read.explanation])
        confidence: dict[str, Any] = {"image": seen.confidence, "text": read.confidence}
        confidence["counterfactual"] = self._hidden(made, seen.confidence, read.confidence)
        return Checked(made, confidence)

    def _hidden(
        self, made: PairExplanation, image: Mapping[str, Any], text: Mapping[str, Any]
    ) -> dict[str, float]:
        """Fuse what became of the parts' scores; a part without evidence is left as it is."""
        rule, nothing = self.engine.card.rule, {"area": 0.0}
        seen = {"after": made.image.score, **nothing, **image.get("counterfactual", {})}
        read = {"after": made.text.score, **nothing, **text.get("counterfactual", {})}
        return {
            "image": seen["area"],
            "words": read["area"],
            "before": made.score,
            "after": rule(seen["after"], read["after"]),
            "image_alone": rule(seen["after"], made.text.score),
            "text_alone": rule(made.image.score, read["after"]),
        }
