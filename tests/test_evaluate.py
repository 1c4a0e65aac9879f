"""Evaluations: the bootstrap by hand, boxes through crops, stopped runs, hostile names, figures."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zoo
from PIL import Image

import visxai
from visxai import cli, metrics, results
from visxai.errors import ArgumentError, StoreError, UnknownName
from visxai.evaluate import pages, plots, statistics
from visxai.evaluate.evaluation import run
from visxai.evaluate.truth import Truth, mask
from visxai.images.preprocess import Preprocess
from visxai.labels import class_finder
from visxai.metrics.base import Case
from visxai.models.pytorch.model import TorchModel
from visxai.pipeline.progress import Progress
from visxai.references import Transform
from visxai.target import Target

METHODS = ["grad_cam", "saliency"]
METRICS = ["insertion(steps=4)", "deletion(steps=4)", "sparseness"]
LABELS = [f"thing {index}" for index in range(zoo.CLASSES)]
HOSTILE = "<img src=x onerror=alert(1)>|`*.jpg"


def photograph(path: Path, seed: int, size: tuple[int, int] = (90, 70)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, format="PNG")
    return path


@pytest.fixture(scope="module")
def small() -> visxai.Engine:
    """A small CNN that takes squares of 64 pixels cut from the middle."""
    model = TorchModel(
        zoo.randomise(zoo.Conv()),
        name="conv",
        preprocess=Preprocess(size=(64, 64), resize=70, std=(0.5, 0.5, 0.5)),
        labels=LABELS,
    )
    return visxai.Engine(model, precision="fp32", accelerate="off", batch_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(5):
        photograph(tmp_path / "in" / f"{index}.jpg", index, (90 + 10 * index, 70))
    return tmp_path / "in"


def evaluated(engine: visxai.Engine, paths: Any, out: Path, **options: Any) -> dict[str, Any]:
    options = {"chunk_size": 2, "draws": 50, "examples": 2, "workers": 0} | options
    given = options.pop("metrics", METRICS)
    found = run(engine, paths, options.pop("methods", METHODS), given, out, **options)
    assert found.summary is not None
    return found.summary


def figures(summary: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The value of each metric and method."""
    return {
        one["name"]: {entry["method"]: entry["value"] for entry in one["methods"]}
        for one in summary["metrics"]
    }


def test_the_bootstrap_of_two_images_is_known() -> None:
    # Of two images with 0 and 1 the drawn mean is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    values = np.array([[0.0, 3.0], [1.0, 4.0]])
    drawn = statistics.resampled(values, 4000, 0)
    chances = [float((drawn[:, 0] == mean).mean()) for mean in (0, 0.5, 1)]
    assert chances == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert np.array_equal(drawn[:, 1], drawn[:, 0] + 3)  # the same draws for every method
    first, second = statistics.intervals(values, 4000)
    assert (first.value, first.low, first.high) == (0.5, 0.0, 1.0)
    assert (second.value, second.low, second.high) == (3.5, 3.0, 4.0)
    apart = statistics.differences(values, 0, 100)
    assert apart[1] == statistics.Interval(3.0, 3.0, 3.0)  # paired: nothing is left to chance
    assert statistics.intervals(values, 100, 1) == statistics.intervals(values, 100, 1)


def test_ranks_share_ties_and_leave_out_what_has_no_figure() -> None:
    values = np.array([[1.0, 2.0, 2.0, np.nan], [1.0, 2.0, 2.0, np.nan]])
    high = [one.value for one in statistics.ranks(values, "higher", 20)]
    assert high[:3] == [3.0, 1.5, 1.5]
    assert np.isnan(high[3])
    assert [one.value for one in statistics.ranks(values, "lower", 20)][:3] == [1.0, 2.5, 2.5]
    certain = statistics.ranks(values, "higher", 20)[0]
    assert (certain.low, certain.high) == (3.0, 3.0)


def test_images_without_a_figure_count_for_nothing() -> None:
    values = np.array([[1.0], [np.nan], [3.0]])
    (found,) = statistics.intervals(values, 500)
    assert found == statistics.Interval(2.0, 1.0, 3.0)
    (none,) = statistics.intervals(np.full((3, 1), np.nan), 10)
    assert none.to_dict() == {"value": None, "low": None, "high": None}


