"""The options of a folder run: the same through Python, on Ray and from the command line."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

import visxai
from visxai import cli
from visxai.images.decoding import Limits
from visxai.pipeline import run
from visxai.pipeline.options import RunOptions
from visxai.pipeline.tasks import Style
from visxai.scale import run as on_ray

FIELDS = {one.name: one for one in dataclasses.fields(RunOptions)}


class Handed(Exception):
    """What reached the run."""


@pytest.mark.parametrize("place", [run, on_ray])
def test_every_option_is_an_argument_that_is_handed_on(
    place: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []
    monkeypatch.setattr(place, "explain_sources", lambda *given, **_: handed.append(given[3]))
    parameters = inspect.signature(place.explain).parameters
    assert {name: parameters[name].default for name in FIELDS} == {
        name: one.default for name, one in FIELDS.items()
    }
    place.explain([], "out", "engine")
    marked: dict[str, Any] = {name: f"a {name}" for name in FIELDS}
    place.explain([], "out", "engine", **marked)
    assert handed == [RunOptions(), RunOptions(**marked)]


def test_the_command_line_hands_its_options_on(
    tmp_path: Path, engine: visxai.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain_sources(*given: Any, options: RunOptions, **_: Any) -> None:
        raise Handed(options)

    monkeypatch.setattr(run, "explain_sources", explain_sources)
    monkeypatch.setattr("visxai.engine.engine.Engine", lambda **_: engine)
    table = tmp_path / "table.csv"
    table.write_text("photo,kind\na.png,1\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ["explain", str(table), "--method", "grad_cam,saliency", "--target", "top2"]
    words += ["--only", "top1<0.5", "--check", "faithfulness", "--overlay-format", "png"]
    words += ["--panel", "--limit-pixels", "99", "--chunk-size", "64", "--timeout", "3"]
    words += ["--path-column", "photo", "--label-column", "kind", "--fresh", "--retry-failures"]
    monkeypatch.setattr(cli.explain, "command_line", lambda *_: "as typed")
    with pytest.raises(Handed) as handed:
        cli.app(words, standalone_mode=False)
    expected = RunOptions(
        method=["grad_cam", "saliency"],
        target="top2",
        only="top1<0.5",
        check="faithfulness",
        style=Style("png", None, True),
        limits=Limits(max_pixels=99),
        chunk_size=64,
        timeout=3.0,
        path_column="photo",
        label_column="kind",
        fresh=True,
        retry_failures=True,
        command="as typed",
    )
    assert handed.value.args == (expected,)
    usual = RunOptions()
    assert all(getattr(expected, name) != getattr(usual, name) for name in FIELDS)
