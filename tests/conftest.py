"""Fixtures shared by all tests; what is slow to make is made once a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Nothing may reach for a model hub: what isn't in a package isn't needed here.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
# What shap compiles takes longer to compile than to run here; a process can't do both.
os.environ["NUMBA_DISABLE_JIT"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import pytest

import visxai


@pytest.fixture(scope="session")
def engine() -> visxai.Engine:
    """The default model with its real weights, in float32 on the CPU, by PyTorch alone: what an
    engine that may choose has chosen would depend on the tests before."""
    return visxai.Engine(device="cpu", precision="fp32", accelerate="off")


@pytest.fixture
def client(made: Any) -> Iterator[Any]:
    """Requests to the service that a module's fixture `made` gives."""
    from starlette.testclient import TestClient

    from visxai.serve.app import create

    with TestClient(create(made)) as client:
        yield client


@pytest.fixture(scope="module")
def own(made: Any) -> dict[str, str]:
    """The headers of an administrator of that service's own tenant."""
    from test_service import key

    return key(made, "admin", "default")
