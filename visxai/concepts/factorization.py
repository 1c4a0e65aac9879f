"""Deep feature factorization: the few patterns that a layer's activations over images consist of.

    A ≈ U W,    U, W >= 0

A (n u v, channels) holds the activations of all positions of all images. A row of W is a concept, a
direction in the space of channels; a column of U, laid back over the images, is where it is seen
and how strongly, with the same meaning in every picture. A concept is named by the class whose
score its direction raises most, above the score without any activation.

    found = visxai.concepts.deep_feature_factorization(engine, ["a.jpg", "b.jpg"], count=5)
    found.picture().save("concepts.jpg")

Negative activations count as zero: of a layer that has many, such as a transformer's, the part
above zero is factorized.

Cost: one forward an image, and one run of the head for each concept.
Source: Collins et al., Deep feature factorization for concept discovery, ECCV 2018.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visxai.concepts.found import Concepts
from visxai.concepts.looking import Looked, look, require_count
from visxai.concepts.nmf import factors
from visxai.labels import label_of
from visxai.models.interface import Need
from visxai.target import Target


def deep_feature_factorization(
    model: Any, images: Any, *, count: int = 5, layer: str | None = None
) -> Concepts:
    """Find the patterns that a layer sees in images.

    Args:
        model: An `Engine`, or what one takes as its model.
        images: One or many, as for `Engine.explain`; patterns that several of them share are found
            best.
        count: The number of concepts.
        layer: The layer to look at; None is the model's own choice.

    Returns:
        The concepts, the most frequent first: `importance` is the share of all explained
        activation that is theirs.

    Raises:
        ArgumentError: An argument is wrong.
        ImageError: An image can't be read.
        ModelError: The model offers no layers.
    """
    looked = look(model, images, layer)
    _, activation = looked.read(looked.x, lambda values: values)
    n, channels, height, width = activation.shape
    require_count(count, min(channels, n * height * width))
    values = activation.movedim(1, -1).reshape(-1, channels)
    u, w = factors(values, count)
    mass = u.sum(0) * w.sum(1)
    order = mass.argsort(descending=True, stable=True)
    u, w = u[:, order], w[order]
    left = (values - u @ w).square().sum() / values.square().sum().clamp_min(1e-12)
    return Concepts(
        method=f"deep_feature_factorization(count={count})",
        model=looked.engine.model.ref,
        layer=looked.layer,
        label=None,
        inputs=tuple(one.input for one in looked.prepared),
        sources=tuple(one.source for one in looked.prepared),
        bank=w.cpu().numpy(),
        maps=u.reshape(n, height, width, count).movedim(-1, 1).cpu().numpy(),
        importance=(mass[order] / mass.sum().clamp_min(1e-12)).cpu().numpy(),
        explained=1 - float(left),
        names=_names(looked, w * u.amax(0)[:, None]),
    )


def _names(looked: Looked, directions: Tensor) -> tuple[str, ...]:
    """Name each direction (count, channels) by the class that it raises most."""
    model = looked.engine.model
    if not model.offers & Need.LAYER_SCORES:
        return tuple(f"concept {number + 1}" for number in range(len(directions)))
    replay = model.replay(looked.x[:1], Target.of("top1"), looked.layer)
    rows = torch.cat([torch.zeros_like(directions[:1]), directions])
    shape = (-1, -1, *replay.activation.shape[2:])
    with torch.inference_mode(False), torch.no_grad():
        scores = replay.head(
            torch.zeros(len(rows), dtype=torch.long, device=rows.device),
            rows[:, :, None, None].expand(shape).contiguous(),
        )
    best = (scores[1:] - scores[:1]).argmax(1).tolist()
    return tuple(f"like “{label_of(model.labels, index)}”" for index in best)
