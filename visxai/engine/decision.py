"""What was decided of acceleration, for the whole of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """How the parts of a model that need no graph are run, and why.

    Attributes:
        kind: "off", "onnx", "openvino" or "compile".
        reason: Why, in a few words.

    >>> print(Decision("onnx", "run long enough"))
    onnx (run long enough)
    """

    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.reason})"

    @classmethod
    def of(cls, record: str) -> Decision:
        """Read the decision that a run.json keeps as text.

        >>> Decision.of("off (run too short)")
        Decision(kind='off', reason='run too short')
        """
        kind, _, reason = record.partition(" (")
        return cls(kind, reason.removesuffix(")"))
