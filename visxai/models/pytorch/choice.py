"""The layer that a CAM reads where none was given, and the names to offer for a wrong one."""

from __future__ import annotations

import difflib
import itertools

import torch
from torch import Tensor

from visxai.errors import LayerError, UnknownName
from visxai.models.pytorch.at_layers import of_block
from visxai.models.pytorch.forms import Forms
from visxai.target import Target


def choose_layer(model: Forms, x: Tensor) -> str:
    """Return the best of the survey's candidates at which a gradient reaches the positions."""
    seen = model.survey(x)
    probe = torch.linspace(-1, 1, x[0].numel(), device=model.device).reshape(1, *x.shape[1:])
    blank: list[str] = []
    for name in itertools.islice(dict.fromkeys(seen.candidates()), 12):
        try:
            found = of_block(model, probe, Target("class", "class=0", (0,)), (name,))
        except LayerError:
            continue
        # Above the last attention only the class token is read: patches have no gradient.
        if bool(seen.layout(name).maps(found.layers[0].gradient).any()):
            return name
        blank.append(name)
    if blank:
        return blank[0]
    raise LayerError(
        f"expected {model._name} to have a layer with positions (b, c, h, w) or tokens, but "
        f"none feeds its scores: pass layer=, or use a method that needs no layer"
    )


def unknown_layer(model: Forms, name: str, x: Tensor) -> UnknownName:
    """Return the error for a name that no layer has, with the layers that a CAM can read.

    The late layers come first, and the layer that visxai would choose is named.
    """
    late = list(itertools.islice(dict.fromkeys(model.survey(x).candidates()), 5))
    names = [known for known, _ in model.module.named_modules() if known]
    near = difflib.get_close_matches(name, names, n=3)
    told = f"late ones are {', '.join(late)}" if near else f"late ones of {len(names)}"
    own = choose_layer(model, x)
    return UnknownName("layer", name, late, f"({told}; visxai's own choice is {own})", near)
