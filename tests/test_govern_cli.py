"""`visxai govern` on folders: what is printed, exit codes, metadata, statistics of inputs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stores import explanation, fill, photograph

from visxai import cli, govern
from visxai.errors import StoreError
from visxai.govern.metadata import read_metadata
from visxai.govern.pixels import NAMES, measure_image


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["govern", *words])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of 24 photographs; in the second every other one has its evidence in a corner."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    paths = [photograph(folder / "in" / f"{at}.png", at) for at in range(48)]
    usual = [
        explanation(path, (int(rng.integers(2, 5)), int(rng.integers(2, 5)))) for path in paths
    ]
    corner = [explanation(path, (0, 6)) for path in paths]
    moved = [(corner if at % 2 else usual)[at] for at in range(24, 48)]
    return fill(folder / "a", usual[:24]), fill(folder / "b", moved)


def test_drift_of_a_folder(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = folders
    figures = tmp_path / "drift.json"
    assert run("drift", str(a), str(b), "--window", "24", "--inputs", "--json", str(figures)) == 1
    printed = capsys.readouterr().out
    assert "1 of 1 window drifted" in " ".join(printed.split())
    (window,) = json.loads(figures.read_text("utf-8"))["windows"]
    assert window["alarms"] == ["explanation"]
    assert set(window["sides"]) == {"input", "score", "explanation"}
    assert window["sides"]["explanation"]["columns"][0]["p"] < 0.05
    assert run("drift", str(a), str(a), "--window", "24") == 0


def test_gaps_of_a_folder(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, b = folders
    table = tmp_path / "people.csv"
    lines = [f"{at}.png,{'fm'[at % 2]}" for at in range(24, 48)]
    table.write_text("\n".join(["path,sex", *lines]), "utf-8")
    # Twelve a group: a gap, but too few for a finding.
    assert run("fairness", str(b), "--by", "sex", "--metadata", str(table)) == 0
    assert "uncertain below 30" in " ".join(capsys.readouterr().out.split())
    groups = read_metadata(table, govern.observe(b).ids)
    assert groups == {"sex": tuple("fm"[at % 2] for at in range(24, 48))}


def test_metadata_by_whole_path_and_by_name(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,site,code\na/1.png,north,007\nb/1.png,south,\n", "utf-8")
    found = read_metadata(table, ["b/1.png", "a/1.png", "c/2.png"])
    assert found == {"site": ("south", "north", None), "code": (None, "007", None)}
    with pytest.raises(StoreError, match="several items have"):
        read_metadata(table, ["x/1.png", "y/1.png"])
    with pytest.raises(StoreError, match="name them like"):
        read_metadata(table, ["other.png"])
    table.write_text("name,site\na,north\n", "utf-8")
    with pytest.raises(StoreError, match="a column path or id"):
        read_metadata(table, ["a"])
    with pytest.raises(StoreError, match="CSV or Parquet"):
        read_metadata(tmp_path / "none.csv", ["a"])


def test_statistics_of_an_image_by_hand() -> None:
    half = np.zeros((90, 180, 3), np.uint8)
    half[:, 90:] = (255, 0, 0)
    found = measure_image(half)
    assert tuple(found) == NAMES
    assert found["red"] == found["saturation"] == pytest.approx(0.5)
    assert found["brightness"] == pytest.approx(0.299 / 2)
    assert found["contrast"] == pytest.approx(0.299 / 2)
    assert (found["luma_00"], found["luma_02"]) == (0, pytest.approx(0.299, abs=1e-5))
    assert found["noise"] == 0
    assert found["aspect"] == pytest.approx(math.log(2))
    tiny = measure_image(Image.new("RGB", (1, 1), (255, 255, 255)))
    assert tiny["brightness"] == pytest.approx(1)
    assert tiny["luma_22"] == pytest.approx(1)


def test_originals_behind_a_url_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from visxai.images import address

    one = explanation(photograph(tmp_path / "a.png", 0))
    far = replace(one, input=replace(one.input, path="http://127.0.0.1:9/a.png"))
    monkeypatch.setattr(address, "file_system", lambda url: pytest.fail(f"asked {url}"))
    assert govern.observe([far], measure_inputs=True).inputs == {}
    assert govern.observe([one], measure_inputs=True).inputs["aspect"] == [math.log(1.5)]


def test_a_run_is_imported(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    assert run("import", str(folders[0]), "--database", url) == 0
    assert "24 explanations on record" in " ".join(capsys.readouterr().out.split())
    assert run("import", str(folders[0]), "--database", url) == 0
    assert "0 explanations on record" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [("report",), ("alerts",), ("acknowledge", "3f2a")])
def test_a_database_that_is_not_there_is_no_empty_one(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "typo.db"
    more = ("--note", "seen", "--by", "kim") if words[0] == "acknowledge" else ()
    assert run(*words, *more, "--database", f"sqlite:///{missing}") == 2
    assert "expected a database that is there" in " ".join(capsys.readouterr().err.split())
    assert not missing.exists()
