"""The record of a table's row: what it holds, that it adds up, and how it reads back."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from visxai.drawing import bars
from visxai.errors import ArgumentError
from visxai.record import Explanation, ImageExplanation, TableExplanation, schema
from visxai.references import Caption, ModelRef, RowRef
from visxai.results.rows import of_row, row_of

SCHEMAS = Path(__file__).parents[1] / "schemas"


def record(**changes: Any) -> TableExplanation:
    """A record whose values a float16 couldn't hold: 0.1 + 1.0001 - 2.25 + 0.00012207 = ..."""
    values = np.array([1.0001, -2.25, 2.0**-13], np.float32)
    made = TableExplanation(
        input=RowRef(("duration", "savings", "owner"), (24, "under 100 DM", None), 7, "t.parquet"),
        model=ModelRef("credit", "0" * 64, "ordinal"),
        values=values,
        method="tree_shap(perturbation='interventional')",
        target="class=1",
        class_index=1,
        label="repaid",
        score=0.24,
        logit=0.1 + float(values.astype(np.float64).sum()),
        base_value=0.1,
        scale="log-odds",
        threshold=0.5,
        background={"rule": "approved near the threshold", "rows": 3, "sha256": "a" * 64},
        typical=(12.0, "100 to 500 DM", True),
        excluded=("age",),
        groups={"age": 30},
        created="2026-01-01T00:00:00+00:00",
    )
    return replace(made, **changes)


def test_a_record_adds_up_and_names_what_counted_most() -> None:
    made = record()
    assert made.additivity == pytest.approx(0, abs=1e-12)
    assert made.favourable is False
    assert record(threshold=0.24).favourable is True
    assert record(threshold=None).favourable is None
    first = made.contributions[0]
    assert (first.feature, first.cell, first.typical) == (
        "savings",
        "under 100 DM",
        "100 to 500 DM",
    )
    assert [one.feature for one in made.contributions] == ["savings", "duration", "owner"]
    assert made.value_of("owner") == 2.0**-13
    with pytest.raises(ArgumentError, match="expected a scored feature"):
        made.value_of("age")


def test_values_read_back_exactly_and_their_sum_is_the_score() -> None:
    made = record()
    for data in (made.to_dict(), json.loads(json.dumps(made.to_dict())), made.row()):
        back = Explanation.from_dict(data)
        assert isinstance(back, TableExplanation)
        assert np.array_equal(back.values, made.values)
        assert back.to_dict() == made.to_dict()
    assert of_row(row_of(made, None)).to_dict() == made.to_dict()
    with pytest.raises(ArgumentError, match="expected a record for ImageExplanation"):
        ImageExplanation.from_dict(made.to_dict())


def test_the_schema_is_published_and_holds() -> None:
    found = schema("table")
    assert found == json.loads((SCHEMAS / "table-explanation-3.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(found).validate(record().to_dict())
    assert schema("image") == schema()
    with pytest.raises(ArgumentError, match="expected a kind of record"):
        schema("sound")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"data": [24, "over 1000 DM", None]}, "altered"),
        ({"data": [24]}, "a value for each of 3 features"),
        ({"features": ["duration", "savings", "sex"]}, "altered"),
        ({"map_shape": [2]}, "the record is damaged"),
        ({"map_shape": [3, 1]}, "map_shape"),
        ({"typical": [1]}, "one typical value a feature"),
        ({"threshold": "half"}, "threshold"),
        ({"background": {"rule": "all"}}, "background"),
        ({"kind": "image"}, "missing or wrong"),
        ({"scale": "dollars"}, "scale"),
        ({"row": -1}, "row"),
    ],
)
def test_damaged_and_altered_records_are_refused(damage: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        Explanation.from_dict(record().to_dict() | damage)


def test_the_values_of_a_row_have_one_hash() -> None:
    one = record().input
    assert one.source_sha256 == replace(one, path=None, row=9).source_sha256
    assert one.source_sha256 != replace(one, data=(25, "under 100 DM", None)).source_sha256
    assert str(one) == "t.parquet, row 7"


def test_bars_lie_on_their_side_of_zero() -> None:
    caption = Caption("repaid", 0.2, "method", "row 1")
    drawn = bars.draw([bars.Bar("up", "3", 1.0), bars.Bar("down", "", -0.5)], caption, unit="odds")
    pixels = np.asarray(drawn)
    raised = (pixels == bars.RAISED).all(-1)[70:]
    lowered = (pixels == bars.LOWERED).all(-1)[70:]
    up, down = np.flatnonzero(raised.sum(0) > 5), np.flatnonzero(lowered.sum(0) > 5)
    assert down.max() < up.min()
    assert len(up) == pytest.approx(2 * len(down), abs=2)
    with pytest.raises(ArgumentError, match="at least 320"):
        bars.draw([], caption, width=100)


def test_a_record_renders_as_a_picture_of_all_its_features() -> None:
    picture = record().render()
    assert picture.media_type == "image/png"
    opened = Image.open(io.BytesIO(picture.data))
    assert opened.width == 720
    many = RowRef(tuple(f"x{i}" for i in range(40)), tuple(range(40)))
    wide = record(input=many, values=np.linspace(-1, 1, 40), typical=())
    assert wide.bars(most=5).height < wide.bars(most=30).height
