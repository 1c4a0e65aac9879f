"""The endpoints below /v1; `access` has checked the key before, and every route names its roles."""

from __future__ import annotations

import asyncio
import io
import json
import time
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from visxai.errors import ArgumentError, VisxaiError
from visxai.ledger import audit, explanations
from visxai.serve import cases, intake, keys, statement
from visxai.serve.access import role
from visxai.serve.answers import (
    ActionIn,
    ActionOut,
    AppealIn,
    AppealOut,
    AuditOut,
    DecisionOut,
    ErrorOut,
    ExplanationOut,
    ExplanationsIn,
    ExplanationsOut,
    HoldIn,
    ItemIn,
    ItemOut,
    JobOut,
    KeyIn,
    KeyOut,
    NextOut,
)
from visxai.serve.errors import Conflict, Missing
from visxai.serve.intake import Item
from visxai.serve.keys import Principal
from visxai.serve.queue import OPEN
from visxai.serve.service import Service, plain

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


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    told = sorted({400, 401, 403, 404, 413, 422, 503, *statuses})
    return {status: {"model": ErrorOut, "description": _SAID[status]} for status in told}


router = APIRouter(prefix="/v1")
_Submit = Annotated[Principal, Depends(role("submit"))]
_Read = Annotated[Principal, Depends(role("submit", "review", "audit"))]
_Review = Annotated[Principal, Depends(role("review"))]
_Audit = Annotated[Principal, Depends(role("audit"))]
_Admin = Annotated[Principal, Depends(role("admin"))]
_Wait = Annotated[int, Query(ge=0, le=30_000, description="Milliseconds to wait for the end.")]

_FORM = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "format": "binary"},
        "name": {"type": "string", "maxLength": 500},
        "metadata": {"type": "string", "description": "An object of JSON."},
    },
    "required": ["image"],
}


def _body(kind: type[ItemIn] | type[ExplanationsIn]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    content = {"application/json": {"schema": schema}}
    if kind is ItemIn:
        content["multipart/form-data"] = {"schema": _FORM}  # type: ignore[dict-item]
    return {"requestBody": {"required": True, "content": content}}


def service_of(request: Request) -> Service:
    """Return the service that an application was made for."""
    made: Service = request.app.state.service
    return made


# ---- items ---------------------------------------------------------------------------------


@router.post(
    "/items", response_model=ItemOut, responses=_errors(409, 415, 429), openapi_extra=_body(ItemIn)
)
async def post_item(request: Request, who: _Submit, wait: _Wait = 0) -> dict[str, Any]:
    """Decide on an image; the explanation follows if it is flagged."""
    item = await _item(request)
    service, key = service_of(request), _idempotency(request)
    answer = await run_in_threadpool(intake.moderate, service, who, item, key)
    if wait and answer["explanation"]:
        answer["explanation"]["state"] = await _ended(
            service, who, answer["explanation"]["id"], wait
        )
    return answer


@router.delete("/items/{item_id}", status_code=204, responses=_errors(409))
def delete_item(request: Request, who: _Admin, item_id: str) -> Response:
    """Erase an item: its bytes, hashes and explanations."""
    service_of(request).erase_item(who.tenant, item_id, who.key_id)
    return Response(status_code=204)


# ---- explanations --------------------------------------------------------------------------


@router.post(
    "/explanations",
    status_code=202,
    response_model=ExplanationsOut,
    responses=_errors(409, 415, 429),
    openapi_extra=_body(ExplanationsIn),
)
async def post_explanations(request: Request, who: _Submit, wait: _Wait = 0) -> dict[str, Any]:
    """Explain images, for pipelines that infer and decide by themselves."""
    service, key = service_of(request), _idempotency(request)
    asked = await _parsed(request, ExplanationsIn)
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
            item = Item(one.data(), one.name, one.metadata)
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


@router.get("/explanations/{id}", response_model=ExplanationOut, responses=_errors())
async def get_explanation(request: Request, who: _Read, id: str, wait: _Wait = 0) -> dict[str, Any]:
    """Read an explanation; `wait` holds on until it has ended."""
    service = service_of(request)
    if wait:
        await _ended(service, who, id, wait)
    return await run_in_threadpool(_explanation, service, who, id)


@router.delete("/explanations/{id}", response_model=JobOut, responses=_errors(409))
def cancel_explanation(request: Request, who: _Submit, id: str) -> dict[str, Any]:
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
    responses={**_errors(409), 200: {"content": {"image/png": {}}}},
)
def get_map(request: Request, who: _Read, id: str) -> Response:
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
    responses={**_errors(409), 200: {"content": {"image/jpeg": {}}}},
)
def get_overlay(
    request: Request,
    who: _Read,
    id: str,
    side: Annotated[int, Query(ge=16, le=4096, description="Pixels of the longer side.")] = 1280,
) -> Response:
    """Draw the map over the image."""
    service = service_of(request)
    made = done(service, who, id)
    return Response(service.draw(blob_of(service, who, id), made, side), media_type="image/jpeg")