# ---- labels and boxes ----------------------------------------------------------------------------

CSV = "file,left,top,right,bottom,label\nb/x.jpg,20,0,60,40,thing 3\nx.jpg,0,0,10,10,4\n"
COCO = {
    "images": [{"id": 7, "file_name": "b/x.jpg"}, {"id": 8, "file_name": "x.jpg"}],
    "categories": [{"id": 1, "name": "thing 3"}, {"id": 2, "name": "thing 4"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [20, 0, 40, 40]},
        {"image_id": 8, "category_id": 2, "bbox": [0, 0, 10, 10]},
        {"image_id": 8, "category_id": 2, "bbox": [0, 0, 99, 99], "iscrowd": 1},
    ],
}

SPACED = "File, Left, Top, Right, Bottom, Label\n" + CSV.partition("\n")[2]


@pytest.mark.parametrize("content", [CSV, "\ufeff" + CSV, SPACED, json.dumps(COCO)])
def test_csv_and_coco_say_the_same(tmp_path: Path, content: str) -> None:
    (tmp_path / "truth").write_text(content, "utf-8")
    truth, class_of = Truth.read(tmp_path / "truth"), class_finder(LABELS)
    assert truth.regions("/far/a/b/x.jpg", None, class_of) == [(20, 0, 60, 40)]
    assert truth.regions("/far/a/c/x.jpg", None, class_of) == [(0, 0, 10, 10)]
    assert truth.regions("/far/a/c/xx.jpg", None, class_of) == []
    assert truth.classes("/far/a/b/x.jpg", class_of) == [3]
    assert truth.regions("b/x.jpg", 3, class_of) == [(20, 0, 60, 40)]
    assert truth.regions("b/x.jpg", 4, class_of) == []


def test_boxes_go_through_resize_and_crop() -> None:
    # 200x100 -> 100x50, of which the 40x40 in the middle is seen: from (30, 5) on.
    view = Transform((100, 50), (30, 5, 40, 40))
    found = mask([(80, 30, 100, 50)], view, (200, 100))
    expected = np.zeros((40, 40), dtype=bool)
    expected[10:20, 10:20] = True
    assert np.array_equal(found, expected)
    # Padding: the view begins 10 pixels left of the image.
    padded = mask([(0, 0, 2, 4)], Transform((20, 40), (-10, 0, 40, 40)), (20, 40))
    assert np.array_equal(np.argwhere(padded)[0], [0, 10])
    assert padded.sum() == 8
    assert not mask([(0, 0, 20, 100)], view, (200, 100)).any()
    assert mask([(0, 0, 200, 100)], view, (200, 100)).all()


WRONG = [
    ("name,label\nx,1\n", "columns"),
    ("file,left,top,right,bottom\nx.jpg,5,0,1,9\n", "line 2"),
    ("file,left,top,right,bottom\nx.jpg,a,0,1,9\n", "line 2"),
    ("file,left,top,right,bottom\nx.jpg,0,0,inf,9\n", "line 2"),
    ('{"images": []}', "structure"),
    ('{"images": [], "annotations": [{"bbox": [0, 0, 1, 1], "image_id": 3}]}', "annotation 0"),
    ("{", "structure"),
]


@pytest.mark.parametrize(("content", "words"), WRONG)
def test_a_wrong_file_of_boxes_is_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "truth").write_text(content)
    with pytest.raises(ArgumentError, match=words):
        Truth.read(tmp_path / "truth")


