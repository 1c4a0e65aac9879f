"""Quality of attributions: gaps and stability; and classifiers of more than two classes."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visxai import tabular
from visxai.errors import ArgumentError, ModelError

lightgbm = pytest.importorskip("lightgbm", reason="needs the extra tables")
xgboost = pytest.importorskip("xgboost", reason="needs the extra tables")
shap = pytest.importorskip("shap", reason="needs the extra tables")
ensemble = pytest.importorskip("sklearn.ensemble", reason="needs the extra tables")
linear = pytest.importorskip("sklearn.linear_model", reason="needs the extra tables")

NAMES = ["a", "b", "c", "d", "e"]


@cache
def rows() -> tuple[Any, Any]:
    """Rows of three classes: by the greatest of two features and a constant."""
    x = np.random.default_rng(0).normal(size=(150, 5))
    return x, np.argmax(np.stack([x[:, 0], x[:, 1], np.full(150, 0.2)], 1), 1)


def table(x: Any) -> pa.Table:
    return pa.table({name: x[:, at] for at, name in zip(range(x.shape[1]), NAMES, strict=False)})


def test_a_linear_model_has_its_exact_truth_and_the_gaps_that_follow() -> None:
    x = rows()[0]
    weights = np.array([3.0, -2.0, 1.0, 0.0, 0.0])
    model = linear.LinearRegression().fit(x, x @ weights + 1)
    engine = tabular.Engine(model, table(x[:40]), NAMES)
    values = np.concatenate([one.values for one in engine.stream(x)])
    assert values == pytest.approx(weights * (x - x[:40].mean(0)), abs=1e-9)
    found = tabular.judge(engine, x, top=2, draws=8)
    assert found.rows == 150
    assert found.additivity < 1e-9
    assert found.unimportant.value < 1e-9  # the last two of five have no weight
    assert found.unimportant.value < found.random.low
    assert found.random.high < found.important.low
    for wrong in (0, 5):
        with pytest.raises(ArgumentError, match="from 1 to 4"):
            tabular.judge(engine, x, top=wrong)


def test_the_gap_is_what_the_model_says() -> None:
    x = np.array([[1.0, 0.0, 0.0]])
    engine = tabular.Engine(lambda z: z @ [4.0, 1.0, 0.0], table(np.zeros((1, 3))), NAMES[:3])
    found = tabular.judge(engine, x, top=1, draws=3)
    assert (found.important.value, found.unimportant.value) == (4.0, 0.0)
    assert found.important == (4.0, 4.0, 4.0)


def test_stability_compares_models_pair_by_pair() -> None:
    x = rows()[0]

    def engine(weights: list[float]) -> tabular.Engine:
        return tabular.Engine(lambda z: z @ weights, table(np.zeros((1, 5))), NAMES)

    one, other = engine([4.0, 3, 2, 0, 0]), engine([-4.0, 3, 2, 0, 0])
    same = tabular.stability([one, one, one], x, top=2)
    assert same.models == 3
    assert same.correlation.value == pytest.approx(1)
    assert (same.same.value, same.signs.value, same.scores.value) == (1.0, 1.0, 0.0)
    differing = tabular.stability([one, other], x, top=2)
    assert differing.same.value == 1.0  # the same features count, one of them the other way round
    assert differing.signs.high < 1
    assert differing.correlation.high < 1
    assert differing.scores.value == pytest.approx(np.abs(8 * x[:, 0]).mean())
    with pytest.raises(ArgumentError, match="two engines"):
        tabular.stability([one], x)


def several(library: str) -> Any:
    x, y = rows()
    made = {
        "xgboost": lambda: xgboost.XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1),
        "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1),
        "forest": lambda: ensemble.RandomForestClassifier(4, max_depth=3, random_state=0),
        "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=4, random_state=0),
        "histograms": lambda: ensemble.HistGradientBoostingClassifier(max_iter=4),
        "logistic": lambda: linear.LogisticRegression(),
    }[library]()
    return made.fit(x, y)


@pytest.mark.parametrize(
    ("library", "compared"),
    [
        *(("xgboost", False), ("xgboost", True), ("lightgbm", False), ("lightgbm", True)),
        *(("forest", False), ("forest", True), ("logistic", True), ("boosting", False)),
        *(("boosting", True), ("histograms", False), ("histograms", True)),
    ],
)
def test_a_class_of_several_is_explained(library: str, compared: bool) -> None:
    x = rows()[0]
    model = several(library)
    background = x[:12] if compared else None
    probabilities = model.predict_proba(x[:9])
    found = []
    for target in range(3):
        held = None if background is None else table(background)
        engine = tabular.Engine(model, held, NAMES, target=target, label=f"kind {target}")
        records = engine.explain(x[:9])
        assert {(one.class_index, one.label) for one in records} == {(target, f"kind {target}")}
        scores = [one.score for one in records]
        assert scores == pytest.approx(probabilities[:, target], abs=1e-6)
        assert engine.predict(x[:9]) == pytest.approx(scores, abs=1e-9)
        assert max(one.additivity for one in records) < 1e-5
        found.append(np.stack([one.values for one in records]))
    assert not np.allclose(found[0], found[1])
    if library in ("xgboost", "forest"):
        perturbation = "interventional" if compared else "tree_path_dependent"
        explainer = shap.TreeExplainer(model, background, feature_perturbation=perturbation)
        theirs = np.asarray(explainer.shap_values(x[:9], check_additivity=False))
        assert np.stack(found, -1) == pytest.approx(theirs, abs=1e-6)
        if not compared:
            pairs = tabular.Engine(model, None, NAMES, target=1).interactions(x[:9])
            assert pairs.sum(2) == pytest.approx(found[1], abs=1e-5)
    if library in ("lightgbm", "boosting", "histograms"):
        if compared:  # equal to enumeration over what the library says
            margins = getattr(model, "decision_function", partial(model.predict, raw_score=True))
            exact = tabular.Engine(lambda z: margins(z)[:, 1], table(background), NAMES,
                                   method="exact_shap", scale="log-odds")  # fmt: skip
            theirs = np.stack([one.values for one in exact.explain(x[:9])])
            assert found[1] == pytest.approx(theirs, abs=1e-6)
        else:
            pairs = tabular.Engine(model, None, NAMES, target=1).interactions(x[:9])
            assert pairs.sum(2) == pytest.approx(found[1], abs=1e-5)


def test_a_class_has_to_be_named_and_to_be_there() -> None:
    x, y = rows()
    for library in ("xgboost", "lightgbm", "forest"):
        with pytest.raises(ArgumentError, match="class to explain, of 3"):
            tabular.Engine(several(library), features=NAMES)
        with pytest.raises(ArgumentError, match="from 0 to 2"):
            tabular.Engine(several(library), features=NAMES, target=3)
    started = ensemble.GradientBoostingClassifier(init=linear.LogisticRegression(), n_estimators=2)
    with pytest.raises(ModelError, match="leave init out"):
        tabular.Engine(started.fit(x, y), table(x), NAMES, target=1)
    two = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(x, y > 0)
    with pytest.raises(ArgumentError, match="with the other sign"):
        tabular.Engine(two, features=NAMES, target=0)
    number = xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(x, y)
    with pytest.raises(ArgumentError, match="leave target out"):
        tabular.Engine(number, features=NAMES, target=1)
    with pytest.raises(ArgumentError, match="for boosters and estimators"):
        tabular.Engine(lambda z: z[:, 0], table(x), NAMES, target=1)


def test_trees_that_split_categories_are_refused_where_shap_would_be_wrong() -> None:
    x = np.random.default_rng(0).normal(size=(120, 5))
    x[:, 0] = np.arange(120) % 4
    y = np.isin(x[:, 0], (1, 3)).astype(int)
    split = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, min_data_per_group=5)
    split.fit(x, y, categorical_feature=[0])
    (block,) = tabular.Engine(split, features=NAMES).stream(x)  # by the library itself
    assert block.additivity.max() < 1e-5
    assert np.abs(block.values[:, 0]).min() > 0
    with pytest.raises(ModelError, match="leave the background out"):
        tabular.Engine(split, table(x), NAMES)
    binned = ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[0])
    with pytest.raises(ModelError, match="explain its predict function"):
        tabular.Engine(binned.fit(x, y), table(x), NAMES)


def test_a_class_of_several_comes_back_from_disk(tmp_path: Any) -> None:
    x = rows()[0]
    engine = tabular.Engine(several("xgboost"), table(x[:10]), NAMES, target=2)
    tabular.save_engine(engine, tmp_path / "three.json")
    opened = tabular.load_engine(tmp_path / "three.json")
    assert opened.model.target == 2
    assert np.array_equal(opened.predict(x), engine.predict(x))
