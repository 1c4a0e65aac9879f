"""The field that records of schema version 1 lack: whether their method's maps are two-sided.

Later records hold it. For records of version 1 it is derived from the method's spec, by a table of
the methods of that time; the table never grows.

    is_two_sided("grad_cam(relu=True)")      False: the map is never below 0
    is_two_sided("grad_cam(relu=False)")     True, like every method that isn't listed here
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from visxai.errors import ArgumentError
from visxai.spec import parse

# Methods whose maps are never negative; those with an option only while it has this value.
_UNSIGNED: dict[str, tuple[str, Any] | None] = {
    **dict.fromkeys(("attention_rollout", "beyond_intuition", "chefer", "legrad")),
    **dict.fromkeys(("hsic", "sobol")),
    **dict.fromkeys(("centred_gaussian", "random_map")),
    **dict.fromkeys(("ablation_cam", "attention_cam", "finer_cam", "grad_cam"), ("relu", True)),
    **dict.fromkeys(("grad_cam_plus_plus", "layer_cam", "score_cam"), ("relu", True)),
    "xgrad_cam": ("relu", True),
    **dict.fromkeys(("saliency", "smooth_grad"), ("signed", False)),
    "captum:Saliency": ("abs", True),
    # Its map belongs to no class, so it holds no evidence against one.
    "eigen_cam": ("centred", False),
}


@lru_cache(maxsize=256)
def is_two_sided(spec: str) -> bool:
    """Tell whether maps of the method with this spec can be negative."""
    try:
        name, member, options = parse(spec, "method", "grad_cam(relu=True)")
    except ArgumentError:  # an option that isn't plain, such as a tensor, doesn't affect the sign
        name, member, options = spec.partition("(")[0], "", {}
    if name == "augmented" and isinstance(options.get("method"), str):
        return is_two_sided(options["method"])
    name = f"{name}:{member}" if member else name
    if name not in _UNSIGNED:
        return True
    option, value = _UNSIGNED[name] or ("", None)
    return bool(options.get(option, value) != value)
