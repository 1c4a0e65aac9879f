"""The options of a folder run: gathered once, and handed on whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visxai.images.decoding import Limits
from visxai.pipeline.tasks import Style

if TYPE_CHECKING:
    from visxai.engine.engine import Methods
    from visxai.engine.gate import Gate
    from visxai.metrics.base import Metric


@dataclass(frozen=True)
class RunOptions:
    """What a run does with its sources, in this process or on Ray.

    Attributes:
        method: One method or several.
        target: What to explain.
        only: A condition on scores, as `Engine.explain` has it, or "wrong" or "right".
        check: A metric whose figures go into each row's quality.
        style: How overlays are drawn, None for no overlays.
        limits: Those of images.
        chunk_size: Images finished together, None for the usual number.
        timeout: Seconds that one image may take to decode, None for the usual time.
        path_column: A table's column of paths, None where it is found by its name.
        label_column: A table's column of labels, None where it is found by its name, "none" for
            no labels.
        fresh: Delete what an earlier run left in OUT.
        retry_failures: Do the chunks again in which an earlier run had failures.
        command: What the record says was typed.
    """

    method: Methods = "grad_cam"
    target: Any = "top1"
    only: str | Gate | None = None
    check: str | Metric | None = None
    style: Style | None = Style()  # noqa: RUF009 - frozen
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    chunk_size: int | None = None
    timeout: float | None = None
    path_column: str | None = None
    label_column: str | None = None
    fresh: bool = False
    retry_failures: bool = False
    command: str = ""

    @property
    def asked_column(self) -> str | None:
        """The column of labels that must have some, as it was asked for by name."""
        return None if self.label_column == "none" else self.label_column
