"""The service's settings: a TOML file, checked whole before anything starts."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from visxai.errors import ArgumentError, require

require("pydantic", "serve", "the service")

from pydantic import BaseModel, ConfigDict, Field, ValidationError  # noqa: E402

from visxai.moderation import Policy, Rule  # noqa: E402
from visxai.serve import outside  # noqa: E402
from visxai.serve.outside import Network  # noqa: E402

_Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
_Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Part):
    """The model that decides; see `visxai.Engine`."""

    name: _Text = "efficientnet_lite0"
    checkpoint: str | None = None
    labels: str | None = None
    activation: Literal["softmax", "sigmoid", "none"] | None = None
    device: str = "auto"
    precision: str = "auto"
    accelerate: Literal["auto", "off", "onnx", "openvino", "compile"] = "off"


class RuleSettings(_Part):
    """One rule of the policy; see `visxai.moderation.Rule`."""

    category: Annotated[str, Field(min_length=1, max_length=200)]
    when: _Text
    severity: Annotated[int, Field(ge=0, le=3)] = 1
    ground: Annotated[str, Field(max_length=500)] = ""


class PolicySettings(_Part):
    """What is flagged."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = "demonstration-1"
    rules: tuple[RuleSettings, ...] = (
        RuleSettings(
            category="cats",
            when="cats=any:281,282,283,284,285>0.3",
            severity=1,
            ground="the rule of the demonstration: no cats",
        ),
    )


class TextSettings(_Part):
    """The model and the rules for texts; see `visxai.text.Engine`."""

    model: _Text = "toxicity"
    device: str = "auto"
    rules: Annotated[tuple[RuleSettings, ...], Field(min_length=1)]
    fast: _Text = "integrated_gradients"
    precise: _Text = "partition_shap"


class PostSettings(_Part):
    """The fused model and the rule for images with texts; see `visxai.fused`.

    Attributes:
        model: The card of the fused model, a TOML file.
        category: What a post is flagged as whose score is above the threshold; None is the card's
            label.
        threshold: The threshold.
        severity: How urgent a review is, 0 to 3.
        ground: The sentence of the terms or the law behind it.
        precise: The method for the words of contested posts; their images have `tiers.precise`.
    """

    model: _Text
    category: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.5
    severity: Annotated[int, Field(ge=0, le=3)] = 1
    ground: Annotated[str, Field(max_length=500)] = ""
    precise: _Text = "partition_shap"


class TableSettings(_Part):
    """The model and the rule for rows of tables; see `visxai.tabular.load_engine`.

    Attributes:
        model: The model's file, or its card, which names the threshold and the background.
        category: What a row is flagged as whose score is below the threshold.
        severity: How urgent a review is, 0 to 3.
        ground: The sentence of the terms or the law behind it.
        wording: The reasons' sentences: "en", "de", or the path of a TOML file.
        actions: What an applicant can change, for appeals: columns with "raise", "lower" or "any".
    """

    model: _Text
    category: Annotated[str, Field(min_length=1, max_length=200)] = "refused"
    severity: Annotated[int, Field(ge=0, le=3)] = 1
    ground: Annotated[str, Field(max_length=500)] = ""
    wording: _Text = "en"
    actions: dict[str, Literal["raise", "lower", "any"]] = {}


class Fast(_Part):
    """The tier for everything flagged: a method of about a forward's cost."""

    method: _Text = "grad_cam"
    batch: Annotated[int, Field(ge=1, le=512)] = 16
    queue: Annotated[int, Field(ge=1, le=1_000_000)] = 2000


class Precise(_Part):
    """The tier for contested decisions: a slow method, checked."""

    method: _Text = "partition_shap"
    seeded: str | None = "rise(masks=400, seed={seed})"
    seeds: Annotated[int, Field(ge=2, le=10)] = 3
    check: str | None = "faithfulness"
    queue: Annotated[int, Field(ge=1, le=1_000_000)] = 200


class Tiers(_Part):
    """The two tiers."""

    fast: Fast = Fast()
    precise: Precise = Precise()


class Limits(_Part):
    """What a request may cost."""

    max_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 20 * 2**20
    max_pixels: Annotated[int, Field(ge=1, le=2**30)] = 50_000_000
    seconds: Annotated[float, Field(gt=0, le=600)] = 20.0
    at_once: Annotated[int, Field(ge=1, le=10_000)] = 64
    batch: Annotated[int, Field(ge=1, le=512)] = 16
    wait_ms: Annotated[float, Field(ge=0, le=1000)] = 0.0
    per_call: Annotated[int, Field(ge=1, le=1000)] = 32
    decoders: Annotated[int, Field(ge=1, le=256)] = 1


class Cache(_Part):
    """What is reused.

    Attributes:
        exact: Whether equal items share one explanation.
        similar: Whether flagged images that look the same do, in the fast tier; see
            `visxai.serve.similar`.
        tolerance: How far their scores may be apart, 0 to 1.
    """

    exact: bool = True
    similar: bool = False
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.02


class Retention(_Part):
    """How long things stay; a legal hold beats it."""

    days: Annotated[int, Field(ge=1, le=36500)] = 190
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000


class Queueing(_Part):
    """How workers lease jobs."""

    lease: Annotated[float, Field(ge=0.5, le=3600)] = 30.0


Event = Literal[
    "item.flagged",
    "explanation.added",
    "decision.appealed",
    "decision.upheld",
    "decision.overturned",
    "decision.escalated",
    "alert.raised",
]


class Webhook(_Part):
    """Where events are posted to; see `visxai.serve.webhooks`.

    Attributes:
        url: The address.
        events: Which events.
        tenant: Whose, None for those of all.
    """

    url: Annotated[str, Field(max_length=2000)]
    events: Annotated[tuple[Event, ...], Field(min_length=1)] = get_args(Event)
    tenant: _Name | None = None


