"""Schemathesis over the OpenAPI document: no 500, no answer that the document doesn't declare."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from test_service import config, drain, key, photo

import visxai
from visxai.serve import run
from visxai.serve.app import create
from visxai.serve.intake import Item, moderate
from visxai.serve.keys import Principal
from visxai.serve.service import Places, Service

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = 6  # of each kind for each operation


@pytest.fixture(scope="module")
def made(engine: visxai.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(config(), Places.below(tmp_path_factory.mktemp("schema")), engine=engine)
    yield service
    service.close()


def test_no_request_gets_an_answer_that_is_not_declared(made: Service) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    own, who = key(made, "admin"), Principal("k", "acme", "admin", "")
    answers = [moderate(made, who, Item(photo(n))) for n in range(8)]
    drain(made)
    ids = {
        "explanations": [one["explanation"]["id"] for one in answers],
        "decisions": [one["decision_id"] for one in answers],
        "items": [one["item_id"] for one in answers[:4]],
        "keys": [],
    }
    listener = run.listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create(made), log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with requests.Session() as session:
            session.headers.update(own)
            document = session.get(f"{url}/openapi.json").json()
            sent = _attacked(document, url, session, ids, checks)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
    assert sent >= 18 * EXAMPLES
    assert made.ledger.verify()


def _attacked(
    document: Any, url: str, session: requests.Session, ids: dict[str, list[str]], checks: Any
) -> int:
    """Send every operation what it allows and what it doesn't; return how many requests."""
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_dict(document)
    sent = walked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        known = ids.get(operation.path.split("/")[2], [])
        walked += 1
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(13)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(
                case=operation.as_strategy(generation_mode=mode),
                id=st.none() | st.sampled_from(known) if known else st.none(),
            )
            def attack(case: Any, id: str | None) -> None:
                nonlocal sent
                if id is not None and case.path_parameters:
                    case.path_parameters = dict.fromkeys(case.path_parameters, id)
                sent += 1
                case.validate_response(case.call(base_url=url, session=session), checks=checks)

            attack()
    assert walked == 18
    return sent
