"""The record of an image with its text: what each of the two added to one score, and why."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from visxai.drawing import tokens
from visxai.errors import ArgumentError, ImageError
from visxai.foreign import for_html
from visxai.record.base import Explanation, Picture
from visxai.record.image import ImageExplanation
from visxai.record.text import TextExplanation
from visxai.references import PairRef

PARTS = ("image", "text")


@dataclass(frozen=True, eq=False, repr=False)
class PairExplanation(Explanation):
    """Why a fused model gave an image with its text its score.

    `values` (2,) are the Shapley values of the image and of the text: `base_value` plus their sum
    is `score`. `image` and `text` explain the score of each part's own model.

    Attributes:
        image: The explanation of the image.
        text: The explanation of the text.
        rule: How the two scores become one: "noisy_or", "max" or "mean".
        base_value: The score of a blank image with an empty text.
        interaction: What both parts add together beyond what each adds alone; below 0 where they
            say the same.
    """

    input: PairRef
    image: ImageExplanation = None  # type: ignore[assignment]  # given by name, always
    text: TextExplanation = None  # type: ignore[assignment]
    rule: str = "noisy_or"
    base_value: float = 0.0
    interaction: float = 0.0

    reference: ClassVar[type[PairRef]] = PairRef
    axes: ClassVar[str] = "(parts)"

    def __post_init__(self) -> None:
        """Read parts that are fields of records; raise ArgumentError for a part of another kind."""
        super().__post_init__()
        for name, kind in (("image", ImageExplanation), ("text", TextExplanation)):
            part = getattr(self, name)
            if isinstance(part, Mapping):
                part = Explanation.from_dict(part)
                object.__setattr__(self, name, part)
            if not isinstance(part, kind):
                raise ArgumentError(
                    f"expected an explanation of the {name}, got {type(part).__name__}: pass both "
                    "parts"
                )
        if len(self.values) != len(PARTS):
            raise ArgumentError(
                f"expected a value for the image and one for the text, got {len(self.values)}"
            )

    @property
    def total(self) -> float:
        """The base value plus both Shapley values: `score`."""
        return self.base_value + float(self.values.sum(dtype=float))

    def _derived(self) -> dict[str, Any]:
        return {"image": self.image.to_dict(), "text": self.text.to_dict()}

    @property
    def _source_name(self) -> str:
        return self.input.path or "image and text in memory"

    def describe(self) -> str:
        """Say in one plain sentence what each part added to the score."""
        image, text = self.values.tolist()
        said = (
            f"{self.model.name} gives “{self.label}” a score of {self.score:.3f} by "
            f"{self.rule}: the image adds {image:+.3f} and the text {text:+.3f} to the "
            f"{self.base_value:.3f} of a blank image without text"
        )
        if abs(self.interaction) >= 0.005:
            more = "more" if self.interaction > 0 else "less"
            said += f"; together they add {abs(self.interaction):.3f} {more} than each does alone"
        return said + "."

    def figure(self) -> str:
        """Draw both parts and what each added, as a part of an HTML page without scripts."""
        bars = "".join(
            f'<tr><th>{name}</th><td style="white-space:nowrap">{value:+.3f}</td>'
            f"<td>{for_html(one.label)} {one.score:.3f} by {for_html(one.model.name)}</td>"
            f"<td>{_bar(value)}</td></tr>"
            for name, value, one in zip(
                PARTS, self.values.tolist(), (self.image, self.text), strict=True
            )
        )
        return (
            f"<section><h2>{for_html(self.label)} {self.score:.3f}</h2>"
            f"<p>{for_html(Path(self._source_name).name)}. {for_html(self.describe())}</p>"
            f'<div class="wide" style="margin-bottom:1.2rem"><table>{bars}</table></div>'
            f'<div class="beside">{self._picture()}{tokens.figure(self.text.part())}</div>'
            "</section>"
        )

    def _picture(self) -> str:
        told = self.image.caption
        try:
            drawn = self.image.render()
            data = base64.b64encode(drawn.data).decode("ascii")
            shown = (
                f'<img style="max-width:100%;height:auto" alt="the image with its map" '
                f'src="data:{drawn.media_type};base64,{data}">'
            )
        except ImageError as error:  # it is gone, or has changed since
            shown = f"<p>{for_html(str(error))}</p>"
        return (
            f"<figure><figcaption><b>{for_html(told.label)} {told.score:.3f}</b> "
            f"{for_html(told.method)}<br>{for_html(told.source)}</figcaption>{shown}</figure>"
        )

    def render(self) -> Picture:
        """Draw both parts as one HTML page without scripts."""
        return Picture("text/html", page([self], f"{self.label} {self.score:.3f}").encode())


def page(explanations: list[PairExplanation], title: str, more: str = "") -> str:
    """Draw explanations, one below the other, as an HTML page without scripts.

    Args:
        explanations: The explanations.
        title: The page's title.
        more: HTML that stands above them.
    """
    two_sided = any(one.text.two_sided for one in explanations)
    body = "".join(one.figure() for one in explanations)
    return tokens.document(title, f"{more}{body}<footer>{tokens.legend(two_sided)}</footer>")


def _bar(value: float) -> str:
    """Draw a value from -1 to 1 as a bar: orange for the label, blue against it."""
    colour = "rgb(240,128,24)" if value >= 0 else "rgb(46,110,220)"
    width = f"{min(1.0, abs(value)) * 6:.2f}rem"
    return (
        f'<span style="display:inline-block;height:.7em;width:{width};background:{colour}"></span>'
    )
