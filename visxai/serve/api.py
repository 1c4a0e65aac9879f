"""The endpoints for items and explanations; `access` has checked the key before."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from visxai.errors import ArgumentError, VisxaiError
from visxai.ledger import audit, explanations
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation
from visxai.record.pair import PairExplanation
from visxai.record.table import TableExplanation
from visxai.record.text import TextExplanation
from visxai.serve import erasure, intake
from visxai.serve.answers import (
    ExplanationOut,
    ExplanationsIn,
    ExplanationsOut,
    HoldIn,
    ItemIn,
    ItemOut,
    JobOut,
)
from visxai.serve.bodies import body_of, idempotency_key, item_of, parsed, taken
from visxai.serve.errors import Conflict, Missing
from visxai.serve.keys import Principal
from visxai.serve.rendering import fragment, framed, post_fragment, row_fragment, text_fragment
from visxai.serve.routing import Admin, Audit, Read, Submit, Wait, errors, service_of
from visxai.serve.service import Service

router = APIRouter(prefix="/v1")
_FRAGMENT = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
    "base-uri 'none'"
)


# ---- items ---------------------------------------------------------------------------------


@router.post(
    "/items", response_model=ItemOut, responses=errors(409, 415, 429), openapi_extra=body_of(ItemIn)
)
async def post_item(request: Request, who: Submit, wait: Wait = 0) -> Response:
    """Decide on an image, a text, both or a row; the explanation follows if it is flagged."""
    item = await item_of(request)
    service, key = service_of(request), idempotency_key(request)
    answer = await run_in_threadpool(intake.moderate, service, who, item, key)
    if wait and answer["explanation"]:
        answer["explanation"]["state"] = await _ended(
            service, who, answer["explanation"]["id"], wait
        )
    return JSONResponse(answer)  # it has that form, and needs no second look


@router.delete("/items/{item_id}", status_code=204, responses=errors(409))
def delete_item(request: Request, who: Admin, item_id: str) -> Response:
    """Erase an item: its bytes, hashes and explanations."""
    erasure.erase_item(service_of(request), who.tenant, item_id, who.key_id)
    return Response(status_code=204)


# ---- explanations --------------------------------------------------------------------------


@router.post(
    "/explanations",
    status_code=202,
    response_model=ExplanationsOut,
    responses=errors(409, 415, 429),
    openapi_extra=body_of(ExplanationsIn),
)
async def post_explanations(request: Request, who: Submit, wait: Wait = 0) -> dict[str, Any]:
    """Explain images, for pipelines that infer and decide by themselves."""
    service, key = service_of(request), idempotency_key(request)
    asked = await parsed(request, ExplanationsIn)
    if len(asked.items) > service.config.limits.per_call:
        raise ArgumentError(
            expected=f"at most {service.config.limits.per_call} items a call",
            got=str(len(asked.items)),
            remedy="send several calls",
            field="items",
        )
    results: list[dict[str, Any]] = []
    for number, one in enumerate(asked.items):
        own = None if key is None else f"{key}:{number}"
        try:
            item = await taken(service, one)
            results.append(
                await run_in_threadpool(
                    intake.explain, service, who, item, one.target, asked.tier, own
                )
            )
        except VisxaiError as error:
            # A single item's error is the call's; of several, each has its own.
            if len(asked.items) == 1 or (error.code == "busy" and not results):
                raise
            results.append({"state": "refused", "error": error.to_dict()})
    for result in results if wait else ():
        if "id" in result:
            result["state"] = await _ended(service, who, result["id"], wait)
    return {"explanations": results}


@router.get("/explanations/{id}", response_model=ExplanationOut, responses=errors())
async def get_explanation(request: Request, who: Read, id: str, wait: Wait = 0) -> dict[str, Any]:
    """Read an explanation; `wait` holds on until it has ended."""
    service = service_of(request)
    if wait:
        await _ended(service, who, id, wait)
    return await run_in_threadpool(_explanation, service, who, id)


@router.delete("/explanations/{id}", response_model=JobOut, responses=errors(409))
def cancel_explanation(request: Request, who: Submit, id: str) -> dict[str, Any]:
    """Cancel an explanation that hasn't ended."""
    service = service_of(request)
    with service.database.writing() as connection:
        intake.job_of(service, connection, id, who.tenant)
        if not service.queue.cancel(connection, id, service.database.now(connection)):
            raise Conflict(expected="an open job", got="one that ended", remedy="none is needed")
    return {"id": id, "state": "cancelled"}


@router.get(
    "/explanations/{id}/map.png",
    response_class=Response,
    responses={**errors(409), 200: {"content": {"image/png": {}}}},
)
def get_map(request: Request, who: Read, id: str) -> Response:
    """Draw the map alone: grey, black for none and white for the strongest evidence."""
    import numpy as np
    from PIL import Image

    found = done(service_of(request), who, id)
    values = np.nan_to_num(found.values)
    peak = float(np.abs(values).max(initial=0.0)) or 1.0
    level = 0.5 + 0.5 * values / peak if found.signed else values / peak
    file = io.BytesIO()
    Image.fromarray((255 * level.clip(0, 1)).astype(np.uint8)).save(file, "PNG")
    return Response(file.getvalue(), media_type="image/png")


