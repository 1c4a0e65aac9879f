"""Attributions of tables: they add up, equal enumeration and shap, and say what they compare."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import cache
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visxai import tabular
from visxai.errors import ArgumentError, ModelError, UnknownName
from visxai.record import Explanation

lightgbm = pytest.importorskip("lightgbm", reason="needs the extra tables")
xgboost = pytest.importorskip("xgboost", reason="needs the extra tables")
shap = pytest.importorskip("shap", reason="needs the extra tables")
sklearn = pytest.importorskip("sklearn", reason="needs the extra tables")

NAMES = ["a", "b", "c", "d", "e", "f"]
Matrix = np.ndarray[Any, np.dtype[np.float64]]


@cache
def rows() -> tuple[Matrix, Matrix]:
    """Rows and classes that depend on three of the features, two of them together."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, len(NAMES)))
    logits = x[:, 0] + 2 * x[:, 1] * (x[:, 2] > 0) - x[:, 3]
    return x, (logits + rng.logistic(size=400) > 0).astype(int)


def shapley(worth: Callable[[tuple[int, ...]], float], count: int) -> Matrix:
    """Shapley values by the definition: over all coalitions."""
    values = np.zeros(count)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for chosen in itertools.combinations(others, size):
                values[i] += weight * (worth(tuple(sorted((*chosen, i)))) - worth(chosen))
    return values


def against(predict: Callable[[Matrix], Matrix], row: Matrix, background: Matrix) -> Matrix:
    """Interventional Shapley values of a row by the definition."""

    @cache
    def worth(shown: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(shown)] = row[list(shown)]
        return float(predict(mixed).mean())

    return shapley(worth, len(row))


# ---- one tree, written by hand -------------------------------------------------------------------

# y = 1 if a <= 0; else 3 where b <= 1, and 7 otherwise. Leaves hold 4, 2 and 2 of 8 rows.
TREE_X = np.array([[a, b] for a in (-2.0, -1, 1, 2) for b in (0.0, 2)])
TREE_Y = np.array([1.0, 1, 1, 1, 3, 7, 3, 7])


def tree(x: Matrix) -> Matrix:
    return np.where(x[:, 0] <= 0, 1.0, np.where(x[:, 1] <= 1, 3.0, 7.0))


def followed(row: Matrix, shown: tuple[int, ...]) -> float:
    """The tree's value where only some features are known, by the rows that its nodes counted."""
    right = (3.0 if row[1] <= 1 else 7.0) if 1 in shown else 5.0
    if 0 in shown:
        return 1.0 if row[0] <= 0 else right
    return 0.5 * 1.0 + 0.5 * right


def the_tree(library: str) -> Any:
    """The tree as each library builds it from rows that leave it no choice."""
    if library == "xgboost":
        made = xgboost.XGBRegressor(
            n_estimators=1,
            max_depth=2,
            learning_rate=1.0,
            reg_lambda=0.0,
            min_child_weight=0,
            base_score=0.0,
            tree_method="exact",
        )
    elif library == "lightgbm":
        made = lightgbm.LGBMRegressor(
            n_estimators=1,
            num_leaves=3,
            learning_rate=1.0,
            min_child_samples=1,
            min_data_in_bin=1,
            boost_from_average=False,
            verbose=-1,
        )
    else:
        from sklearn.tree import DecisionTreeRegressor

        made = DecisionTreeRegressor(max_leaf_nodes=3)
    return made.fit(pd.DataFrame(TREE_X, columns=["a", "b"]), TREE_Y)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "sklearn"])
