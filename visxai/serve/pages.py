"""The pages for people: log in, the queue, a case, the dashboard.

Names, labels and reasons come from strangers: the templates escape all of them, and the content
security policy allows no script or style but the service's own files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from sqlalchemy import select
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse

from visxai import govern
from visxai.govern.log import Log
from visxai.ledger import explanations
from visxai.record.image import ImageExplanation
from visxai.record.pair import PairExplanation
from visxai.record.table import TableExplanation
from visxai.record.text import TextExplanation
from visxai.serve import cases, dashboard, intake, keys, tables
from visxai.serve.access import COOKIE, role, session_of
from visxai.serve.errors import Missing
from visxai.serve.image_with_text import Post
from visxai.serve.keys import Principal
from visxai.serve.rendering import login_page, page, parts_of, row_of
from visxai.serve.saying import sentences
from visxai.serve.service import Service

_HERE = Path(__file__).parent
_FILES = ("service.css", "service.js", "icon.svg")

router = APIRouter(include_in_schema=False)
_Review = Annotated[Principal, Depends(role("review"))]
_Audit = Annotated[Principal, Depends(role("audit"))]
_Look = Annotated[Principal, Depends(role("review", "audit"))]
_Any = Annotated[Principal, Depends(role(*keys.ROLES))]


def _service(request: Request) -> Service:
    made: Service = request.app.state.service
    return made


@router.get("/static/{name}")
def get_static(name: str) -> Response:
    """Send one of the pages' own files."""
    if name not in _FILES:
        raise Missing("a file")
    return FileResponse(_HERE / "static" / name, headers={"Cache-Control": "max-age=3600"})


@router.get("/login")
def get_login() -> Response:
    """Ask for a key."""
    return login_page()


