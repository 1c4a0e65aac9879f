"""What a method is: a frozen dataclass whose call is a pure function (model, x, target) -> maps.

A method's file is its documentation: theory, equation, cost and source in the docstring, then
the code. Its repr is its spec string, which names every option that changes numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from visxai.errors import ArgumentError
from visxai.methods._maps import fuse
from visxai.models.interface import Model, Need
from visxai.models.views import AtLayer
from visxai.spec import Spec, built
from visxai.target import Target


@dataclass(frozen=True)
class Maps:
    """What a method returns for r maps.

    values: (r, u, v), float32, the native resolution, unscaled. quality: figures a map, such as
    completeness (relative error) or evaluations, each (r,).
    """

    values: Tensor
    quality: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """Rows through the network for one image with one map, the clean forward included.

    forwards: through the whole network, or from the input to the layer; heads: from a layer to
    the scores only; backwards: from the score down.
    """

    forwards: int
    backwards: int = 0
    heads: int = 0


@dataclass(frozen=True, repr=False)
class Method(Spec, ABC):
    """An explanation method. Subclasses are final, frozen, and state their needs."""

    needs: ClassVar[Need]

    @abstractmethod
    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        """Maps for a batch x (b, 3, h, w) in model space: one a map of the aimed target."""

    @abstractmethod
    def cost(self, model: Model, x: Tensor) -> Cost:
        """What one image like x (1, 3, h, w) costs."""

    @property
    def two_sided(self) -> bool:
        """Whether maps can hold evidence against the target.

        Maps of a one-sided method are never negative. Records keep this, and all maps of a method
        are drawn in the colours that it decides, whatever each happens to hold.
        """
        return True

    def layer_of(self, model: Model, x: Tensor) -> str | None:
        """The layer the maps come from, for the record; None for methods without one."""
        return None

    @classmethod
    def of(cls, member: str, options: Mapping[str, Any]) -> Method:
        """The method with these options; `member` names one of a family ("captum:DeepLift")."""
        if member:
            raise ArgumentError(
                f"expected {cls.name()} without a member, got {cls.name()}:{member}: drop the "
                "part from the colon on"
            )
        return built(cls, options)


@dataclass(frozen=True, repr=False)
class LayerMethod(Method):
    """A map made of what one layer holds, or of several layers' maps, fused.

    layer: a dotted name, or several, joined by "+" ("layer3+layer4") or as a tuple; None is the
    model's own choice. Fused maps are each divided by their largest magnitude, brought to the
    finest resolution and averaged, so that no layer outweighs another by its units.
    """

    layer: str | None = None

    def __post_init__(self) -> None:
        given: Any = self.layer
        if isinstance(given, (tuple, list)):
            names = [str(name) for name in given]
            object.__setattr__(self, "layer", "+".join(names) or None)

    def layer_of(self, model: Model, x: Tensor) -> str:
        return self.layer or model.layer(x)

    def layers(self, model: Model, x: Tensor) -> list[str]:
        """The names of the layers, one by one."""
        return self.layer_of(model, x).split("+")


@dataclass(frozen=True, repr=False)
class Cam(LayerMethod):
    """A map made of one layer's activations and gradients, or of several layers' fused."""

    needs = Need.LAYER_GRADIENT

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        seen = model.at_layers(x, target, self.layer.split("+") if self.layer else ())
        return Maps(fuse([self.map(at) for at in seen.layers]))

    @abstractmethod
    def map(self, at: AtLayer) -> Tensor:
        """The map (r, u, v) of one layer."""

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)
