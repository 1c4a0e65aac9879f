"""Reads the steps of foreign transforms from their attributes: torchvision, timm, Hugging Face.

None of these libraries is imported. A transform whose steps can't be read exactly isn't read at
all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

Triple = tuple[float, float, float]
Single = tuple[float]
Steps = dict[str, Any]  # fields of a Preprocess

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def read_steps(source: Any) -> Steps | None:
    """Read the steps of a transform, preset, config or processor.

    Returns:
        The fields of the `Preprocess` that does the same, or None where they can't be read exactly.
    """
    if isinstance(source, Mapping):
        return _from_timm(source) if "input_size" in source else _from_processor(source)
    if isinstance(steps := getattr(source, "transforms", None), (list, tuple)):
        return _from_steps(steps)
    if type(source).__name__ == "ImageClassification":
        return _from_preset(source)
    return _from_processor(source.to_dict()) if is_processor(source) else None


def is_processor(source: object) -> bool:
    """Tell whether an object is an image processor of Hugging Face."""
    return hasattr(source, "image_mean") and hasattr(source, "to_dict")


def _steps(
    size: tuple[int, int],
    resize: int | tuple[int, int] | None,
    interpolation: str,
    mean: Triple,
    std: Triple,
) -> Steps:
    return {
        "size": size,
        "resize": resize,
        "interpolation": interpolation,
        "mean": mean,
        "std": std,
    }


def _triple(values: Any) -> Triple:
    """Convert one or three floats or 0-d tensors to three floats, without float32's noise."""
    items = list(values) if isinstance(values, Iterable) else [values]
    one, two, three = (
        float(str(np.float32(float(v)))) for v in items * (3 if len(items) == 1 else 1)
    )
    return one, two, three


def _sides(value: Any) -> int | tuple[int, int]:
    """Convert an int or one-element sequence to an int, and a pair (height, width) to a tuple."""
    items = [value] if isinstance(value, int) else [int(item) for item in value]
    if len(items) == 1:
        return items[0]
    height, width = items
    return height, width


def _pair(value: Any) -> tuple[int, int]:
    sides = _sides(value)
    return (sides, sides) if isinstance(sides, int) else sides


def _filter(value: Any) -> str:
    """Convert Pillow's number, torchvision's enum or a name to a name in `FILTERS`, or ""."""
    value = getattr(value, "value", value)
    if isinstance(value, int):
        return next((name for name, number in FILTERS.items() if number == value), "")
    name = str(value).lower()
    name = "nearest" if name == "nearest-exact" else name  # the same filter in Pillow
    return name if name in FILTERS else ""


def _from_preset(preset: Any) -> Steps | None:
    filter_ = _filter(preset.interpolation)
    if not filter_:
        return None
    mean, std = _triple(preset.mean), _triple(preset.std)
    return _steps(_pair(preset.crop_size), _sides(preset.resize_size), filter_, mean, std)


# timm's own ToTensor doesn't scale to 0..1.
_TO_TENSOR = {"torchvision": ("ToTensor",), "timm": ("MaybeToTensor",)}


def _from_steps(steps: Iterable[Any]) -> Steps | None:
    """Read the steps of a Compose; return None where a step can't be read exactly."""
    known: dict[str, Any] = {}
    tensor = scaled = False
    for step in steps:
        name = getattr(step, "__name__", type(step).__name__)
        package = type(step).__module__.split(".")[0]
        # CLIP's conversion to RGB, which a photo has already, and a change of the tensor's class.
        if name in ("_convert_image_to_rgb", "_convert_to_rgb", "ToPureTensor"):
            continue
        if package not in _TO_TENSOR or "mean" in known:
            return None
        if name == "Resize" and not known and not scaled:
            known = {"resize": _sides(step.size), "interpolation": _filter(step.interpolation)}
            plain = step.max_size is None and (step.antialias or not tensor)
            if not plain or not known["interpolation"]:
                return None
        elif name == "CenterCrop" and "size" not in known:
            known["size"] = _pair(step.size)
        elif name in ("PILToTensor", "MaybePILToTensor", "ToImage") and not tensor:
            tensor = True
        elif name in _TO_TENSOR[package] and not tensor:
            tensor = scaled = True
        elif name in ("ToDtype", "ConvertImageDtype") and tensor and getattr(step, "scale", True):
            scaled = str(step.dtype) == "torch.float32"
            if not scaled and str(step.dtype) != "torch.uint8":
                return None
        elif name == "Normalize" and scaled:
            known |= {"mean": _triple(step.mean), "std": _triple(step.std)}
        else:
            return None
    if "size" not in known and isinstance(known.get("resize"), tuple):
        known["size"] = known["resize"]
    return known if scaled and "size" in known else None


