"""The web application: the endpoints, what stands before them, and how errors are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

import visxai
from visxai.errors import StoreError, VisxaiError
from visxai.serve import api, oversight, pages, sending
from visxai.serve.access import Gatekeeper, failure, refusal, role
from visxai.serve.metrics import Measured, Metrics
from visxai.serve.service import Service

_CODES = {400: "unreadable", 403: "forbidden", 404: "missing", 405: "method", 413: "too_large"}
_SPARE = 24  # threads beside those that take items in, for everything that is quick

_operations = APIRouter()


@_operations.get("/healthz", include_in_schema=False)
def get_health() -> dict[str, str]:
    """Tell that the process answers."""
    return {"status": "ok", "version": visxai.__version__}


@_operations.get("/readyz", include_in_schema=False)
def get_readiness(request: Request) -> Response:
    """Tell whether the database answers."""
    service: Service = request.app.state.service
    try:
        with service.database.reading() as connection:
            service.queue.depths(connection)
    except StoreError as error:
        return failure(error)
    return JSONResponse({"status": "ready"})


@_operations.get("/metrics", include_in_schema=False, dependencies=[Depends(role("audit"))])
def get_metrics(request: Request) -> Response:
    """Return the figures of this process and of the database, as Prometheus reads them."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def create(service: Service) -> FastAPI:
    """Make the application.

    Args:
        service: The service; whoever made it closes it.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threads = service.config.limits.at_once + _SPARE
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        yield

    app = FastAPI(
        title="visxai moderation",
        version=visxai.__version__,
        description="Decides on items, explains what it flags, and keeps it on record.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    app.state.metrics = Metrics(service)
    app.include_router(_operations)
    app.include_router(api.router)
    app.include_router(oversight.router)
    app.include_router(pages.router)
    app.include_router(sending.router)
    _complete(app)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Measured, metrics=app.state.metrics)
    app.add_middleware(Gatekeeper, service=service)
    return app


def _complete(app: FastAPI) -> None:
    """Add to the OpenAPI document what the routes parse themselves, and how keys are sent."""
    from visxai.serve.answers import ExplanationsIn, ItemIn

    made = app.openapi()
    schemas = made["components"]["schemas"]
    for kind in (ItemIn, ExplanationsIn):
        told: dict[str, Any] = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(told.pop("$defs", {}))
        schemas[kind.__name__] = told
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in made["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:  # an error is JSON, whatever the answer would have been
                    (content,) = answer["content"].values()
                    answer["content"] = {"application/json": content}
    made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    made["security"] = [{"key": []}]


async def _on_visxai(_: Request, error: Exception) -> Response:
    assert isinstance(error, VisxaiError)
    return failure(error)


async def _on_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "refused")
    answer = refusal(error.status_code, code, str(error.detail))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return refusal(422, "unreadable", "expected JSON, got other text: mend the body")
    return refusal(422, "argument", f"expected other values for {place}: {first['msg']}")


HANDLERS: dict[Any, Any] = {
    VisxaiError: _on_visxai,
    HTTPException: _on_http,
    RequestValidationError: _on_invalid,
}
