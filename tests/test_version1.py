"""Records and results folders of schema version 1 still read, report, export and reproduce."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import visxai
from visxai import results
from visxai.record import Explanation, ImageExplanation
from visxai.report import build

DATA = Path(__file__).parent / "data" / "version1"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "out", tmp_path / "out"))


def test_a_record_reads_and_is_written_in_version_3() -> None:
    for old in json.loads((DATA / "records.json").read_text("utf-8")):
        found = Explanation.from_dict(old)
        assert isinstance(found, ImageExplanation)
        # What version 1 left out follows from the method.
        assert found.two_sided is old["method"].startswith("hires_cam")
        new = found.to_dict()
        assert new.pop("schema_version") == 3
        added = set(new) - set(old)
        assert added == {"two_sided", "id", "top_scores", "regions"}
        assert {name: new[name] for name in new if name in old} == {
            name: value for name, value in old.items() if name != "schema_version"
        }


def test_a_folder_reads(out: Path) -> None:
    found = list(results.read(out))
    assert [Path(str(one.input.path)).stem for one in found[::4]] == [
        "astronaut",
        "chelsea",
        "coffee",
    ]
    assert results.dataset(out).count_rows() == 12
    assert [Path(str(one.path)).name for one in results.failures(out)] == ["torn.jpg"]


def test_a_folder_reports_and_exports(out: Path) -> None:
    made = build(out)
    assert made.path.is_file()
    assert made.shown == 12
    exported = results.export(out, "csv")
    assert exported.written + exported.left_out == 12


def test_a_record_reproduces() -> None:
    engine = visxai.Engine("efficientnet_lite0", device="cpu", precision="fp32", accelerate="off")
    for old in json.loads((DATA / "records.json").read_text("utf-8")):
        photo = DATA / "photos" / Path(old["path"]).name
        again = engine.reproduce(old, photo)
        assert again.same_image
        assert again.agrees, (again.map_difference, again.score_difference)
        assert np.isfinite(again.explanation.values).all()


def test_a_later_run_goes_on_in_the_folder(out: Path, tmp_path: Path) -> None:
    """A folder that version 1 began takes rows of version 3 beside its own."""
    engine = visxai.Engine("efficientnet_lite0", device="cpu", precision="fp32", accelerate="off")
    more = tmp_path / "more"
    more.mkdir()
    with Image.open(DATA / "photos" / "coffee.jpg") as photo:  # other bytes, so nothing is copied
        photo.save(more / "again.png")
    outcome = visxai.pipeline.explain([more], out, engine, ("grad_cam", "hires_cam"), target="top2")
    assert outcome.complete
    versions = [one["schema_version"] for one in results.dataset(out).to_table().to_pylist()]
    assert versions == [1] * 12 + [3] * 4
    assert len(list(results.read(out))) == 16
