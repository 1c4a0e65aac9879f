"""Governance: what explanations say over time, whom they treat differently, and when they drift.

    seen = visxai.govern.observe("OUT")
    visxai.govern.drift(reference, seen).windows[0].alarm
    visxai.govern.fairness(seen, "sex").findings

The package is named like its command, `visxai govern`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.govern.auditing import audit
    from visxai.govern.cards import card, register
    from visxai.govern.dashboard import page, report
    from visxai.govern.features.base import features_of, measure
    from visxai.govern.groups import Fairness, Gap, fairness
    from visxai.govern.log import Item, Log
    from visxai.govern.observations import Observations, observe
    from visxai.govern.recording import logged
    from visxai.govern.watching import acknowledge, alerts, annotate, watch, watcher
    from visxai.govern.windows import Drift, Window, drift

__all__ = [
    "Drift",
    "Fairness",
    "Gap",
    "Item",
    "Log",
    "Observations",
    "Window",
    "acknowledge",
    "alerts",
    "annotate",
    "audit",
    "card",
    "drift",
    "fairness",
    "features_of",
    "logged",
    "measure",
    "observe",
    "page",
    "register",
    "report",
    "watch",
    "watcher",
]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Drift": "windows",
        "Fairness": "groups",
        "Gap": "groups",
        "Item": "log",
        "Log": "log",
        "Observations": "observations",
        "Window": "windows",
        "acknowledge": "watching",
        "alerts": "watching",
        "annotate": "watching",
        "audit": "auditing",
        "card": "cards",
        "drift": "windows",
        "fairness": "groups",
        "features_of": "features.base",
        "logged": "recording",
        "measure": "features.base",
        "observe": "observations",
        "page": "dashboard",
        "register": "cards",
        "report": "dashboard",
        "watch": "watching",
        "watcher": "watching",
    },
)
