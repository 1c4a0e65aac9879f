"""What a record tells about its image beyond the map: id, top scores, regions; and progress."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zoo
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from PIL import Image

import visxai
from visxai import results
from visxai.errors import ArgumentError
from visxai.record import ImageExplanation, schema
from visxai.results.rows import of_row, row_of

IMAGES = [
    np.random.default_rng(seed).integers(0, 255, (70, 80, 3), dtype=np.uint8) for seed in range(3)
]


@pytest.fixture(scope="module")
def engine() -> visxai.Engine:
    return visxai.Engine(
        zoo.module("conv"),
        preprocess=zoo.PREPROCESS,
        labels=[f"thing {number}" for number in range(zoo.CLASSES)],
        device="cpu",
        precision="fp32",
        accelerate="off",
        batch_size=2,
    )


def explained(engine: visxai.Engine, **more: object) -> list[ImageExplanation]:
    found = engine.explain(IMAGES, "grad_cam", **more)  # type: ignore[arg-type]
    assert all(isinstance(one, ImageExplanation) for one in found)
    return found  # type: ignore[return-value]


def test_ids_go_with_their_images_across_batches(engine: visxai.Engine) -> None:
    found = explained(engine, ids=["a", "b", "c"], target="top2")
    assert [one.id for one in found] == ["a", "a", "b", "b", "c", "c"]
    assert all(one.id is None for one in explained(engine))
    with pytest.raises(ArgumentError, match="one id for each of 3 images, got 2"):
        explained(engine, ids=["a", "b"])


def test_the_top_scores_are_the_predictions(engine: visxai.Engine) -> None:
    for one, told in zip(explained(engine), engine.predict(IMAGES), strict=True):
        assert [ranked.label for ranked in one.top_scores] == [label for label, _ in told.top(5)]
        scores = [ranked.score for ranked in one.top_scores]
        assert scores == pytest.approx([score for _, score in told.top(5)], abs=1e-6)


def test_records_with_them_fit_the_schema_and_read_back(engine: visxai.Engine) -> None:
    for one in explained(engine, ids=["a", "b", "c"]):
        data = one.to_dict()
        Draft202012Validator(schema()).validate(data)
        for back in (visxai.Explanation.from_dict(data), of_row(row_of(one, None))):
            assert (back.id, back.top_scores) == (one.id, one.top_scores)
            # The stored map has float16 precision, and regions follow from the map.
            for ours, theirs in zip(back.to_dict()["regions"], data["regions"], strict=True):
                assert ours["share"] == pytest.approx(theirs["share"], abs=0.01)
                np.testing.assert_allclose(ours["box"], theirs["box"], atol=4)


def test_regions_hold_the_evidence_of_a_map_made_by_hand(engine: visxai.Engine) -> None:
    corner = np.zeros((8, 8), np.float32)
    corner[0, 0] = 1.0
    one = replace(explained(engine)[0], values=corner)
    (region,) = one.to_dict()["regions"]
    left, top, right, bottom = region["box"]
    assert right <= one.input.width // 3
    assert bottom <= one.input.height // 3
    assert left < right
    assert top < bottom
    assert 0.5 <= region["share"] <= 1
    assert replace(one, values=np.zeros((8, 8), np.float32)).to_dict()["regions"] == []


def test_a_table_gives_ids_to_rows_and_to_copies(engine: visxai.Engine, tmp_path: Path) -> None:
    for name, pixels in zip("xyz", (IMAGES[0], IMAGES[1], IMAGES[0]), strict=True):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    table = tmp_path / "photos.csv"
    table.write_text("path,id\nx.png,17\ny.png,18\nz.png,19\n", "utf-8")
    visxai.pipeline.explain([table], tmp_path / "out", engine, workers=0)
    found = list(results.read(tmp_path / "out"))
    assert [(Path(str(one.input.path)).stem, one.id) for one in found] == [
        *(("x", "17"), ("y", "18"), ("z", "19")),
    ]


def test_progress_counts_images_and_a_bar_is_shown(
    engine: visxai.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    explained(engine, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (2, 3), (3, 3)]
    explained(engine, progress=True)
    assert "3/3" in capsys.readouterr().err
