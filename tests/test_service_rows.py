"""Rows of tables in the service: decided on, explained by reasons, reviewed and contested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient
from test_service import CHEAP, FLAG_ALL, drain, key, nearby

import visxai
from visxai import tabular
from visxai.errors import ArgumentError
from visxai.record.columns import schema
from visxai.record.table import TableExplanation
from visxai.serve import tables
from visxai.serve.app import create
from visxai.serve.config import Config
from visxai.serve.service import Places, Service

xgboost = pytest.importorskip("xgboost", reason="needs the extra tables")
pytest.importorskip("shap", reason="needs the extra tables")

FEATURES = {"income": None, "savings": ["none", "some", "much"]}
POOR = {"income": 20.5, "savings": "none"}
RICH = {"income": 60, "savings": "much"}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_card(tmp_path_factory.mktemp("model"))


def make_card(folder: Path) -> Path:
    """Train a small model of loans, and save it with its card."""
    rng = np.random.default_rng(0)
    savings, income = rng.integers(0, 3, 90), rng.normal(30, 8, 90).round(1)
    levels = np.array(FEATURES["savings"])
    table = pa.table({"income": income, "savings": levels[savings].tolist()})
    features = tabular.Features.of(FEATURES)
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=2, n_jobs=1)
    model.fit(features.matrix(table), income + 8 * savings > 36)
    scores = tabular.Engine(model, features=features).predict(table)
    near = tabular.Background.approved_near(table, scores, 0.5, most=20)
    engine = tabular.Engine(model, near, features, threshold=0.5, label="repaid", protected=["sex"])
    return tabular.save_engine(engine, folder / "credit.json")


def settings(card: Path, **more: Any) -> Config:
    table = {"model": str(card), "category": "credit refused", "severity": 2, "ground": "rule 9"}
    return Config.of({**FLAG_ALL, "tiers": CHEAP, "table": {**table, **more}})


@pytest.fixture(scope="module")
def made(
    engine: visxai.Engine, card: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    config = settings(card, actions={"savings": "raise", "income": "raise"})
    service = Service(nearby(config), Places.below(tmp_path_factory.mktemp("rows")), engine=engine)
    yield service
    service.close()


def send(client: httpx.Client, own: dict[str, str], row: Any, **more: Any) -> Any:
    body = {"features": row, "name": "an applicant", **more}
    return client.post("/v1/items", headers=own, json=body)


def test_a_row_is_decided_on_explained_contested_and_stated(
    client: httpx.Client, made: Service, own: dict[str, str], card: Path
) -> None:
    direct = tabular.load_engine(card)
    (record,) = direct.explain({name: [cell] for name, cell in POOR.items()})
    reasons = tabular.reasons_for(direct, record)
    answer = send(client, own, POOR, metadata={"sex": "f"}).json()
    assert (answer["decision"], answer["category"]) == ("flag", "credit refused")
    assert (answer["score"], answer["threshold"]) == (pytest.approx(record.score, abs=1e-6), 0.5)
    passed = send(client, own, RICH).json()
    assert (passed["decision"], passed["explanation"]) == ("pass", None)
    with made.database.reading() as connection:
        kept = connection.execute(select(tables.items.c.blob).where(tables.items.c.blob.is_(None)))
        assert len(kept.all()) == 1  # what passes isn't kept

    assert drain(made) == 1
    place = f"/v1/explanations/{answer['explanation']['id']}"
    found = client.get(place, headers=own).json()
    assert found["state"] == "done", found["reason"]
    jsonschema.validate(found["record"], schema("table"))
    stored = visxai.Explanation.from_dict(found["record"])
    assert isinstance(stored, TableExplanation)
    assert stored.values.tolist() == record.values.tolist()
    assert stored.input.data == (20.5, "none")
    assert stored.additivity < 1e-5
    said = [one["sentence"] for one in found["envelope"]["confidence"]["reasons"]]
    assert tuple(said) == reasons.sentences
    assert 1 <= len(said) <= 4
    fragment = client.get(f"{place}/fragment.html", headers=own)
    assert "<script" not in fragment.text
    assert all(one in fragment.text for one in (said[0], "20.5", "20 rows"))
    assert client.get(f"{place}/overlay.jpg", headers=own).status_code == 409

    case = f"/v1/decisions/{answer['decision_id']}"
    appeal = client.post(f"{case}/appeals", headers=own, json={"reason": "I saved"}).json()
    assert drain(made, "precise") == 1
    precise = client.get(f"/v1/explanations/{appeal['explanation']['id']}", headers=own).json()
    assert precise["record"]["method"] == found["record"]["method"]
    change = precise["envelope"]["confidence"]["change"]
    changed = {**POOR, **{one["feature"]: one["needed"] for one in change["changes"]}}
    assert send(client, own, changed).json()["score"] == pytest.approx(change["score"], abs=1e-6)
    assert change["score"] >= 0.5
    page = client.get(f"/review/{answer['decision_id']}", headers=own).text
    for told in (*said, "I saved", "<svg", "the score would have been", "add up to the score"):
        assert told in page
    assert "A map shows" not in page

    client.post(f"{case}/actions", headers=own, json={"action": "uphold"})
    statement = client.get(f"{case}/statement", headers=own).json()
    assert statement["content_type"] == ["CONTENT_TYPE_OTHER"]
    assert "savings (another than is typical)" in statement["decision_facts"]
    assert "A person looked at it and upheld" in statement["decision_facts"]
    assert "rule 9" in statement["incompatible_content_ground"]
    assert "20.5" not in str(statement)
    assert "flagged" in client.get("/dashboard", headers=own).text
    assert made.ledger.verify()


def test_equal_rows_share_an_explanation_and_erasing_one_removes_it(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    row = {"savings": "some", "income": 17}
    first = send(client, own, row).json()
    drain(made)
    again = send(client, own, {"income": 17.0, "savings": "some"}).json()
    assert again["explanation"]["state"] == "done"
    place = f"/v1/explanations/{again['explanation']['id']}"
    envelope = client.get(place, headers=own).json()["envelope"]
    assert envelope["cache"] == {"kind": "exact", "source": first["explanation"]["id"]}
    assert envelope["confidence"]["reasons"]

    for answer in (first, again):
        client.delete(f"/v1/items/{answer['item_id']}", headers=own)
    assert client.get(place, headers=own).json()["state"] == "erased"
    with made.database.reading() as connection:
        kept = connection.execute(
            select(tables.items).where(tables.items.c.id == first["item_id"])
        ).one()
    assert (kept.kind, kept.blob, kept.content_sha256) == ("table", None, None)
    blobs = Path(made.places.blobs)
    assert not any(b'"income":17' in one.read_bytes() for one in blobs.rglob("*") if one.is_file())
    page = client.get(f"/review/{first['decision_id']}", headers=own)
    assert page.status_code == 200
    assert "<table" not in page.text
    audit = client.get("/v1/audit", headers=own).text
    assert first["item_id"] in audit
    assert "income" not in audit


def test_what_a_library_says_of_a_row_is_not_repeated(
    client: httpx.Client, made: Service, own: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made.kinds.rows is not None
    engine = made.kinds.rows.engine
    explain = engine.explain

    def picky(data: Any) -> Any:
        if data["income"] == [13]:
            raise ValueError("can't digest 13")
        return explain(data)

    monkeypatch.setattr(engine, "explain", picky)
    answer = send(client, own, {"income": 13, "savings": "none"}).json()
    other = send(client, own, {"income": 14, "savings": "none"}).json()
    assert drain(made) == 2
    states = [
        client.get(f"/v1/explanations/{one['explanation']['id']}", headers=own).json()
        for one in (answer, other)
    ]
    assert [one["state"] for one in states] == ["failed", "done"]
    assert states[0]["reason"] == "ValueError"
    page = client.get(f"/review/{answer['decision_id']}", headers=own).text
    assert "The row is failed" in page


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ({**POOR, "shoe_size": 43}, "features", "shoe_size"),
        ({**POOR, "sex": "f"}, "features", "metadata"),
        ({"income": 3}, "features.savings", "without savings"),
        ({**POOR, "income": "secret"}, "features.income", "income as a number, got text"),
        ({**POOR, "income": "9" * 100_000}, "features.income", "got text"),
        ({**POOR, "income": 1e300}, "features.income", "1e30"),
        ({**POOR, "income": 10**400}, "features.income", "1e30"),
        ({**POOR, "savings": "lots"}, "features.savings", "'none', 'some', 'much'"),
        ({**POOR, "savings": 1.5}, "features.savings", "another level"),
        ({**POOR, "income": [1]}, "features.income", ""),
        ({}, "features", ""),
    ],
)
def test_a_wrong_row_is_one_sentence(
    client: httpx.Client, own: dict[str, str], row: Any, field: str, said: str
) -> None:
    answer = send(client, own, row)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "argument")
    assert error["field"].startswith(field)
    assert said in error["message"]
    assert "secret" not in error["message"]
    assert len(error["message"]) < 400


def test_values_that_json_lacks_are_refused_and_missing_ones_are_taken(
    client: httpx.Client, own: dict[str, str]
) -> None:
    for value in ("NaN", "-Infinity"):
        body = f'{{"features": {{"income": {value}, "savings": "none"}}}}'
        told = {**own, "content-type": "application/json"}
        assert client.post("/v1/items", headers=told, content=body).status_code == 422
    assert send(client, own, {"income": None, "savings": None}).status_code == 200
    asked = {"items": [{"features": POOR}]}
    alone = client.post("/v1/explanations", headers=own, json=asked)
    assert alone.status_code == 422
    assert "/v1/items" in alone.json()["error"]["remedy"]


def test_settings_that_do_not_fit_are_refused(
    engine: visxai.Engine, card: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "credit.toml"
    told = [one for one in card.read_text("utf-8").splitlines() if "threshold" not in one]
    bare.write_text("\n".join(told), "utf-8")
    for name in ("credit.json", "credit.background.parquet"):
        (tmp_path / name).write_bytes((card.parent / name).read_bytes())
    places = Places.below(tmp_path / "service")
    with pytest.raises(ArgumentError, match="threshold"):
        Service(settings(bare), places, engine=engine)
    with pytest.raises(ArgumentError, match="'shoes'"):
        Service(settings(card, actions={"shoes": "raise"}), places, engine=engine)
    without = Service(nearby(Config.of({**FLAG_ALL, "tiers": CHEAP})), places, engine=engine)
    client: Any
    with TestClient(create(without)) as client:
        refused = send(client, key(without, "admin", "default"), POOR)
    assert "[table]" in refused.json()["error"]["message"]
    without.close()
