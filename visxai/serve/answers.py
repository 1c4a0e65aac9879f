"""The forms of requests and answers, from which the OpenAPI document is made."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visxai.errors import ArgumentError

Scalar = str | int | float | bool | None
Row = Annotated[
    dict[Annotated[str, Field(max_length=200)], Scalar], Field(min_length=1, max_length=1000)
]
Metadata = Annotated[dict[str, Scalar], Field(max_length=50)]
_Name = Annotated[str, Field(max_length=500)]
_Target = Annotated[str, Field(min_length=1, max_length=500)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ItemIn(_In):
    """An item as JSON: an image in base64 or by its URL, a text, an image with a text, or a row."""

    image: Annotated[
        str | None, Field(min_length=1, description="The image file's bytes in base64.")
    ] = None
    text: Annotated[
        str | None,
        Field(min_length=1, max_length=20_000, description="A text, alone or with an image."),
    ] = None
    url: Annotated[
        str | None,
        Field(min_length=1, max_length=2000, description="An image of a site that is allowed."),
    ] = None
    features: Annotated[
        Row | None,
        Field(description="A row of a table: a value for each column that the model scores."),
    ] = None
    name: _Name = ""
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        images = [self.image, self.url].count(None)
        others = [self.text, self.features].count(None)
        alone = images + others == 3
        if not (alone or (images == 1 and self.text is not None and self.features is None)):
            raise ValueError(
                "expected an image (image or url), a text, an image with a text, or features"
            )
        return self

    @property
    def kind(self) -> str:
        """What the item is: "image", "text", "post" or "table"."""
        if self.features is not None:
            return "table"
        if self.text is None:
            return "image"
        return "text" if self.image is None and self.url is None else "post"

    def data(self) -> bytes:
        """Decode the image's bytes, or encode the text.

        Raises:
            ArgumentError: They aren't base64.
        """
        if self.image is None:
            return (self.text or "").encode("utf-8", "replace")
        try:
            return base64.b64decode(self.image, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ArgumentError(
                expected="an image in base64",
                got="other text",
                remedy="encode the file's bytes",
                field="image",
            ) from error


class ExplanationIn(ItemIn):
    """An item to be explained without a decision."""

    target: Annotated[_Target, Field(description="Such as top1, class=281 or any=281,282.")] = (
        "top1"
    )


class ExplanationsIn(_In):
    """Items to be explained without decisions."""

    items: Annotated[list[ExplanationIn], Field(min_length=1, max_length=1000)]
    tier: Literal["fast", "precise"] = "fast"


class JobOut(BaseModel):
    """Where an explanation stands."""

    id: str
    state: str


class ItemOut(BaseModel):
    """The decision on an item."""

    item_id: str
    decision_id: str
    policy: str
    decision: Literal["flag", "pass"]
    category: str
    score: float
    threshold: float
    severity: int
    scores: dict[str, float]
    explanation: JobOut | None


class RequestedOut(BaseModel):
    """An explanation that was asked for, or why it can't be."""

    item_id: str | None = None
    id: str | None = None
    state: str
    error: dict[str, Any] | None = None


class ExplanationsOut(BaseModel):
    """Explanations that were asked for, in the order of the items."""

    explanations: list[RequestedOut]


class AuditOut(BaseModel):
    """An entry of the audit chain."""

    sequence: int
    at: str
    event: str
    actor: str
    subject: str
    body: str
    payload_sha256: str | None
    previous: str
    hash: str


class ExplanationOut(BaseModel):
    """An explanation: its state, and once it is done its envelope, record and audit entries."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled", "erased"]
    tier: str
    created: float
    started: float | None
    finished: float | None
    reason: str | None = None
    hold: str | None = None
    envelope: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    audit: list[AuditOut] = []


class DecisionOut(BaseModel):
    """A decision, and what people did about it."""

    id: str
    item_id: str
    created: float
    policy: str
    decision: str
    category: str
    score: float
    threshold: float
    scores: dict[str, float]
    severity: int
    lane: str
    state: str
    action: str | None
    closed: float | None
    explanations: list[str]


class AppealIn(_In):
    """An appeal."""

    reason: Annotated[str, Field(min_length=1, max_length=5000)]


class AppealOut(BaseModel):
    """An appeal that was handed in."""

    id: str
    explanation: JobOut


class ActionIn(_In):
    """What a person decides."""

    action: Literal["uphold", "overturn", "escalate"]
    shown: Annotated[str | None, Field(max_length=64)] = None


class ActionOut(BaseModel):
    """What became of a case."""

    decision_id: str
    state: str
    lane: str
    action: str


class NextOut(BaseModel):
    """The case that a person now has."""

    decision_id: str | None


class HoldIn(_In):
    """A legal hold."""

    reason: Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")]


class KeyIn(_In):
    """An API key to be made."""

    role: Literal["submit", "review", "audit", "admin"]
    name: Annotated[str, Field(max_length=200)] = ""


class KeyOut(BaseModel):
    """A new API key, which is shown this once."""

    key: str
    id: str
    role: str


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str
    message: str
    expected: str | None
    got: str | None
    remedy: str | None
    field: str | None


class ErrorOut(BaseModel):
    """The answer to a request that failed."""

    error: ErrorBody
