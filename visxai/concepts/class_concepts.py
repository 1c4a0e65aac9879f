"""CRAFT: the concepts behind one class, what each of them matters, and where it is seen.

    A ≈ U W,    U, W >= 0                          over crops of the class's images

    S_j = E[ Var( y | all m but m_j ) ] / Var(y),    y(m) = score of  A_x - U_x W + (m U_x) W

Every image is cut into overlapping crops, each enlarged to the model's input, and a layer's
activations, averaged over positions, are factorized: rows of W are the concepts, and crops with
the largest U show what they are. With W fixed, the coefficients U_x of an image's positions say
where each concept is. Its importance is the total Sobol index S_j, with every interaction: the
share of the score's variance that goes with a concept when all are turned down at random (m in
0..1, a quasi-random sequence drawn from `seed`), averaged over the images. What concepts don't
explain, A_x - U_x W, stays as it is, so with all concepts at 1 the score is the model's own.

    found = visxai.concepts.craft(engine, "tench/", target="tench", count=8)
    found.picture().save("tench.jpg")
    found.examples_sheet().save("examples.jpg")

Left out is the paper's recursion into earlier layers: name one by layer= instead.

Cost: for each image 1 + crops² forwards, and samples (count + 2) runs of the head.
Source: Fel et al., CRAFT: concept recursive activation factorization for explainability, CVPR 2023.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.concepts.found import Concepts, Example
from visxai.concepts.looking import Looked, look, require_between, require_count
from visxai.concepts.nmf import coefficients, factors
from visxai.errors import TargetError
from visxai.labels import label_of
from visxai.methods.sobol import design, total_indices
from visxai.models.rows import Rows
from visxai.models.views import Replay
from visxai.target import Target

EXAMPLES = 5  # crops kept of each concept


def craft(
    model: Any,
    images: Any,
    *,
    target: Any = None,
    count: int = 8,
    layer: str | None = None,
    crops: int = 4,
    share: float = 0.35,
    samples: int = 32,
    seed: int = 0,
) -> Concepts:
    """Find the concepts behind a class in images of it.

    Args:
        model: An `Engine`, or what one takes as its model.
        images: Images of the class, as for `Engine.explain`; some ten or more show what is common.
        target: The class, such as "class=tench" or its index; None is the class that the model sees
            in most of the images.
        count: The number of concepts.
        layer: The layer to look at; None is the model's own choice.
        crops: Crops along each side of an image.
        share: Side of a crop, as a share of the image's.
        samples: Rows of each matrix of the Sobol design.
        seed: Seed of that design.

    Returns:
        The concepts, the most important first.

    Raises:
        ArgumentError: An argument is wrong.
        TargetError: The target isn't one class for all images.
        ImageError: An image can't be read.
        ModelError: The model offers no layers, or can't be run from one on.
    """
    require_between("crops", crops, 1, 16)
    require_between("share", share, 0.05, 1)
    require_between("samples", samples, 2, 4096)
    looked = look(model, images, layer)
    windows = _windows(tuple(looked.x.shape[2:]), crops, share)
    scores, activation = looked.read(looked.x, lambda values: values)
    wanted = _class(looked, scores, target)
    pooled = torch.cat([looked.read(cut, _pooled)[1] for cut in _cuts(looked.x, windows)])
    require_count(count, min(pooled.shape))
    u, w = factors(pooled, count)
    n, channels, height, width = activation.shape
    values = activation.movedim(1, -1).reshape(-1, channels)
    placed = coefficients(values, w)
    maps = placed.reshape(n, height, width, count).movedim(-1, 1)
    importance = _importance(looked, maps, w, Target.of(wanted), samples, seed)
    order = importance.argsort(descending=True, stable=True)
    left = (values - placed @ w).square().sum() / values.square().sum().clamp_min(1e-12)
    # Crops were read window by window: one of each image, then the next window.
    strength = u.reshape(len(windows), n, count)
    return Concepts(
        method=(
            f"craft(count={count}, crops={crops}, share={share}, samples={samples}, seed={seed})"
        ),
        model=looked.engine.model.ref,
        layer=looked.layer,
        label=label_of(looked.engine.model.labels, wanted),
        inputs=tuple(one.input for one in looked.prepared),
        sources=tuple(one.source for one in looked.prepared),
        bank=w[order].cpu().numpy(),
        maps=maps[:, order].cpu().numpy(),
        importance=importance[order].cpu().numpy(),
        explained=1 - float(left),
        names=tuple(f"concept {number + 1}" for number in range(count)),
        examples=tuple(
            _examples(strength[:, :, part], windows, tuple(looked.x.shape[2:]))
            for part in order.tolist()
        ),
    )


def _class(looked: Looked, scores: Tensor, target: Any) -> int:
    """Settle on the one class that is explained."""
    if target is None:
        ((best, _),) = Counter(scores.argmax(1).tolist()).most_common(1)
        return int(best)
    model = looked.engine.model
    aim = Target.of(target, model.labels).aim(scores, model.probabilities(scores))
    found = set() if aim.classes is None else set(aim.classes.tolist())
    if len(found) != 1:
        raise TargetError(
            f"expected one class for all images, got {target!r}, which stands for {len(found)}: "
            "name a class, such as class=207"
        )
    return int(found.pop())


def _windows(size: tuple[int, ...], crops: int, share: float) -> list[tuple[int, int, int, int]]:
    """Lay crops evenly over an image of size (height, width): (left, top, right, bottom) each."""
    height, width = (max(1, round(side * share)) for side in size)

    def starts(whole: int, part: int) -> list[int]:
        steps = max(1, crops - 1)
        return [round(at * (whole - part) / steps) for at in range(crops)]

    return [
        (left, top, left + width, top + height)
        for top in starts(size[0], height)
        for left in starts(size[1], width)
    ]


def _cuts(x: Tensor, windows: list[tuple[int, int, int, int]]) -> Iterator[Tensor]:
    for left, top, right, bottom in windows:
        yield F.interpolate(
            x[:, :, top:bottom, left:right],
            tuple(x.shape[2:]),
            mode="bilinear",
            align_corners=False,
        )


def _pooled(activation: Tensor) -> Tensor:
    return activation.mean((2, 3))


def _importance(
    looked: Looked, maps: Tensor, w: Tensor, target: Target, samples: int, seed: int
) -> Tensor:
    """Estimate the total Sobol index (count,) of each concept, averaged over the images."""
    masks = design(samples, len(w), seed).to(maps)
    found: list[Tensor] = []
    for part, own in zip(looked.parts(looked.x), looked.parts(maps), strict=True):
        replay = looked.engine.model.replay(part, target, looked.layer)

        def turned(
            image: Tensor, turn: Tensor, own: Tensor = own, replay: Replay = replay
        ) -> Tensor:
            less = (masks[turn] - 1)[:, :, None, None] * own[image]
            return replay.activation[image] + torch.einsum("njuv,jc->ncuv", less, w)

        rows = Rows(len(part), len(masks), tuple(replay.activation.shape[1:]), turned)
        found.append(total_indices(looked.engine.model.replayed(replay, rows), samples))
    return torch.cat(found).mean(0)


def _examples(
    strength: Tensor, windows: list[tuple[int, int, int, int]], size: tuple[int, ...]
) -> tuple[Example, ...]:
    """List the crops with the largest strength (windows, n), one of each image at most."""
    best, where = strength.max(0)
    found = []
    for image in best.argsort(descending=True, stable=True)[:EXAMPLES].tolist():
        if best[image] > 0:
            box = windows[int(where[image])]
            found.append(Example(image, box, (size[1], size[0]), float(best[image])))
    return tuple(found)
