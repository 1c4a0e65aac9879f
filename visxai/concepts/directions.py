"""TCAV: does a class's score rise with a concept that you show by examples?

    T = share of the class's images x with  sum_i  dy/dA_i (x) . v  > 0

A_i is a layer's activation at position i, y the class's score. v, the concept activation vector, is
the normal of a linear classifier (ridge regression of ±1) that tells activations of the concept's
examples, averaged over positions, from those of other images; averaging makes the vector mean the
concept wherever it lies. T says whether moving all positions along v would raise the score.

Any v gives some T, so it is compared with chance: `runs` times the classifier is trained anew on
two thirds of the concept's examples and as many other images, and `runs` times on other images
against other images. p is the share of random exchanges between both lists that set their means
at least as far apart as they are. Each run also classifies what it wasn't trained on; where that
accuracy is near a half, the layer doesn't know the concept, and T means nothing. Runs share the
concept's examples, so p speaks of these examples and of the choice of others, not of new
examples.

    stripes = visxai.concepts.tcav(engine, "zebras/", "striped/", "other/", target="zebra")
    print(stripes.describe())

Cost: one forward an image, and one backward to the layer for each image of the class.
Source: Kim et al., Interpretability beyond feature attribution: quantitative testing with concept
activation vectors, ICML 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visxai.concepts.looking import look, require_between
from visxai.engine.engine import Engine
from visxai.references import ModelRef
from visxai.target import Target

DRAWS = 9999  # random exchanges behind a p
LEAST = 6  # images of the concept, and others


@dataclass(frozen=True)
class Tcav:
    """Whether a class's score rises with a concept.

    Attributes:
        model: The model.
        layer: The layer.
        target: What was explained.
        score: The share of images whose score rises with the concept, mean over the runs.
        chance: The same for directions between other images.
        scores: The share of each run.
        chances: The share of each random run.
        accuracy: How often the classifiers are right on images they weren't trained on.
        p: The probability of a difference as large by chance.
    """

    model: ModelRef
    layer: str
    target: str
    score: float
    chance: float
    scores: tuple[float, ...]
    chances: tuple[float, ...]
    accuracy: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05, and the layer tells the concept from other images."""
        return self.p < 0.05 and self.accuracy > 0.6

    def describe(self) -> str:
        """Say in one plain sentence what was found."""
        said = (
            f"moving along the concept raises {self.model.name}'s score for {self.target} in "
            f"{self.score:.0%} of the images, along random directions in {self.chance:.0%} "
            f"(p = {self.p:.2g})"
        )
        if self.accuracy <= 0.6:
            return (
                f"{said}, but {self.layer} tells the concept from other images only "
                f"{self.accuracy:.0%} of the time, so this means nothing."
            )
        if not self.significant:
            return f"{said}: no more than chance."
        return f"{said}: the score {'rises' if self.score > self.chance else 'falls'} with it."


