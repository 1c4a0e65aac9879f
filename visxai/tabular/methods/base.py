"""The base class of attribution methods for tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from visxai.errors import ArgumentError
from visxai.spec import Spec
from visxai.tabular.features import Matrix
from visxai.tabular.models.interface import TableModel, Vector


class Explained(NamedTuple):
    """Explained rows.

    Attributes:
        values: The attributions, float64 (rows, features).
        base: What they start from, float64 (rows,).
        logits: The scalars that they explain, float64 (rows,), from the model itself.
    """

    values: Matrix
    base: Vector
    logits: Vector


Explainer = Callable[[Matrix], Explained]


@dataclass(frozen=True, repr=False)
class TableMethod(Spec, ABC):
    """A method that divides a model's scalar among the features of a row.

    Attributes:
        exact: Whether base value and attributions add up to the scalar, by the method's definition.
        compares: Whether rows are compared with the background; otherwise `implied` says with whom.
        implied: What stands in a record as the rule of a method without a background.
    """

    exact: ClassVar[bool] = True
    compares: ClassVar[bool] = True
    implied: ClassVar[str] = ""

    @abstractmethod
    def prepare(self, model: TableModel, background: Matrix | None) -> Explainer:
        """Make the function that explains rows.

        Args:
            model: The model.
            background: The rows to compare with, float64 (rows, features), None without any.

        Returns:
            A function of float64 (rows, features), which may be called with any number of rows.

        Raises:
            ArgumentError: The method doesn't explain such a model, or needs a background.
        """

    def scale(self, model: TableModel) -> str:
        """Return the scale of the attributions: the model's, unless the method says otherwise."""
        return model.scale

    def _needs(self, kind: str, fits: bool, model: TableModel) -> None:
        """Raise ArgumentError unless the model is of the kind that the method explains."""
        if not fits:
            raise ArgumentError(
                f"expected {kind} for {self.name()}, got {model.name}: leave method out, which "
                "then fits the model",
                field="method",
            )

    def _compared(self, background: Matrix | None) -> Matrix:
        """Return the background; raise ArgumentError where there is none."""
        if background is None:
            raise ArgumentError(
                f"expected rows to compare with for {self.name()}, got none: pass background=rows",
                field="background",
            )
        return background
