"""The errors of the service that aren't the library's; each has its status over HTTP."""

from __future__ import annotations

from visxai.errors import VisxaiError


class Missing(VisxaiError):
    """There is no such thing, or it is another tenant's, which looks the same."""

    code = "missing"

    def __init__(self, kind: str) -> None:
        super().__init__(
            expected=f"the id of {kind}", got="one that isn't known", remedy="check the id"
        )


class Conflict(VisxaiError):
    """What is asked for contradicts what is there."""

    code = "conflict"


class Overloaded(VisxaiError):
    """The service works on as many requests as it may."""

    code = "busy"

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__(
            expected="fewer requests at once",
            got="as many as the service takes",
            remedy=f"try again in {retry_after} s",
        )
        self.retry_after = retry_after
