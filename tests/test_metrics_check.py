"""The check in the engine: its figures in the record, its verdict, its cost, its errors."""

from __future__ import annotations

import numpy as np
import pytest
import zoo

import visxai
from visxai import metrics
from visxai.errors import ArgumentError, UnknownName
from visxai.metrics.base import Case
from visxai.record.base import Explanation


def photographs(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return list(coarse.repeat(12, 1).repeat(12, 2))


def engine(precision: str = "auto") -> visxai.Engine:
    return visxai.Engine(
        zoo.module("conv"),
        preprocess=zoo.PREPROCESS,
        device="cpu",
        batch_size=4,
        precision=precision,
    )


def test_the_check_is_in_the_record() -> None:
    found = engine().explain(photographs(3), check="faithfulness")
    for one in found:
        assert isinstance(one, Explanation)
        assert isinstance(one.quality["faithful"], bool)
        assert one.quality["faithful"] == (
            one.quality["faithfulness"] > one.quality["faithfulness_controls"] + 1e-6
        )
        again = Explanation.from_dict(one.to_dict())
        assert again.quality == one.quality
    (plain,) = engine().explain(photographs(1))
    assert isinstance(plain, Explanation)
    assert "faithful" not in plain.quality


def test_the_record_holds_the_metrics_own_figures() -> None:
    e, images = engine("fp32"), photographs(2)  # left to choose, methods may differ in precision
    found = e.explain(
        images, target="top2", method=["grad_cam", "saliency"], check="faithfulness(steps=4)"
    )
    assert len(found) == 8
    x = e.tensor([e.prepare(image).pixels for image in images])  # type: ignore[union-attr]
    maps = e.attribute(x, "saliency", "top2")
    from visxai.target import Target

    scores = metrics.load("faithfulness(steps=4)")(Case(e.model, x, Target.of("top2"), maps))
    mine = [one for one in found if isinstance(one, Explanation) and "saliency" in one.method]
    figures = [one.quality["faithfulness"] for one in mine]
    assert figures == pytest.approx(scores.values.tolist(), abs=1e-5)


def test_other_metrics_serve_as_checks() -> None:
    (found,) = engine().explain(photographs(1), method="integrated_gradients", check="completeness")
    assert isinstance(found, Explanation)
    assert "rise" in found.quality


def test_a_wrong_check_is_refused_before_any_image_is_read() -> None:
    with pytest.raises(UnknownName, match="faithfulness"):
        engine().explain(["missing.jpg"], check="faithfullness")
    with pytest.raises(ArgumentError, match="a check of one explanation by itself"):
        engine().explain(["missing.jpg"], check="grid_pointing")


@pytest.mark.parametrize(
    "check", ["faithfulness", "insertion(steps=2)", "road", "infidelity(draws=2)"]
)
def test_a_batch_without_maps_has_no_figures(check: str) -> None:
    assert engine().explain(photographs(2), target="above=0.9999", check=check) == []
