"""Reading the bodies of requests: forms and JSON."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from visxai.errors import ArgumentError
from visxai.serve import outside
from visxai.serve.answers import ExplanationsIn, ItemIn
from visxai.serve.image_with_text import Post
from visxai.serve.intake import Item
from visxai.serve.routing import service_of
from visxai.serve.service import Service

_FORM = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "format": "binary"},
        "url": {"type": "string", "maxLength": 2000, "description": "In place of image."},
        "text": {"type": "string", "maxLength": 20000},
        "name": {"type": "string", "maxLength": 500},
        "metadata": {"type": "string", "description": "An object of JSON."},
    },
}


def body_of(kind: type[ItemIn] | type[ExplanationsIn]) -> dict[str, Any]:
    """Describe a body for the OpenAPI document."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    content = {"application/json": {"schema": schema}}
    if kind is ItemIn:
        content["multipart/form-data"] = {"schema": _FORM}  # type: ignore[dict-item]
    return {"requestBody": {"required": True, "content": content}}


async def item_of(request: Request) -> Item:
    """Read an item from a form or from JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return await taken(service_of(request), await parsed(request, ItemIn))
    async with request.form(max_files=1, max_fields=10) as form:
        return await formed(service_of(request), form)


async def formed(service: Service, form: FormData) -> Item:
    """Take an item from a form; fields that a browser sends empty count as left out.

    Raises:
        ArgumentError: The fields make no item, or the URL isn't allowed or doesn't give an image.
    """
    told: dict[str, Any] = {
        name: form.get(name) or None for name in ("image", "url", "text", "name", "metadata")
    }
    image, name = told.pop("image"), told.pop("name") or ""
    if isinstance(image, UploadFile) and (image.filename or image.size):
        name, data, told["image"] = name or image.filename or "", await image.read(), "-"
    metadata = told.pop("metadata") or "{}"
    given = {name for name in ("image", "url", "text") if told.get(name)}
    if not given or given >= {"image", "url"}:
        raise ArgumentError(
            expected="a file in the field image or a link in url, a text in text, or both kinds",
            got="a file and a link" if given else "none",
            remedy="fill in one of them, or a picture and a text",
            field="image",
        )
    try:
        metadata = json.loads(metadata) if isinstance(metadata, str) else None
        checked = ItemIn(**told, name=name, metadata=metadata)  # type: ignore[arg-type]
    except (ValidationError, ValueError, RecursionError):
        raise ArgumentError(
            expected="a name of at most 500 characters, a text of 1 to 20,000, a link of at most "
            "2,000, and metadata of up to 50 plain values",
            got="others",
            remedy="send metadata as an object of JSON",
            field="metadata",
        ) from None
    return _item(data, checked) if checked.image is not None else await taken(service, checked)


async def taken(service: Service, told: ItemIn) -> Item:
    """Take the bytes of an item of JSON, fetching them where a URL is named.

    Raises:
        ArgumentError: They aren't base64, the URL isn't allowed or doesn't give them, or the row
            isn't one that the model can score.
    """
    if told.features is not None:
        data = service.kinds.row().read(told.features)
    elif told.url is None:
        data = told.data()
    else:
        service.kinds.of(told.kind)  # nothing is fetched for a kind that isn't taken
        data = await run_in_threadpool(fetch, service, told.url)
    return _item(data, told)


def _item(data: bytes, told: ItemIn) -> Item:
    if told.kind == "post":
        data = Post(data, told.text or "").to_bytes()
    return Item(data, told.name, told.metadata, told.kind)


def fetch(service: Service, url: str) -> bytes:
    """Fetch an image from a site that the settings allow.

    Raises:
        ArgumentError: They don't, or the site doesn't give it.
    """
    settings = service.config.outside
    if outside.origin_of(url) not in map(outside.origin_of, settings.sources):
        raise ArgumentError(
            expected="a URL of a site that images may be fetched from",
            got="one of another site",
            remedy="send the bytes, or name the site in outside.sources of the settings",
            field="url",
        )
    answer = outside.request(
        url,
        headers={"Accept": "image/*"},
        private=settings.networks(),
        seconds=settings.seconds,
        most=service.config.limits.max_bytes,
    )
    if answer.status != 200:
        raise ArgumentError(
            expected="a URL that gives an image",
            got=f"the status {answer.status}",
            remedy="see that it can be read without logging in",
            field="url",
        )
    return answer.data


P = TypeVar("P", ItemIn, ExplanationsIn)


async def parsed(request: Request, kind: type[P]) -> P:
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


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key of a request; raise ArgumentError for one of another form."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= 180 and key.isprintable()):
        raise ArgumentError(
            expected="an Idempotency-Key of 1 to 180 characters",
            got=f"{len(key)}",
            remedy="use a UUID",
            field="Idempotency-Key",
        )
    return key