def test_one_tree_has_the_same_values_in_every_library(library: str) -> None:
    model = the_tree(library)
    path = tabular.Engine(model, features=["a", "b"])
    (block,) = path.stream(TREE_X)
    assert block.logits == pytest.approx(tree(TREE_X), abs=1e-6)
    for row, values in zip(TREE_X, block.values, strict=True):
        assert values == pytest.approx(shapley(lambda s, r=row: followed(r, s), 2), abs=1e-6)
    # The first row by hand: v() = 3, v(a) = 1, v(b) = (1 + 3) / 2 = 2, v(a, b) = 1.
    assert block.values[0] == pytest.approx([-1.5, -0.5], abs=1e-6)
    background = pd.DataFrame(TREE_X[:5], columns=["a", "b"])
    (block,) = tabular.Engine(model, background, ["a", "b"]).stream(TREE_X)
    for row, values in zip(TREE_X, block.values, strict=True):
        assert values == pytest.approx(against(tree, row, TREE_X[:5]), abs=1e-6)


# ---- every model ---------------------------------------------------------------------------------


@cache
def fitted(kind: str) -> Any:
    from sklearn import ensemble, linear_model, neighbors, tree

    x, y = rows()
    frame = pd.DataFrame(x, columns=NAMES)
    makes: dict[str, Callable[[], Any]] = {
        "xgboost": lambda: xgboost.XGBClassifier(n_estimators=12, max_depth=3),
        "xgboost regressor": lambda: xgboost.XGBRegressor(n_estimators=12, max_depth=3),
        "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=12, num_leaves=6, verbose=-1),
        "lightgbm regressor": lambda: lightgbm.LGBMRegressor(n_estimators=12, verbose=-1),
        "tree": lambda: tree.DecisionTreeClassifier(max_depth=4, random_state=0),
        "forest": lambda: ensemble.RandomForestClassifier(8, max_depth=4, random_state=0),
        "forest regressor": lambda: ensemble.RandomForestRegressor(8, max_depth=4, random_state=0),
        "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0),
        "histograms": lambda: ensemble.HistGradientBoostingClassifier(max_iter=8),
        "logistic": lambda: linear_model.LogisticRegression(),
        "ridge": lambda: linear_model.Ridge(),
        "neighbours": lambda: neighbors.KNeighborsClassifier(9),
    }
    if kind == "ebm":
        glassbox = pytest.importorskip("interpret.glassbox")
        machine = glassbox.ExplainableBoostingClassifier(
            interactions=2, max_rounds=60, outer_bags=2, n_jobs=1, random_state=0
        )
        return machine.fit(frame, y)
    return makes[kind]().fit(frame, y)


TREES = [
    "xgboost",
    "xgboost regressor",
    "lightgbm",
    "lightgbm regressor",
    "tree",
    "forest",
    "forest regressor",
    "boosting",
    "histograms",
]
OTHERS = ["logistic", "ridge", "neighbours", "ebm"]


def compared() -> pd.DataFrame:
    return pd.DataFrame(rows()[0][:20], columns=NAMES)


def predict(kind: str, x: Matrix) -> Matrix:
    """What the library itself gives on the scale of attributions."""
    model, frame = fitted(kind), pd.DataFrame(x, columns=NAMES)
    if kind.startswith("xgboost"):
        return model.predict(frame, output_margin=True)
    if kind.startswith("lightgbm"):
        return model.predict(frame, raw_score=True)
    if kind in ("boosting", "histograms", "logistic", "ebm"):
        return model.decision_function(frame)
    if kind in ("tree", "forest", "neighbours"):
        return model.predict_proba(frame)[:, 1]
    return model.predict(frame)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("kind", TREES + OTHERS)
def test_exact_values_add_up_to_what_the_library_says(kind: str, background: bool) -> None:
    if not background and kind in ("logistic", "ridge", "neighbours"):
        with pytest.raises(ArgumentError, match="expected rows to compare with"):
            tabular.Engine(fitted(kind), features=NAMES)
        return
    engine = tabular.Engine(fitted(kind), compared() if background else None, NAMES)
    (block,) = engine.stream(rows()[0][100:130])
    assert engine.method.exact
    assert block.logits == pytest.approx(predict(kind, rows()[0][100:130]), abs=1e-6)
    assert block.additivity.max() <= 1e-5
    records = engine.explain(rows()[0][100:130])
    assert all(one.quality["additive"] for one in records)
    assert max(one.additivity for one in records) <= 1e-5
    if background and kind != "ebm":
        assert records[0].background["sha256"] == engine.background.sha256
    else:
        assert records[0].background["sha256"] is None


