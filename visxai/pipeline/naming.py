"""The names of a run's overlays, which follow the folders of its sources."""

from __future__ import annotations

from dataclasses import dataclass

from visxai.pipeline.request import Request
from visxai.pipeline.tasks import Style
from visxai.record.image import ImageExplanation
from visxai.results.inputs import Input


@dataclass(frozen=True)
class Naming:
    """The names of a run's overlays: the image's name, with method and class if there are several.

    Attributes:
        methods: The part of a name that stands for each method, by the method's spec.
        several: Whether an image may have maps of several classes.
        format: The file name's ending, None for a run without overlays.
    """

    methods: dict[str, str]
    several: bool
    format: str | None

    @classmethod
    def of(cls, request: Request, style: Style | None) -> Naming:
        """Choose the names for a request; style None stands for no overlays."""
        # A second occlusion is "occlusion-2".
        names = [method.name() for method in request.methods]
        told = {
            repr(method): name + (f"-{names[:i].count(name) + 1}" if name in names[:i] else "")
            for i, (method, name) in enumerate(zip(request.methods, names, strict=True))
        }
        kind, value = request.target.kind, request.target.value
        several = kind == "above" or (kind == "top" and value > 1)
        return cls(told, several, None if style is None else style.format)

    def overlay(self, one: Input, explanation: ImageExplanation) -> str | None:
        """Return the file name of an explanation's overlay, None for a run without overlays."""
        if self.format is None:
            return None
        parts = [one.name]
        if len(self.methods) > 1:
            parts.append(self.methods[explanation.method])
        if self.several:
            parts.append(str(explanation.class_index))
        return ".".join([*parts, self.format])