def test_localisation_uses_the_boxes_of_the_class(
    small: visxai.Engine, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "truth.csv"
    # 0.jpg is 90x70, of which x from 13 and y from 3 are seen, 64 pixels each.
    file.write_text(
        "file,left,top,right,bottom,label\n0.jpg,13,3,45,67,thing 2\n0.jpg,45,3,77,67,thing 5\n"
    )
    summary = evaluated(
        small,
        [folder / "0.jpg"],
        tmp_path / "out",
        metrics=["energy_pointing"],
        truth=file,
        target="truth",
    )
    rows = list(results.read(tmp_path / "out"))
    assert sorted({row.class_index for row in rows}) == [2, 5]
    x = small.tensor([small.prepare(folder / "0.jpg").pixels])
    for row in rows:
        if row.method.startswith("saliency"):
            maps = small.attribute(x, row.method, [row.class_index])[0]
            half = maps[:, :32] if row.class_index == 2 else maps[:, 32:]
            expected = float(half.sum() / maps.sum())
            assert row.quality["energy_pointing"] == pytest.approx(expected, abs=1e-5)
    assert summary["settings"]["target"] == "truth"
    # Of any other target all boxes count: together they are the whole view.
    whole = evaluated(
        small,
        [folder],
        tmp_path / "all",
        metrics=["energy_pointing"],
        methods=["saliency"],
        truth=file,
    )
    (one,) = whole["metrics"]
    assert [(entry["value"], entry["count"]) for entry in one["methods"]] == [
        (pytest.approx(1), 1)
    ] * 3


def test_figures_are_those_of_the_metrics_themselves(
    small: visxai.Engine, folder: Path, tmp_path: Path
) -> None:
    summary = evaluated(small, [folder], tmp_path / "out")
    found = figures(summary)
    x = small.tensor([small.prepare(path).pixels for path in sorted(folder.iterdir())])
    maps = {}
    for spec in METHODS:
        method = visxai.methods.load(spec)
        maps[repr(method)] = method(small.model, x, Target.of("top1")).values
        case = Case(small.model, x, Target.of("top1"), maps[repr(method)], method)
        for name in METRICS:
            scores = metrics.load(name)(case)
            mean = float(scores.values.mean())
            assert found[name.partition("(")[0]][repr(method)] == pytest.approx(mean, abs=1e-5)
        (curve,) = (one for one in summary["curves"] if one["curve"] == "insertion")
        told = metrics.load(METRICS[0])(case)
        expected = told.curves["insertion"].mean(0)
        assert torch.tensor(curve["methods"][repr(method)]) == pytest.approx(expected, abs=1e-4)
        assert curve["axis"] == pytest.approx(told.axis.tolist(), abs=1e-5)
    first, second = maps.values()
    both = Case(small.model, x, Target.of("top1"), first, others=second)
    agreement = float(metrics.load("agreement")(both).values.mean())
    assert summary["agreement"][0][1] == pytest.approx(agreement, abs=1e-4)
    controls = [one["name"] for one in summary["methods"] if one["control"]]
    assert controls == ["centred_gaussian", "random_map"]
    text = (tmp_path / "out" / "rows.csv").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == summary["maps"] == 20
    mean = np.mean([float(r["deletion"]) for r in rows if r["method"].startswith("saliency")])
    assert mean == pytest.approx(
        next(v for k, v in found["deletion"].items() if k.startswith("saliency"))
    )


def test_neither_order_nor_chunks_change_a_figure(
    small: visxai.Engine, folder: Path, tmp_path: Path
) -> None:
    whole = evaluated(small, [folder], tmp_path / "a", chunk_size=5)
    backwards = sorted(folder.iterdir(), reverse=True)
    other = evaluated(small, backwards, tmp_path / "b", chunk_size=2)
    for one, two in zip(whole["metrics"], other["metrics"], strict=True):
        for a, b in zip(one["methods"], two["methods"], strict=True):
            for name in ("value", "low", "high"):
                assert a[name] == pytest.approx(b[name], abs=1e-5)


def test_a_stopped_run_goes_on_to_the_same_rows(
    small: visxai.Engine, folder: Path, tmp_path: Path
) -> None:
    evaluated(small, [folder], tmp_path / "whole")
    seen: list[Progress] = []

    def stop() -> bool:  # in the middle of the second chunk
        return seen[-1].done == 2 and seen[-1].part > 1

    given = {"chunk_size": 2, "draws": 50, "stop": stop, "progress": seen.append}
    stopped = run(small, [folder], METHODS, METRICS, tmp_path / "out", **given)
    told = [one.done + one.part for one in seen]
    assert told == sorted(told)
    assert 3 < told[-1] < 4
    assert stopped.summary is None
    assert not stopped.outcome.complete
    assert stopped.outcome.counts["finished"] == 2
    assert not (tmp_path / "out" / "evaluation.json").exists()
    evaluated(small, [folder], tmp_path / "out")

    def rows(out: Path) -> list[dict[str, Any]]:
        table = pq.read_table(out / "explanations")
        found: list[dict[str, Any]] = table.drop_columns(["created", "seconds"]).to_pylist()
        return found

    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    with pytest.raises(StoreError, match=r"metrics=.*fresh=True"):
        run(small, [folder], METHODS, ["insertion(steps=5)"], tmp_path / "out", chunk_size=2)
    evaluated(small, [folder], tmp_path / "out", metrics=["sparseness"], fresh=True)


def test_hostile_names_stay_text(small: visxai.Engine, tmp_path: Path) -> None:
    for index in range(2):
        photograph(tmp_path / "in" / f"{index}{HOSTILE}", index)
    (tmp_path / "in" / f"torn{HOSTILE}").write_bytes(b"\xff\xd8")
    labels, small.model.labels = small.model.labels, [f"=cmd|<script>{i}" for i in range(10)]
    try:
        summary = evaluated(small, [tmp_path / "in"], tmp_path / "out")
    finally:
        small.model.labels = labels
    assert len(summary["examples"]) == 2
    page = (tmp_path / "out" / "evaluation.html").read_text("utf-8")
    told = (tmp_path / "out" / "evaluation.md").read_text("utf-8")
    for text in (page, told):
        assert "<script" not in text
        assert "<img src=x" not in text
        assert "onerror=alert" in text
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    for line in told.splitlines():
        if HOSTILE[:4] in line or "onerror" in line:
            assert len(re.findall(r"(?<!\\)\|", line)) == 5
    assert [Path(str(one.path)).name for one in results.failures(tmp_path / "out")] == [
        f"torn{HOSTILE}"
    ]


def test_grids_are_judged_once_all_images_are_known(
    small: visxai.Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(5, 24):
        photograph(folder / f"{index}.jpg", index)
    spec = "grid_pointing(sure=0.0, grids=6)"
    given = {"metrics": [spec], "methods": ["saliency"], "chunk_size": 8}
    x = small.tensor([small.prepare(path).pixels for path in sorted(folder.iterdir())])
    # Scores that differ from class to class by nothing but the image: every class is some's first.
    scores = small.model.scores(x)
    apart = (scores - scores.mean(0)) / scores.std(0)
    head = small.model.module.get_submodule("head")
    monkeypatch.setattr(head.weight, "data", head.weight.data / scores.std(0)[:, None])
    bias = (head.bias.data - scores.mean(0)) / scores.std(0)
    monkeypatch.setattr(head.bias, "data", bias)
    assert len(apart.argmax(1).unique()) >= 4
    summary = evaluated(small, [folder], tmp_path / "out", **given)
    method = visxai.methods.load("saliency")
    case = Case(small.model, x, Target.of("top1"), method=method)
    expected = float(metrics.load(spec)(case).values.mean())
    assert figures(summary)["grid_pointing"][repr(method)] == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr("visxai.evaluate.grids.Grids.figures", lambda *_: pytest.fail("again"))
    evaluated(small, [folder], tmp_path / "out", **given)


def test_grids_can_be_stopped_between_methods(
    small: visxai.Engine, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []

    def figures(_: Any, metric: Any, method: Any, pool: Any) -> list[float]:
        judged.append(repr(method))
        return [0.5, 0.25]

    monkeypatch.setattr("visxai.evaluate.grids.Grids.figures", figures)
    asked = METHODS, ["grid_pointing(grids=2)"], tmp_path / "out"
    stopped = run(small, [folder], *asked, draws=50, stop=lambda: len(judged) == 1)
    assert stopped.summary is None
    assert not stopped.outcome.complete
    assert len(judged) == 1
    whole = run(small, [folder], *asked, draws=50)
    assert whole.summary is not None
    assert len(judged) == len(set(judged)) == 4


def test_wrong_arguments_are_told_before_anything_is_computed(
    small: visxai.Engine, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ArgumentError, match="give one with truth"):
        run(small, [folder], METHODS, ["pointing"], out)
    with pytest.raises(ArgumentError, match="leave it out"):
        run(small, [folder], METHODS, ["agreement"], out)
    with pytest.raises(UnknownName, match="insertion"):
        run(small, [folder], METHODS, ["insertoin"], out)
    (tmp_path / "t.csv").write_text("file,label\nnope.jpg,thing 1\n")
    with pytest.raises(ArgumentError, match=r"nope\.jpg"):
        run(small, [folder], METHODS, METRICS, out, truth=tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("file,label\n0.jpg,thnig 1\n")
    with pytest.raises(UnknownName, match="thing 1"):
        run(small, [folder], METHODS, METRICS, out, truth=tmp_path / "t.csv", target="truth")
    (tmp_path / "t.csv").write_text("file,label\n0.jpg,thing 1\n")
    with pytest.raises(ArgumentError, match="labels alone"):
        run(small, [folder], METHODS, ["pointing"], out, truth=tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("file,left,top,right,bottom\n0.jpg,0,0,9,9\n")
    with pytest.raises(ArgumentError, match="boxes alone"):
        run(small, [folder], METHODS, METRICS, out, truth=tmp_path / "t.csv", target="truth")
    assert not out.exists()


def test_the_command_line_evaluates_and_checks(
    small: visxai.Engine,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("visxai.engine.engine.Engine", lambda *_, **__: small)
    monkeypatch.chdir(tmp_path)

    def visxai_(*arguments: str) -> int:
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        return int(left.value.code or 0)

    given = ["evaluate", "in", "--metrics", ",".join(METRICS), "--draws", "20", "--out", "out"]
    assert visxai_(*given, "--methods", "grad_cam,occlusion(window=32, stride=16)") == 0
    printed = capsys.readouterr().out
    for words in ("grad_cam", "occlusion", "random_map", "out/evaluation.html"):
        assert words in printed
    assert visxai_(*given, "--methods", "grad_cam") == 2
    assert capsys.readouterr().err.count("\n") == 1
    check = ["--check", "faithfulness(steps=2, controls=2, grid=2)", "--workers", "0"]
    assert visxai_("explain", "in", "--out", "checked", *check) == 0
    assert "of 5 maps passed the check" in capsys.readouterr().out
    rows = list(results.read("checked"))
    assert {type(row.quality["faithful"]) for row in rows} == {bool}
    assert visxai_("explain", "in", "--out", "checked") == 2
    assert "check" in capsys.readouterr().err
    assert visxai_("explain", "in", "--out", "x", "--check", "pointing") == 2


def test_few_images_are_warned_of(small: visxai.Engine, folder: Path, tmp_path: Path) -> None:
    evaluated(small, [folder], tmp_path / "out")
    told = "Ranks and intervals from 5 images say little about others"
    assert told in (tmp_path / "out" / "evaluation.md").read_text()
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert told in page
    assert pages._warning({"images": 10}) == ""
    assert "1 image says" in pages._warning({"images": 1})
    # Plots lie on the page as if they were part of it.
    assert f"background: {plots.PAPER};" in page
    for name in ("ranks", "curves"):
        drawn = (tmp_path / "out" / f"{name}.svg").read_text()
        assert plots.PAPER in drawn
        assert "#ffffff" not in drawn


def test_zero_has_no_sign() -> None:
    assert [pages._number(value) for value in (-0.0001, 0.0, -0.002)] == [
        *("0.000", "0.000", "-0.002")
    ]


def test_markdown_marks_nothing_of_its_own() -> None:
    assert pages._told("a|b `c` <d> [e](f)\n*g*") == (r"a\|b \`c\` &lt;d&gt; \[e\](f)\\n\*g\*")


def test_a_file_name_that_is_no_text_and_has_no_label_is_a_failure(
    tmp_path: Path, small: visxai.Engine
) -> None:
    photograph(tmp_path / "in" / "known.jpg", 1)
    odd = tmp_path / "in" / os.fsdecode(b"\xff\n.jpg")
    try:
        photograph(odd, 2)
    except OSError:
        pytest.skip("this system's file names are text")
    (tmp_path / "truth.csv").write_text("file,label\nknown.jpg,thing 3\n")
    told = evaluated(
        small, [tmp_path / "in"], tmp_path / "out", target="truth", truth=tmp_path / "truth.csv",
        metrics=["sparseness"], workers=0,
    )  # fmt: skip
    assert told["images"] == 1
    (failed,) = results.failures(tmp_path / "out")
    assert "expected a label for" in failed.reason
    assert "\\udcff\\n.jpg" in failed.reason
