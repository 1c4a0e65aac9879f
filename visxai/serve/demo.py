"""What `visxai serve --demo` shows: photographs and comments, judged, contested and closed."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from visxai.errors import VisxaiError, require
from visxai.serve import cases, intake, tables
from visxai.serve.intake import Item
from visxai.serve.jobs import OPEN
from visxai.serve.keys import Principal

if TYPE_CHECKING:
    from visxai.serve.service import Service

# The classes are ImageNet's: cats, cups of coffee, rockets and space shuttles.
SETTINGS: dict[str, Any] = {
    "policy": {
        "name": "demonstration-2",
        "rules": [
            {
                "category": "cats",
                "when": "cats=any:281,282,283,284,285>0.3",
                "severity": 1,
                "ground": "the rule of the demonstration: no cats",
            },
            {
                "category": "coffee",
                "when": "coffee=any:504,967,968>0.3",
                "severity": 2,
                "ground": "the rule of the demonstration: no coffee",
            },
            {
                "category": "spacecraft",
                "when": "spacecraft=any:657,744,812>0.1",
                "severity": 3,
                "ground": "the rule of the demonstration: no spacecraft",
            },
        ],
    },
    "text": {
        "rules": [
            {
                "category": "insults",
                "when": "class=insult>0.5",
                "severity": 2,
                "ground": "the rule of the demonstration: no insults",
            }
        ]
    },
    "tiers": {"precise": {"method": "partition_shap(max_evaluations=200)", "seeds": 2}},
}
_PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "astronaut", "camera", "coins", "moon", "horse")
_COMMENTS = (
    "You are an idiot, and so is everybody who voted for this.",
    "You are not stupid at all, thank you for the explanation!",
    "This stupid fridge broke again after two days.",
    "Shut up, you pathetic loser. Nobody asked for your opinion.",
    "I disagree: the second source says the opposite, see page 12.",
    "What a beautiful photograph, where was it taken?",
)
_PATIENCE = 60.0  # seconds that the demonstration's people wait for an explanation


def fill(service: Service, tenant: str) -> int:
    """Send items, contest some decisions and close others, as people would.

    Args:
        service: The service, whose workers run.
        tenant: Whose items they are; nothing is done where it has some.

    Returns:
        The number of items.

    Raises:
        MissingExtra: The extra `demo` isn't installed.
    """
    with service.database.reading() as connection:
        if connection.execute(select(tables.items.c.id).limit(1)).first() is not None:
            return 0
    sender = Principal("demonstration", tenant, "admin", "demonstration")
    flagged, count = [], 0
    for item in _items():
        answer = intake.moderate(service, sender, item)
        count += 1
        if answer["explanation"]:
            flagged.append(answer)
    for number, answer in enumerate(flagged):
        if number % 3 == 0:
            _wait(service, answer["explanation"]["id"])
            reason = "It shows no such thing, and the picture is my own."
            cases.appeal(service, sender, answer["decision_id"], reason)
        elif number % 3 == 1:
            _wait(service, answer["explanation"]["id"])
            action = ("uphold", "overturn")[number // 3 % 2]
            shown = answer["explanation"]["id"]
            cases.act(service, sender, answer["decision_id"], action, shown)
    return count


def _items() -> Iterator[Item]:
    """Yield comments, then each photograph whole, and a cut-out and a mirror image of it."""
    from PIL import Image, ImageOps

    data = require("skimage.data", "demo", "the demonstration")
    for number, comment in enumerate(_COMMENTS, 1):
        yield Item(comment.encode(), f"comment {number}", {"source": "visxai"}, "text")
    for name in _PHOTOGRAPHS:
        whole = Image.fromarray(getattr(data, name)()).convert("RGB")
        width, height = whole.size
        cut = whole.crop((width // 8, height // 8, width * 7 // 8, height * 7 // 8))
        for kind, image in (("", whole), (", cut", cut), (", mirrored", ImageOps.mirror(whole))):
            file = io.BytesIO()
            image.save(file, "JPEG", quality=90)
            group = "colour" if image.getcolors(256) is None else "grey"
            yield Item(
                file.getvalue(), f"{name}{kind}.jpg", {"source": "scikit-image", "kind": group}
            )


def _wait(service: Service, id: str) -> None:
    """Wait until an explanation has ended."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with service.database.reading() as connection:
            if service.queue.get(connection, id).state not in OPEN:
                return
        time.sleep(0.1)
    raise VisxaiError(
        expected="an explanation within a minute", got="none", remedy="see that a worker runs"
    )
