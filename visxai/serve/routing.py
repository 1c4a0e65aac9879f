"""What the routes share: who may, what errors they declare, and the service behind them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query, Request

from visxai.serve.access import role
from visxai.serve.answers import ErrorOut
from visxai.serve.keys import Principal
from visxai.serve.service import Service

_SAID = {
    400: "The request can't be read.",
    401: "No valid API key.",
    403: "The key has another role.",
    404: "There is no such thing, or it is another tenant's.",
    409: "It contradicts what is there.",
    413: "The body is too large.",
    415: "The body is neither JSON nor a form.",
    422: "A value is wrong.",
    429: "The service is busy; Retry-After says when to try again.",
    503: "The database or the model can't be used now.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare the errors that a route answers, besides those that any may."""
    told = sorted({400, 401, 403, 404, 413, 422, 503, *statuses})
    return {status: {"model": ErrorOut, "description": _SAID[status]} for status in told}


Submit = Annotated[Principal, Depends(role("submit"))]
Read = Annotated[Principal, Depends(role("submit", "review", "audit"))]
Review = Annotated[Principal, Depends(role("review"))]
Look = Annotated[Principal, Depends(role("review", "audit"))]
Audit = Annotated[Principal, Depends(role("audit"))]
Admin = Annotated[Principal, Depends(role("admin"))]
Wait = Annotated[int, Query(ge=0, le=30_000, description="Milliseconds to wait for the end.")]


def service_of(request: Request) -> Service:
    """Return the service that an application was made for."""
    made: Service = request.app.state.service
    return made
