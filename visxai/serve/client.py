"""A client of the service in Python, for programs that send items and read explanations.

    client = Client("http://127.0.0.1:8000", key)
    answer = client.moderate(Path("cat.jpg"))
    if answer["explanation"]:
        found = client.wait(answer["explanation"]["id"])
        print(found["state"], client.explanation(found).regions(top=1))

`AsyncClient` has the same methods as coroutines. Both wait and try again where the service is busy
(429) or its database away (503), by the `Retry-After` that it names. What is sent carries an
Idempotency-Key, so nothing is put down twice.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from visxai.errors import VisxaiError, require

if TYPE_CHECKING:
    import httpx

    from visxai.record.base import Explanation

Image = bytes | str | Path
_OPEN = ("queued", "running")
_LATER = (429, 503)


class ServiceError(VisxaiError):
    """The service refused a request.

    Attributes:
        status: The status over HTTP, 0 where no answer came.
        error: The error as the service told it: code, message, expected, got, remedy and field.
    """

    code = "service"

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(
            expected=str(error.get("expected") or "an answer of the service"),
            got=str(error.get("got") or error.get("message") or f"status {status}"),
            remedy=str(error.get("remedy") or "mend the request"),
            field=error.get("field"),
        )
        self.status, self.error = status, dict(error)


@dataclass(frozen=True)
class _Request:
    """A request, whoever sends it."""

    method: str
    path: str
    more: Mapping[str, Any] = field(default_factory=dict)


class _Requests:
    """Makes the requests and reads the answers of both clients."""

    def __init__(self, address: str, key: str, *, timeout: float = 60.0, patience: float = 60.0):
        self._httpx = require("httpx", "serve", "the client of the service")
        self.patience = patience
        self._made: dict[str, Any] = {
            "base_url": f"{address.rstrip('/')}/v1",
            "headers": {"Authorization": f"Bearer {key}"},
            "timeout": timeout,
        }

    def _moderate(
        self,
        image: Image | None,
        text: str | None,
        url: str | None,
        features: Mapping[str, Any] | None,
        name: str,
        metadata: Mapping[str, Any],
    ) -> _Request:
        body: dict[str, Any] = {"name": name or _name(image), "metadata": dict(metadata)}
        if image is not None:
            body["image"] = _base64(image)
        if text is not None:
            body["text"] = text
        if url is not None:
            body["url"] = url
        if features is not None:
            body["features"] = dict(features)
        return _Request("POST", "/items", _once({"json": body}))

    def _explain(self, images: Iterable[Image], target: str, tier: str) -> _Request:
        items = [{"image": _base64(one), "name": _name(one), "target": target} for one in images]
        return _Request("POST", "/explanations", _once({"json": {"items": items, "tier": tier}}))

    def _later(self, answer: httpx.Response, end: float) -> float | None:
        """Return the seconds to wait before the request is sent again, None if it isn't."""
        if answer.status_code not in _LATER:
            return None
        seconds = float(answer.headers.get("retry-after", 1))
        return seconds if time.monotonic() + seconds < end else None

    def _unreachable(self, error: Exception) -> ServiceError:
        place = self._made["base_url"].removesuffix("/v1")
        return ServiceError(
            0,
            {
                "code": "unreachable",
                "expected": f"a service at {place}",
                "got": type(error).__name__,
                "remedy": "see that it runs and that the address is right",
            },
        )


def _read(answer: httpx.Response) -> Any:
    """Read an answer.

    Raises:
        ServiceError: It is a refusal.
    """
    if answer.is_success:
        kind = answer.headers.get("content-type", "")
        return answer.json() if kind.startswith("application/json") else answer.content
    try:
        error = answer.json()["error"]
    except (json.JSONDecodeError, KeyError, TypeError):
        error = {}
    raise ServiceError(answer.status_code, error)


