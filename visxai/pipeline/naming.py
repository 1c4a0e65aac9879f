"""Names a run's outputs by the folders of its sources."""

from __future__ import annotations

from dataclasses import dataclass

from visxai.pipeline.request import Asked
from visxai.pipeline.tasks import Style
from visxai.record.image import ImageExplanation
from visxai.results.inputs import Input


@dataclass(frozen=True)
class Naming:
    """How a run names its overlays: as their images, with method and class where there are
    several; format None for no overlays."""

    methods: dict[str, str]  # by spec
    several: bool
    format: str | None

    @classmethod
    def of(cls, asked: Asked, style: Style | None) -> Naming:
        # A second occlusion is "occlusion-2".
        names = [method.name() for method in asked.methods]
        told = {
            repr(method): name + (f"-{names[:i].count(name) + 1}" if name in names[:i] else "")
            for i, (method, name) in enumerate(zip(asked.methods, names, strict=True))
        }
        kind, value = asked.target.kind, asked.target.value
        several = kind == "above" or (kind == "top" and value > 1)
        return cls(told, several, None if style is None else style.format)

    def overlay(self, one: Input, explanation: ImageExplanation) -> str | None:
        """The name of an explanation's overlay."""
        if self.format is None:
            return None
        parts = [one.name]
        if len(self.methods) > 1:
            parts.append(self.methods[explanation.method])
        if self.several:
            parts.append(str(explanation.class_index))
        return ".".join([*parts, self.format])
