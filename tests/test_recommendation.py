"""The search for a method, on a network whose evidence is known."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor, nn

import visxai
from visxai import cli, metrics
from visxai.errors import ArgumentError
from visxai.recommendation import candidates, recommend, schedule

SIDE = 32
WHOLE = visxai.Preprocess((SIDE, SIDE), SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
METRICS = ("insertion(steps=8)", "deletion(steps=8)")


class Reds(nn.Module):
    """It says how much red there is, and looks at green, which is louder, for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.patches.weight.zero_()
            self.patches.weight[0, 0], self.patches.weight[1, 1] = 1 / 16, 3 / 16
            self.head.weight.copy_(torch.tensor([[8.0, 0.0], [0.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.patches(x).mean((2, 3)) * 4 - torch.tensor([0.4, 0.0]))


@pytest.fixture(scope="module")
def engine() -> visxai.Engine:
    return visxai.Engine(
        Reds().eval(), preprocess=WHOLE, device="cpu", precision="fp32", accelerate="off"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of red and green squares, and a file that is none."""
    place, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(20):
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        quarters = random.permutation(16)
        for channel, quarter in ((0, quarters[0]), (0, quarters[1]), (1, quarters[2])):
            top, left = 8 * (quarter // 4), 8 * (quarter % 4)
            picture[top : top + 8, left : left + 8, channel] = random.integers(150, 256)
        Image.fromarray(picture).save(place / f"{number:02}.png")
    (place / "broken.png").write_bytes(b"no picture")
    return place


GOOD, SAME = "occlusion(window=8, stride=8)", "occlusion(window=8, stride=4)"
BAD = ("eigen_cam(layer='patches')", "rise(masks=2, grid=4)", "rise(masks=2, grid=2)")


def test_the_method_that_follows_the_evidence_is_found(engine: visxai.Engine, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    found = recommend(
        engine,
        [folder],
        [*BAD, GOOD],
        METRICS,
        budget=16,
        target="class=0",
        progress=lambda done, total: told.append((done, total)),
    )
    assert found.best.startswith("occlusion(window=8")
    assert found.better_than_random
    assert found.equals == ()
    # The shortest spec leaves out the baseline, which is the default.
    assert found.best == f"{found.rows[0].brief[:-1]}, baseline=0.0)"
    assert found.describe().startswith(f"Use {found.rows[0].brief}: ")
    # Four candidates and the control on 8 images, two and the control on 8 more.
    assert found.maps == 5 * 8 + 3 * 8
    assert told[-1] == (found.maps, found.maps)
    assert [row.images for row in found.rows] == [16, 16, 8, 8, 16]
    assert [row.kept for row in found.rows] == [True, True, False, False, True]
    assert [row.control for row in found.rows] == [False] * 4 + [True]
    best = found.rows[0]
    assert best.place.value == pytest.approx(1.0, abs=0.3)
    for metric, better in (("insertion", max), ("deletion", min)):
        means = [row.figures[metric].value for row in found.rows if row.kept]
        assert better(means) == means[0]
        interval = best.figures[metric]
        assert interval.low <= interval.value <= interval.high
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["method"] == found.best


def test_equal_methods_are_said_to_be_equal(engine: visxai.Engine, folder: Path) -> None:
    pair = ["hires_cam(layer='patches')", "grad_cam(layer='patches')"]  # the same map here
    found = recommend(engine, [folder], pair, METRICS, budget=4, target="class=0")
    assert {found.rows[0].brief, found.rows[1].brief} == set(pair)
    assert {found.best, *found.equals} == {repr(visxai.methods.load(one)) for one in pair}
    assert found.rows[0].place.value == found.rows[1].place.value
    assert "can't be told from it" in found.describe()


def test_a_network_that_reads_nothing_recommends_nothing(folder: Path) -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0).mean((2, 3))

    blank = visxai.Engine(
        Constant().eval(), preprocess=WHOLE, device="cpu", precision="fp32", accelerate="off"
    )
    found = recommend(blank, [folder], [GOOD, SAME], METRICS, budget=4, target=0)
    assert not found.better_than_random
    assert "No method is better than a random map" in found.describe()


def test_files_that_are_no_pictures_are_told(engine: visxai.Engine, folder: Path) -> None:
    found = recommend(engine, [folder], [GOOD, SAME], METRICS, budget=64, target="class=0")
    assert found.images == 20
    assert [Path(str(one.path)).name for one in found.failed] == ["broken.png"]


def test_schedule_halves_candidates_and_doubles_images() -> None:
    assert schedule(18, 64) == [(18, 4), (9, 8), (5, 16), (3, 32), (2, 64)]
    assert schedule(2, 64) == [(2, 64)]
    assert schedule(9, 5) == [(9, 4), (5, 4), (3, 4), (2, 5)]


def test_candidates_are_those_that_a_model_serves(engine: visxai.Engine) -> None:
    specs = [repr(one) for one in candidates(engine)]
    assert any(spec.startswith("grad_cam(") for spec in specs)
    assert not any(spec.startswith("chefer") for spec in specs)
    assert any("window=8, stride=4" in spec for spec in specs)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metrics": ["pointing"]}, "judge a map alone"),
        ({"methods": [GOOD]}, "at least two methods"),
        ({"budget": 3}, "a budget of 4 images"),
        ({"target": "top2"}, "one class an image"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    engine: visxai.Engine, folder: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArgumentError, match=said):
        recommend(engine, [folder], **{"methods": [GOOD, SAME], "metrics": METRICS, **given})


def test_the_command_shows_a_table_and_how_to_go_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, words = tmp_path / "choice.json", ["recommend", str(folder), "--model", "digits_vit"]
    options = ["--methods", "legrad,chefer", "--metrics", "deletion(steps=4)", "--budget", "4"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, *options, "--json", str(told)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    found = json.loads(told.read_text("utf-8"))
    assert len(found["rows"]) == 3
    for row in found["rows"]:
        assert f"{row['images']}  {row['brief']}" in shown
        assert f"{row['figures']['deletion']['value']:.2f} ±" in shown
    command = f"visxai explain --model digits_vit --method {found['rows'][0]['brief']} {folder}"
    assert (command in shown) == found["better_than_random"]


def test_the_command_that_goes_on_has_what_the_choice_was_made_with(
    engine: visxai.Engine,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The network's evidence is known, so that its best method beats the random map.
    judged: Any = (engine, [GOOD, BAD[0]], list(METRICS))
    monkeypatch.setattr("visxai.cli.recommend.load_judged", lambda *_, **__: judged)
    one = tmp_path / "one more.png"
    one.write_bytes((folder / "00.png").read_bytes())
    options = {
        "--model": "onnx:my reds.onnx",
        "--checkpoint": "weights.pt",
        "--labels": "names.txt",
        "--layer": "patches",
        "--size": "32",
        "--resize": "36",
        "--mean": "-0.5,0,0",
        "--std": "1,1,1",
        "--interpolation": "box",
        "--device": "cpu",
        "--precision": "fp32",
        "--accelerate": "off",
        "--batch-size": "4",
        "--target": "class=0",
    }
    typed = [f"{name}={value}" for name, value in options.items()]
    with pytest.raises(SystemExit) as ended:
        cli.main(["recommend", str(folder), str(one), *typed, "--budget", "8"])
    assert ended.value.code == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:2] == ["visxai", "explain"]
    # What it says is what the command `explain` reads.
    explain: Any = typer.main.get_command(cli.app)
    with explain.commands["explain"].make_context("explain", words[2:]) as context:
        read = context.params
    assert list(read["paths"]) == [str(folder), str(one)]
    assert list(read["method"]) == ["occlusion(window=8, stride=8)"]
    for name, value in options.items():
        assert str(read[name[2:].replace("-", "_")]) == value


def test_what_runs_forwards_is_chosen_for_the_whole_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = visxai.Engine(Reds().eval(), preprocess=WHOLE, device="cpu", precision="fp32")
    planned: list[tuple[int, bool]] = []

    def plan(_: object, images: int, *, of_check: bool = False) -> str:
        planned.append((images, of_check))
        return ""

    monkeypatch.setattr(engine, "plan", plan)
    found = recommend(engine, [folder], [GOOD, SAME], METRICS, budget=8, target="class=0")
    # Two candidates and the control on 8 images; each map is judged by two curves of 8 steps.
    assert found.maps == 3 * 8
    judging = 12 * 2 * sum(metrics.load(one).forwards() for one in METRICS)
    assert planned == [(12, False), (judging, True)]
