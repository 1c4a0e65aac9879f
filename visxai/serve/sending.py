"""The page with a form, for people who send an item by hand."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from visxai.errors import VisxaiError
from visxai.serve import intake
from visxai.serve.access import role, status_of
from visxai.serve.bodies import item_of
from visxai.serve.keys import Principal
from visxai.serve.rendering import page
from visxai.serve.routing import service_of
from visxai.serve.service import Service

router = APIRouter(include_in_schema=False)
_Submit = Annotated[Principal, Depends(role("submit"))]


@router.get("/send")
def get_form(request: Request, who: _Submit) -> Response:
    """Show the form."""
    return _page(service_of(request), who)


@router.post("/send")
async def post_form(request: Request, who: _Submit) -> Response:
    """Decide on what was sent; a flagged item's case follows for those who may see it."""
    service = service_of(request)
    try:
        item = await item_of(request)
        answer = await run_in_threadpool(intake.moderate, service, who, item)
    except VisxaiError as error:
        return _page(service, who, status_of(error), wrong=str(error))
    if answer["explanation"] and who.may("review"):
        return RedirectResponse(f"/review/{answer['decision_id']}", 303)
    return _page(service, who, answer=answer)


def _page(service: Service, who: Principal, status: int = 200, **told: Any) -> Response:
    kinds = service.kinds
    values = {
        "links": service.config.outside.sources,
        "posts": kinds.posts is not None,
        "alone": kinds.texts is not None,
        "texts": kinds.texts is not None or kinds.posts is not None,
    }
    return page("send.html", "Send an item", status, who=who, page="send", **values, **told)
