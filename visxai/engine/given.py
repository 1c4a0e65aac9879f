"""Images as callers give them, with their identifiers; and how far a call has come."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from visxai.errors import ArgumentError, Failure
from visxai.images import objects
from visxai.images.address import Origin
from visxai.images.folders import images_below
from visxai.images.prepared import Prepared

_IMAGES = ("image", "img", "pixel_values", "path", "file")  # of samples that are mappings


def list_images(sources: Any) -> list[Any]:
    """List the sources; a single image counts as a list of one, a folder as its images."""
    return list(iterate_images(sources))


def iterate_images(sources: Any) -> Iterator[Any]:
    """Iterate over the sources; raise ArgumentError at once for an object that holds no images."""
    if _is_one(sources):
        return _unfolded([sources])
    if (
        hasattr(sources, "__getitem__")
        and hasattr(sources, "__len__")
        and not hasattr(sources, "__iter__")
    ):
        return _unfolded(_indexed(sources))
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
    """Yield the sources, with folders and batches replaced by the images in them."""
    for source in sources:
        image = _image_of(source)
        if isinstance(image, (str, os.PathLike)) and os.path.isdir(image):
            yield from images_below(image)
        elif isinstance(image, (np.ndarray, Tensor)) and image.ndim == 4:
            yield from image  # what a loader yields
        else:
            yield image


def _image_of(sample: Any) -> Any:
    """Return the image, or the batch of them, of a data set's sample; anything else as it is.

    A sample is (image, label, ...) as of torchvision, or a mapping as of Hugging Face.
    """
    if isinstance(sample, Mapping):
        return next((sample[name] for name in _IMAGES if name in sample), sample)
    if isinstance(sample, (tuple, list)) and sample and _is_image(sample[0]):
        return sample[0]
    return sample


def _is_image(part: Any) -> bool:
    """Tell whether the first part of a sample is an image or a batch of images."""
    if isinstance(part, (np.ndarray, Tensor)):
        return part.ndim >= 2
    return isinstance(part, (str, bytes, os.PathLike)) or hasattr(part, "convert")


def _indexed(dataset: Any) -> Iterator[Any]:
    """Yield the samples of a data set that has a length and indices, and no iterator."""
    for index in range(len(dataset)):
        yield dataset[index]


def in_batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of `size` items; the last may hold fewer."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def checked_ids(ids: Iterable[str], images: int) -> list[str]:
    """List the caller's identifiers as text; raise ArgumentError unless each image has one."""
    known = [ids] if isinstance(ids, str) else list(map(str, ids))
    if len(known) != images:
        raise ArgumentError(
            f"expected one id for each of {images} images, got {len(known)}: pass as many ids as "
            "images"
        )
    return known


def identified(batch: Iterable[Prepared | Failure], ids: Sequence[str]) -> list[Prepared | Failure]:
    """Give each image of a batch the caller's identifier; `ids` may go on after the batch."""
    return [
        one if isinstance(one, Failure) else replace(one, id=own)
        for one, own in zip(batch, ids, strict=False)
    ]


@contextmanager
def counted(
    progress: bool | Callable[[int, int], None], total: int
) -> Iterator[Callable[[int], object]]:
    """Show how many of `total` images are done while the context lasts.

    Args:
        progress: True for a bar on standard error, False for nothing, or a function of the number
            of images done and of all images.
        total: The number of images.

    Yields:
        A function to call with the number of images done.
    """
    if callable(progress):
        report = progress
        report(0, total)
        yield lambda done: report(done, total)
    elif not progress:
        yield lambda done: None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.update(task, completed=done)
