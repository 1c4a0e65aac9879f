"""Tables: exact attributions of scores, reasons in plain language, fairness.

    engine = visxai.tabular.Engine(booster, background=approved, features=names, threshold=0.5)
    engine.explain(applicants)[0].contributions

It needs the extra `tables`: pip install 'visxai[tables]'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.tabular import german_credit, methods, plots
    from visxai.tabular.background import Background
    from visxai.tabular.counterfactuals import what_would_change
    from visxai.tabular.engine import Block, Engine
    from visxai.tabular.features import Feature, Features
    from visxai.tabular.letters import letter
    from visxai.tabular.mailing import write_letters
    from visxai.tabular.proxy_search import proxies
    from visxai.tabular.quality import judge, stability
    from visxai.tabular.reasons import reasons_for
    from visxai.tabular.saving import load_engine, save_engine
    from visxai.tabular.tables import arrow

__all__ = [
    "Background",
    "Block",
    "Engine",
    "Feature",
    "Features",
    "arrow",
    "german_credit",
    "judge",
    "letter",
    "load_engine",
    "methods",
    "plots",
    "proxies",
    "reasons_for",
    "save_engine",
    "stability",
    "what_would_change",
    "write_letters",
]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "Background": "background",
        "Block": "engine",
        "Engine": "engine",
        "Feature": "features",
        "Features": "features",
        "arrow": "tables",
        "german_credit": "",
        "judge": "quality",
        "letter": "letters",
        "load_engine": "saving",
        "methods": "",
        "plots": "",
        "proxies": "proxy_search",
        "reasons_for": "reasons",
        "save_engine": "saving",
        "stability": "quality",
        "what_would_change": "counterfactuals",
        "write_letters": "mailing",
    },
)
