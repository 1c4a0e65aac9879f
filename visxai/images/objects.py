"""Images given as objects rather than by address: open files, arrays and tensors.

    picture(array)        a PIL image of (h, w), (h, w, 1, 3 or 4) or (1, 3 or 4, h, w)
    content(file, limit)  the bytes of an object with `read()`

Values of uint8 are 0..255, floats of NumPy 0..1. An array that could be read in two ways is
refused: nothing is guessed about a stranger's pixels. Tensors are recognised by their methods, so
torch isn't imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visxai.errors import ArgumentError, ImageError

_CHANNELS = (1, 3, 4)
_FORMS = "(h, w), (h, w, 3) or (h, w, 4)"


def is_tensor(source: Any) -> bool:
    """Tell whether an object is a tensor of torch."""
    return hasattr(source, "detach") and hasattr(source, "cpu")


def content(file: Any, limit: int) -> bytes:
    """Read the bytes of an open file from its current position.

    Args:
        file: An object with `read()`.
        limit: The most bytes allowed; one more is read, so that the caller notices a larger file.

    Raises:
        ArgumentError: The file is asynchronous, or opened as text.
        ImageError: The file has no bytes left.
    """
    data = file.read(limit + 1)
    if hasattr(data, "__await__"):
        data.close()
        raise ArgumentError(
            f"expected a file that is read at once, got an asynchronous {type(file).__name__}: "
            "pass its .file, or the bytes that awaiting its read() gives"
        )
    if isinstance(data, str):
        raise ArgumentError(
            "expected a file opened for bytes, got one opened as text: open it with mode 'rb'"
        )
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ArgumentError(
            f"expected a file whose read() gives bytes, got {type(data).__name__} from "
            f"{type(file).__name__}: pass the bytes"
        )
    if not data:
        raise ImageError(
            "expected an image, got 0 bytes in the open file: go back to its beginning with "
            "seek(0), or fetch it again"
        )
    return bytes(data)


def picture(source: Any) -> Image.Image:
    """Convert an array or tensor to a PIL image: grey, RGB or RGBA.

    Args:
        source: An array or tensor of a shape in the module's docstring; tensors are uint8.

    Raises:
        ArgumentError: The shape, type or range is another, or the axis of the channels is
            ambiguous.
        ImageError: The array has no pixels.
    """
    tensor = is_tensor(source)
    if tensor and source.is_floating_point():
        raise ArgumentError(
            "expected images (paths, bytes, PIL images, uint8 arrays or tensors), got a float "
            "tensor: use attribute() for tensors in model space, or pass (x * 255).byte() of an "
            "image in 0..1"
        )
    array = np.asarray(source.detach().cpu().numpy() if tensor else source)
    array = _channels_last(array, tensor)
    if not array.size:
        raise ImageError(
            f"expected at least one pixel, got an array of shape {array.shape}: skip it"
        )
    return Image.fromarray(np.ascontiguousarray(_bytes(array)))


def _channels_last(array: NDArray[Any], tensor: bool) -> NDArray[Any]:
    """Reorder an array of either order of axes to (h, w) or (h, w, 3 or 4)."""
    if array.ndim == 2:
        return array
    first = array.ndim == 3 and array.shape[0] in _CHANNELS
    last = array.ndim == 3 and array.shape[2] in _CHANNELS
    if first and last and (tensor or array.dtype != np.uint8):
        raise ArgumentError(
            f"expected an image whose channels can be told, got shape {array.shape}, which may "
            "have them first or last: pass a PIL image, or a uint8 array with the channels last"
        )
    if not first and not last:
        raise _unlike(array)
    array = array if last else array.transpose(1, 2, 0)
    return array[:, :, 0] if array.shape[2] == 1 else array


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert the pixels to uint8 in 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_ or array.dtype.kind != "f":
        raise _unlike(array)
    if not (array.min() >= 0 and array.max() <= 1):  # true for NaN too
        raise ArgumentError(
            f"expected floats in 0..1, got values from {array.min():.4g} to {array.max():.4g}: "
            "pass uint8 for pixels in 0..255, and what is normalised already to attribute()"
        )
    return (array * 255 + 0.5).astype(np.uint8)


def _unlike(array: NDArray[Any]) -> ArgumentError:
    return ArgumentError(
        f"expected a uint8 array of shape {_FORMS}, or floats in 0..1, got {array.dtype} "
        f"{array.shape}: scale to 0..255 and put the channels last"
    )