@pytest.mark.parametrize("kind", [*TREES, "logistic", "ridge"])
def test_values_against_a_background_equal_enumeration(kind: str) -> None:
    engine = tabular.Engine(fitted(kind), compared(), NAMES)
    (block,) = engine.stream(rows()[0][100:102])
    background = rows()[0][:20]
    for row, values in zip(rows()[0][100:102], block.values, strict=True):
        wanted = against(lambda x: predict(kind, x), row, background)
        assert values == pytest.approx(wanted, abs=1e-5)
    by_enumeration = tabular.Engine(
        lambda x: predict(kind, x), compared(), NAMES, method="exact_shap"
    )
    (other,) = by_enumeration.stream(rows()[0][100:102])
    assert other.values == pytest.approx(block.values, abs=1e-5)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "forest", "boosting"])
def test_values_equal_those_of_shap(kind: str) -> None:
    x = rows()[0][100:130]
    own = shap.TreeExplainer(fitted(kind))(x).values
    own = own[..., -1] if own.ndim == 3 else own
    (block,) = tabular.Engine(fitted(kind), features=NAMES).stream(x)
    assert block.values == pytest.approx(own, abs=1e-6)
    own = shap.TreeExplainer(fitted(kind), rows()[0][:20])(x).values
    own = own[..., -1] if own.ndim == 3 else own
    (block,) = tabular.Engine(fitted(kind), compared(), NAMES).stream(x)
    assert block.values == pytest.approx(own, abs=1e-6)


def test_linear_values_equal_those_of_shap() -> None:
    x = rows()[0][100:130]
    own = shap.LinearExplainer(fitted("logistic"), rows()[0][:20])(x).values
    (block,) = tabular.Engine(fitted("logistic"), compared(), NAMES).stream(x)
    assert block.values == pytest.approx(own, abs=1e-6)


def test_values_in_probability_add_up_to_it() -> None:
    spec = "interventional_tree_shap(output='probability')"
    engine = tabular.Engine(fitted("xgboost"), compared(), NAMES, method=spec)
    x = rows()[0][100:110]
    (block,) = engine.stream(x)
    assert engine.scale == "probability"
    expected = fitted("xgboost").predict_proba(pd.DataFrame(x, columns=NAMES))[:, 1]
    assert block.scores == pytest.approx(expected, abs=1e-6)
    assert block.additivity.max() <= 1e-5
    with pytest.raises(ArgumentError, match="without probabilities"):
        tabular.Engine(fitted("xgboost regressor"), compared(), NAMES, method=spec)


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "forest"])
def test_interactions_add_up_to_the_attributions(kind: str) -> None:
    engine = tabular.Engine(fitted(kind), features=NAMES)
    x = rows()[0][100:105]
    found = engine.interactions(x)
    (block,) = engine.stream(x)
    assert found.shape == (5, 6, 6)
    assert found == pytest.approx(found.transpose(0, 2, 1), abs=1e-5)
    assert found.sum(2) == pytest.approx(block.values, abs=1e-5)
    with pytest.raises(ArgumentError, match="model of trees"):
        tabular.Engine(fitted("ridge"), compared(), NAMES).interactions(x)


# ---- estimates -----------------------------------------------------------------------------------


def test_kernel_shap_tends_to_the_exact_values_and_always_adds_up() -> None:
    x = rows()[0][100:103]
    model = fitted("neighbours")
    (exact,) = tabular.Engine(model, compared(), NAMES, method="exact_shap").stream(x)
    missed = []
    for samples in (16, 4096):
        spec = f"kernel_shap(samples={samples})"
        (found,) = tabular.Engine(model, compared(), NAMES, method=spec).stream(x)
        assert found.additivity.max() <= 1e-9
        missed.append(np.abs(found.values - exact.values).max())
    assert missed[1] < 0.25 * missed[0]
    assert missed[1] < 0.01


