"""Configurations of preprocessing, as timm and Hugging Face publish them with a model."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from PIL import Image

from visxai.images.decoding import Photo
from visxai.images.preprocess import Preprocess

WORDS = ("size", "crop_size", "shortest_edge", "do_resize", "image_mean", "crop_pct", "input_size")
_LARGEST = 512  # a side that is asked for on purpose may cost what it costs


def check(data: bytes) -> None:
    """What a configuration is told to be cuts a photograph to its size."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(told, Mapping):
        return
    found = Preprocess.of(told)
    assert isinstance(found, Preprocess)
    resize = found.resize if isinstance(found.resize, tuple) else (found.resize or 0,)
    if max(*found.size, *resize) <= _LARGEST:
        pixels, _ = found.crop(Photo(Image.new("RGB", (7, 5)), ""))
        assert pixels.shape == (*found.size, 3)
        assert pixels.dtype == np.uint8
    str(found)


def seeds() -> dict[str, bytes]:
    """One of each of the forms that are told apart."""
    moments = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    configs = {
        "timm": {"input_size": [3, 24, 24], "mean": [0.5], "std": [0.5], "crop_pct": 0.9},
        "squash": {"input_size": [3, 24, 20], "crop_mode": "squash", "mean": [0], "std": [1]},
        "vit": {"image_processor_type": "ViTImageProcessor", "size": 24, **moments},
        "clip": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 28},
            "crop_size": {"height": 24, "width": 24},
            "do_center_crop": True,
            **moments,
        },
        "convnext": {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 24},
            "crop_pct": 0.875,
            **moments,
        },
        "half": {"input_size": [3, 24]},
        "zero": {"input_size": [3, 24, 24], "crop_pct": 1e-300, "mean": [0], "std": [0]},
    }
    return {f"{name}.json": json.dumps(told).encode() for name, told in configs.items()}