class Outside(_Part):
    """Which other machines the service calls; see `visxai.serve.outside`.

    Attributes:
        sources: The sites that items may be fetched from, such as "https://example.org".
        private: Networks that may be called besides public addresses, such as "10.1.2.0/24".
        seconds: How long a call may take.
    """

    sources: tuple[_Text, ...] = ()
    private: tuple[_Text, ...] = ()
    seconds: Annotated[float, Field(gt=0, le=25)] = 10.0

    def networks(self) -> tuple[Network, ...]:
        """Read the private networks.

        Raises:
            ArgumentError: One can't be read.
        """
        try:
            return tuple(ipaddress.ip_network(one) for one in self.private)
        except ValueError as error:
            raise ArgumentError(
                expected="networks such as 10.1.2.0/24 in outside.private",
                got=str(error),
                remedy="write an address and the length of its prefix",
                field="outside.private",
            ) from error


class Config(_Part):
    """The whole file.

    Attributes:
        model: The model.
        policy: What is flagged.
        text: How texts are decided on; None takes no texts.
        post: How images with texts are decided on; None takes none.
        table: How rows of tables are decided on; None takes no rows.
        tiers: How flagged and contested items are explained.
        limits: What a request may cost.
        cache: What is reused.
        retention: How long things stay.
        queue: How workers lease jobs.
        webhooks: Where events are posted to.
        outside: Which other machines are called.
        tenants: Whose items the service takes.
    """

    model: ModelSettings = ModelSettings()
    policy: PolicySettings = PolicySettings()
    text: TextSettings | None = None
    post: PostSettings | None = None
    table: TableSettings | None = None
    tiers: Tiers = Tiers()
    limits: Limits = Limits()
    cache: Cache = Cache()
    retention: Retention = Retention()
    queue: Queueing = Queueing()
    webhooks: tuple[Webhook, ...] = ()
    outside: Outside = Outside()
    tenants: Annotated[tuple[_Name, ...], Field(min_length=1)] = ("default",)

    def rules(self) -> Policy:
        """Make the policy.

        Raises:
            ArgumentError: Two rules have one category, or a condition can't be read.
        """
        policy = Policy(
            self.policy.name, tuple(Rule(**rule.model_dump()) for rule in self.policy.rules)
        )
        for rule in policy.rules:
            rule.check()
        return policy

    def text_rules(self) -> Policy | None:
        """Make the policy for texts, None where the service takes none.

        Raises:
            ArgumentError: Two rules have one category, or a condition can't be read.
        """
        if self.text is None:
            return None
        rules = tuple(Rule(**rule.model_dump()) for rule in self.text.rules)
        for rule in rules:
            rule.check()
        return Policy(self.policy.name, rules)

    @classmethod
    def of(cls, data: dict[str, Any], name: str = "the configuration") -> Config:
        """Check settings.

        Args:
            data: The settings as TOML gives them.
            name: What to call them in an error.

        Raises:
            ArgumentError: There are mistakes; each is a sentence of its own.
        """
        try:
            made = cls.model_validate(data)
        except ValidationError as error:
            sentences = [_sentence(dict(one)) for one in error.errors()]
            raise ArgumentError(f"{name}: {'; '.join(sentences)}") from None
        from visxai.engine.engine import load_methods
        from visxai.metrics import load_check

        made.rules()
        made.text_rules()
        made.outside.networks()
        for url in (*made.outside.sources, *(hook.url for hook in made.webhooks)):
            outside.parse(url)
        words = [] if made.text is None else [made.text.fast, made.text.precise]
        words += [] if made.post is None else [made.post.precise]
        if words:
            from visxai.text import methods

            methods.load_all(words)
        precise = made.tiers.precise
        for spec in (made.tiers.fast.method, precise.method, _seeded(precise.seeded, 0)):
            if spec is not None:
                load_methods(spec)
        if precise.check is not None:
            load_check(precise.check)
        return made

    @classmethod
    def read(cls, path: str | Path) -> Config:
        """Read settings from a TOML file.

        Raises:
            ArgumentError: The file can't be read, isn't TOML, or has mistakes.
        """
        try:
            data = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ArgumentError(
                expected=f"a TOML file at {path}",
                got=(getattr(error, "strerror", None) or str(error)).lower(),
                remedy="see docs/service.md for an example",
                field="config",
            ) from error
        return cls.of(data, str(path))


def _seeded(spec: str | None, seed: int) -> str | None:
    return None if spec is None else spec.replace("{seed}", str(seed))


# What a setting should have been, by the kind of mistake.
_EXPECTED = {
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "finite_number": "a finite number",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "a name of letters, digits, points, dashes and underscores",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} character",
    "too_short": "at least {min_length} entry",
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table of settings"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    "string_type": "text",
}


def _sentence(error: dict[str, Any]) -> str:
    """Write one mistake as a sentence."""
    place = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{place} is no setting, check its spelling"
    if error["type"] == "missing":
        return f"{place} is missing"
    limits = {
        name: int(one) if isinstance(one, float) and one.is_integer() else one
        for name, one in error.get("ctx", {}).items()
    }
    wanted = _EXPECTED.get(error["type"], "another value").format(**limits)
    return f"{place}: expected {wanted}, got {_told(error['input'])}"


def _told(value: Any) -> str:
    """Tell a value of a TOML file in few words."""
    if isinstance(value, (dict, list)):
        return ("a table" if isinstance(value, dict) else "a list") if value else "nothing in it"
    return str(value).lower() if isinstance(value, bool) else repr(value)[:60]
