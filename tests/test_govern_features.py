"""Features of explanations: identities, answers computed by hand, and their ranges."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from visxai import govern
from visxai.govern.features import feature, images
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform

DOCUMENT = Path(__file__).parents[1] / "docs" / "governance.md"


def explained(values: Any, **changes: Any) -> ImageExplanation:
    """An explanation with a map; the image is the model's view, 80 x 80 pixels."""
    made: dict[str, Any] = {
        "input": ImageRef(80, 80, Transform((80, 80), (0, 0, 80, 80)), "b" * 64, "a.png"),
        "model": ModelRef("m", "a" * 64, "no resize"),
        "values": np.asarray(values, np.float32),
        "method": "grad_cam()",
        "target": "top1",
        "class_index": 0,
        "label": "tabby",
        "score": 0.5,
        "logit": 1.0,
    }
    return ImageExplanation(**(made | changes))


def test_a_uniform_map_has_the_documented_values() -> None:
    found = govern.measure(explained(np.ones((7, 7))))
    assert found["concentration"] == pytest.approx(0)
    assert found["entropy"] == pytest.approx(1)
    assert found["half_area"] == pytest.approx(0.5)
    assert (found["centre_x"], found["centre_y"]) == pytest.approx((0.5, 0.5))
    assert found["border"] == pytest.approx(1 - 0.75**2)
    assert [found[f"cell_{r}{c}"] for r in range(4) for c in range(4)] == pytest.approx(
        [1 / 16] * 16
    )


def test_one_cell_by_hand() -> None:
    values = np.zeros((4, 4))
    values[0, 3] = 2
    found = govern.measure(explained(values))
    assert found["cell_03"] == 1
    assert found["concentration"] == pytest.approx(15 / 16)
    assert found["entropy"] == pytest.approx(0)
    assert found["half_area"] == pytest.approx(1 / 32)  # half of one of 16 cells
    assert (found["centre_x"], found["centre_y"]) == pytest.approx((7 / 8, 1 / 8))
    # Of the corner's cell, a quarter of the view a side, one quarter lies off the border.
    assert found["border"] == pytest.approx(0.75)


def test_a_column_across_two_stripes_is_divided() -> None:
    found = govern.measure(explained([[0, 1, 0]]))  # one row: x from 1/3 to 2/3
    assert (found["cell_01"], found["cell_12"]) == pytest.approx((0.125, 0.125))
    assert found["cell_00"] == 0


def test_evidence_against_is_a_part_of_all() -> None:
    found = govern.measure(explained([[3, -1], [0, 0]]))
    assert found["against"] == 0.25
    assert found["centre_x"] == 0.25  # the positive evidence alone


@pytest.mark.parametrize("values", [np.zeros((3, 3)), -np.ones((3, 3))])
def test_without_positive_evidence_nothing_is_made_up(values: Any) -> None:
    found = govern.measure(explained(values, degenerate=not values.any()))
    assert math.isnan(found["entropy"])
    assert math.isnan(found["cell_00"])
    assert found["flat"] == float(not values.any())


def test_figures_of_quality_are_features() -> None:
    found = govern.measure(explained(np.ones((2, 2)), quality={"completeness": 0.25}))
    assert found["completeness"] == 0.25
    assert math.isnan(found["faithfulness"])


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-4, 4, width=32),
    )
)
def test_ranges_hold_and_resolution_does_not_matter(values: Any) -> None:
    coarse = govern.measure(explained(values))
    fine = govern.measure(explained(np.kron(values, np.ones((2, 2), np.float32))))
    for one in govern.features_of("image"):
        value = coarse[one.name]
        assert math.isnan(value) or one.low - 1e-6 <= value <= one.high + 1e-6, one.name
    same = [one.name for one in images.FEATURES if one.name != "entropy"]
    assert [fine[name] for name in same] == pytest.approx(
        [coarse[name] for name in same], abs=1e-5, nan_ok=True
    )


def test_regions_are_placed_in_the_model_s_view() -> None:
    values = np.zeros((4, 4))
    values[:, 2:] = 1
    one = explained(
        values,
        input=ImageRef(200, 100, Transform((160, 80), (40, 0, 80, 80)), "b" * 64, "wide.png"),
    )
    # The view is columns 50 to 150 of the original; its right half begins at 100.
    found = images.region_shares(one, {"right": (100, 0, 150, 100), "left": (0, 0, 100, 100)})
    assert found == {"region:right": pytest.approx(1), "region:left": pytest.approx(0)}
    found = images.region_shares(one, {"top": (0, 0, 200, 25)})
    assert found == {"region:top": pytest.approx(0.25)}


def test_every_feature_is_documented_with_its_range() -> None:
    text = DOCUMENT.read_text("utf-8")
    module = images.__doc__ or ""
    for one in govern.features_of("image"):
        assert isinstance(one, feature.Feature)
        name = "cell_rc" if one.name.startswith("cell_") else one.name
        assert f"`{name}`" in text
        assert name.removesuffix("_y") in module or one not in images.FEATURES
