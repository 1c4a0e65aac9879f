"""The endpoints for people in charge: decisions and appeals, reviews, the audit chain, keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from visxai.ledger import audit
from visxai.serve import cases, keys, statement
from visxai.serve.answers import (
    ActionIn,
    ActionOut,
    AppealIn,
    AppealOut,
    AuditOut,
    DecisionOut,
    KeyIn,
    KeyOut,
    NextOut,
)
from visxai.serve.errors import Missing
from visxai.serve.routing import Admin, Audit, Read, Review, Submit, errors, service_of
from visxai.serve.service import plain

router = APIRouter(prefix="/v1")


# ---- decisions -----------------------------------------------------------------------------


@router.get("/decisions/{id}", response_model=DecisionOut, responses=errors())
def get_decision(request: Request, who: Read, id: str) -> dict[str, Any]:
    """Read a decision and what people did about it."""
    with service_of(request).database.reading() as connection:
        row = cases.decision(connection, id, who.tenant)
        made = cases.explanations_of(connection, id)
    return {**row._mapping, "scores": plain(row.scores), "explanations": made}


@router.post(
    "/decisions/{id}/appeals",
    status_code=202,
    response_model=AppealOut,
    responses=errors(409, 429),
)
def post_appeal(request: Request, who: Submit, id: str, appeal: AppealIn) -> dict[str, Any]:
    """Contest a decision: it is explained precisely, and a person looks at it again."""
    return cases.appeal(service_of(request), who, id, appeal.reason)


@router.post("/decisions/{id}/actions", response_model=ActionOut, responses=errors(409))
def post_action(request: Request, who: Review, id: str, action: ActionIn) -> dict[str, Any]:
    """Uphold, overturn or escalate a decision, as a person."""
    return cases.act(service_of(request), who, id, action.action, action.shown)


@router.get("/decisions/{id}/statement", response_model=statement.Statement, responses=errors(409))
def get_statement(request: Request, who: Read, id: str) -> statement.Statement:
    """State the reasons of a decision, in the fields of the EU's transparency database."""
    return statement.state(service_of(request), who.tenant, id)


@router.post("/reviews/next", response_model=NextOut, responses=errors())
def post_next(request: Request, who: Review) -> dict[str, Any]:
    """Take the most urgent open case; nobody else gets it meanwhile."""
    return {"decision_id": cases.take(service_of(request), who)}


# ---- audit and keys ------------------------------------------------------------------------


@router.get("/audit", response_model=list[AuditOut], responses=errors())
def get_audit(
    request: Request,
    who: Audit,
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


@router.post("/keys", status_code=201, response_model=KeyOut, responses=errors())
def post_key(request: Request, who: Admin, key: KeyIn) -> dict[str, Any]:
    """Make an API key for the caller's tenant."""
    service = service_of(request)
    with service.ledger.writing() as (connection, at):
        now = service.database.now(connection)
        made = keys.make(connection, now, who.tenant, key.role, key.name)
        id = made.split("_")[1]
        body = {"role": key.role}
        audit.append(connection, at, "key.made", id, actor=who.key_id, tenant=who.tenant, body=body)
    return {"key": made, "id": id, "role": key.role}


@router.delete("/keys/{id}", status_code=204, responses=errors())
def delete_key(request: Request, who: Admin, id: str) -> Response:
    """Revoke an API key of the caller's tenant, at once."""
    service = service_of(request)
    with service.ledger.writing() as (connection, at):
        if not keys.revoke(connection, service.database.now(connection), id, who.tenant):
            raise Missing("a key")
        audit.append(connection, at, "key.revoked", id, actor=who.key_id, tenant=who.tenant)
    service.known.forget()
    return Response(status_code=204)
