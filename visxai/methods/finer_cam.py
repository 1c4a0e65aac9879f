"""Finer-CAM: what speaks for a class rather than for the classes most like it.

    L_i = relu( sum_k w_k A_ki ),    w_k = mean_i  dz / dA_ki

    z = y_c - gamma * mean over the `similar` classes d nearest to c of  y_d

A_ki is channel k of the layer's output at position i, y_c the score of class c. The nearest
classes are those whose rows in the last linear layer have the largest cosine similarity to c's.
Features that c shares with them (any cat has ears) cancel and its distinctive ones stay: Grad-CAM
for fine-grained classes. gamma=0 is Grad-CAM itself; `relu=False` keeps the signed sum, which is
linear in the scores. The contrast is drawn for single classes: targets like any=, diff= and
callables, which are not one class's score, are refused.

    visxai.Engine().explain("cat.jpg", method="finer_cam(gamma=0.6, similar=3)")

Cost: one forward, and one backward from the score down to the layer.
Source: Zhang et al., Finer-CAM, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.nn import functional as F

from visxai.errors import ArgumentError, TargetError
from visxai.methods.base import Cost, LayerMethod, Maps
from visxai.methods.grad_cam import GradCam
from visxai.models.interface import Model, Need
from visxai.target import Aim, Target


@dataclass(frozen=True, repr=False)
class FinerCam(LayerMethod):
    """Grad-CAM of a class against its nearest classes; see the module's docstring.

    Attributes:
        gamma: Weight of the nearest classes' mean score; 0 is Grad-CAM.
        similar: Number of nearest classes.
        relu: Whether to set negative values to zero; False keeps the signed sum.
    """

    gamma: float = 0.6
    similar: int = 3
    relu: bool = True

    needs = Need.LAYER_GRADIENT | Need.MODULE

    @property
    def two_sided(self) -> bool:
        return not self.relu

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.gamma >= 0, "gamma of at least 0", self.gamma)
        self._require(self.similar >= 1, "at least 1 similar class", self.similar)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        if target.kind not in ("top", "class", "index", "above"):
            raise TargetError(
                f"expected a target of single classes for finer_cam, got {target}: use top1, "
                "class=207, above=0.5 or one int per image, or grad_cam for this target"
            )

        def nearest(classes: int) -> Tensor:
            return self.nearest(model.head_weight(x, classes))

        against = Against.of_target(target, nearest, self.gamma)
        return GradCam(self.layer, self.relu)(model, x, against)

    def nearest(self, weight: Tensor) -> Tensor:
        """Rank the classes by the similarity of their rows in the last layer's weight.

        Args:
            weight: The weight of the last linear layer (classes, features).

        Returns:
            (classes, n), long: for every class its n = min(similar, classes - 1) most similar
            others.

        Raises:
            ArgumentError: The model has fewer than 2 classes.
        """
        others = len(weight) - 1
        if others < 1:
            raise ArgumentError(
                "expected a model with at least 2 classes for finer_cam, which sets a class "
                f"against others, got {len(weight)}: use grad_cam"
            )
        unit = F.normalize(weight, dim=1)
        likeness = (unit @ unit.T).fill_diagonal_(
            -2
        )  # below any cosine: a class isn't its own neighbour
        return likeness.topk(min(self.similar, others), dim=1).indices

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)


@dataclass(frozen=True)
class Against(Target):
    """The score of a target's class less gamma times the mean of its nearest classes' scores.

    Attributes:
        plain: The target whose class is explained.
        nearest: A function from the number of classes to a tensor (classes, k): the classes that
            each class is compared with.
        gamma: Weight of their mean score.
    """

    plain: Target | None = None
    nearest: Callable[[int], Tensor] | None = field(default=None, compare=False)
    gamma: float = 0.0

    @classmethod
    def of_target(cls, target: Target, nearest: Callable[[int], Tensor], gamma: float) -> Against:
        """Contrast the classes of `target` with those nearest to them."""
        asked = target.kind, target.text, target.classes
        return cls(*asked, plain=target, nearest=nearest, gamma=gamma)

    def part(self, start: int, stop: int) -> Against:
        assert self.plain is not None
        assert self.nearest is not None
        return self.of_target(self.plain.part(start, stop), self.nearest, self.gamma)

    def aim(self, scores: Tensor, probabilities: Tensor) -> Aim:
        """Settle the plain target on the scores, and contrast its classes with their nearest."""
        assert self.plain is not None
        assert self.nearest is not None
        found = self.plain.aim(scores, probabilities)
        assert found.classes is not None
        others = self.nearest(scores.shape[1]).to(scores.device)[found.classes]
        plain = found.function

        def function(scores: Tensor, which: Tensor) -> Tensor:
            rest = scores.gather(1, others[which]).float().mean(1)
            return plain(scores, which) - self.gamma * rest

        return replace(found, function=function)
