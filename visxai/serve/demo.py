"""What `visxai serve --demo` shows: photographs, comments, posts of both and loans.

They are judged, contested and closed. The loans are German Credit's, decided on by a model that is
trained when the demonstration starts; without the extra `tables` there are none.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from visxai import files
from visxai.errors import MissingExtra, VisxaiError, require
from visxai.serve import cases, intake, tables
from visxai.serve.image_with_text import Post
from visxai.serve.intake import Item
from visxai.serve.jobs import OPEN
from visxai.serve.keys import Principal

if TYPE_CHECKING:
    from visxai.serve.rows import RowModerator
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
_CARD = """# An image with a text: cats by the photograph, insults by the words.
label = "cats or insults"
rule = "noisy_or"

[image]
model = "efficientnet_lite0"
target = "cats=any:281,282,283,284,285"

[text]
model = "toxicity"
target = "class=insult"
"""
_POST: dict[str, Any] = {
    "category": "cats or insults",
    "threshold": 0.6,
    "severity": 2,
    "ground": "the rule of the demonstration: neither cats nor insults",
}
_POSTS = (
    ("chelsea", "My new flatmate, three hours after breakfast."),
    ("coffee", "Only an idiot would pay four euros for this, you stupid fools."),
    ("chelsea", "What a stupid, ugly beast. Shut up about your pets, moron."),
    ("rocket", "Watched the launch with my father, what a day!"),
)
_TABLE: dict[str, Any] = {
    "category": "loan refused",
    "severity": 1,
    "ground": "the rule of the demonstration: a score of 0.6 or more",
}
_APPLICANTS = range(0, 1000, 125)  # of the loans, which stand in no order
_COMMENTS = (
    "You are an idiot, and so is everybody who voted for this.",
    "You are not stupid at all, thank you for the explanation!",
    "This stupid fridge broke again after two days.",
    "Shut up, you pathetic loser. Nobody asked for your opinion.",
    "I disagree: the second source says the opposite, see page 12.",
    "What a beautiful photograph, where was it taken?",
)
_PATIENCE = 60.0  # seconds that the demonstration's people wait for an explanation


def settings(folder: str | Path) -> dict[str, Any]:
    """Write the card and the model of the demonstration, and return the settings that name them.

    Args:
        folder: The folder of the service's data.

    Returns:
        The settings; without the extra `tables` there is no model of loans.

    Raises:
        StoreError: The folder can't be written.
    """
    place = Path(folder) / "demo"
    place.mkdir(parents=True, exist_ok=True)
    files.write(place / "posts.toml", _CARD)
    told = {**SETTINGS, "post": {"model": str(place / "posts.toml"), **_POST}}
    try:
        return {**told, "table": {"model": str(_loans(place)), **_TABLE}}
    except MissingExtra:
        return told


def _loans(folder: Path) -> Path:
    """Train a small model on German Credit, and save it with its card; return the card."""
    xgboost = require("xgboost", "tables", "the demonstration's loans")
    from visxai import tabular
    from visxai.tabular import german_credit as loans

    table, features = loans.load(), loans.features()
    model = xgboost.XGBClassifier(n_estimators=60, max_depth=2, learning_rate=0.2, n_jobs=1)
    model.fit(features.matrix(table), table.column(loans.OUTCOME).to_numpy(False))
    scores = tabular.Engine(model, features=features).predict(table)
    engine = tabular.Engine(
        model,
        tabular.Background.approved_near(table, scores, 0.6, most=50),
        features,
        threshold=0.6,
        label=loans.OUTCOME,
        protected=loans.PROTECTED,
    )
    return tabular.save_engine(engine, folder / "loans.json")


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
    for item in _items(service):
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


def _items(service: Service) -> Iterator[Item]:
    """Yield comments, posts and loans, then each photograph whole, cut and mirrored."""
    from PIL import Image, ImageOps

    data = require("skimage.data", "demo", "the demonstration")
    for number, comment in enumerate(_COMMENTS, 1):
        yield Item(comment.encode(), f"comment {number}", {"source": "visxai"}, "text")
    if service.kinds.posts is not None:
        for number, (name, text) in enumerate(_POSTS, 1):
            file = io.BytesIO()
            Image.fromarray(getattr(data, name)()).convert("RGB").save(file, "JPEG", quality=90)
            post = Post(file.getvalue(), text).to_bytes()
            yield Item(post, f"post {number}", {"source": "scikit-image, visxai"}, "post")
    if service.kinds.rows is not None:
        yield from _applicants(service.kinds.rows)
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


def _applicants(rows: RowModerator) -> Iterator[Item]:
    """Yield some applicants for a loan, with what governance compares them by."""
    from visxai.tabular import german_credit as loans

    table = loans.load().take(list(_APPLICANTS)).to_pylist()
    for number, row in zip(_APPLICANTS, table, strict=True):
        told = {name: row[name] for name in loans.features().names}
        sex = "female" if "female" in row["personal_status_sex"] else "male"
        metadata = {"source": "German Credit", "sex": sex}
        yield Item(rows.read(told), f"applicant {number + 1}", metadata, "table")


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