def test_lime_recovers_an_additive_model_and_counts_its_calls() -> None:
    calls = []

    def linear(x: Matrix) -> Matrix:
        calls.append(len(x))
        return x @ np.arange(1.0, 7.0)

    background = pd.DataFrame(np.zeros((1, 6)), columns=NAMES)
    engine = tabular.Engine(linear, background, NAMES, method="lime(samples=300, ridge=1e-9)")
    (found,) = engine.stream(np.ones((2, 6)))
    assert found.values == pytest.approx(np.tile(np.arange(1.0, 7.0), (2, 1)), abs=1e-5)
    assert sum(calls) == 2 * 300 + 2
    assert not engine.method.exact


def test_enumeration_calls_each_coalition_once() -> None:
    calls = []

    def linear(x: Matrix) -> Matrix:
        calls.append(len(x))
        return x.sum(1)

    engine = tabular.Engine(linear, compared(), NAMES)
    assert repr(engine.method) == "exact_shap()"
    engine.explain(rows()[0][:2])
    assert sum(calls) == 2 * 2**6 * 20 + 2


# ---- pipelines and categories --------------------------------------------------------------------


@cache
def mixed() -> tuple[pd.DataFrame, Matrix]:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "amount": rng.normal(size=300),
            "savings": rng.choice(["none", "little", "much"], 300),
            "owner": rng.choice(["yes", "no"], 300),
            "age": rng.integers(20, 70, 300),
        }
    )
    logit = frame.amount + (frame.savings == "much") * 2 - (frame.owner == "no")
    return frame, (logit + rng.logistic(size=300) > 0).astype(int).to_numpy()


def pipeline(last: Any) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    numbers = Pipeline([("fill", SimpleImputer()), ("scale", StandardScaler())])
    encoder = ColumnTransformer(
        [
            ("hot", OneHotEncoder(drop="if_binary"), ["savings", "owner"]),
            ("numbers", numbers, ["amount"]),
            ("coded", OrdinalEncoder(), ["owner"]),
        ],
        remainder="drop",
    )
    frame, y = mixed()
    return Pipeline([("encode", encoder), ("model", last)]).fit(frame.drop(columns="age"), y)


def test_a_pipeline_is_explained_in_its_own_columns() -> None:
    from sklearn.linear_model import LogisticRegression

    model = pipeline(LogisticRegression())
    frame, _ = mixed()
    engine = tabular.Engine(model, frame.drop(columns="age")[:30], protected=["age"], threshold=0.5)
    records = engine.explain(frame[100:104])
    assert records[0].features == ("amount", "savings", "owner")
    assert records[0].input.data == (frame.amount[100], frame.savings[100], frame.owner[100])
    assert records[0].groups == {"age": frame.age[100]}
    assert records[0].excluded == ("age",)
    assert records[0].scale == "log-odds"
    expected = model.predict_proba(frame[100:104])[:, 1]
    assert [one.score for one in records] == pytest.approx(list(expected), abs=1e-12)
    assert max(one.additivity for one in records) <= 1e-5
    # Grouped effects are those of the feature itself: enumeration over the three features.
    exact = tabular.Engine(
        model.decision_function, frame.drop(columns="age")[:30], method="exact_shap"
    )
    for one, other in zip(records, exact.explain(frame[100:104]), strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-6)


def test_trees_behind_an_encoder_add_up() -> None:
    from sklearn.ensemble import RandomForestClassifier

    model = pipeline(RandomForestClassifier(6, max_depth=4, random_state=0))
    frame, _ = mixed()
    plain = frame.drop(columns="age")
    (block,) = tabular.Engine(model, plain[:30]).stream(plain[100:110])
    assert block.values.shape == (10, 3)
    assert block.additivity.max() <= 1e-5
    found = tabular.Engine(model, plain[:30]).interactions(plain[100:102])
    assert found.shape == (2, 3, 3)


