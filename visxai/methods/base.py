"""The base classes of methods: frozen dataclasses that map (model, x, target) to saliency maps.

A method's call is a pure function. Its file is its documentation: theory, equation, cost and
source in the docstring, then the code. Its repr is its spec string, which names every option that
changes numbers.

Shapes are written with b images, r maps (one for each image and class that the target settles on),
c channels, h x w pixels of the model's input and u x v positions of a map's native resolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
    """The result of a method: r maps and their quality figures.

    Attributes:
        values: The maps (r, u, v), float32, at native resolution, unscaled.
        quality: Figures of each map, each (r,), such as completeness (relative error) or
            evaluations.
    """

    values: Tensor
    quality: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """The rows that go through the network for one image with one map, the clean forward included.

    Attributes:
        forwards: Rows through the whole network, or from the input to the layer.
        backwards: Rows from the score down.
        heads: Rows from a layer to the scores only.
    """

    forwards: int
    backwards: int = 0
    heads: int = 0


@dataclass(frozen=True, repr=False)
class Method(Spec, ABC):
    """An explanation method.

    Subclasses are final and frozen, and state what they need of a model.

    Attributes:
        needs: What a model must offer for the method to run.
    """

    needs: ClassVar[Need]

    @abstractmethod
    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        """Explain a batch.

        Args:
            model: The model; it must offer the method's `needs`.
            x: Images (b, 3, h, w) in model space.
            target: What to explain; it settles on one or more classes for each image.

        Returns:
            One map for each image and class that the target settles on.
        """

    @abstractmethod
    def cost(self, model: Model, x: Tensor) -> Cost:
        """Count the rows that one image like x (1, 3, h, w) sends through the network."""

    @property
    def two_sided(self) -> bool:
        """Return whether maps can hold evidence against the target.

        Maps of a one-sided method are never negative. Records keep this flag, and it decides the
        colours in which all maps of a method are drawn, whatever values each of them holds.
        """
        return True

    @property
    def bears_half(self) -> bool:
        """Return whether maps in half precision stand for float32's, where an engine may choose.

        Gradients at the input don't: they sum noise that a layer's gradient averages out (on
        photographs integrated gradients turn by a cosine of 0.88 to 0.96). Nor do methods that
        compare nothing but scores: many changes of a score are as small as its rounding (the ranks
        of an occlusion map then correlate with float32's by 0.97 at worst).
        """
        return Need.INPUT_GRADIENT not in self.needs and self.needs != Need.SCORES

    def layer_of(self, model: Model, x: Tensor) -> str | None:
        """Return the name of the layer that the maps come from, for the record, or None."""
        return None

    @classmethod
    def of(cls, member: str, options: Mapping[str, Any]) -> Method:
        """Build the method from options; `member` names a member of a family ("captum:DeepLift").

        Raises:
            UnknownName: The method has no such option.
            ArgumentError: The method has no members, or an option's value is not allowed.
        """
        if member:
            raise ArgumentError(
                f"expected {cls.name()} without a member, got {cls.name()}:{member}: drop the "
                "part from the colon on"
            )
        return built(cls, options)


@dataclass(frozen=True, repr=False)
class LayerMethod(Method):
    """A method whose map comes from a layer, or from several layers whose maps are fused.

    Fused maps are each divided by their largest magnitude, resized to the finest resolution and
    averaged, so that no layer outweighs another by its units.

    Attributes:
        layer: A dotted name, or several, joined by "+" ("layer3+layer4") or as a tuple; None is the
            model's own choice.
    """

    layer: str | None = None

    def __post_init__(self) -> None:
        given: Any = self.layer
        if isinstance(given, (tuple, list)):
            names = [str(name) for name in given]
            object.__setattr__(self, "layer", "+".join(names) or None)
        super().__post_init__()

    def layer_of(self, model: Model, x: Tensor) -> str:
        """Return the method's `layer`, or the model's own choice where it is None."""
        return self.layer or model.layer(x)

    def layers(self, model: Model, x: Tensor) -> list[str]:
        """List the names of the layers."""
        return self.layer_of(model, x).split("+")


@dataclass(frozen=True, repr=False)
class Cam(LayerMethod):
    """A class activation map: made of the activations and gradients of one layer, or of several."""

    needs = Need.LAYER_GRADIENT

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        names = self.layer.split("+") if self.layer else ()
        found = model.layer_maps(x, target, names, repr(self), self.maps)
        if found is None:
            return Maps(self.maps(model.at_layers(x, target, names).layers))
        return Maps(found.maps)

    def maps(self, layers: Sequence[AtLayer]) -> Tensor:
        """Compute the maps (r, u, v) of all layers together."""
        return fuse([self.map(at) for at in layers])

    @abstractmethod
    def map(self, at: AtLayer) -> Tensor:
        """Compute the map (r, u, v) of one layer from its activations and gradients."""

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)