@router.put("/explanations/{id}/hold", status_code=204, responses=_errors())
def put_hold(request: Request, who: _Audit, id: str, hold: HoldIn) -> Response:
    """Put an explanation under legal hold."""
    _hold(service_of(request), who, id, hold.reason)
    return Response(status_code=204)


@router.delete("/explanations/{id}/hold", status_code=204, responses=_errors())
def delete_hold(request: Request, who: _Audit, id: str) -> Response:
    """Lift a legal hold."""
    _hold(service_of(request), who, id, None)
    return Response(status_code=204)


# ---- decisions -----------------------------------------------------------------------------


@router.get("/decisions/{id}", response_model=DecisionOut, responses=_errors())
def get_decision(request: Request, who: _Read, id: str) -> dict[str, Any]:
    """Read a decision and what people did about it."""
    with service_of(request).database.reading() as connection:
        row = cases.decision(connection, id, who.tenant)
        made = cases.explanations_of(connection, id)
    return {**row._mapping, "scores": plain(row.scores), "explanations": made}


@router.post(
    "/decisions/{id}/appeals",
    status_code=202,
    response_model=AppealOut,
    responses=_errors(409, 429),
)
def post_appeal(request: Request, who: _Submit, id: str, appeal: AppealIn) -> dict[str, Any]:
    """Contest a decision: it is explained precisely, and a person looks at it again."""
    return cases.appeal(service_of(request), who, id, appeal.reason)


@router.post("/decisions/{id}/actions", response_model=ActionOut, responses=_errors(409))
def post_action(request: Request, who: _Review, id: str, action: ActionIn) -> dict[str, Any]:
    """Uphold, overturn or escalate a decision, as a person."""
    return cases.act(service_of(request), who, id, action.action, action.shown)


@router.get("/decisions/{id}/statement", response_model=statement.Statement, responses=_errors(409))
def get_statement(request: Request, who: _Read, id: str) -> statement.Statement:
    """State the reasons of a decision, in the fields of the EU's transparency database."""
    return statement.state(service_of(request), who.tenant, id)


@router.post("/reviews/next", response_model=NextOut, responses=_errors())
def post_next(request: Request, who: _Review) -> dict[str, Any]:
    """Take the most urgent open case; nobody else gets it meanwhile."""
    return {"decision_id": cases.take(service_of(request), who)}


# ---- audit and keys ------------------------------------------------------------------------


