"""Options of the benchmark suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("visxai")
    group.addoption("--full", action="store_true", help="the whole grid: hours on a CPU")
    group.addoption("--memory", action="store_true", help="peaks of memory too, a process for each")
