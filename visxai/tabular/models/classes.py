"""The trees of one class among several, in the form that `shap.TreeExplainer` reads.

A booster of k classes grows a tree for each class in each round, and the margin of a class is the
sum of its own. shap reads these boosters whole, and then adds the classes up or refuses them; the
trees of one class are a booster with one output, which it reads exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from visxai.errors import ModelError


def of_lightgbm(booster: Any, target: int) -> dict[str, Any]:
    """Take the trees of a class out of a `lightgbm.Booster`.

    Args:
        booster: The booster.
        target: The class.
    """
    told = booster.dump_model()
    trees = told["tree_info"][target :: int(told["num_tree_per_iteration"])]
    return {"trees": trees, "base_offset": 0.0, "tree_output": "raw_value"}


def of_histograms(estimator: Any, target: int) -> dict[str, Any]:
    """Take the trees of a class out of a `HistGradientBoostingClassifier`.

    Args:
        estimator: The fitted estimator.
        target: The class.
    """
    trees = []
    for round_ in estimator._predictors:
        nodes = round_[target].nodes
        leaf = nodes["is_leaf"].astype(bool)
        left, right = (np.where(leaf, -1, nodes[one].astype(np.int32)) for one in ("left", "right"))
        trees.append(
            {
                "children_left": left,
                "children_right": right,
                "children_default": np.where(nodes["missing_go_to_left"], left, right),
                "features": np.where(leaf, -2, nodes["feature_idx"]),
                "thresholds": nodes["num_threshold"].astype(np.float64),
                "values": nodes["value"].astype(np.float64)[:, None],
                "node_sample_weight": nodes["count"].astype(np.float64),
            }
        )
    base = float(np.ravel(estimator._baseline_prediction)[target])
    return {"trees": trees, "base_offset": base, "tree_output": "raw_value"}


def of_boosting(estimator: Any, target: int) -> dict[str, Any]:
    """Take the trees of a class out of a `GradientBoostingClassifier`.

    Args:
        estimator: The fitted estimator.
        target: The class.

    Raises:
        ModelError: It starts from another model's scores, which no tree of it explains.
    """
    if type(estimator.init_).__name__ not in ("DummyClassifier", "str"):
        raise ModelError(
            "expected gradient boosting that starts from the classes' shares, got one that starts "
            f"from {type(estimator.init_).__name__}: leave init out, or explain its function"
        )
    rate = estimator.learning_rate
    trees: list[Mapping[str, Any]] = []
    grown = [one.tree_ for one in estimator.estimators_[:, target]]
    for tree in grown:
        left, right = tree.children_left, tree.children_right
        trees.append(
            {
                "children_left": left,
                "children_right": right,
                "children_default": np.where(tree.missing_go_to_left, left, right),
                "features": tree.feature,
                "thresholds": tree.threshold,
                "values": tree.value[:, :, 0] * rate,
                "node_sample_weight": tree.weighted_n_node_samples,
            }
        )
    row = np.zeros((1, estimator.n_features_in_), np.float32)
    summed = sum(float(tree.predict(row).item()) for tree in grown)
    # The margin of any row without its trees is what all rows start from.
    margin = float(estimator._raw_predict(row)[0, target])
    return {
        "trees": trees,
        "base_offset": margin - rate * summed,
        "tree_output": "raw_value",
        "input_dtype": np.float32,  # its splits compare in single precision
    }
