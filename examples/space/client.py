"""Calls of `visxai demo` over HTTP: what a page made with another toolkit needs of it."""

from __future__ import annotations

import io
from typing import Any

import httpx
from PIL import Image


class Demo:
    """A running `visxai demo`.

    Args:
        address: Its address, such as "http://127.0.0.1:8010".
    """

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=address, timeout=120)

    def choices(self) -> dict[str, Any]:
        """Return what can be chosen: models, methods and classes of the first model."""
        return self._json(self._http.get("/api/choices"))

    def explain(
        self, image: Image.Image, model: str, methods: list[str], target: str = "top1"
    ) -> tuple[list[tuple[Image.Image, str]], dict[str, float]]:
        """Explain a photograph.

        Args:
            image: The photograph.
            model: The model's name.
            methods: The methods' specs, as `choices` lists them.
            target: "top1", "top5" or "class=" and a label.

        Returns:
            The overlays with their captions, and the scores of the strongest classes.

        Raises:
            RuntimeError: The demo refuses, with its sentence.
        """
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG")
        sent = self._json(
            self._http.post("/api/images", files={"image": ("p.png", file.getvalue())})
        )
        asked = {"image": sent["id"], "model": model, "methods": methods, "target": target}
        made = self._json(self._http.post("/api/explain", json=asked))
        overlays = []
        for one in made["maps"]:
            drawn = Image.open(io.BytesIO(self._http.get(one["overlay"]).content))
            overlays.append((drawn, f"{one['label']} by {one['method']}"))
        return overlays, {one["label"]: one["score"] for one in made["top"]}

    def _json(self, answer: httpx.Response) -> Any:
        told = answer.json()
        if answer.is_error:
            raise RuntimeError(told["error"]["message"])
        return told
