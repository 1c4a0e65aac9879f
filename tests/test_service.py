"""The service: what it answers, to whom, and what it keeps."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from fastapi.routing import APIRoute
from PIL import Image
from sqlalchemy import select
from starlette.testclient import TestClient

import visxai
from visxai.errors import ArgumentError, TargetError
from visxai.moderation import Moderator, Outcome, Policy, Rule
from visxai.record.columns import schema
from visxai.serve import access, api, app, erasure, keys, oversight, tables
from visxai.serve.app import create
from visxai.serve.config import Config
from visxai.serve.intake import Item, moderate
from visxai.serve.jobs import Job
from visxai.serve.keys import Principal
from visxai.serve.service import Places, Service
from visxai.serve.statement import Statement
from visxai.serve.worker import Worker

# Everything is flagged, whatever it shows; so noise serves as an item.
FLAG_ALL = {"policy": {"name": "all-1", "rules": [{"category": "any", "when": "class=7>-1"}]}}
FLAG_NONE = {"policy": {"name": "none-1", "rules": [{"category": "any", "when": "class=7>2"}]}}
CHEAP = {"precise": {"method": "occlusion(window=112, stride=56)", "seeded": None, "check": None}}


def photo(seed: int = 0, size: tuple[int, int] = (80, 64)) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


def config(**changes: Any) -> Config:
    base = {**FLAG_ALL, "tiers": CHEAP, "tenants": ("acme", "other")}
    return Config.of({**base, **changes})


def nearby(settings: Config) -> Config:
    """Have items decoded in this process: one of their own takes seconds to start."""
    limits = settings.limits.model_copy(update={"decoders": 0})
    return settings.model_copy(update={"limits": limits})


@pytest.fixture(scope="module")
def made(engine: visxai.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(config(), Places.below(tmp_path_factory.mktemp("serve")), engine=engine)
    yield service
    service.close()


def key(service: Service, role: str, tenant: str = "acme") -> dict[str, str]:
    with service.database.writing() as connection:
        made = keys.make(connection, 0.0, tenant, role)
    return {"Authorization": f"Bearer {made}"}


@pytest.fixture(scope="module")
def headers(made: Service) -> dict[str, dict[str, str]]:
    told = {role: key(made, role) for role in keys.ROLES}
    return {**told, "stranger": key(made, "admin", "other")}


def post(client: httpx.Client, headers: dict[str, str], data: bytes, **more: Any) -> httpx.Response:
    return client.post("/v1/items", headers=headers, files={"image": ("a.png", data)}, data=more)


def drain(service: Service, lane: str = "fast") -> int:
    worker, count = Worker(service, lane), 0
    while step := worker.step():
        count += step
    return count


# ---- the moderator by itself -----------------------------------------------------------------


def test_a_moderator_decides_and_explains_what_it_flags(engine: visxai.Engine) -> None:
    images = [Image.open(io.BytesIO(photo(n))) for n in range(3)]
    scores = [float(one.probabilities[7]) for one in engine.predict(images)]
    middle = sorted(scores)[1]
    policy = Policy("p-1", (Rule("seven", f"class=7>{middle}", severity=2),))
    outcomes = Moderator(engine, policy).moderate([*images, b"no image"])
    assert [type(one).__name__ for one in outcomes] == ["Outcome"] * 3 + ["Failure"]
    for score, one in zip(scores, outcomes, strict=False):
        assert isinstance(one, Outcome)
        assert one.score == pytest.approx(score, abs=1e-6)
        assert one.flagged == (score > middle)
        assert (one.explanation is not None) == one.flagged
        assert one.severity == (2 if one.flagged else 0)
        assert one.envelope(tenant="acme").policy == "p-1"
    # The explanation is the engine's own.
    flagged = next(n for n, one in enumerate(outcomes) if getattr(one, "flagged", False))
    (direct,) = engine.explain([images[flagged]], target="class=7")
    np.testing.assert_allclose(
        outcomes[flagged].explanation.values, direct.values, rtol=1e-3, atol=1e-6
    )


def test_the_rule_with_the_highest_severity_decides(engine: visxai.Engine) -> None:
    policy = Policy(
        "p-1", (Rule("a", "class=1>-1", 1), Rule("b", "class=2>-1", 3), Rule("c", "class=3>2", 3))
    )
    moderator = Moderator(engine, policy)
    assert moderator.judge([0.9, 0.1, 0.5]).category == "b"
    passed = Moderator(engine, Policy("p", (Rule("a", "class=1>0.9"), Rule("b", "class=2>0.5"))))
    near = passed.judge([0.1, 0.4])
    assert (near.decision, near.category, near.severity) == ("pass", "b", 0)
    assert passed.judge([0.9, 0.5]).decision == "pass"  # a score at its limit isn't above it


def test_a_policy_that_does_not_fit_is_refused(engine: visxai.Engine) -> None:
    with pytest.raises(ArgumentError, match="unknown label"):
        Moderator(engine, Policy("p", (Rule("a", "class=no-such-label>0.5"),)))
    with pytest.raises(ArgumentError, match="each of another category"):
        Policy("p", (Rule("a", "class=1>0"), Rule("a", "class=2>0")))
    with pytest.raises(TargetError, match="a condition on scores"):
        Rule("a", "wrong").check()


# ---- settings --------------------------------------------------------------------------------


def test_every_mistake_in_the_settings_is_a_sentence() -> None:
    with pytest.raises(ArgumentError) as told:
        Config.of({"tenants": [], "polcy": {}, "limits": {"max_bytes": "many"}}, "a.toml")
    said = str(told.value)
    assert said.startswith("a.toml: ")
    assert said.count(";") == 2
    assert "polcy is no setting" in said
    assert "limits.max_bytes: expected a whole number, got 'many'" in said
    for wrong, sentence in (
        ({"tenants": "acme"}, "tenants: expected a list, got 'acme'"),
        ({"tenants": ["a b"]}, "tenants.0: expected a name of letters"),
        ({"cache": {"exact": "maybe"}}, "cache.exact: expected true or false, got 'maybe'"),
        ({"cache": {"tolerance": 2}}, "cache.tolerance: expected 1 or less, got 2"),
        ({"limits": {"seconds": 0}}, "limits.seconds: expected more than 0, got 0"),
        ({"limits": 3}, "limits: expected a table of settings, got 3"),
        ({"text": {"rules": []}}, "text.rules: expected at least 1 entry, got nothing in it"),
        ({"model": {"accelerate": "x"}}, "model.accelerate: expected 'auto', 'off', 'onnx'"),
        ({"model": {"name": True}}, "model.name: expected text, got true"),
        ({"webhooks": [{"url": "a" * 2001}]}, "webhooks.0.url: expected at most 2000 characters"),
    ):
        with pytest.raises(ArgumentError, match=re.escape(sentence)):
            Config.of(wrong)
    for wrong in ({"tiers": {"fast": {"method": "grad_cm"}}}, {"policy": {"rules": []}}):
        with pytest.raises(ArgumentError):
            Config.of(wrong)


# ---- items -----------------------------------------------------------------------------------


def test_an_item_is_decided_on_at_once_and_explained_afterwards(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]], engine: visxai.Engine
) -> None:
    data = photo(1)
    answer = post(client, headers["submit"], data, metadata='{"group": "a"}').json()
    assert answer["decision"] == "flag"
    assert answer["score"] == pytest.approx(
        float(engine.predict([data])[0].probabilities[7]), abs=1e-5
    )
    id = answer["explanation"]["id"]
    assert (
        client.get(f"/v1/explanations/{id}", headers=headers["review"]).json()["state"] == "queued"
    )
    assert (
        client.get(f"/v1/explanations/{id}/map.png", headers=headers["review"]).status_code == 409
    )
    assert drain(made) == 1
    found = client.get(f"/v1/explanations/{id}", headers=headers["audit"]).json()
    assert found["state"] == "done"
    jsonschema.validate(found["record"], schema())
    assert found["record"]["path"] is None
    envelope = found["envelope"]
    assert envelope["item_id"] == answer["item_id"]
    assert envelope["metadata"] == {"group": "a"}
    assert {"decode", "decide", "queue", "explain"} <= set(envelope["timings"])
    assert [one["event"] for one in found["audit"]] == ["explanation.added"]
    (direct,) = engine.explain([data], target="class=7")
    record = visxai.Explanation.from_dict(found["record"])
    np.testing.assert_allclose(record.values, direct.values, rtol=2e-3, atol=1e-5)
    png = client.get(f"/v1/explanations/{id}/map.png", headers=headers["review"])
    assert Image.open(io.BytesIO(png.content)).size == (7, 7)
    jpeg = client.get(f"/v1/explanations/{id}/overlay.jpg?side=40", headers=headers["review"])
    assert Image.open(io.BytesIO(jpeg.content)).size == (40, 32)
    assert made.ledger.verify()


def test_json_and_forms_give_the_same_answer_and_an_item_that_passes_leaves_no_bytes(
    engine: visxai.Engine, tmp_path: Path
) -> None:
    service = Service(nearby(config(**FLAG_NONE)), Places.below(tmp_path), engine=engine)
    try:
        submit = key(service, "submit")
        with TestClient(create(service)) as client:
            form = post(client, submit, photo(2)).json()
            told = {"image": base64.b64encode(photo(2)).decode(), "name": "b.png"}
            plain = client.post("/v1/items", headers=submit, json=told).json()
        assert form["decision"] == plain["decision"] == "pass"
        assert form["scores"] == plain["scores"]
        assert form["explanation"] is None
        assert not [one for one in (tmp_path / "items").rglob("*") if one.is_file()]
    finally:
        service.close()


def test_the_same_content_is_computed_once(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    data = photo(3)
    answers: list[dict[str, Any]] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(post(client, headers["submit"], data).json())
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drain(made) == 1
    again = post(client, headers["submit"], data).json()
    assert again["explanation"]["state"] == "done"
    assert drain(made) == 0
    ids = [one["explanation"]["id"] for one in (*answers, again)]
    assert len(set(ids)) == 9
    found = [client.get(f"/v1/explanations/{id}", headers=headers["audit"]).json() for id in ids]
    caches = [one["envelope"]["cache"]["kind"] for one in found]
    assert sorted(caches) == ["exact"] * 8 + ["none"]
    assert len({one["record"]["map"] for one in found}) == 1
    assert len({one["envelope"]["item_id"] for one in found}) == 9
    assert made.ledger.verify()


def test_another_tenants_results_are_not_reused(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    data = photo(4)
    post(client, headers["submit"], data)
    assert drain(made) == 1
    assert post(client, headers["stranger"], data).json()["explanation"]["state"] == "queued"
    assert drain(made) == 1


def test_an_idempotency_key_gives_the_same_answer(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    sent = {**headers["submit"], "Idempotency-Key": "one"}
    first, second = (post(client, sent, photo(5)) for _ in range(2))
    assert first.json() == second.json()
    other = post(client, sent, photo(6))
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "conflict"
    drain(made)


@pytest.mark.parametrize(
    ("send", "status"),
    [
        ({"files": {"image": ("a.svg", b"<svg onload='alert(1)'/>")}}, 422),
        ({"files": {"image": ("a.png", photo()[:200])}}, 422),
        ({"data": {"name": "x"}, "files": {"other": b"x"}}, 422),
        ({"files": {"image": ("a.png", photo())}, "data": {"metadata": "[1"}}, 422),
        ({"json": {"image": "not base64!"}}, 422),
        ({"json": {"image": "", "more": 1}}, 422),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415),
    ],
)
def test_what_is_no_item_is_refused_in_one_sentence(
    client: httpx.Client, headers: dict[str, dict[str, str]], send: dict[str, Any], status: int
) -> None:
    own = {**headers["submit"], **send.pop("headers", {})}
    answer = client.post("/v1/items", headers=own, **send)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    most = made.config.limits.max_bytes

    def endless() -> Iterator[bytes]:
        for _ in range(most * 2 // 2**20 + 2):
            yield bytes(2**20)

    own = {**headers["submit"], "content-type": "application/json"}
    assert client.post("/v1/items", headers=own, content=endless()).status_code == 413
    assert client.post("/v1/items", headers=own, content=bytes(most * 2)).status_code == 413


# ---- explanations alone ----------------------------------------------------------------------


def test_explanations_without_decisions(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    told = base64.b64encode(photo(7)).decode()
    body = {"items": [{"image": told, "target": t} for t in ("top1", "class=3", "any=1,2")]}
    body["items"].append({"image": "AAAA"})
    answer = client.post("/v1/explanations", headers=headers["submit"], json=body)
    assert answer.status_code == 202
    *good, bad = answer.json()["explanations"]
    assert bad["state"] == "refused"
    assert bad["error"]["code"] == "image"
    assert drain(made) == 3
    for one, target in zip(good, ("top1", "class=3", "any=1,2"), strict=True):
        found = client.get(f"/v1/explanations/{one['id']}", headers=headers["submit"]).json()
        assert found["record"]["target"] == target
    for wrong in ("top3", "class=no-such", "above=0.5"):
        single = {"items": [{"image": told, "target": wrong}]}
        assert (
            client.post("/v1/explanations", headers=headers["submit"], json=single).status_code
            == 422
        )


def test_a_waiting_request_gets_the_end(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    worker = Worker(made, "fast")
    worker.start()
    try:
        body = {"items": [{"image": base64.b64encode(photo(8)).decode()}]}
        url = "/v1/explanations?wait=20000"
        answer = client.post(url, headers=headers["submit"], json=body).json()
        assert answer["explanations"][0]["state"] == "done"
    finally:
        worker.stop()


def test_a_hundred_equal_requests_at_once_are_computed_once(
    engine: visxai.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(config(limits={"at_once": 128}), Places.below(tmp_path), engine=engine)
    forwards: list[int] = []
    scores = type(engine.model).scores

    def counted(model: Any, x: Any) -> Any:
        forwards.append(len(x))
        return scores(model, x)

    try:
        own = key(service, "submit")
        with TestClient(create(service)) as client:
            monkeypatch.setattr(type(engine.model), "scores", counted)
            with ThreadPoolExecutor(100) as people:
                answers = list(people.map(lambda _: post(client, own, photo(77)), range(100)))
            assert sum(forwards) == 1  # the decision's row
            ids = {one.json()["explanation"]["id"] for one in answers}
            assert len(ids) == 100  # each has its own explanation on record
            assert drain(service) == 1  # and they were computed once
            kinds = [
                client.get(f"/v1/explanations/{id}", headers=own).json()["envelope"]["cache"][
                    "kind"
                ]
                for id in sorted(ids)
            ]
        assert sorted(kinds) == ["exact"] * 99 + ["none"]
    finally:
        service.close()


def test_a_cancelled_explanation_is_never_computed(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    id = post(client, headers["submit"], photo(9)).json()["explanation"]["id"]
    url = f"/v1/explanations/{id}"
    assert client.delete(url, headers=headers["submit"]).json()["state"] == "cancelled"
    assert client.delete(url, headers=headers["submit"]).status_code == 409
    assert drain(made) == 0


def test_an_item_whose_bytes_are_gone_fails_alone(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    answers = [post(client, headers["submit"], photo(n)).json() for n in (10, 11)]
    with made.database.reading() as connection:
        blob = connection.execute(
            select(tables.items.c.blob).where(tables.items.c.id == answers[0]["item_id"])
        ).scalar_one()
    made.blobs.remove(blob)
    made._recent.clear()  # as in a worker that didn't decode the items
    assert drain(made) == 2
    states = [
        client.get(f"/v1/explanations/{one['explanation']['id']}", headers=headers["audit"]).json()
        for one in answers
    ]
    assert [one["state"] for one in states] == ["failed", "done"]
    assert "the bytes of an item" in states[0]["reason"]


# ---- decisions, people, appeals ------------------------------------------------------------------


def test_an_appeal_is_explained_precisely_and_closed_by_a_person(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    answer = post(client, headers["submit"], photo(12)).json()
    drain(made)
    decision, fast = answer["decision_id"], answer["explanation"]["id"]
    url = f"/v1/decisions/{decision}"
    done = client.post(
        f"{url}/actions", headers=headers["review"], json={"action": "uphold", "shown": fast}
    )
    assert done.json()["state"] == "closed"
    assert (
        client.post(
            f"{url}/actions", headers=headers["review"], json={"action": "uphold"}
        ).status_code
        == 409
    )
    appeal = client.post(f"{url}/appeals", headers=headers["submit"], json={"reason": "it is art"})
    assert appeal.status_code == 202
    again = client.post(f"{url}/appeals", headers=headers["submit"], json={"reason": "again"})
    assert again.status_code == 409
    assert drain(made, "fast") == 0  # the lanes are apart
    assert drain(made, "precise") == 1
    precise = appeal.json()["explanation"]["id"]
    found = client.get(f"/v1/explanations/{precise}", headers=headers["review"]).json()
    assert found["envelope"]["tier"] == "precise"
    assert found["envelope"]["supersedes"] == fast
    confidence = found["envelope"]["confidence"]
    assert -1 <= confidence["agreement"] <= 1
    assert {"area", "before", "after"} == set(confidence["counterfactual"])
    told = client.get(url, headers=headers["review"]).json()
    assert (told["lane"], told["state"], told["explanations"]) == (
        "appeal",
        "open",
        [precise, fast],
    )
    body = {"action": "overturn", "shown": precise}
    assert (
        client.post(f"{url}/actions", headers=headers["review"], json=body).json()["state"]
        == "closed"
    )
    events = [one.event for one in made.ledger.history(decision)]
    assert events == ["item.flagged", "decision.upheld", "decision.appealed", "decision.overturned"]
    shown = json.loads(made.ledger.history(decision)[-1].body)["shown"]
    assert shown == precise
    assert client.get(f"{url}/statement", headers=headers["submit"]).status_code == 409


def test_two_people_never_get_the_same_case(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    people = [key(made, "review") for _ in range(2)]
    for number in range(4):
        post(client, headers["submit"], photo(20 + number))
    first, second = (
        client.post("/v1/reviews/next", headers=one).json()["decision_id"] for one in people
    )
    assert first != second
    # The case stays with whoever has it, and nobody else may close it.
    assert client.post("/v1/reviews/next", headers=people[0]).json()["decision_id"] == first
    url = f"/v1/decisions/{first}/actions"
    assert client.post(url, headers=people[1], json={"action": "uphold"}).status_code == 409
    assert client.post(url, headers=people[0], json={"action": "uphold"}).status_code == 200
    drain(made)


def test_a_statement_of_reasons_keeps_the_fields_and_names_nobody(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    told = post(client, headers["submit"], photo(30), name="Jane Doe passport.png").json()
    url = f"/v1/decisions/{told['decision_id']}/statement"
    found = client.get(url, headers=headers["audit"]).json()
    jsonschema.validate(found, Statement.model_json_schema())
    assert found["automated_detection"] == "Yes"
    assert found["automated_decision"] == "AUTOMATED_DECISION_FULLY"
    assert "Jane" not in json.dumps(found)
    assert "supports these facts" in found["decision_facts"]
    drain(made)


# ---- erasure, holds ------------------------------------------------------------------------------


def test_erasure_removes_bytes_and_leaves_a_chain_that_verifies(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    data = photo(40)
    answer = post(client, headers["submit"], data, name="secret name").json()
    drain(made)
    id, item = answer["explanation"]["id"], answer["item_id"]
    with made.database.reading() as connection:
        blob = connection.execute(
            select(tables.items.c.blob).where(tables.items.c.id == item)
        ).scalar_one()
    hold = f"/v1/explanations/{id}/hold"
    assert client.put(hold, headers=headers["audit"], json={"reason": "case 7"}).status_code == 204
    assert client.delete(f"/v1/items/{item}", headers=headers["admin"]).status_code == 409
    assert client.delete(hold, headers=headers["audit"]).status_code == 204
    assert client.delete(f"/v1/items/{item}", headers=headers["admin"]).status_code == 204
    assert not Path(made.blobs.place, blob).exists()
    found = client.get(f"/v1/explanations/{id}", headers=headers["audit"]).json()
    assert found["state"] == "erased"
    assert found["record"] is None
    assert made.ledger.verify()
    # And it answers nothing any more: the same bytes are computed anew.
    assert post(client, headers["submit"], data).json()["explanation"]["state"] == "queued"
    assert drain(made) == 1


# ---- who may what ----------------------------------------------------------------------------


def routes(service: Service) -> list[APIRoute]:
    create(service)
    return [
        one
        for router in (api.router, oversight.router, app._operations)
        for one in router.routes
        if isinstance(one, APIRoute)
    ]


def test_every_route_needs_a_key(client: httpx.Client, made: Service) -> None:
    walked = 0
    for route in routes(made):
        if route.path.startswith(access.OPEN):
            continue
        path = route.path.replace("{", "").replace("}", "")
        for sent in ({}, {"Authorization": "Bearer vx_0_0"}, {"Authorization": "Basic eDp5"}):
            for method in route.methods:
                answer = client.request(method, path, headers=sent)
                assert answer.status_code == 401, (method, path)
        walked += 1
    assert client.get("/openapi.json").status_code == 401
    assert walked > 15


def test_every_route_names_its_roles(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    """For each route some role but admin's is refused, and the refusal is a 403."""
    for route in routes(made):
        if route.path.startswith(access.OPEN):
            continue
        for method in route.methods:
            path = route.path.format(**dict.fromkeys(route.param_convertors, "f" * 32))
            got = {
                role: client.request(method, path, headers=headers[role]).status_code
                for role in ("submit", "review", "audit")
            }
            assert 403 in got.values() or got == dict.fromkeys(got, 404), (method, path, got)


