"""Texts in the service: decided on, explained by words, reviewed and contested beside images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from sqlalchemy import select
from test_service import CHEAP, FLAG_ALL, drain, nearby, photo, post

import visxai
from visxai.record.columns import schema
from visxai.record.text import TextExplanation
from visxai.serve import tables
from visxai.serve.config import Config
from visxai.serve.pages import strongest_words
from visxai.serve.service import Places, Service
from visxai.serve.text_checks import strongest, without

RULES = [{"category": "insults", "when": "class=insult>0.5", "severity": 2, "ground": "rule 3"}]
INSULT = "You are an idiot, <b>and</b> a fool."


@pytest.fixture(scope="module")
def made(engine: visxai.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = Config.of({**FLAG_ALL, "tiers": CHEAP, "text": {"rules": RULES}})
    service = Service(nearby(config), Places.below(tmp_path_factory.mktemp("texts")), engine=engine)
    yield service
    service.close()


def send(client: httpx.Client, own: dict[str, str], text: str) -> Any:
    return client.post("/v1/items", headers=own, json={"text": text, "name": "a comment"}).json()


def test_a_comment_is_decided_on_explained_contested_and_stated(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    answer = send(client, own, INSULT)
    (direct,) = visxai.text.Engine("toxicity").explain(INSULT, target="class=insult")
    assert (answer["decision"], answer["category"]) == ("flag", "insults")
    assert answer["score"] == pytest.approx(direct.score, abs=1e-5)
    assert send(client, own, "What a beautiful photograph!")["decision"] == "pass"
    image = post(client, own, photo(1)).json()  # both kinds wait in one lane
    assert drain(made) == 2
    found = client.get(f"/v1/explanations/{answer['explanation']['id']}", headers=own).json()
    jsonschema.validate(found["record"], schema("text"))
    record = visxai.Explanation.from_dict(found["record"])
    assert isinstance(record, TextExplanation)
    assert record.values == pytest.approx(direct.values, abs=1e-4)
    assert {"decide", "queue", "explain"} <= set(found["envelope"]["timings"])

    place = f"/v1/explanations/{found['id']}"
    shown = client.get(f"{place}/fragment.html", headers=own)
    assert "idiot" in shown.text
    assert "<b>" not in shown.text
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    assert client.get(f"{place}/overlay.jpg", headers=own).status_code == 409
    drawn = client.get(
        f"/v1/explanations/{image['explanation']['id']}/fragment.html", headers=own
    ).text
    assert "data:image/jpeg;base64," in drawn

    case = f"/v1/decisions/{answer['decision_id']}"
    appeal = client.post(f"{case}/appeals", headers=own, json={"reason": "a joke"}).json()
    assert drain(made, "precise") == 1
    precise = client.get(f"/v1/explanations/{appeal['explanation']['id']}", headers=own).json()
    assert precise["state"] == "done", precise["reason"]
    assert precise["record"]["method"].startswith("partition_shap")
    confidence = precise["envelope"]["confidence"]
    assert -1 <= confidence["agreement"] <= 1
    assert confidence["counterfactual"]["after"] < confidence["counterfactual"]["before"]
    page = client.get(f"/review/{answer['decision_id']}", headers=own).text
    assert f"{place}/fragment.html" in page
    assert "of the evidence: <bdi>idiot</bdi>" in page
    whole = client.get(f"{place}/fragment.html?whole=true", headers=own).text
    assert shown.text in whole
    assert "color-scheme: light dark" in whole
    opened = [
        one for one in made.ledger.history(answer["decision_id"]) if one.event == "case.opened"
    ]
    assert len(opened) == 1  # who saw what
    assert found["id"] in opened[0].body
    assert precise["id"] in opened[0].body
    assert "of the words left out" in page
    statement = client.get(f"{case}/statement", headers=own).json()
    assert statement["content_type"] == ["CONTENT_TYPE_TEXT"]
    assert "idiot" not in str(statement)
    assert made.ledger.verify()


def test_a_comment_that_was_seen_before_costs_nothing(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    first = send(client, own, "Shut up, you pathetic loser.")
    drain(made)
    again = send(client, own, "Shut up, you pathetic loser.")
    assert again["explanation"]["state"] == "done"
    found = client.get(f"/v1/explanations/{again['explanation']['id']}", headers=own).json()
    assert found["envelope"]["cache"] == {"kind": "exact", "source": first["explanation"]["id"]}
    client.delete(f"/v1/items/{first['item_id']}", headers=own)
    with made.database.reading() as connection:
        row = connection.execute(
            select(tables.items).where(tables.items.c.id == first["item_id"])
        ).one()
    assert (row.kind, row.blob) == ("text", None)


@pytest.mark.parametrize(
    "body",
    [{}, {"image": "aGk=", "text": "hi"}, {"text": ""}, {"text": "a" * 20_001}],
    ids=["none", "both", "empty", "long"],
)
def test_an_item_is_an_image_or_a_text(
    client: httpx.Client, own: dict[str, str], body: dict[str, str]
) -> None:
    assert client.post("/v1/items", headers=own, json=body).status_code == 422


def test_forms_and_explanations_alone_take_texts(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    form = client.post("/v1/items", headers=own, files={"text": (None, INSULT)}).json()
    assert form["category"] == "insults"
    asked = {"items": [{"text": "You fool", "target": "class=insult"}]}
    (one,) = client.post("/v1/explanations", headers=own, json=asked).json()["explanations"]
    drain(made)
    found = client.get(f"/v1/explanations/{one['id']}", headers=own).json()
    assert found["record"]["text"] == "You fool"


def test_the_strongest_words_are_named_with_their_shares() -> None:
    engine = visxai.text.Engine(lambda texts: [[one.lower().count("bad") / 4] for one in texts])
    (made,) = engine.explain("Bad, it is bad: bad, a badger", "leave_one_out", target=0)
    told = [(one["text"], round(one["share"], 3)) for one in strongest_words(made)]
    assert told == [("bad", 0.75), ("badger", 0.25)]


def test_the_strongest_words_are_taken_out() -> None:
    engine = visxai.text.Engine(lambda texts: [[float("bad" in one)] for one in texts])
    (made,) = engine.explain("it is bad, really", "leave_one_out", target=0)
    assert strongest(made) == [2]
    assert without(made, [2]) == "it is , really"
    (flat,) = engine.explain("it is fine", "leave_one_out", target=0)
    assert strongest(flat) == []