@router.post("/login")
def post_login(request: Request, key: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Begin a session for a valid key."""
    service = _service(request)
    with service.database.writing() as connection:
        who = keys.check(connection, key.strip())
        if who is None:
            return login_page(401, wrong=True)
        token = keys.begin_session(connection, service.database.now(connection), who)
    answer = RedirectResponse(_start(who), 303)
    answer.set_cookie(
        COOKIE,
        token,
        max_age=int(keys.SESSION),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def post_logout(request: Request, who: _Any) -> Response:
    """End the session."""
    service, token = _service(request), session_of(request.scope)
    if token is not None:
        with service.database.writing() as connection:
            keys.end_session(connection, token)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/")
def get_start(who: _Any) -> Response:
    """Lead to the page that a role begins with."""
    return RedirectResponse(_start(who), 303)


def _start(who: Principal) -> str:
    """Choose the page that a role begins with."""
    if who.may("review"):
        return "/review"
    return "/dashboard" if who.may("audit") else "/send"


@router.get("/review")
def get_queue(
    request: Request,
    who: _Review,
    state: Annotated[str, Query(pattern="^(open|closed)$")] = "open",
    lane: Annotated[str, Query(max_length=16)] = "",
    category: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Show the cases, the most urgent first."""
    service = _service(request)
    with service.database.reading() as connection:
        now = service.database.now(connection)
        rows = cases.listed(
            connection, who.tenant, state=state, lane=lane or None, category=category or None
        )
        counts = cases.counts(connection, who.tenant)
    shown = [
        {
            **row._mapping,
            "age": _age(now - (row.closed or row.opened or row.created)),
            "busy": row.reviewer not in (None, who.key_id) and row.reviewer_until > now,
        }
        for row in rows
    ]
    return page(
        "queue.html",
        "Review",
        who=who,
        page="review",
        rows=shown,
        counts=counts,
        chosen={"state": state, "lane": lane, "category": category},
        categories=_categories(service),
    )


@router.post("/review/next")
def post_next(request: Request, who: _Review) -> Response:
    """Take the most urgent case and show it."""
    id = cases.take(_service(request), who)
    return RedirectResponse(f"/review/{id}" if id else "/review", 303)


@router.get("/review/{id}")
def get_case(request: Request, who: _Review, id: str) -> Response:
    """Show a case: the item, its explanations, and what can be done."""
    service = _service(request)
    cases.keep(service, who, id)
    with service.database.reading() as connection:
        row = cases.decision(connection, id, who.tenant)
        item = connection.execute(
            select(tables.items).where(tables.items.c.id == row.item_id)
        ).one()
        made = []
        for job_id in cases.explanations_of(connection, id):
            job = intake.job_of(service, connection, job_id, who.tenant)
            stored = explanations.get(connection, job_id, who.tenant)
            made.append(_described(job, stored))
        told = select(tables.appeals.c.reason).where(tables.appeals.c.decision_id == id)
        reasons = list(connection.execute(told.order_by(tables.appeals.c.created)).scalars())
        similar = cases.same_image(connection, item, id)
    shown = [one["id"] for one in made if one["done"]]
    # A row's explanations are by one method: the latest is shown, which says the most.
    cases.saw(service, who, id, shown[:1] if item.kind == "table" else shown)
    text = None
    if item.kind in ("text", "post") and item.blob is not None:
        data = service.blobs.get(item.blob)
        text = Post.read(data).text if item.kind == "post" else data.decode("utf-8")
    return page(
        "case.html",
        "Case",
        who=who,
        page="review",
        row={**row._mapping, "name": item.name, "kind": item.kind},
        text=text,
        made=made,
        reasons=reasons,
        similar=similar,
    )


@router.post("/review/{id}")
def post_case(
    request: Request,
    who: _Review,
    id: str,
    action: Annotated[str, Form(max_length=16)] = "",
    shown: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Do what a person decided, and show the next case."""
    service = _service(request)
    cases.act(service, who, id, action, shown or None)
    following = cases.take(service, who)
    return RedirectResponse(f"/review/{following}" if following else "/review", 303)


@router.post("/review/{id}/keep")
def post_keep(request: Request, who: _Review, id: str) -> dict[str, bool]:
    """Keep a case while its page is open."""
    return {"kept": cases.keep(_service(request), who, id)}


@router.get("/review/{id}/photo.jpg")
def get_photo(request: Request, who: _Review, id: str) -> Response:
    """Draw the item without any of its file's metadata."""
    service = _service(request)
    with service.database.reading() as connection:
        row = cases.decision(connection, id, who.tenant)
        item = connection.execute(
            select(tables.items).where(tables.items.c.id == row.item_id)
        ).one()
    if item.blob is None or item.kind not in ("image", "post"):
        raise Missing("an image that is there")
    drawn = service.draw(item.blob, None, 1280, item.kind)
    return Response(drawn, media_type="image/jpeg")


@router.get("/dashboard")
def get_dashboard(request: Request, who: _Look) -> Response:
    """Show how the service does."""
    told = dashboard.summarise(_service(request), who.tenant)
    return page("dashboard.html", "Dashboard", who=who, page="dashboard", **told)


def _categories(service: Service) -> list[str]:
    """List the categories of all rules, those for images first."""
    kinds = service.kinds
    rules = [rule for kind in kinds.names for rule in kinds.of(kind).policy.rules]
    return list(dict.fromkeys(rule.category for rule in rules))


@router.get("/governance")
def get_governance(
    request: Request, who: _Audit, model: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Show what a model's explanations say over time, gaps between groups, drift and alerts."""
    html = govern.page(_log(request), model=model, tenant=who.tenant, act="/governance/alerts")
    # The page brings a policy of its own, which allows the scripts inside it by their hash.
    headers = {"Content-Security-Policy": "frame-ancestors 'none'", "Cache-Control": "no-store"}
    return HTMLResponse(html, headers=headers)


@router.post("/governance/alerts")
def post_alert(
    request: Request,
    who: _Audit,
    alert: Annotated[str, Form(max_length=64)],
    text: Annotated[str, Form(max_length=2000)],
    close: Annotated[str, Form(max_length=8)] = "",
) -> Response:
    """Add a note to an alert, and acknowledge it where that is asked for."""
    done = govern.acknowledge if close else govern.annotate
    done(_log(request), alert, text, who.key_id, who.tenant)
    return RedirectResponse("/governance#drift", 303)


def _log(request: Request) -> Log:
    """Return the log of the service's ledger, which is made once."""
    state = request.app.state
    if not hasattr(state, "log"):
        state.log = Log(_service(request).ledger)
    made: Log = state.log
    return made


def _described(job: Any, stored: Any) -> dict[str, Any]:
    """Describe an explanation in words, for the page of its case."""
    told = {"id": job.id, "tier": job.lane, "state": job.state, "reason": job.reason, "done": False}
    if stored is None or stored.record is None:
        return told
    made = stored.explanation
    pair = made if isinstance(made, PairExplanation) else None
    image, text = (made, made) if pair is None else (pair.image, pair.text)
    regions = (
        [
            {"share": one.share, "where": _where(one, image.input.width, image.input.height)}
            for one in image.regions(top=3)
            if one.share >= 0.005
        ]
        if isinstance(image, ImageExplanation)
        else []
    )
    return {
        **told,
        "done": True,
        "label": made.label,
        "method": made.method if pair is None else f"{image.method}, {text.method}",
        "regions": regions,
        "words": strongest_words(text) if isinstance(text, TextExplanation) else [],
        "row": row_of(made) if isinstance(made, TableExplanation) else None,
        "parts": None if pair is None else parts_of(pair),
        "reasons": [one["sentence"] for one in stored.envelope.confidence.get("reasons", ())],
        "sentences": sentences(stored.envelope.confidence, made),
    }


def strongest_words(made: TextExplanation, top: int = 3) -> list[dict[str, Any]]:
    """Return the words that raised the score most, with their shares of what raised it."""
    raised: dict[str, float] = {}
    for word, value in zip(made.input.words, made.values.tolist(), strict=True):
        if value > 0:
            raised[word.casefold()] = raised.get(word.casefold(), 0.0) + value
    total = sum(raised.values())
    found = sorted(raised.items(), key=lambda one: -one[1])[:top]
    return [{"text": word[:80], "share": value / total} for word, value in found]


def _where(region: Any, width: int, height: int) -> str:
    left, top, right, bottom = region.box
    x, y = (left + right) / 2 / width, (top + bottom) / 2 / height
    rows = "at the top" if y < 1 / 3 else "at the bottom" if y > 2 / 3 else "in the middle"
    sides = ", left" if x < 1 / 3 else ", right" if x > 2 / 3 else ""
    return rows + sides


def _age(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name} ago"
    return "just now"
