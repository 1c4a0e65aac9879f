"""Preprocessing: how the upright photograph becomes the model's input.

    pixels = crop(resize(photo)),    x = (pixels / 255 - mean) / std

`Preprocess` holds these steps as data, so that a record can name them and a map can be placed on
the original. Resize and crop run on the CPU and give small uint8 arrays; the arithmetic runs on the
whole batch, on its device. `Preprocess.of` converts transforms of torchvision, timm and Hugging
Face without importing these libraries. Where it can't read the steps, it returns an `Opaque` with
the same methods `crop` and `normalise`, whose view is assumed to be the whole image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visxai.errors import ArgumentError, UnknownName, VisxaiError
from visxai.images.decoding import Photo
from visxai.images.transforms import FILTERS, Single, Triple, is_processor, read_steps
from visxai.references import Transform

if TYPE_CHECKING:
    from torch import Tensor

# From this many resized pixels on, only the crop is resized, as resizing all of a very long image
# would fill the memory. Below it the whole image is resized: Pillow chooses the order of its two
# passes by their cost and rounds to 8 bits between them, so resizing only the crop may differ in
# the last bits.
_WHOLE = 2**24
_LIKE = "write it like Preprocess(size=(224, 224), resize=256)"


@dataclass(frozen=True)
class Preprocess:
    """The steps of a preprocessing: resize, centre crop, scale to 0..1, normalise.

    Where the resized image is smaller than `size`, black pixels surround it.

    Attributes:
        size: (height, width) of the model's input, in pixels.
        resize: The short side in pixels (the long side is int(resize * long / short), as in
            torchvision), an exact (height, width), or None for no resize.
        interpolation: The filter of the resize: "nearest", "bilinear", "bicubic", "lanczos" or
            "box".
        mean: The mean of pixels in 0..1, in the order of `channels`; a single number, as in
            mean=(0.5,), for a model of one channel, whose input is the photograph's grey (Pillow's
            "L").
        std: The standard deviation of pixels in 0..1, likewise.
        channels: The order of the channels that the model expects, "rgb" or "bgr".
        rounding: The rounding of the crop's offset where an odd number of pixels is cut off: "even"
            (torchvision, timm: half to even) or "down" (Hugging Face).
        side: The side that an integer `resize` sets, "short" or "long"; with "long" a square `size`
            holds the whole photograph.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: Triple | Single = (0.0, 0.0, 0.0)
    std: Triple | Single = (1.0, 1.0, 1.0)
    channels: Literal["rgb", "bgr"] = "rgb"
    rounding: Literal["even", "down"] = "even"
    side: Literal["short", "long"] = "short"

    def __post_init__(self) -> None:
        """Check all fields; raise ArgumentError or UnknownName where a value isn't valid."""
        for name, counts in (("size", (2,)), ("resize", (2,)), ("mean", (3, 1)), ("std", (3, 1))):
            value = getattr(self, name)
            if name == "resize" and (value is None or isinstance(value, int)):
                continue
            if not isinstance(value, (list, tuple)) or len(value) not in counts:
                raise ArgumentError(f"expected {counts[0]} numbers as {name}, got {value}: {_LIKE}")
            object.__setattr__(self, name, tuple(value))  # a TOML card gives lists
        if len(self.mean) != len(self.std):
            self._fill_moments()
        resize = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        resize = self.size if self.resize is None else resize
        # True is an int to Python, but no number of pixels.
        if not all(type(side) is int and side > 0 for side in (*self.size, *resize)):
            raise ArgumentError(
                f"expected whole pixels above 0, got size {self.size} and resize {self.resize}: "
                f"{_LIKE}"
            )
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise ArgumentError(
                f"expected finite mean and positive std, got {self.mean} and {self.std}: give "
                "them for pixels in 0..1"
            )
        choices = {
            "interpolation": FILTERS,
            "channels": ("rgb", "bgr"),
            "rounding": ("even", "down"),
            "side": ("short", "long"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UnknownName(name, getattr(self, name), known)

    def _fill_moments(self) -> None:
        """Shorten mean or std to one channel where it is the default and the other has one."""
        for name, default in (("mean", 0.0), ("std", 1.0)):
            if getattr(self, name) == (default,) * 3:
                object.__setattr__(self, name, (default,))
        if len(self.mean) != len(self.std):
            raise ArgumentError(
                f"expected as many numbers as mean as std, got {self.mean} and {self.std}: give "
                "one each for a model of one channel, else three"
            )

    @property
    def grey(self) -> bool:
        """Whether the model's input has one channel."""
        return len(self.mean) == 1

    def blank(self) -> NDArray[np.uint8]:
        """Return black pixels in the shape that `crop` returns."""
        return np.zeros((*self.size, len(self.mean)), np.uint8)

    def __str__(self) -> str:
        """Describe the steps on one line for records, with everything that changes the pixels."""
        parts = ["no resize"]
        if self.resize is not None:
            short = isinstance(self.resize, int)
            side = self.resize if short else "x".join(str(v) for v in self.resize)  # type: ignore[union-attr]
            long = " long side" if short and self.side == "long" else ""
            parts = [f"resize {side}{long} {self.interpolation}"]
        parts.append(f"crop {self.size[0]}x{self.size[1]}")
        parts += ["rounded down"] if self.rounding == "down" else []
        parts.append("grey" if self.grey else self.channels)
        parts += [
            f"{name} " + " ".join(f"{value:.7g}" for value in values)
            for name, values in (("mean", self.mean), ("std", self.std))
        ]
        return ", ".join(parts)

    def crop(self, photo: Photo) -> tuple[NDArray[np.uint8], Transform]:
        """Resize a photograph and cut out the model's view.

        Returns:
            uint8 (h, w, 3) RGB of `size`, or (h, w, 1) grey, and the view's place on the upright
            photograph.
        """
        image, (height, width) = photo.image, self.size
        image = image.convert("L") if self.grey else image
        resized = self._resized(image.size)
        left = self._offset(resized[0], width)
        top = self._offset(resized[1], height)
        # The part of the crop that lies on the resized image, in its pixels.
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + width, resized[0]), min(top + height, resized[1])
        filter_ = FILTERS[self.interpolation]
        if resized[0] * resized[1] < _WHOLE:
            whole = image if resized == image.size else image.resize(resized, filter_)
            part = whole.crop((x0, y0, x1, y1))
        else:
            fx, fy = image.width / resized[0], image.height / resized[1]
            box = (x0 * fx, y0 * fy, min(x1 * fx, image.width), min(y1 * fy, image.height))
            part = image.resize((x1 - x0, y1 - y0), filter_, box=box)
        pixels = self.blank()
        cut = np.asarray(part).reshape(part.height, part.width, -1)
        pixels[y0 - top : y1 - top, x0 - left : x1 - left] = cut
        return pixels, Transform(resized, (left, top, width, height), photo.orientation)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Turn a batch of pixels into the model's input.

        Args:
            pixels: uint8 (b, h, w, c), as `crop` returns them.

        Returns:
            float32 (b, c, h, w), contiguous, on the same device.
        """
        import torch

        x = pixels.flip(-1) if self.channels == "bgr" else pixels
        x = x.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        mean, std = self._moments(x)
        return x.div(255).sub_(mean).div_(std)

    def denormalise(self, x: Tensor) -> Tensor:
        """Turn a batch of model inputs back into pixels.

        Args:
            x: float (b, c, h, w), as `normalise` returns it.

        Returns:
            float RGB (b, 3, h, w), clamped to 0..1.
        """
        mean, std = self._moments(x)
        rgb = (x * std + mean).clamp(0, 1)
        if self.grey:
            return rgb.expand(-1, 3, -1, -1)
        return rgb.flip(1) if self.channels == "bgr" else rgb

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (_constant(values, x.dtype, x.device) for values in (self.mean, self.std))
        return mean, std

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Compute (width, height) after the resize of an image of `size` (width, height)."""
        if self.resize is None:
            return size
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        short, long = min(size), max(size)
        if self.side == "long":
            short = max(1, int(self.resize * short / long))
            return (short, self.resize) if size[0] <= size[1] else (self.resize, short)
        long = int(self.resize * long / short)
        return (self.resize, long) if size[0] <= size[1] else (long, self.resize)

    def _offset(self, have: int, want: int) -> int:
        """Compute the offset of a centred crop of `want` pixels; it is negative with padding."""
        if want > have:
            return -((want - have) // 2)
        return round((have - want) / 2) if self.rounding == "even" else (have - want) // 2

    @staticmethod
    def of(source: object) -> Preprocess | Opaque:
        """Convert a transform, a preset, a configuration or a callable.

        The result equals the original within 1e-6, except where that resizes uint8 tensors (v2
        after ToImage, Hugging Face's default processors): torch's kernels round differently from
        Pillow's, by 1/255 a pixel, and by more at hard edges with bicubic, which overshoots there
        and is clipped between the passes.

        Args:
            source: A Preprocess or Opaque; a torchvision (v1, v2) or timm Compose, or a torchvision
                weights preset; timm's data config or a Hugging Face image processor, as object or
                dict; any callable that turns a PIL image into a float tensor (3, h, w).

        Returns:
            A Preprocess where the steps can be read exactly, else an Opaque.

        Raises:
            ArgumentError: The source is none of these.
        """
        if isinstance(source, (Preprocess, Opaque)):
            return source
        try:
            steps = read_steps(source)
        except VisxaiError:
            raise
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
            if not isinstance(source, Mapping):
                raise
            steps = None  # a configuration in a form that the libraries don't write
        if steps is not None:
            return Preprocess(**steps)
        if is_processor(source) and callable(source):
            return Opaque(_Processed(source))
        if callable(source) and not isinstance(source, type):
            return Opaque(source)
        raise ArgumentError(
            "expected a Preprocess, a torchvision, timm or Hugging Face transform, a timm or "
            "Hugging Face config that resizes and centre-crops to one size, or a callable PIL "
            f"image -> float tensor (3, h, w), got {_name(source)}: {_LIKE}"
        )


@dataclass(frozen=True)
class Opaque:
    """A preprocessing known only as a function: PIL RGB image to float tensor (3, h, w).

    The place of its output on the photograph is unknown: the whole image is assumed, and the record
    notes it.

    Attributes:
        function: The function.
    """

    function: Callable[[Image.Image], Any]

    def __str__(self) -> str:
        return f"opaque {_name(self.function)}"

    def crop(self, photo: Photo) -> tuple[NDArray[np.float32], Transform]:
        """Apply the function to a photograph.

        Returns:
            float32 (3, h, w) or (1, h, w), and the assumed view: the whole image.

        Raises:
            ArgumentError: The function's result has another shape or type.
        """
        result = self.function(photo.image)
        if hasattr(result, "detach"):
            result = result.detach().cpu()
            result = (result.float() if result.is_floating_point() else result).numpy()
        array = np.asarray(result)
        if array.ndim != 3 or array.shape[0] not in (1, 3) or array.dtype.kind != "f":
            raise ArgumentError(
                "expected the preprocessing to give a float tensor of shape (3, h, w) or (1, h, "
                f"w), got {array.dtype} {array.shape}: end it with the conversion and normalisation"
            )
        height, width = array.shape[1:]
        view = Transform((width, height), (0, 0, width, height), photo.orientation, assumed=True)
        return np.ascontiguousarray(array, dtype=np.float32), view

    def normalise(self, pixels: Tensor) -> Tensor:
        """Convert float (b, 3, h, w) to float32; the function has normalised the pixels already."""
        return pixels.float().contiguous()


@dataclass(frozen=True)
class _Processed:
    """A Hugging Face processor as a function of one image."""

    processor: Callable[..., Any]

    def __call__(self, image: Image.Image) -> Any:
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


def _name(source: object) -> str:
    """Return a stable name of an object, without the memory address that a repr may hold."""
    source = source.processor if isinstance(source, _Processed) else source
    named = source if hasattr(source, "__qualname__") else type(source)
    return f"{named.__module__}.{named.__qualname__}"


@functools.lru_cache(16)
def _constant(values: tuple[float, ...], dtype: Any, device: Any) -> Tensor:
    """Return one number a channel (c, 1, 1), on a device once for all batches."""
    import torch

    with torch.inference_mode(False):  # it outlives the caller's
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
