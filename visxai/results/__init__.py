"""Results folders: written by a run, read back, exported.

    for explanation in visxai.results.read("OUT"): ...

`visxai.results.reading` describes the files in such a folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.results.exports import export
    from visxai.results.reading import dataset, failures, read, read_images, scores

__all__ = ["dataset", "export", "failures", "read", "read_images", "scores"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "export": "exports",
        "dataset": "reading",
        "failures": "reading",
        "read": "reading",
        "read_images": "reading",
        "scores": "reading",
    },
)
