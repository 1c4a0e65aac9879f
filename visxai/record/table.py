"""The record of an explained row of a table: what each feature added to the score."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from visxai.errors import ArgumentError
from visxai.foreign import for_html
from visxai.record import sentences
from visxai.record.base import Explanation, Picture
from visxai.references import Cell, RowRef

if TYPE_CHECKING:
    from PIL.Image import Image

ADDITIVE = 1e-5  # the most that base value and attributions may miss the score by
_NO_BACKGROUND: Mapping[str, Any] = {"rule": "none", "rows": 0, "sha256": None}


class Contribution(NamedTuple):
    """What one feature added to the score.

    Attributes:
        feature: The feature's name.
        cell: The row's value, None where it is missing.
        value: The attribution, on the record's scale; below 0 it lowered the score.
        typical: The typical value in the background, None where the record has none.
    """

    feature: str
    cell: Cell
    value: float
    typical: Cell


@dataclass(frozen=True, eq=False, repr=False)
class TableExplanation(Explanation):
    """Why a model gave a row of a table its score.

    `values` (features,) are the attributions on `scale`, so that `base_value` plus their sum is
    `logit`; `score` is what the model reports.

    Attributes:
        base_value: What the attributions start from: the mean over the background, or over the
            training rows that a tree's nodes have counted.
        scale: "log-odds", "probability" or "response" (a model's own units).
        threshold: The score from which the decision is favourable, None without a decision.
        background: What the row was compared with: `rule` (how the rows were chosen, in words),
            `rows` (their number) and `sha256` (of their values).
        typical: The typical value of each feature in the background, empty without one.
        excluded: Columns that the model never saw.
        groups: The row's protected columns, by name; they are never scored.
    """

    input: RowRef
    base_value: float = 0.0
    scale: str = "response"
    threshold: float | None = None
    background: Mapping[str, Any] = field(default_factory=lambda: dict(_NO_BACKGROUND))
    typical: tuple[Cell, ...] = ()
    excluded: tuple[str, ...] = ()
    groups: Mapping[str, Any] = field(default_factory=dict)

    reference: ClassVar[type[RowRef]] = RowRef
    axes: ClassVar[str] = "(features)"

    def __post_init__(self) -> None:
        """Check the shapes; raise ArgumentError where values and features don't pair up."""
        super().__post_init__()
        for name in ("typical", "excluded"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        wrong = [len(x) for x in (self.values, self.input.data) if len(x) != len(self.features)]
        if self.typical and len(self.typical) != len(self.features):
            wrong.append(len(self.typical))
        if wrong:
            raise ArgumentError(
                f"expected a value for each of {len(self.features)} features, got {wrong[0]}: pass "
                "one attribution, one cell and one typical value a feature"
            )

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the scored features."""
        return self.input.features

    @property
    def total(self) -> float:
        """The base value plus all attributions: `logit`, when the method is exact."""
        return self.base_value + float(self.values.sum(dtype=np.float64))

    @property
    def additivity(self) -> float:
        """The absolute difference between `total` and `logit`."""
        return abs(self.total - self.logit)

    @property
    def favourable(self) -> bool | None:
        """Whether the score reaches the threshold, None without one."""
        return None if self.threshold is None else self.score >= self.threshold

    @property
    def outcome(self) -> str | None:
        """The decision in words: the label, or "not" and the label; None without a threshold."""
        if self.favourable is None:
            return None
        return self.label if self.favourable else f"not {self.label}"

    @property
    def contributions(self) -> tuple[Contribution, ...]:
        """What each feature added, the greatest magnitude first; ties stay in order."""
        typical = self.typical or (None,) * len(self.features)
        order = np.argsort(-np.abs(self.values), kind="stable")
        return tuple(
            Contribution(
                self.features[at], self.input.data[at], float(self.values[at]), typical[at]
            )
            for at in order
        )

    def row(self) -> dict[str, Any]:
        """Return the record as one flat row of plain values, with the attributions as bytes."""
        made = super().row()
        return made | {name: list(made[name]) for name in ("typical", "excluded")}

    def value_of(self, feature: str) -> float:
        """Return a feature's attribution.

        Raises:
            ArgumentError: The model doesn't score such a feature.
        """
        if feature not in self.features:
            raise ArgumentError(
                f"expected a scored feature ({', '.join(self.features)}), got {feature!r}"
            )
        return float(self.values[self.features.index(feature)])

    def bars(self, most: int = 12, width: int = 720) -> Image:
        """Draw the contributions as bars to the left and right of zero.

        Args:
            most: The most features to draw; the others become one bar.
            width: The picture's width in pixels.
        """
        from visxai.drawing import bars

        found = self.contributions
        drawn = [bars.Bar(one.feature, _shown(one.cell), one.value) for one in found[:most]]
        if rest := found[most:]:
            drawn.append(
                bars.Bar(f"{len(rest)} other features", "", sum(one.value for one in rest))
            )
        return bars.draw(drawn, self.caption, unit=self.scale, width=width)

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.render().data).decode("ascii")
        said = for_html(self.describe())
        return f'<img alt="{said}" src="data:image/png;base64,{data}"><p>{said}</p>'

    def describe(self) -> str:
        """Say in one plain sentence what the model answered, and for which features."""
        cells = zip(self.features, self.input.data, strict=True)
        named = [f"{feature} = {_shown(cell)}" for feature, cell in cells]
        return sentences.parts(self, named, "feature")

    def render(self) -> Picture:
        """Draw the bars as a PNG."""
        file = io.BytesIO()
        self.bars().save(file, "PNG")
        return Picture("image/png", file.getvalue())

    @property
    def _source_name(self) -> str:
        return str(self.input)


def _shown(cell: Cell) -> str:
    """Write a cell for a picture, with at most four significant digits behind the point."""
    if cell is None:
        return "missing"
    return f"{cell:.4g}" if isinstance(cell, float) and abs(cell) < 1e4 else str(cell)
