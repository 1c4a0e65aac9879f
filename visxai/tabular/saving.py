"""Engines on disk: a model's file in its library's own format, and a card that says how it decides.

    save_engine(engine, "credit.json")     credit.json, credit.toml and credit.background.parquet
    engine = load_engine("credit.json")

The card is TOML that a person can read and write. It names the columns with their levels, what the
score is the score of, the threshold, the method, the protected columns, and the rows to compare
with and how they were chosen. A model's file without a card is explained against its training rows.
Nothing is unpickled: models of XGBoost, LightGBM and ONNX can be opened, others can't.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from visxai import files
from visxai.errors import ArgumentError, ModelError, require
from visxai.tabular import tables
from visxai.tabular.background import Background
from visxai.tabular.engine import Engine
from visxai.tabular.features import Features

ENDINGS = (".json", ".ubj", ".txt", ".onnx")  # XGBoost, XGBoost, LightGBM, ONNX
_KNOWN: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "name": str,
    "label": str,
    "threshold": (int, float),
    "target": int,
    "method": str,
    "background": str,
    "rule": str,
    "protected": list,
    "excluded": list,
    "features": dict,
}


def save_engine(engine: Engine, path: str | os.PathLike[str]) -> Path:
    """Write an engine's model, its card and its background beside each other.

    Args:
        engine: An engine of a model of XGBoost or LightGBM.
        path: The model's file: .json or .ubj for XGBoost, .txt for LightGBM.

    Returns:
        The card.

    Raises:
        ArgumentError: The ending doesn't fit the model.
        ModelError: The model is of another library.
        StoreError: The folder can't be written.
    """
    target = Path(path)
    kind = type(engine.model).__name__
    fitting = {"XGBoostModel": (".json", ".ubj"), "LightGBMModel": (".txt",)}
    if kind not in fitting:
        raise ModelError(
            f"expected a model of XGBoost or LightGBM to save, got {engine.model.name}: export it "
            "to ONNX and write a card for it"
        )
    if target.suffix not in fitting[kind]:
        raise ArgumentError(
            f"expected a file of {' or '.join(fitting[kind])} for this model, got {target.name}: "
            "rename it",
            field="path",
        )
    booster: Any = engine.model.booster  # type: ignore[attr-defined]
    card: dict[str, Any] = {
        "model": target.name,
        "name": engine.model.name,
        "label": engine.label,
        "threshold": engine.threshold,
        "target": engine.model.target if engine.model.kind == "softmax" else None,
        "method": repr(engine.method),
        "protected": list(engine.protected),
        "excluded": [one for one in engine.excluded if one not in engine.protected],
    }
    with files.one_sentence(f"to write {target}", "make room there or choose another folder"):
        target.parent.mkdir(parents=True, exist_ok=True)
        booster.save_model(str(target))
        if engine.background is not None:
            rows = target.with_suffix(".background.parquet")
            names = list(engine.model.features.names)
            pq.write_table(engine.background.table.select(names), rows)
            card |= {"background": rows.name, "rule": engine.background.rule}
        card["features"] = {one.name: list(one.levels) for one in engine.model.features.items}
        files.write(target.with_suffix(".toml"), _toml(card))
    return target.with_suffix(".toml")


def load_engine(path: str | os.PathLike[str], **changes: Any) -> Engine:
    """Open a model's file with the card beside it, or a card with the model that it names.

    Args:
        path: The model's file (.json, .ubj, .txt, .onnx) or its card (.toml).
        changes: Arguments of `Engine` in place of the card's.

    Returns:
        The engine.

    Raises:
        ArgumentError: The card is wrong.
        ModelError: The model can't be opened.
    """
    given = Path(path)
    card = given.with_suffix(".toml")
    told = _card(card) if given.suffix == ".toml" or card.is_file() else {}
    file = given if given.suffix != ".toml" else _beside(card, told, "model")
    options: dict[str, Any] = {
        name: told[name]
        for name in ("name", "label", "threshold", "target", "method", "protected", "excluded")
        if name in told
    }
    if "features" in told:
        options["features"] = Features.of(told["features"])
    if "background" in told:
        table = tables.arrow(_beside(card, told, "background"))
        rule = {"rule": told["rule"]} if "rule" in told else {}
        options["background"] = Background(table, **rule)
    return Engine(_opened(file), **{"name": file.stem, **options, **changes})


def is_model(path: str) -> bool:
    """Tell whether a name is that of a model's file, or of a card, that is there."""
    return Path(path).suffix in (*ENDINGS, ".toml") and os.path.isfile(path)


def _opened(file: Path) -> Any:
    """Open a model's file with its library."""
    if file.suffix == ".onnx":
        return f"onnx:{file}"
    if file.suffix not in ENDINGS or not file.is_file():
        raise ModelError(
            f"expected a file of XGBoost (.json, .ubj), LightGBM (.txt) or ONNX, got {file}: check "
            "the path"
        )
    if file.suffix == ".txt":
        lightgbm = require("lightgbm", "tables", "a model of LightGBM")
        try:
            return lightgbm.Booster(model_file=str(file))
        except lightgbm.basic.LightGBMError as error:
            raise _unreadable(file, error) from None
    xgboost = require("xgboost", "tables", "a model of XGBoost")
    booster = xgboost.Booster()
    try:
        booster.load_model(str(file))
    except (xgboost.core.XGBoostError, UnicodeDecodeError) as error:  # it quotes what it read
        raise _unreadable(file, error) from None
    return booster


def _unreadable(file: Path, error: Exception) -> ModelError:
    reason = (str(error).strip() or "no more is known").splitlines()[0]
    return ModelError(f"expected a model in {file}, got something else ({reason}): save it again")


def _card(path: Path) -> dict[str, Any]:
    """Read a card, and raise ArgumentError where it isn't one."""
    try:
        told = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"expected a card of a model, got {path} ({error}): write it as save_engine does",
            field="model",
        ) from None
    for name, value in told.items():
        if name not in _KNOWN or not isinstance(value, _KNOWN[name]):
            raise ArgumentError(
                f"expected the keys {', '.join(_KNOWN)} in {path.name}, got {name!r} = "
                f"{value!r:.60}: correct the card",
                field="model",
            )
    return told


def _beside(card: Path, told: dict[str, Any], key: str) -> Path:
    """Return a file that a card names; only those beside it count, as a card may be a stranger's.

    Raises:
        ArgumentError: It names none, or one elsewhere.
    """
    name = told.get(key)
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ArgumentError(
            f"expected {key} in {card.name} as the name of a file beside it, got {name!r}: put "
            "both into one folder",
            field="model",
        )
    return card.parent / name


def _toml(card: dict[str, Any]) -> str:
    """Write a card; the last table holds the features."""
    lines = [
        f"{name} = {_value(value)}"
        for name, value in card.items()
        if name != "features" and value not in (None, [])
    ]
    lines += [
        "",
        "# The columns in the model's order; levels from the first on, none for a number.",
    ]
    lines += ["[features]"]
    lines += [f"{_value(name)} = {_value(levels)}" for name, levels in card["features"].items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Write text, a number or a list of text as TOML, whose strings are JSON's but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
