"""The demo's web application: its page, and the calls that the page and other clients make.

Nobody logs in, so it is for this machine: requests for another host's name or from another site's
pages are refused, and what a body may hold is checked before it is read. Photographs and maps have
names that nobody can guess, and are kept in memory alone.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response, UploadFile
from jinja2 import ChoiceLoader, FileSystemLoader
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import FileResponse, HTMLResponse

import visxai
from visxai.demo import others
from visxai.demo.studio import Made, Stroke, Studio
from visxai.drawing.overlays import overlay
from visxai.serve import access, rendering
from visxai.serve.app import HANDLERS
from visxai.serve.errors import Missing
from visxai.serve.saying import sentences

_HERE = Path(__file__).parent
_SERVICE = Path(rendering.__file__).parent / "static"
_OWN = ("demo.css", "demo.js")
_SHARED = ("service.css", "service.js", "icon.svg")
EXAMPLES = ("cat", "espresso", "astronaut")
_ROOM = 2**16  # bytes of a request beside its photograph
_OPEN_HOSTS = ("127.0.0.1", "localhost", "[::1]", "::1")

_templates = rendering.templates.overlay(
    loader=ChoiceLoader([FileSystemLoader(_HERE / "templates"), rendering.templates.loader])  # type: ignore[list-item]
)
router = APIRouter()

_Word = Annotated[str, Field(max_length=200)]
_Share = Annotated[float, Field(ge=-1, le=2)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExplainIn(_Asked):
    """What to explain of a photograph."""

    image: _Word
    model: _Word
    methods: Annotated[list[_Word], Field(min_length=1, max_length=8)] = ["grad_cam"]
    target: _Word = "top1"
    layer: _Word | None = None
    check: bool = False


class StrokeIn(_Asked):
    """A stroke of the brush, in shares of the photograph's sides."""

    radius: Annotated[float, Field(gt=0, le=0.5)]
    points: Annotated[list[tuple[_Share, _Share]], Field(min_length=1, max_length=2000)]


class HideIn(_Asked):
    """What to hide of a photograph."""

    image: _Word
    model: _Word
    strokes: Annotated[list[StrokeIn], Field(min_length=1, max_length=200)]
    how: Literal["grey", "blur"] = "grey"


class TextIn(_Asked):
    """A text to explain."""

    text: Annotated[str, Field(min_length=1, max_length=others.MOST)]
    method: _Word = "integrated_gradients"
    target: _Word = "top1"


class RowIn(_Asked):
    """A loan to explain; columns that are missing have usual values."""

    row: Annotated[dict[_Word, str | int], Field(max_length=40)] = {}


def _studio(request: Request) -> Studio:
    made: Studio = request.app.state.studio
    return made


@router.get("/", include_in_schema=False)
def get_page(request: Request) -> Response:
    """Show the page."""
    html = _templates.get_template("demo.html").render(
        title="Demo", who=None, page="demo", loans=others.Loans.installed, examples=EXAMPLES
    )
    return HTMLResponse(
        html, headers={"Content-Security-Policy": rendering._POLICY, "Cache-Control": "no-store"}
    )


@router.get("/static/{name}", include_in_schema=False)
def get_static(name: str) -> Response:
    """Send one of the page's own files."""
    if name not in _OWN + _SHARED:
        raise Missing("a file")
    return FileResponse((_HERE / "static" if name in _OWN else _SERVICE) / name)


@router.get("/examples/{name}.jpg", include_in_schema=False)
def get_example(name: str) -> Response:
    """Send an example."""
    if name not in EXAMPLES:
        raise Missing("an example")
    return FileResponse(_HERE / "examples" / f"{name}.jpg")


@router.get("/api/choices")
def get_choices(request: Request, model: str | None = None) -> dict[str, Any]:
    """Tell what can be chosen: models, and a model's methods, layers and classes."""
    studio = _studio(request)
    chosen = model or studio.models[0]
    told = {"models": list(studio.models), "model": chosen, "max_bytes": studio.bounds.max_bytes}
    return told | studio.choices(chosen)


@router.post("/api/images")
def post_image(request: Request, image: UploadFile) -> dict[str, Any]:
    """Take a photograph; its file's name is never looked at."""
    data = image.file.read(_studio(request).bounds.max_bytes + 1)
    return _taken(_studio(request), data)


@router.post("/api/examples/{name}")
def post_example(request: Request, name: str) -> dict[str, Any]:
    """Take an example as the photograph."""
    if name not in EXAMPLES:
        raise Missing("an example")
    return _taken(_studio(request), (_HERE / "examples" / f"{name}.jpg").read_bytes())


def _taken(studio: Studio, data: bytes) -> dict[str, Any]:
    with studio.turn():
        made = studio.uploads.add(data)
    width, height = Image.open(io.BytesIO(made.view)).size
    return {"id": made.id, "photo": f"/api/images/{made.id}.jpg", "width": width, "height": height}


