"""Models of tables behind one interface, so that a method needs to know none of the libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.tabular.models.interface import TableModel
    from visxai.tabular.models.loading import load

__all__ = ["TableModel", "load"]

__getattr__, __dir__ = hand_on(__name__, {"TableModel": "interface", "load": "loading"})