def tcav(
    model: Any,
    images: Any,
    concept: Any,
    others: Any,
    *,
    target: Any = "top1",
    layer: str | None = None,
    runs: int = 20,
    seed: int = 0,
) -> Tcav:
    """Test whether the score of a class rises with a concept.

    Args:
        model: An `Engine`, or what one takes as its model.
        images: Images of the class, as for `Engine.explain`.
        concept: Images that show the concept, at least 6.
        others: Images of anything else, at least 6; twice as many as of the concept are best.
        target: What to explain, such as "class=zebra"; one class an image.
        layer: The layer to look at; None is the model's own choice.
        runs: Classifiers to train, and as many random ones.
        seed: Seed of the choices.

    Returns:
        The share of images whose score rises, beside chance.

    Raises:
        ArgumentError: An argument is wrong, or there are too few images.
        TargetError: The target doesn't fit the model.
        ImageError: An image can't be read.
        ModelError: The model offers no gradients at layers.
    """
    require_between("runs", runs, 2, 10_000)
    engine = model if isinstance(model, Engine) else Engine(model)
    looked = look(engine, images, layer)
    shown, rest = (look(engine, some, looked.layer, LEAST) for some in (concept, others))
    slopes = torch.cat(
        [
            engine.model.at_layers(part, Target.of(target, engine.model.labels), (looked.layer,))
            .layers[0]
            .gradient.sum((2, 3))
            for part in looked.parts(looked.x)
        ]
    )
    positive, negative = (some.read(some.x, _pooled)[1] for some in (shown, rest))
    generator = torch.Generator().manual_seed(seed)
    found, accuracies, random = [], [], []
    for _ in range(runs):
        vector, right = _trained(positive, negative, generator)
        found.append(_share(slopes, vector))
        accuracies.append(right)
        # As many on either side as above, so that chance has the same noise.
        order = torch.randperm(len(negative), generator=generator).to(negative.device)
        half = min(len(positive), len(negative) // 2)
        vector, _ = _trained(negative[order[:half]], negative[order[half:]], generator)
        random.append(_share(slopes, vector))
    return Tcav(
        model=engine.model.ref,
        layer=looked.layer,
        target=str(target),
        score=sum(found) / runs,
        chance=sum(random) / runs,
        scores=tuple(found),
        chances=tuple(random),
        accuracy=sum(accuracies) / runs,
        p=exchanged(found, random, generator),
    )


def separator(positive: Tensor, negative: Tensor, ridge: float = 0.01) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier of two sets of vectors, (n, k) and (m, k).

    Args:
        positive: The vectors of +1.
        negative: The vectors of -1.
        ridge: Weight of the squared norm, in units of the vectors' mean squared length.

    Returns:
        The normal (k,) of its plane, of length 1, pointing to the positive, and the offset: a
        vector x is positive where x . normal > offset.
    """
    both = torch.cat([positive, negative]).double()
    signs = torch.cat([both.new_ones(len(positive)), -both.new_ones(len(negative))])
    centre = (positive.double().mean(0) + negative.double().mean(0)) / 2
    both = both - centre
    gram = both @ both.T
    weight = ridge * gram.diagonal().sum().clamp_min(1e-12)
    # In its dual form: there are fewer images than channels.
    solved = torch.linalg.solve(gram + weight * torch.eye(len(gram)).to(gram), signs)
    normal = both.T @ solved
    normal = normal / normal.norm().clamp_min(1e-12)
    return normal.to(positive), (centre @ normal).to(positive)


def exchanged(first: list[float], second: list[float], generator: torch.Generator) -> float:
    """Compute the p of a difference between two means by random exchanges between the lists."""
    values = torch.tensor([*first, *second], dtype=torch.float64)
    order = torch.rand(DRAWS, len(values), generator=generator).argsort(1)
    drawn = values[order]
    apart = (drawn[:, : len(first)].mean(1) - drawn[:, len(first) :].mean(1)).abs()
    seen = abs(sum(first) / len(first) - sum(second) / len(second))
    return (1 + int((apart >= seen - 1e-12).sum())) / (DRAWS + 1)


def _pooled(activation: Tensor) -> Tensor:
    return activation.mean((2, 3))


def _trained(
    positive: Tensor, negative: Tensor, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Train on two thirds of the smaller side and as many of the other; test on what is left."""
    used = max(1, min(len(positive), len(negative)) * 2 // 3)
    halves = []
    for vectors in (positive, negative):
        order = torch.randperm(len(vectors), generator=generator).to(vectors.device)
        halves.append((vectors[order[:used]], vectors[order[used:]]))
    (taught, asked), (against, left) = halves
    normal, offset = separator(taught, against)
    shares = [
        float((side * (vectors @ normal - offset) > 0).float().mean())
        for side, vectors in ((1, asked), (-1, left))
        if len(vectors)
    ]
    return normal, sum(shares) / len(shares)


def _share(slopes: Tensor, vector: Tensor) -> float:
    return float((slopes @ vector > 0).float().mean())