def test_an_encoder_that_mixes_features_is_refused() -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    x, y = rows()
    model = make_pipeline(PCA(3), LogisticRegression()).fit(x, y)
    with pytest.raises(ModelError, match="got PCA: explain the pipeline's predict function"):
        tabular.Engine(model, compared(), NAMES)
    engine = tabular.Engine(model.decision_function, compared(), NAMES)
    assert engine.explain(x[:1])[0].additivity <= 1e-5


def test_a_booster_of_categories_is_explained_and_needs_positions_for_a_background() -> None:
    frame, y = mixed()
    levels = {"amount": None, "savings": ["none", "little", "much"], "owner": ["no", "yes"]}
    coded = tabular.Features.of(levels).matrix(pa.Table.from_pandas(frame))
    types = ["q", "c", "c"]
    data = xgboost.DMatrix(
        coded, y, feature_names=list(levels), feature_types=types, enable_categorical=True
    )
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, data, 8)
    (block,) = tabular.Engine(booster, features=levels).stream(frame)
    assert block.additivity.max() <= 1e-5
    with pytest.raises(ModelError, match="train it on ordinal positions"):
        tabular.Engine(booster, frame[:10], levels)


# ---- tables --------------------------------------------------------------------------------------


def test_every_kind_of_table_gives_the_same_values(tmp_path: Path) -> None:
    frame, _ = mixed()
    kept = frame[:40].drop(columns="age")
    from sklearn.linear_model import LogisticRegression

    engine = tabular.Engine(pipeline(LogisticRegression()), frame[:30].drop(columns="age"))
    kept.to_parquet(tmp_path / "t.parquet")
    kept.to_csv(tmp_path / "t.csv", index=False)
    sources = [
        kept,
        kept.astype({"savings": "category"}),
        pl.DataFrame(kept.to_dict("list")),
        pa.Table.from_pandas(kept),
        kept.to_dict("list"),
        kept.to_dict("records"),
        tmp_path / "t.parquet",
        str(tmp_path / "t.csv"),
    ]
    (wanted,) = engine.stream(kept)
    for source in sources:
        blocks = list(engine.stream(source, rows=16))
        assert [block.first for block in blocks] == [0, 16, 32]
        found = np.concatenate([block.values for block in blocks])
        assert found == pytest.approx(wanted.values, abs=1e-9)
    assert engine.explain(tmp_path / "t.parquet")[7].input.path == str(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"savings": ["none"]}, "one without 'amount'"),
        ({"amount": ["x"], "savings": ["none"], "owner": ["no"]}, "expected numbers"),
        ({"amount": [1.0], "savings": ["lots"], "owner": ["no"]}, "as one of 'little'"),
        ([], "expected a table, got list"),
        (np.zeros((2, 5)), r"got ndarray of shape \(2, 5\)"),
        ("table.xlsx", "expected a Parquet or CSV file"),
        ("missing.parquet", "expected a readable table"),
        ({"amount": [1.0, "x"]}, "columns of one type each"),
    ],
)
def test_tables_that_do_not_fit_are_refused(data: Any, said: str) -> None:
    from sklearn.linear_model import LogisticRegression

    frame, _ = mixed()
    engine = tabular.Engine(pipeline(LogisticRegression()), frame[:30].drop(columns="age"))
    with pytest.raises(ArgumentError, match=said):
        engine.explain(data)


def test_missing_values_stay_missing() -> None:
    x = rows()[0][:3].copy()
    x[1, 2] = np.nan
    records = tabular.Engine(fitted("xgboost"), features=NAMES).explain(x)
    assert records[1].input.data[2] is None
    assert json.loads(json.dumps(records[1].to_dict()))["data"][2] is None
    assert records[1].additivity <= 1e-5


# ---- engines -------------------------------------------------------------------------------------


def test_protected_columns_are_never_scored() -> None:
    with pytest.raises(ArgumentError, match="train the model without it"):
        tabular.Engine(fitted("xgboost"), features=NAMES, protected=["b"])


