"""What decides on the items of each kind: images, texts, and rows of tables."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from visxai.errors import ArgumentError
from visxai.ledger.canonical import canonical, sha256
from visxai.serve.batching import Batcher

if TYPE_CHECKING:
    from visxai.moderation import Decision, Moderator
    from visxai.serve.config import Config
    from visxai.serve.rows import RowModerator
    from visxai.serve.texts import TextModerator


class Kinds:
    """The moderators of one service.

    Args:
        config: The settings.
        images: What decides on images.
        compute: Loads the models of texts and rows, and decides on them.

    Attributes:
        images: What decides on images.
        texts: What decides on texts, None where the service takes none.
        rows: What decides on rows, None where the service takes none.

    Raises:
        VisxaiError: The settings don't fit a model.
    """

    def __init__(self, config: Config, images: Moderator, compute: Executor) -> None:
        self._config, self.images = config, images
        self.texts: TextModerator | None = None
        self.rows: RowModerator | None = None
        self._batchers: dict[str, Batcher[bytes, Decision]] = {}
        batching = config.limits.batch, config.limits.wait_ms / 1000, compute
        if config.text is not None:
            from visxai.serve.texts import TextModerator

            self.texts = compute.submit(TextModerator.open, config).result()
            self._batchers["text"] = Batcher(self.texts.decide, *batching)
        if config.table is not None:
            from visxai.serve.rows import RowModerator

            self.rows = compute.submit(RowModerator.open, config).result()
            self._batchers["table"] = Batcher(self.rows.decide, *batching)
        ref = images.engine.model.ref
        self._images_key = sha256(canonical([ref.weights_sha256, ref.preprocess, ref.name]))

    @property
    def names(self) -> list[str]:
        """The kinds that the service takes: "image", "text", "table"."""
        return ["image", *self._batchers]

    def of(self, kind: str) -> Moderator | TextModerator | RowModerator:
        """Return what decides on items of a kind.

        Raises:
            ArgumentError: The service takes none of this kind.
        """
        if kind == "image":
            return self.images
        return self.row() if kind == "table" else self.text()

    def text(self) -> TextModerator:
        """Return what decides on texts; raise ArgumentError where the service takes none."""
        if self.texts is None:
            raise _refusal("a text, and the settings have no rules for texts", "text", "text")
        return self.texts

    def row(self) -> RowModerator:
        """Return what decides on rows; raise ArgumentError where the service takes none."""
        if self.rows is None:
            raise _refusal("a row, and the settings have no model of rows", "table", "features")
        return self.rows

    def key_of(self, kind: str) -> str:
        """Return the key of the model that decides on items of a kind."""
        found = {"text": self.texts, "table": self.rows}.get(kind)
        return self._images_key if found is None else found.model_key

    def method_of(self, kind: str, tier: str) -> str:
        """Return the method that explains items of a kind in a tier."""
        if kind == "table" and self.rows is not None:
            return self.rows.method
        if kind == "text" and self._config.text is not None:
            return self._config.text.fast if tier == "fast" else self._config.text.precise
        tiers = self._config.tiers
        return tiers.fast.method if tier == "fast" else tiers.precise.method

    def decide(self, kind: str, data: bytes) -> Decision:
        """Decide on a text or a row, with others that come at the same time.

        Raises:
            ArgumentError: The model gives no finite score.
        """
        found = self._batchers[kind].submit(data)
        if not math.isfinite(found.score):
            raise ArgumentError(
                expected="an item that the model can score",
                got="one without a finite score",
                remedy="give the values that are missing",
                field="features" if kind == "table" else "text",
            )
        return found


def _refusal(got: str, part: str, field: str) -> ArgumentError:
    return ArgumentError(
        expected="an image", got=got, remedy=f"add a part [{part}] to them", field=field
    )
