"""What every request passes first: who it is from, how large it is, and whether there is room.

This happens before a byte of the body is read, so that a stranger's upload costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from visxai.errors import StoreError, VisxaiError
from visxai.serve import keys
from visxai.serve.errors import Overloaded
from visxai.serve.keys import Principal
from visxai.serve.rendering import login_page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from visxai.serve.service import Service

COOKIE = "visxai_session"
OPEN = ("/healthz", "/readyz", "/login", "/static/")  # what needs no key
HEAVY = ("/v1/items", "/v1/explanations", "/send")  # what decodes images
_ROOM = 2**16  # bytes of a body beside its images

_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Gatekeeper:
    """The ASGI middleware in front of everything.

    Args:
        app: The application.
        service: The service.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        limits = service.config.limits
        self._most = limits.max_bytes * limits.per_call * 4 // 3 + _ROOM
        self._single = limits.max_bytes * 4 // 3 + _ROOM
        self._free = limits.at_once
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        send = with_headers(send)
        open_ = any(path == one or (one[-1] == "/" and path.startswith(one)) for one in OPEN)
        try:
            who = None if open_ else self._known(scope) or await run_in_threadpool(self._who, scope)
        except StoreError as error:
            await failure(error)(scope, receive, send)
            return
        if not open_ and who is None:
            await _denied(path)(scope, receive, send)
            return
        scope.setdefault("state", {})["who"] = who
        heavy = method == "POST" and path in HEAVY
        most = self._most if path == "/v1/explanations" else self._single
        length = header(scope, b"content-length") or "0"
        if not length.isdecimal() or int(length) > most:
            await refusal(413, "too_large", f"expected at most {most} bytes")(scope, receive, send)
            return
        if heavy and not self._enter():
            await failure(Overloaded())(scope, receive, send)
            return
        try:
            await self.app(scope, limit_body(receive, most), send)
        finally:
            if heavy:
                self._leave()

    def _enter(self) -> bool:
        with self._lock:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    def _leave(self) -> None:
        with self._lock:
            self._free += 1

    def _known(self, scope: Scope) -> Principal | None:
        key = _key_of(scope)
        return None if key is None else self.service.known.get(key)

    def _who(self, scope: Scope) -> Principal | None:
        """Return who a request is from: by its API key, or by its session's cookie."""
        database = self.service.database
        if (key := _key_of(scope)) is not None:
            forgotten = self.service.known.forgotten
            with database.reading() as connection:
                who = keys.check(connection, key)
            if who is not None:
                self.service.known.put(key, who, forgotten)
            return who
        token = session_of(scope)
        if token is None or not _same_site(scope):
            return None
        with database.reading() as connection:
            return keys.in_session(connection, database.now(connection), token)


def _key_of(scope: Scope) -> str | None:
    """Return the API key of a request, None without one."""
    scheme, _, key = (header(scope, b"authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key else None


def session_of(scope: Scope) -> str | None:
    """Return the token of a request's session cookie, None without one."""
    try:
        cookies = SimpleCookie(header(scope, b"cookie") or "")
    except CookieError:
        return None
    return cookies[COOKIE].value if COOKIE in cookies else None


def _same_site(scope: Scope) -> bool:
    """Tell whether a request with a cookie comes from the service's own pages.

    The cookie is SameSite=Strict; this holds for browsers and proxies that don't keep to that.
    """
    if scope["method"] in ("GET", "HEAD"):
        return True
    origin, host = header(scope, b"origin"), header(scope, b"host")
    return origin is not None and host is not None and urlsplit(origin).netloc == host


def role(*roles: str) -> Callable[[Request], Awaitable[Principal]]:
    """Make the dependency of a route that needs one of some roles.

    Raises:
        HTTPException: 403 for a key without them.
    """

    async def check(request: Request) -> Principal:  # it waits for nothing, and needs no thread
        who: Principal = request.state.who
        if not who.may(*roles):
            raise HTTPException(403, f"expected a key with the role {' or '.join(roles)}")
        return who

    return check


def refusal(status: int, code: str, message: str, **headers: str) -> Response:
    """Make an answer that says no, in the form that all errors have."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    said: dict[str, Any] = dict.fromkeys(("expected", "got", "remedy", "field"))
    return JSONResponse({"error": {"code": code, "message": message, **said}}, status, named)


_STATUS = {
    "missing": 404,
    "conflict": 409,
    "busy": 429,
    "image": 422,
    "argument": 422,
    "unknown_name": 422,
    "target": 422,
    "store": 503,
    "model": 503,
    "out_of_memory": 503,
}


def status_of(error: VisxaiError) -> int:
    """Return the status over HTTP of an error of the library or the service."""
    return _STATUS.get(error.code, 500)


def failure(error: VisxaiError) -> Response:
    """Make the answer for an error of the library or the service."""
    status = status_of(error)
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(getattr(error, "retry_after", 2))
    told = error.to_dict()
    if status >= 500 and error.code == "store":
        told["got"] = None  # how the database is called is nobody's business outside
        told["message"] = "expected a database that answers, got none: try again"
    return JSONResponse({"error": told}, status, headers)


def _denied(path: str) -> Response:
    if not path.startswith("/v1") and path not in ("/metrics", "/openapi.json"):
        return login_page(401)
    message = "expected an API key: send it as Authorization: Bearer KEY"
    return refusal(401, "unauthorized", message, WWW_Authenticate="Bearer")


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of a request by this name in lower case, None without one."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def limit_body(receive: Receive, most: int) -> Receive:
    """Count the bytes of a body that doesn't say its length; HTTPException 413 ends it."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise HTTPException(413, f"expected at most {most} bytes")
        return message

    return limited


def with_headers(send: Send) -> Send:
    """Add the headers that every answer has, where it has none of its own."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.setdefault("headers", [])
            known = {key.lower() for key, _ in headers}
            headers += [one for one in HEADERS if one[0] not in known]
            if b"content-security-policy" not in known:
                headers.append((b"content-security-policy", _POLICY.encode()))
        await send(message)

    return sending
