"""Videos: every n-th frame explained, an overlay written as a video, a row for each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.video.reading import read
    from visxai.video.run import VideoRun, explain

__all__ = ["VideoRun", "explain", "read"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "VideoRun": "run",
        "explain": "run",
        "read": "reading",
    },
)
