"""Spec strings of methods, metrics and controls: those that load give themselves back."""

from __future__ import annotations

from visxai import methods, metrics
from visxai.errors import VisxaiError
from visxai.metrics import controls
from visxai.record import version1

WORDS = (
    *("layer=", "relu=True", "steps=", "baseline=", "'mean'", "None", "captum:", "augmented"),
    *("method=", "scales=", "window=", "grad_cam", "rise", "masks=", "seed=", "options=", "1e999"),
    *("**{", "((", "0x", "grid=", "segments=", "DeepLift", "Occlusion", "random_map"),
)


def check(data: bytes) -> None:
    """Every reader of specs, on the same text."""
    text = data.decode("utf-8", "replace")
    for load in (methods.load, metrics.load, controls.load):
        try:
            found = load(text)
        except VisxaiError:
            continue
        assert repr(load(repr(found))) == repr(found), "a spec that doesn't give itself back"
    version1.is_two_sided(text)


def seeds() -> dict[str, bytes]:
    """Every method and metric with its defaults, and forms that strangers may write."""
    plain = [methods.find(name) for name in methods.names() if name != "captum"]
    judges = [metrics.find(name) for name in metrics.names()]
    found = {cls.name(): repr(cls()).encode() for cls in (*plain, *judges)}
    return found | {
        "captum": b"captum:Occlusion(sliding_window_shapes=(3, 16, 16), strides=(3, 8, 8))",
        "nested": b"augmented(method='augmented(method=\"grad_cam\")')",
        "control": b"random_map(grid=None, seed=3)",
        "unpacked": b"rise(**{'masks': 10})",
        "repeated": b"rise(masks=10, masks=20)",
        "deep": b"rise(masks=" + b"-" * 3000 + b"1)",
        "parentheses": b"rise(masks=" + b"(" * 300 + b"1" + b")" * 300 + b")",
        "infinite": b"blur_ig(sigma=1e999)",
        "fraction": b"rise(masks=10.5)",
        "text": b"rise(masks='a')",
    }