def test_a_record_is_computed_again_by_its_own_engine_only() -> None:
    engine = tabular.Engine(fitted("xgboost"), compared(), NAMES)
    record = engine.explain(rows()[0][50:51])[0]
    back = Explanation.from_dict(record.to_dict())
    assert isinstance(back, type(record))
    assert engine.reproduce(back) == 0.0
    for other, what in (
        (tabular.Engine(fitted("xgboost"), features=NAMES), "method"),
        (tabular.Engine(fitted("lightgbm"), compared(), NAMES), "model"),
        (tabular.Engine(fitted("xgboost"), compared()[:5], NAMES), "background"),
    ):
        with pytest.raises(ArgumentError, match=f"a record of this engine's {what}"):
            other.reproduce(back)


def test_the_background_decides_the_values_and_is_in_the_record() -> None:
    x, _ = rows()
    engine = tabular.Engine(fitted("xgboost"), features=NAMES)
    near = tabular.Background.approved_near(
        pd.DataFrame(x, columns=NAMES), engine.predict(x), 0.5, most=30
    )
    chosen = np.sort(engine.predict(near.table))
    scores = np.sort(engine.predict(x)[engine.predict(x) >= 0.5])
    assert chosen == pytest.approx(scores[:30])
    assert near.rule == "the 30 rows with the lowest scores of at least 0.5"
    everyone = tabular.Background.sample(pd.DataFrame(x, columns=NAMES), most=30, seed=3)
    one = tabular.Engine(fitted("xgboost"), near, NAMES).explain(x[:20])
    other = tabular.Engine(fitted("xgboost"), everyone, NAMES).explain(x[:20])
    assert one[0].background["rule"] != other[0].background["rule"]
    first = [record.contributions[0].feature for record in one]
    assert first != [record.contributions[0].feature for record in other]
    with pytest.raises(ArgumentError, match="at least one row to compare with"):
        tabular.Background.approved_near(pd.DataFrame(x), engine.predict(x), 2.0)


def test_models_and_methods_that_do_not_fit_say_what_to_do() -> None:
    x, _ = rows()
    ranked = xgboost.XGBRanker(n_estimators=2).fit(x, np.arange(400) % 3, group=[400])
    with pytest.raises(ModelError, match="an objective known here"):
        tabular.Engine(ranked, features=NAMES)
    with pytest.raises(ArgumentError, match="a linear model for linear_shap"):
        tabular.Engine(fitted("xgboost"), compared(), NAMES, method="linear_shap")
    with pytest.raises(UnknownName, match="did you mean tree_shap"):
        tabular.Engine(fitted("xgboost"), features=NAMES, method="treeshap")
    with pytest.raises(ArgumentError, match="expected the names of the features"):
        tabular.Engine(lambda x: x.sum(1))
    with pytest.raises(ModelError, match="its own library first"):
        tabular.Engine("credit.json", features=NAMES)
    with pytest.raises(ModelError, match="one finite number"):
        tabular.Engine(lambda x: x, compared(), NAMES).predict(x)


def test_an_onnx_model_is_explained(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.arange(1, 7, dtype="f4").reshape(6, 1), "w")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("Sigmoid", ["z"], ["y"]),
        ],
        "credit",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "credit.onnx")
    engine = tabular.Engine(f"onnx:{tmp_path / 'credit.onnx'}", compared(), NAMES)
    record = engine.explain(rows()[0][:1])[0]
    assert (record.model.name, record.scale) == ("credit", "probability")
    assert record.additivity <= 1e-5
    assert record.score == pytest.approx(
        1 / (1 + np.exp(-(rows()[0][0] @ np.arange(1.0, 7.0)))), abs=1e-6
    )


def test_files_are_read_in_blocks(tmp_path: Path) -> None:
    x = np.tile(rows()[0], (50, 1))
    pq.write_table(pa.table({n: x[:, i] for i, n in enumerate(NAMES)}), tmp_path / "t.parquet")
    engine = tabular.Engine(fitted("xgboost"), features=NAMES)
    pa.default_memory_pool().release_unused()
    sizes = [len(block.scores) for block in engine.stream(tmp_path / "t.parquet", rows=4096)]
    assert sum(sizes) == len(x)
    assert max(sizes) <= 4096
