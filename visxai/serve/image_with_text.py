"""A post: an image with the text that somebody wrote beside it, as bytes and as models take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from visxai.images.prepared import Prepared

_LENGTH = 8  # bytes that say how long the text is


class Post(NamedTuple):
    """What somebody posted.

    Attributes:
        image: The image's bytes.
        text: The text.
    """

    image: bytes
    text: str

    def to_bytes(self) -> bytes:
        """Join both, so that a post is kept, hashed and erased as one thing."""
        text = self.text.encode("utf-8", "replace")
        return len(text).to_bytes(_LENGTH, "big") + text + self.image

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Part what `to_bytes` joined."""
        end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
        return cls(data[end:], data[_LENGTH:end].decode("utf-8"))


@dataclass(frozen=True, eq=False)
class Seen:
    """A post as its models take it.

    Attributes:
        image: The prepared image.
        text: The text.
    """

    image: Prepared
    text: str