@router.get("/audit", response_model=list[AuditOut], responses=_errors())
def get_audit(
    request: Request,
    who: _Audit,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Read the tenant's entries of the audit chain, oldest first."""
    found = []
    with service_of(request).database.reading() as connection:
        for entry in audit.entries(connection, after=after, tenant=who.tenant):
            found.append(asdict(entry))
            if len(found) == limit:
                break
    return found


@router.post("/keys", status_code=201, response_model=KeyOut, responses=_errors())
def post_key(request: Request, who: _Admin, key: KeyIn) -> dict[str, Any]:
    """Make an API key for the caller's tenant."""
    service = service_of(request)
    with service.ledger.writing() as (connection, at):
        now = service.database.now(connection)
        made = keys.make(connection, now, who.tenant, key.role, key.name)
        id = made.split("_")[1]
        body = {"role": key.role}
        audit.append(connection, at, "key.made", id, actor=who.key_id, tenant=who.tenant, body=body)
    return {"key": made, "id": id, "role": key.role}


@router.delete("/keys/{id}", status_code=204, responses=_errors())
def delete_key(request: Request, who: _Admin, id: str) -> Response:
    """Revoke an API key of the caller's tenant, at once."""
    service = service_of(request)
    with service.ledger.writing() as (connection, at):
        if not keys.revoke(connection, service.database.now(connection), id, who.tenant):
            raise Missing("a key")
        audit.append(connection, at, "key.revoked", id, actor=who.key_id, tenant=who.tenant)
    return Response(status_code=204)


# ---- parts ---------------------------------------------------------------------------------


async def _item(request: Request) -> Item:
    """Read an item from a form or from JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        made = await _parsed(request, ItemIn)
        return Item(made.data(), made.name, made.metadata)
    async with request.form(max_files=1, max_fields=10) as form:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise ArgumentError(
                expected="a file in the field image", got="none", remedy="add it", field="image"
            )
        told = form.get("metadata") or "{}"
        name = form.get("name") or image.filename or ""
        data = await image.read()
    try:
        metadata = json.loads(told) if isinstance(told, str) else None
        checked = ItemIn(image="-", name=name, metadata=metadata)  # type: ignore[arg-type]
    except (ValidationError, ValueError, RecursionError):
        raise ArgumentError(
            expected="a name of at most 500 characters and metadata of up to 50 plain values",
            got="others",
            remedy="send metadata as an object of JSON",
            field="metadata",
        ) from None
    return Item(data, checked.name, checked.metadata)


P = TypeVar("P", ItemIn, ExplanationsIn)


async def _parsed(request: Request, kind: type[P]) -> P:
    """Read a body of JSON."""
    told = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if told != "application/json":
        raise HTTPException(415, "expected application/json or multipart/form-data")
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArgumentError(
            expected=f"{kind.__name__} as the API describes it",
            got=f"{place or 'a body'}: {first['msg']}",
            remedy="see /openapi.json",
            field=place or None,
        ) from None


def _idempotency(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= 180 and key.isprintable()):
        raise ArgumentError(
            expected="an Idempotency-Key of 1 to 180 characters",
            got=f"{len(key)}",
            remedy="use a UUID",
            field="Idempotency-Key",
        )
    return key


async def _ended(service: Service, who: Principal, id: str, wait: int) -> str:
    """Wait for a job's end; return its state."""

    def state() -> str:
        with service.database.reading() as connection:
            return intake.job_of(service, connection, id, who.tenant).state

    end, pause = time.monotonic() + wait / 1000, 0.005
    while (told := await run_in_threadpool(state)) in OPEN and time.monotonic() < end:
        await asyncio.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(pause * 1.5, 0.1)
    return told


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


def done(service: Service, who: Principal, id: str) -> Any:
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


def blob_of(service: Service, who: Principal, id: str) -> str:
    """Return the name of the bytes of a job's item.

    Raises:
        Missing: The item was erased.
    """
    with service.database.reading() as connection:
        job = intake.job_of(service, connection, id, who.tenant)
    blob = job.spec.get("blob")
    if blob is None:
        raise Missing("an item that is there")
    return str(blob)


def _hold(service: Service, who: Principal, id: str, reason: str | None) -> None:
    with service.ledger.writing() as (connection, at):
        if explanations.get(connection, id, who.tenant) is None:
            raise Missing("an explanation")
        if not explanations.set_hold(connection, at, id, reason, actor=who.key_id):
            raise Missing("an explanation")
