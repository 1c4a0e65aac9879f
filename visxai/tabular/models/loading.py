"""Which model of which library an object is."""

from __future__ import annotations

import os
from typing import Any

from visxai.errors import ArgumentError, ModelError
from visxai.tabular.background import Background
from visxai.tabular.features import Features
from visxai.tabular.models.interface import TableModel


def load(
    model: Any,
    features: Any = None,
    background: Background | None = None,
    *,
    name: str | None = None,
    scale: str | None = None,
    target: int | None = None,
) -> TableModel:
    """Wrap a trained model.

    Args:
        model: A booster or estimator of XGBoost, LightGBM, scikit-learn or interpret, a pipeline
            that ends in one, "onnx:FILE", a callable that gives a score for each row, or a
            `TableModel`.
        features: The columns that it scores, as for `Features.of`; by default as the model names
            them, with levels from the background.
        background: The rows to compare with.
        name: The model's name in records.
        scale: For a callable the scale of its numbers: "probability", "log-odds" or "response".
        target: The class to explain, for a classifier of more than two.

    Raises:
        ArgumentError: The model's features aren't known, or scale is given for another model.
        ModelError: The model isn't supported.
    """
    if isinstance(model, TableModel):
        return model
    named = {} if name is None else {"name": name}
    origin, kind = type(model).__module__.split(".")[0], type(model).__name__
    callable_ = not isinstance(model, str) and not hasattr(model, "fit") and callable(model)
    if scale is not None and not callable_:
        raise ArgumentError(
            f"expected scale= for a callable only, got it for {kind}: leave it out", field="scale"
        )
    if origin == "xgboost":
        from visxai.tabular.models.xgboost import XGBoostModel

        booster = model if kind == "Booster" else model.get_booster()
        return XGBoostModel(
            booster,
            _features(features, booster.feature_names, background),
            target=target,
            **named,
        )
    if origin == "lightgbm":
        from visxai.tabular.models.lightgbm import LightGBMModel

        booster = model if kind == "Booster" else model.booster_
        return LightGBMModel(
            booster,
            _features(features, booster.feature_name(), background),
            target=target,
            **named,
        )
    if isinstance(model, str) and model.startswith("onnx:"):
        from visxai.tabular.models.function import onnx

        return onnx(model.removeprefix("onnx:"), _features(features, None, background), name)
    if isinstance(model, (str, os.PathLike)):
        raise ModelError(
            f"expected a trained model or onnx:FILE, got {model!r}: open a model file with "
            "its own library first"
        )
    found = _features(features, getattr(model, "feature_names_in_", None), background)
    if target is not None and (kind.startswith("ExplainableBoosting") or callable_):
        raise ArgumentError(
            f"expected target= for boosters and estimators, got it for {kind}: explain the "
            "function of the score that matters",
            field="target",
        )
    if kind.startswith("ExplainableBoosting"):
        from visxai.tabular.models.ebm import EBMModel

        return EBMModel(model, found, **named)
    if hasattr(model, "fit"):
        return _estimator(model, found, name, target)
    if callable(model):
        from visxai.tabular.models.function import FunctionModel

        return FunctionModel(model, found, name, scale=scale or "response")
    raise ModelError(
        f"expected a model of XGBoost, LightGBM, scikit-learn or interpret, or a callable, got "
        f"{kind}: pass its predict function"
    )


def _estimator(model: Any, features: Features, name: str | None, target: int | None) -> TableModel:
    """Wrap an estimator of scikit-learn or a pipeline; any other kind by its scores alone."""
    from visxai.tabular.models import estimators
    from visxai.tabular.models.encoders import Encoding
    from visxai.tabular.models.function import FunctionModel

    last = model.steps[-1][1] if type(model).__name__ == "Pipeline" else model
    encoder = model[:-1] if last is not model and len(model.steps) > 1 else None
    kind = type(last).__name__
    if kind in estimators.TREES:
        return estimators.SklearnTrees(last, Encoding(features, encoder), name, target)
    one = target is None and len(getattr(last, "classes_", "ab")) == 2
    if one and hasattr(last, "coef_") and hasattr(last, "intercept_"):
        return estimators.SklearnLinear(last, Encoding(features, encoder), name)
    made = FunctionModel(
        estimators.probability(model, target),
        features,
        name or kind,
        estimators.digest(model),
        scale="probability" if hasattr(model, "predict_proba") else "response",
        framed=hasattr(model, "feature_names_in_"),
    )
    made.target = 1 if target is None else target
    return made


def _features(given: Any, known: Any, background: Background | None) -> Features:
    """Return the features: as given, or by the model's names with levels from the background."""
    if given is not None:
        return Features.of(given)
    names = None if known is None else [str(one) for one in known]
    if background is not None:
        held = set(background.table.column_names)
        if names is None or held.issuperset(names):
            return Features.found_in(background.table, names)
    if names is None:
        raise ArgumentError(
            "expected the names of the features, got a model without names: pass features=[...]",
            field="features",
        )
    return Features.of(names)