def _from_timm(config: Mapping[str, Any]) -> Steps | None:
    """Read timm's data config, by the rules of timm.data.create_transform."""
    _, height, width = config["input_size"]
    part = config.get("crop_pct") or 0.875
    scaled = math.floor(height / part), math.floor(width / part)
    mode = config.get("crop_mode") or "center"
    filter_ = _filter(config.get("interpolation", "bilinear"))
    if not filter_ or mode not in ("center", "squash") or (mode == "center" and height != width):
        return None
    resize = scaled if mode == "squash" else scaled[0]
    mean, std = _triple(config["mean"]), _triple(config["std"])
    return _steps((height, width), resize, filter_, mean, std)


# Processors that do no more than resize, centre-crop, rescale and normalise, in this order, with
# their default filter.
_PLAIN = {
    "": 2,
    "ViT": 2,
    "MobileNetV1": 2,
    "MobileNetV2": 2,
    "Beit": 3,
    "Bit": 3,
    "CLIP": 3,
    "ChineseCLIP": 3,
    "ConvNext": 3,
    "DeiT": 3,
    "Siglip": 3,
}


def _from_processor(config: Mapping[str, Any]) -> Steps | None:
    """Read a Hugging Face image processor's config (preprocessor_config.json)."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    for suffix in ("Pil", "Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(suffix)
    filter_ = _filter(
        config["resample"] if config.get("resample") is not None else _PLAIN.get(kind)
    )
    if kind not in _PLAIN or not filter_ or config.get("do_pad") or "size" not in config:
        return None
    crop, resize = _geometry(kind, config)
    size = crop or resize
    if not isinstance(size, tuple):
        return None
    # (p * factor - mean) / std on pixels p in 0..255, rewritten for p / 255.
    factor = (
        float(config.get("rescale_factor") or 1 / 255) if config.get("do_rescale", True) else 1.0
    )
    unit = 255 * factor
    mean: Any = (0.0,)
    std: Any = (1.0,)
    if config.get("do_normalize", True):
        mean, std = _triple(config["image_mean"]), _triple(config["image_std"])
    mean, std = (_triple([value / unit for value in values]) for values in (mean, std))
    return _steps(size, resize, filter_, mean, std) | {"rounding": "down"}


def _geometry(
    kind: str, config: Mapping[str, Any]
) -> tuple[tuple[int, int] | None, int | tuple[int, int] | None]:
    """Read (crop, resize) of a processor's config; crop is None where it can't be read."""
    size = config["size"]
    if isinstance(size, int):  # configs written before size was a dict
        if not kind and config.get("do_center_crop"):
            return None, None
        square = kind in ("", "ViT", "Beit", "DeiT", "Siglip")
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    if not config.get("do_resize", True):
        resize: int | tuple[int, int] | None = None
    elif "shortest_edge" in size and "longest_edge" not in size:
        resize = int(size["shortest_edge"])
    elif "height" in size and "width" in size:
        resize = int(size["height"]), int(size["width"])
    else:
        return None, None
    if kind == "ConvNext" and isinstance(resize, int):
        if resize >= 384:
            return (resize, resize), (resize, resize)
        return (resize, resize), int(resize / (config.get("crop_pct") or 224 / 256))
    if not config.get("do_center_crop"):
        return None, resize
    crop = config["crop_size"]
    return _pair((crop["height"], crop["width"]) if isinstance(crop, Mapping) else crop), resize
