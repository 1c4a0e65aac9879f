"""The same images by several methods, at several layers, or with several models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from visxai.engine.given import list_images
from visxai.errors import ArgumentError
from visxai.methods.base import Method
from visxai.record.collection import Explanations

if TYPE_CHECKING:
    from typing import Protocol

    import torch

    from visxai.models.interface import Model

    class Explainer(Protocol):
        """What explains images: an engine."""

        model: Model
        device: torch.device

        @property
        def precision(self) -> str:
            """What its forwards compute in."""

        @property
        def accelerate(self) -> str:
            """What runs its forwards."""

        def explain(self, images: Any, method: Any, target: Any) -> Explanations:
            """Explain images."""


def compare(
    engine: Explainer,
    images: Any,
    methods: Sequence[Method],
    target: Any,
    layers: Sequence[str],
    models: Sequence[Any],
) -> Explanations:
    """Explain images with every method, at every layer, with every model.

    Args:
        engine: The first model's engine; others are made like it where `models` has no engines.
        images: Images as `Engine.explain` takes them; each is read once.
        methods: The methods.
        target: What to explain.
        layers: The layers that each method looks at in turn; empty for its own choice.
        models: Further models, or engines of them.

    Raises:
        ArgumentError: A method looks at no layer, a model can't serve a method, or a model comes
            twice.
    """
    made = type(engine)
    engines = [engine, *(one if isinstance(one, made) else made(one) for one in models)]  # type: ignore[call-arg]
    seen: set[tuple[object, ...]] = set()
    for one in engines:
        if (key := _identity(one)) in seen:
            raise ArgumentError(
                f"expected models that differ, got {one.model.ref.name} twice with the same "
                "weights: leave it out of models=, since the engine's own model comes first"
            )
        seen.add(key)
    asked = [_at(method, layer) for method in methods for layer in layers] or list(methods)
    many = list_images(images)
    return Explanations(
        found for one in engines for method in asked for found in one.explain(many, method, target)
    )


def _identity(engine: Explainer) -> tuple[object, ...]:
    return engine.model.ref, engine.device, engine.precision, engine.accelerate


def _at(method: Method, layer: str) -> Method:
    if "layer" not in {item.name for item in fields(method)}:
        raise ArgumentError(
            f"expected methods that look at a layer, such as grad_cam, got {method.name()}: leave "
            "layers= out"
        )
    options: dict[str, Any] = {"layer": layer}
    return replace(method, **options)
