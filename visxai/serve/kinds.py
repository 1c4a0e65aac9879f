"""What decides on the items of each kind: images, texts, posts of both, and rows of tables."""

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
    from visxai.serve.image_with_text import Seen
    from visxai.serve.posts import PostModerator
    from visxai.serve.rows import RowModerator
    from visxai.serve.texts import TextModerator


class Kinds:
    """The moderators of one service.

    Args:
        config: The settings.
        images: What decides on images.
        compute: Loads the models of texts, posts and rows, and decides on them.

    Attributes:
        images: What decides on images.
        texts: What decides on texts, None where the service takes none.
        posts: What decides on images with texts, None where the service takes none.
        rows: What decides on rows, None where the service takes none.

    Raises:
        VisxaiError: The settings don't fit a model.
    """

    def __init__(self, config: Config, images: Moderator, compute: Executor) -> None:
        self._config, self.images = config, images
        self.texts: TextModerator | None = None
        self.posts: PostModerator | None = None
        self.rows: RowModerator | None = None
        self._batchers: dict[str, Batcher[bytes, Decision]] = {}
        batching = config.limits.batch, config.limits.wait_ms / 1000, compute
        if config.text is not None:
            from visxai.serve.texts import TextModerator

            self.texts = compute.submit(TextModerator.open, config).result()
            self._batchers["text"] = Batcher(self.texts.decide, *batching)
        if config.post is not None:
            from visxai.serve.posts import PostModerator

            text = None if self.texts is None else self.texts.engine
            self.posts = compute.submit(PostModerator.open, config, images.engine, text).result()
            self._posts: Batcher[Seen, Decision] = Batcher(self.posts.decide, *batching)
        if config.table is not None:
            from visxai.serve.rows import RowModerator

            self.rows = compute.submit(RowModerator.open, config).result()
            self._batchers["table"] = Batcher(self.rows.decide, *batching)
        ref = images.engine.model.ref
        self._images_key = sha256(canonical([ref.weights_sha256, ref.preprocess, ref.name]))

    @property
    def names(self) -> list[str]:
        """The kinds that the service takes: "image", "text", "table", "post"."""
        return ["image", *self._batchers, *(["post"] if self.posts is not None else [])]

    def of(self, kind: str) -> Moderator | TextModerator | PostModerator | RowModerator:
        """Return what decides on items of a kind.

        Raises:
            ArgumentError: The service takes none of this kind.
        """
        if kind == "image":
            return self.images
        if kind == "post":
            return self.post()
        return self.row() if kind == "table" else self.text()

    def text(self) -> TextModerator:
        """Return what decides on texts; raise ArgumentError where the service takes none."""
        if self.texts is None:
            raise _refusal("a text, and the settings have no rules for texts", "text", "text")
        return self.texts

    def post(self) -> PostModerator:
        """Return what decides on posts; raise ArgumentError where the service takes none."""
        if self.posts is None:
            got = "an image with a text, and the settings have no model of both"
            raise _refusal(got, "post", "text")
        return self.posts

    def row(self) -> RowModerator:
        """Return what decides on rows; raise ArgumentError where the service takes none."""
        if self.rows is None:
            raise _refusal("a row, and the settings have no model of rows", "table", "features")
        return self.rows

    def key_of(self, kind: str) -> str:
        """Return the key of the model that decides on items of a kind."""
        found = {"text": self.texts, "post": self.posts, "table": self.rows}.get(kind)
        return self._images_key if found is None else found.model_key

    def method_of(self, kind: str, tier: str) -> str:
        """Return the method that explains items of a kind in a tier."""
        if kind == "table" and self.rows is not None:
            return self.rows.method
        if kind == "text" and self._config.text is not None:
            return self._config.text.fast if tier == "fast" else self._config.text.precise
        tiers = self._config.tiers
        if kind == "post" and self.posts is not None:
            return self.posts.method_of(tier, tiers.precise.method)
        return tiers.fast.method if tier == "fast" else tiers.precise.method

    def decide(self, kind: str, data: bytes) -> Decision:
        """Decide on a text or a row, with others that come at the same time.

        Raises:
            ArgumentError: The model gives no finite score.
        """
        return self._finite(self._batchers[kind].submit(data), kind)

    def decide_post(self, post: Seen) -> Decision:
        """Decide on a post, with others that come at the same time.

        Raises:
            ArgumentError: The models give no finite score.
        """
        return self._finite(self._posts.submit(post), "post")

    @staticmethod
    def _finite(found: Decision, kind: str) -> Decision:
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