@router.get(
    "/explanations/{id}/overlay.jpg",
    response_class=Response,
    responses={**errors(409), 200: {"content": {"image/jpeg": {}}}},
)
def get_overlay(
    request: Request,
    who: Read,
    id: str,
    side: Annotated[int, Query(ge=16, le=4096, description="Pixels of the longer side.")] = 1280,
) -> Response:
    """Draw the map over the image."""
    service = service_of(request)
    made = done(service, who, id)
    return Response(_drawn(service, who, id, made, side), media_type="image/jpeg")


@router.get(
    "/explanations/{id}/fragment.html",
    response_class=HTMLResponse,
    responses={**errors(409), 200: {"content": {"text/html": {}}}},
)
def get_fragment(
    request: Request,
    who: Read,
    id: str,
    whole: Annotated[bool, Query(description="A page of its own, for a frame.")] = False,
    part: Annotated[
        Literal["all", "text"], Query(description="Of an image with a text, the text alone.")
    ] = "all",
) -> Response:
    """Draw an explanation as HTML without scripts, to be shown in a frame or on another page."""
    service = service_of(request)
    made = explained(service, who, id)
    if isinstance(made, PairExplanation) and part == "text":
        made = made.text
    if isinstance(made, TableExplanation):
        html = row_fragment(made, confidence_of(service, who, id))
    elif isinstance(made, TextExplanation):
        html = text_fragment(made)
    elif isinstance(made, PairExplanation):
        html = post_fragment(made, _drawn(service, who, id, made.image, 640))
    else:
        image = done(service, who, id)
        html = fragment(image, _drawn(service, who, id, image, 640))
    return HTMLResponse(
        framed(html) if whole else html, headers={"Content-Security-Policy": _FRAGMENT}
    )


@router.put("/explanations/{id}/hold", status_code=204, responses=errors())
def put_hold(request: Request, who: Audit, id: str, hold: HoldIn) -> Response:
    """Put an explanation under legal hold."""
    _hold(service_of(request), who, id, hold.reason)
    return Response(status_code=204)


@router.delete("/explanations/{id}/hold", status_code=204, responses=errors())
def delete_hold(request: Request, who: Audit, id: str) -> Response:
    """Lift a legal hold."""
    _hold(service_of(request), who, id, None)
    return Response(status_code=204)


# ---- parts ---------------------------------------------------------------------------------


async def _ended(service: Service, who: Principal, id: str, wait: int) -> str:
    """Wait for a job's end; return its state."""

    def state() -> str:
        with service.database.reading() as connection:
            return intake.job_of(service, connection, id, who.tenant).state

    return await service.ends.wait(id, lambda: run_in_threadpool(state), wait / 1000)


def _explanation(service: Service, who: Principal, id: str) -> dict[str, Any]:
    with service.database.reading() as connection:
        job = intake.job_of(service, connection, id, who.tenant)
        stored = explanations.get(connection, id, who.tenant)
        entries = [asdict(one) for one in audit.entries(connection, subject=id)]
    told: dict[str, Any] = {
        "id": id,
        "state": "erased" if stored is not None and stored.erased else job.state,
        "tier": job.lane,
        "created": job.created,
        "started": job.started,
        "finished": job.finished,
        "reason": job.reason,
        "audit": entries,
    }
    if stored is not None and stored.record is not None:
        told.update(envelope=stored.envelope.to_dict(), record=stored.record, hold=stored.hold)
    return told


def done(service: Service, who: Principal, id: str) -> ImageExplanation:
    """Read the explanation of an image, alone or of a post's, whose job is done.

    Raises:
        Missing: The tenant has none with this id.
        Conflict: It isn't done, was erased, or is a text's or a row's.
    """
    made = explained(service, who, id)
    if isinstance(made, PairExplanation):
        return made.image
    if not isinstance(made, ImageExplanation):
        raise Conflict(
            expected="an explanation of an image",
            got=f"one of a {made.kind}",
            remedy="read its record or fragment.html",
        )
    return made


def explained(service: Service, who: Principal, id: str) -> Explanation:
    """Read the explanation of a job that is done.

    Raises:
        Missing: The tenant has none with this id.
        Conflict: It isn't done, or was erased.
    """
    with service.database.reading() as connection:
        job = intake.job_of(service, connection, id, who.tenant)
        stored = explanations.get(connection, id, who.tenant)
    if stored is None or stored.record is None:
        raise Conflict(
            expected="an explanation that is done",
            got="an erased one" if stored is not None else f"one that is {job.state}",
            remedy="wait for it",
        )
    return stored.explanation


def confidence_of(service: Service, who: Principal, id: str) -> Mapping[str, Any]:
    """Read what an explanation's envelope says of its quality, empty where there is none."""
    with service.database.reading() as connection:
        stored = explanations.get(connection, id, who.tenant)
    return {} if stored is None else stored.envelope.confidence


def _drawn(service: Service, who: Principal, id: str, made: ImageExplanation, side: int) -> bytes:
    """Draw an explanation's map over the image of its item.

    Raises:
        Missing: The item was erased.
    """
    with service.database.reading() as connection:
        job = intake.job_of(service, connection, id, who.tenant)
    blob = job.spec.get("blob")
    if blob is None:
        raise Missing("an item that is there")
    return service.draw(str(blob), made, side, str(job.spec.get("kind", "image")))


def _hold(service: Service, who: Principal, id: str, reason: str | None) -> None:
    with service.ledger.writing() as (connection, at):
        if explanations.get(connection, id, who.tenant) is None:
            raise Missing("an explanation")
        if not explanations.set_hold(connection, at, id, reason, actor=who.key_id):
            raise Missing("an explanation")