@router.get("/api/images/{id}.jpg")
def get_photo(request: Request, id: str) -> Response:
    """Send a photograph, drawn anew without its file's metadata."""
    return _jpeg(_studio(request).uploads.get(id).view)


@router.post("/api/explain")
def post_explain(request: Request, asked: ExplainIn) -> dict[str, Any]:
    """Explain a photograph."""
    made = _studio(request).explain(
        asked.image, asked.model, asked.methods, asked.target, asked.layer or None, asked.check
    )
    top = [one._asdict() for one in made[0].explanation.top_scores]
    return {"maps": [_told(one) for one in made], "top": top}


@router.get("/api/maps/{id}.jpg")
def get_map(request: Request, id: str) -> Response:
    """Draw a map over its photograph."""
    made = _studio(request).made(id)
    drawn = overlay(made.explanation.placed, Image.open(io.BytesIO(made.upload.view)))
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=88)
    return _jpeg(file.getvalue())


@router.get("/api/maps/{id}.json")
def get_record(request: Request, id: str) -> dict[str, Any]:
    """Send a map's record."""
    return _studio(request).made(id).explanation.to_dict()


@router.post("/api/hide")
def post_hide(request: Request, asked: HideIn) -> dict[str, Any]:
    """Score a photograph with a part hidden."""
    strokes = [Stroke(one.radius, one.points) for one in asked.strokes]
    return _studio(request).hide(asked.image, asked.model, strokes, asked.how)


@router.post("/api/text")
def post_text(request: Request, asked: TextIn) -> dict[str, Any]:
    """Explain a comment."""
    with _studio(request).turn():
        words: others.Words = request.app.state.words
        return words.explain(asked.text, asked.method, asked.target)


@router.get("/api/columns")
def get_columns(request: Request) -> list[dict[str, Any]]:
    """List the columns of a loan."""
    return _loans(request).columns()


@router.post("/api/row")
def post_row(request: Request, asked: RowIn) -> dict[str, Any]:
    """Explain a loan."""
    with _studio(request).turn():
        return _loans(request).explain(dict(asked.row))


def _loans(request: Request) -> others.Loans:
    if not others.Loans.installed:
        raise Missing("rows, which need pip install 'visxai[tables]'")
    made: others.Loans = request.app.state.loans
    return made


def _told(made: Made) -> dict[str, Any]:
    one = made.explanation
    return {
        "id": made.id,
        "overlay": f"/api/maps/{made.id}.jpg",
        "record": f"/api/maps/{made.id}.json",
        "label": one.label,
        "score": one.score,
        "method": one.method,
        "layer": one.layer,
        "seconds": one.seconds,
        "sentences": sentences({"faithful": one.quality.get("faithful")}, one),
    }


def _jpeg(data: bytes) -> Response:
    return Response(
        data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"}
    )


class Guard:
    """The ASGI middleware in front of everything.

    Args:
        app: The application.
        hosts: The names that this machine may be called by; None for any.
        most: The most bytes of a body.
    """

    def __init__(self, app: Any, hosts: Sequence[str] | None, most: int) -> None:
        self.app, self.hosts, self.most = app, hosts, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let a request pass, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = access.with_headers(send)
        refused = self._refused(scope)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self.app(scope, access.limit_body(receive, self.most), send)

    def _refused(self, scope: Any) -> Response | None:
        host = access.header(scope, b"host") or ""
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self.hosts is not None and name not in self.hosts:
            return access.refusal(403, "forbidden", "expected the demo's own address as the host")
        origin = access.header(scope, b"origin")
        if scope["method"] != "GET" and origin is not None and urlsplit(origin).netloc != host:
            return access.refusal(403, "forbidden", "expected a request of the demo's own page")
        length = access.header(scope, b"content-length") or "0"
        if not length.isdecimal() or int(length) > self.most:
            return access.refusal(413, "too_large", f"expected at most {self.most} bytes")
        return None


def create(studio: Studio, host: str = "127.0.0.1") -> FastAPI:
    """Make the application.

    Args:
        studio: The studio; whoever made it closes it.
        host: The address that it listens on; anything but this machine's own serves any name.
    """
    app = FastAPI(
        title="visxai demo",
        version=visxai.__version__,
        docs_url=None,
        redoc_url=None,
    )
    app.state.studio, app.state.words, app.state.loans = studio, others.Words(), others.Loans()
    app.include_router(router)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    hosts = _OPEN_HOSTS if host in _OPEN_HOSTS else None
    app.add_middleware(Guard, hosts=hosts, most=studio.bounds.max_bytes + _ROOM)
    return app


def serve(
    studio: Studio,
    listener: socket.socket,
    host: str,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Answer requests until the process is asked to stop.

    Args:
        studio: The studio.
        listener: The socket to listen on.
        host: The address of it.
        started: Called once the first model is loaded and requests are answered.
    """
    config = uvicorn.Config(
        create(studio, host),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=256,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    over = threading.Event()

    def watch() -> None:
        while not server.started and not server.should_exit:
            over.wait(0.02)
        started()

    threading.Thread(target=watch, daemon=True).start()
    server.run(sockets=[listener])
