"""Nearest examples in features that are colours, so that every distance is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

import visxai
from visxai import cli, nearest
from visxai.errors import ArgumentError, ImageError, StoreError

SIDE = 16
WHOLE = visxai.Preprocess((SIDE, SIDE), SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)


class Means(nn.Module):
    """Scores (n, 3): how much red, green and blue a picture holds, read from a 4 x 4 layer."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.seen = nn.Conv2d(3, 3, 4, 4, groups=3, bias=False)
        nn.init.constant_(self.seen.weight, factor / 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x).mean((2, 3))


def engine(factor: float = 1.0) -> visxai.Engine:
    return visxai.Engine(
        Means(factor).eval(),
        preprocess=WHOLE,
        labels=["red", "green", "blue"],
        layer="seen",
        accelerate="off",
        precision="fp32",
    )


def plain(*colour: int) -> np.ndarray[Any, Any]:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("train")
    for name, colour in {
        "warm/red": (200, 0, 0),
        "warm/orange": (200, 100, 0),
        "warm/dark": (100, 0, 0),
        "cold/blue": (0, 0, 200),
    }.items():
        path = where / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(plain(*colour)).save(path)
    return where


def test_neighbours_are_those_of_the_cosine(folder: Path) -> None:
    own = engine()
    index = nearest.index(own, folder)
    assert len(index) == 4
    (found,) = index.nearest(own, plain(180, 90, 0), count=3)
    assert [Path(one.path).stem for one in found][:1] == ["orange"]
    assert found[0].similarity == pytest.approx(1, abs=1e-5)
    assert found[1].similarity == pytest.approx(2 / 5**0.5, abs=1e-5)
    assert {one.folder for one in found} == {"warm"}
    assert (found[0].label, index.labels[found[0].place]) == ("red", "red")


def test_an_image_is_not_its_own_neighbour(folder: Path) -> None:
    own = engine()
    index = nearest.index(own, folder)
    (found,) = index.nearest(own, folder / "warm" / "red.png", count=9)
    assert len(found) == 3
    assert Path(found[0].path).stem == "dark"  # its features have the same direction


def test_a_file_keeps_the_index(folder: Path, tmp_path: Path) -> None:
    own = engine()
    index = nearest.index(own, folder)
    index.write(tmp_path / "train.npz")
    again = nearest.Index.read(tmp_path / "train.npz")
    assert np.array_equal(again.features, index.features)
    assert again.paths == index.paths
    assert again.nearest(own, plain(9, 9, 0)) == index.nearest(own, plain(9, 9, 0))
    with pytest.raises(ArgumentError, match="the model that made the index"):
        again.nearest(engine(2.0), plain(9, 9, 0))


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        nearest.Index.read(tmp_path / "none.npz")
    for number, content in enumerate((b"", b"PK\x03\x04broken", b"\x93NUMPY")):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        with pytest.raises(StoreError, match="make it anew"):
            nearest.Index.read(path)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, about=np.array([object()], dtype=object))
    with pytest.raises(StoreError, match="make it anew"):
        nearest.Index.read(pickled)


def test_broken_images_are_left_out_where_that_is_wanted(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    images = [broken, folder / "warm" / "red.png"]
    index = nearest.index(engine(), images, on_error="record")
    assert len(index) == len(index.failures) == 1
    with pytest.raises(ImageError):
        nearest.index(engine(), images)
    with pytest.raises(ArgumentError, match="at least one image"):
        nearest.index(engine(), [broken], on_error="record")
    with pytest.raises(ArgumentError, match="at least 1 neighbour"):
        index.nearest(engine(), plain(1, 2, 3), count=0)


def test_the_sheet_shows_photograph_map_and_neighbours(folder: Path) -> None:
    own = engine()
    found = nearest.index(own, folder).nearest(own, plain(180, 90, 0), count=2)
    explained = own.explain(plain(180, 90, 0), "grad_cam")
    drawn = nearest.sheet(explained, found, side=100)
    assert drawn.width > 4 * 100
    seen = set(drawn.get_flattened_data())
    assert {(200, 100, 0), (100, 0, 0)} <= seen  # dark and red are as near: the first of the index
    with pytest.raises(ArgumentError, match="neighbours for each"):
        nearest.sheet(explained, [])


def width_of(path: Path) -> int:
    with Image.open(path) as picture:
        return picture.width


def visxai_(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(one) for one in arguments])
    return int(left.value.code or 0)


def test_the_commands_write_pictures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, picture = tmp_path / "train.npz", tmp_path / "nearest.jpg"
    assert visxai_("nearest", folder / "warm", "--index", file) == 2
    assert "add --among FOLDER" in capsys.readouterr().err
    query = folder / "cold" / "blue.png"
    made = ("nearest", query, "--index", file, "--among", folder, "--out", picture, "--count", 2)
    assert visxai_(*made) == 0
    assert f"{file}: 4 images" in capsys.readouterr().out
    assert width_of(picture) > 400
    assert visxai_(*made) == 2  # the index is there now
    assert visxai_("concepts", folder / "warm", "--out", tmp_path / "seen", "--count", 2) == 0
    assert "2 concepts in the activations" in capsys.readouterr().out
    assert width_of(tmp_path / "seen" / "concepts.jpg") > 400
    assert (tmp_path / "seen" / "concepts.json").stat().st_size > 1000