def explanation(found: Mapping[str, Any]) -> Explanation:
    """Make the explanation of what `Client.get` or `Client.wait` returned.

    Raises:
        ServiceError: It isn't done.
    """
    from visxai.record.base import Explanation

    if found.get("record") is None:
        raise ServiceError(
            0,
            {
                "code": "conflict",
                "expected": "an explanation that is done",
                "got": f"one that is {found.get('state')}",
                "remedy": "wait for it",
            },
        )
    return Explanation.from_dict(found["record"])


class Client(_Requests):
    """A client that waits for each answer; several threads may use it at once.

    Args:
        address: Where the service is, such as "http://127.0.0.1:8000".
        key: An API key.
        timeout: The most seconds for one answer.
        patience: The most seconds for which a busy service is asked again.

    Raises:
        MissingExtra: The extra `serve` isn't installed.
    """

    def __init__(self, address: str, key: str, *, timeout: float = 60.0, patience: float = 60.0):
        super().__init__(address, key, timeout=timeout, patience=patience)
        self._client: httpx.Client = self._httpx.Client(**self._made)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def moderate(
        self,
        image: Image | None = None,
        text: str | None = None,
        *,
        url: str | None = None,
        features: Mapping[str, Any] | None = None,
        name: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send an item, and get the decision at once.

        Args:
            image: An image's bytes, or the path of its file.
            text: A text, in place of an image or with one: together they are a post.
            url: The link of an image, in place of its bytes, of a site that the service allows.
            features: A row of a table, values by column, in place of an image.
            name: The item's name, as people may see it; "" is the file's.
            metadata: What is known of it, plain values by name.

        Returns:
            The answer of `POST /v1/items`; `explanation` holds an id where the item is flagged.

        Raises:
            ServiceError: The service refused it.
        """
        told: dict[str, Any] = self._send(
            self._moderate(image, text, url, features, name, metadata or {})
        )
        return told

    def explain(
        self, images: Iterable[Image], target: str = "top1", tier: str = "fast"
    ) -> list[dict[str, Any]]:
        """Have images explained without a decision.

        Args:
            images: Images' bytes, or paths of their files.
            target: What to explain, such as "top1" or "class=281".
            tier: "fast" or "precise".

        Returns:
            Of each image its item's id, the explanation's id and state, or the error.

        Raises:
            ServiceError: The service refused the request.
        """
        made: list[dict[str, Any]] = self._send(self._explain(images, target, tier))["explanations"]
        return made

    def get(self, id: str, wait: float = 0.0) -> dict[str, Any]:
        """Read an explanation: its state, and once it is done its envelope and record.

        Args:
            id: Its id.
            wait: The most seconds to wait for its end.

        Raises:
            ServiceError: There is none, or the key may not read it.
        """
        found: dict[str, Any] = self._send(_got(id, wait))
        return found

    def wait(self, id: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until an explanation has ended, however it did; return what `get` returns."""
        end = time.monotonic() + seconds
        while True:
            found = self.get(id, max(0.0, end - time.monotonic()))
            if found["state"] not in _OPEN or time.monotonic() >= end:
                return found

    def overlay(self, id: str, side: int = 1280) -> bytes:
        """Return the JPEG of an image with its map over it."""
        return bytes(self._send(_Request("GET", f"/explanations/{id}/overlay.jpg?side={side}")))

    def appeal(self, decision_id: str, reason: str) -> dict[str, Any]:
        """Contest a decision; return the appeal's id and that of the precise explanation."""
        told: dict[str, Any] = self._send(_appealed(decision_id, reason))
        return told

    def decision(self, id: str) -> dict[str, Any]:
        """Read a decision and what people did about it."""
        found: dict[str, Any] = self._send(_Request("GET", f"/decisions/{id}"))
        return found

    def statement(self, decision_id: str) -> dict[str, Any]:
        """Return the statement of reasons of a decision."""
        found: dict[str, Any] = self._send(_Request("GET", f"/decisions/{decision_id}/statement"))
        return found

    def _send(self, request: _Request) -> Any:
        end = time.monotonic() + self.patience
        while True:
            try:
                answer = self._client.request(request.method, request.path, **request.more)
            except self._httpx.TransportError as error:
                raise self._unreachable(error) from error
            seconds = self._later(answer, end)
            if seconds is None:
                return _read(answer)
            time.sleep(seconds)


class AsyncClient(_Requests):
    """The same client for asyncio; see `Client` for arguments and methods."""

    def __init__(self, address: str, key: str, *, timeout: float = 60.0, patience: float = 60.0):
        super().__init__(address, key, timeout=timeout, patience=patience)
        self._client: httpx.AsyncClient = self._httpx.AsyncClient(**self._made)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def moderate(
        self,
        image: Image | None = None,
        text: str | None = None,
        *,
        url: str | None = None,
        features: Mapping[str, Any] | None = None,
        name: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send an item, and get the decision at once; see `Client.moderate`."""
        told: dict[str, Any] = await self._send(
            self._moderate(image, text, url, features, name, metadata or {})
        )
        return told

    async def explain(
        self, images: Iterable[Image], target: str = "top1", tier: str = "fast"
    ) -> list[dict[str, Any]]:
        """Have images explained without a decision; see `Client.explain`."""
        told = await self._send(self._explain(images, target, tier))
        made: list[dict[str, Any]] = told["explanations"]
        return made

    async def get(self, id: str, wait: float = 0.0) -> dict[str, Any]:
        """Read an explanation; see `Client.get`."""
        found: dict[str, Any] = await self._send(_got(id, wait))
        return found

    async def wait(self, id: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until an explanation has ended; see `Client.wait`."""
        end = time.monotonic() + seconds
        while True:
            found = await self.get(id, max(0.0, end - time.monotonic()))
            if found["state"] not in _OPEN or time.monotonic() >= end:
                return found

    async def overlay(self, id: str, side: int = 1280) -> bytes:
        """Return the JPEG of an image with its map over it."""
        return bytes(
            await self._send(_Request("GET", f"/explanations/{id}/overlay.jpg?side={side}"))
        )

    async def appeal(self, decision_id: str, reason: str) -> dict[str, Any]:
        """Contest a decision; see `Client.appeal`."""
        told: dict[str, Any] = await self._send(_appealed(decision_id, reason))
        return told

    async def decision(self, id: str) -> dict[str, Any]:
        """Read a decision and what people did about it."""
        found: dict[str, Any] = await self._send(_Request("GET", f"/decisions/{id}"))
        return found

    async def statement(self, decision_id: str) -> dict[str, Any]:
        """Return the statement of reasons of a decision."""
        path = f"/decisions/{decision_id}/statement"
        found: dict[str, Any] = await self._send(_Request("GET", path))
        return found

    async def _send(self, request: _Request) -> Any:
        end = time.monotonic() + self.patience
        while True:
            try:
                answer = await self._client.request(request.method, request.path, **request.more)
            except self._httpx.TransportError as error:
                raise self._unreachable(error) from error
            seconds = self._later(answer, end)
            if seconds is None:
                return _read(answer)
            await asyncio.sleep(seconds)


def _base64(image: Image) -> str:
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return base64.b64encode(data).decode("ascii")


def _name(image: Image | None) -> str:
    return "" if image is None or isinstance(image, bytes) else Path(image).name[:500]


def _once(more: dict[str, Any]) -> dict[str, Any]:
    """Add the key by which the service knows a request that is sent again."""
    return {**more, "headers": {"Idempotency-Key": uuid.uuid4().hex}}


def _got(id: str, wait: float) -> _Request:
    query = f"?wait={int(min(30.0, max(0.0, wait)) * 1000)}" if wait else ""
    return _Request("GET", f"/explanations/{id}{query}")


def _appealed(id: str, reason: str) -> _Request:
    return _Request("POST", f"/decisions/{id}/appeals", {"json": {"reason": reason}})