def test_another_tenants_things_are_not_there(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    answer = post(client, headers["submit"], photo(50)).json()
    drain(made)
    ids = {
        "id": None,
        "item_id": answer["item_id"],
    }
    bodies = {
        "appeals": {"reason": "r"},
        "actions": {"action": "uphold"},
        "hold": {"reason": "r"},
    }
    walked = 0
    for route in routes(made):
        if "{" not in route.path or "/keys/" in route.path:
            continue
        ids["id"] = (
            answer["decision_id"] if "/decisions/" in route.path else answer["explanation"]["id"]
        )
        path = route.path.format(**ids)
        for method in route.methods:
            body = bodies.get(path.rpartition("/")[2])
            more = {"json": body} if body and method in ("POST", "PUT") else {}
            got = client.request(method, path, headers=headers["stranger"], **more)
            assert got.status_code == 404, (method, path, got.text)
            walked += 1
    assert walked >= 9


def test_keys_are_made_used_and_revoked(
    client: httpx.Client, made: Service, headers: dict[str, dict[str, str]]
) -> None:
    told = client.post("/v1/keys", headers=headers["admin"], json={"role": "audit"}).json()
    own = {"Authorization": f"Bearer {told['key']}"}
    assert client.get("/v1/audit", headers=own).status_code == 200
    with made.database.reading() as connection:
        rows = connection.execute(select(tables.keys)).all()
    assert all(told["key"].split("_")[2].encode() not in bytes(row.hash) for row in rows)
    assert client.delete(f"/v1/keys/{told['id']}", headers=headers["stranger"]).status_code == 404
    assert client.delete(f"/v1/keys/{told['id']}", headers=headers["admin"]).status_code == 204
    assert client.get("/v1/audit", headers=own).status_code == 401


def test_a_key_that_is_revoked_while_it_is_checked_is_not_remembered() -> None:
    known, who = keys.Known(60.0), Principal("k", "acme", "audit", "")
    known.put("a", who, known.forgotten)
    assert known.get("a") == who
    before = known.forgotten  # another thread has read the key from the database
    known.forget()
    known.put("a", who, before)
    assert known.get("a") is None


def test_answers_carry_headers_that_keep_browsers_honest(
    client: httpx.Client, headers: dict[str, dict[str, str]]
) -> None:
    answer = client.get("/v1/audit", headers=headers["audit"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.get("/readyz").json()["status"] == "ready"
    figures = client.get("/metrics", headers=headers["audit"]).text
    assert 'visxai_queue_depth{lane="fast"} 0.0' in figures


# ---- overload ------------------------------------------------------------------------------------


def test_a_full_queue_answers_429_and_appeals_go_on(engine: visxai.Engine, tmp_path: Path) -> None:
    tiers = {"fast": {"queue": 2}, **CHEAP}
    service = Service(nearby(config(tiers=tiers)), Places.below(tmp_path), engine=engine)
    try:
        submit = key(service, "submit")
        with TestClient(create(service)) as client:
            first, *_ = (post(client, submit, photo(n)) for n in range(2))
            busy = post(client, submit, photo(3))
            assert busy.status_code == 429
            assert int(busy.headers["retry-after"]) >= 1
            assert busy.json()["error"]["code"] == "busy"
            url = f"/v1/decisions/{first.json()['decision_id']}/appeals"
            assert client.post(url, headers=submit, json={"reason": "r"}).status_code == 202
            with service.database.reading() as connection:
                count = connection.execute(select(tables.items.c.id)).all()
            assert len(count) == 2  # nothing of a refused item was put down
            assert drain(service) == 2
            assert post(client, submit, photo(3)).status_code == 200
    finally:
        service.close()


def test_what_is_too_old_is_erased_unless_it_is_held(engine: visxai.Engine, tmp_path: Path) -> None:
    service = Service(nearby(config(retention={"days": 1})), Places.below(tmp_path), engine=engine)
    now = [1_000_000.0]
    service.database._clock = lambda: now[0]
    try:
        who = Principal("k", "acme", "submit", "")
        old, held = (moderate(service, who, Item(photo(n))) for n in (1, 2))
        drain(service)
        service.ledger.hold(held["explanation"]["id"], "case")
        now[0] += 2 * 86400
        erasure.tidy(service)
        assert service.ledger.get(old["explanation"]["id"]).erased
        assert not service.ledger.get(held["explanation"]["id"]).erased
        left = [one for one in (tmp_path / "items").rglob("*") if one.is_file()]
        assert len(left) == 1
        assert service.ledger.verify()
    finally:
        service.close()


def test_the_jobs_of_the_service_are_jobs_of_the_queue(made: Service) -> None:
    one = made.job("acme", "fast", "p" * 64, "class=7", {})
    again = made.job("acme", "fast", "p" * 64, "class=7", {"item_id": "x"})
    other = made.job("acme", "fast", "q" * 64, "class=7", {})
    assert isinstance(one, Job)
    assert one.content_key == again.content_key != other.content_key
    assert one.batch_key == other.batch_key
    assert made.job("b", "fast", "p" * 64, "class=7", {}).content_key != one.content_key
    assert made.job("acme", "fast", "p" * 64, "class=8", {}).batch_key != one.batch_key
