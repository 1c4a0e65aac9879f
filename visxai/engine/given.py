"""Images as callers give them: one or many, as objects, addresses or folders."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from torch import Tensor

from visxai.errors import ArgumentError
from visxai.images import objects
from visxai.images.address import Origin
from visxai.images.folders import images_below


def list_images(sources: Any) -> list[Any]:
    """List the sources; a single image counts as a list of one, a folder as its images."""
    return list(iterate_images(sources))


def iterate_images(sources: Any) -> Iterator[Any]:
    """Iterate over the sources; raise ArgumentError at once for an object that holds no images."""
    if _is_one(sources):
        return _unfolded([sources])
    if not isinstance(sources, Iterable):
        raise ArgumentError(
            "expected images (paths, bytes, open files, PIL images, uint8 arrays), got "
            f"{type(sources).__name__}"
        )
    return _unfolded(sources)


def _is_one(source: Any) -> bool:
    if isinstance(source, (np.ndarray, Tensor)):
        if isinstance(source, Tensor) and source.is_floating_point():
            objects.picture(source)  # which says what to do with it
        return source.ndim != 4  # a batch is iterated
    kinds = (str, bytes, bytearray, memoryview, os.PathLike, Origin)
    return isinstance(source, kinds) or hasattr(source, "convert") or hasattr(source, "read")


def _unfolded(sources: Iterable[Any]) -> Iterator[Any]:
    """Yield the sources, with folders replaced by the images below them."""
    for source in sources:
        if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            yield from images_below(source)
        else:
            yield source


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of `size` items; the last may hold fewer."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
