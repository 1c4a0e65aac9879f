"""Measuring: contests, spreads, peaks of memory, reports and their comparison, the command."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo

import visxai
from visxai import bench, cli
from visxai.bench import cases, measure, report
from visxai.errors import ArgumentError

OCCLUSION = "occlusion(window=32, stride=32)"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every engine that is asked for is one of the tiny network; how each was to be accelerated."""
    asked: list[str] = []

    def engine(self: bench.Setup, accelerate: str, precision: str) -> visxai.Engine:
        asked.append(accelerate)
        return visxai.Engine(
            zoo.module("conv"),
            preprocess=zoo.PREPROCESS,
            precision="fp32" if precision == "auto" else precision,
            accelerate=accelerate,
        )

    monkeypatch.setattr(bench.Setup, "engine", engine)
    return asked


def setup(**given: Any) -> bench.Setup:
    usual: dict[str, Any] = {
        "methods": ("grad_cam",),
        "accelerate": ("off",),
        "seconds": 0.05,
        "memory": False,
    }
    return bench.Setup(**{**usual, **given})


def test_contestants_run_in_turn() -> None:
    ran: list[str] = []
    works = {name: partial(ran.append, name) for name in "ab"}
    seconds = measure.contest(works, rounds=3, warm_up=1, device="cpu")
    assert "".join(ran) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}


def test_a_limit_ends_a_contest_after_three_rounds() -> None:
    calls: list[int] = []
    seconds = measure.contest({"a": lambda: calls.append(1)}, 100, 0, limit=0.0, device="cpu")
    assert len(seconds["a"]) == len(calls) == 3
    once = measure.contest({"a": list}, 100, 0, limit=0.0, fewest=1, device="cpu")
    assert len(once["a"]) == 1


def test_ratios_are_taken_round_by_round() -> None:
    # A machine twice as slow in the second half changes no ratio.
    seconds = {"a": [1.0, 1.0, 2.0, 2.0], "b": [3.0, 3.0, 6.0, 6.0]}
    assert measure.ratio(seconds, "a", "b") == {"median": 3.0, "low": 3.0, "high": 3.0}
    assert measure.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert measure.spread([2.0]) == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert measure.percentile(range(1, 101), 0.95) == 96
    assert measure.percentile([5.0], 0.95) == 5.0


def allocates(mib: int) -> measure.Work:
    kept = torch.ones(64, 2**18)  # loaded before: not counted
    return lambda: torch.ones(mib, 2**18).sum() + kept[0, 0]


def test_the_peak_is_what_the_call_adds() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system doesn't tell a process its peak of memory")
    found = measure.peak_increase(partial(allocates, 100))
    assert found is not None
    assert 95 <= found <= 125


def test_the_environment_names_versions_and_threads() -> None:
    found = measure.environment("cpu")
    assert torch.__version__.startswith(found["torch"])
    assert found["threads"] == torch.get_num_threads()
    assert found["gpu"] == "not measured"
    json.dumps(found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_timed_by_events_and_weighed_by_its_allocator() -> None:
    x = torch.ones(2048, 2048, device="cuda")
    assert 0 < measure.timed(lambda: x @ x, torch.device("cuda")) < 1
    assert measure.allocator_peak(lambda: torch.ones(16, 2**18, device="cuda")) >= 16
    found = measure.environment("cuda")
    assert found["gpu"] == torch.cuda.get_device_name()
    assert found["driver"]


def test_a_report_has_every_case(
    small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra onnx")
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path))
    monkeypatch.setattr(
        cases, "METHODS", ("grad_cam", "integrated_gradients(steps=4)", OCCLUSION, "legrad")
    )
    found = bench.run(setup(methods=(), batches=(1, 2), accelerate=("off", "onnx")), steps.append)
    assert small == ["off", "onnx"]
    assert [name.partition("(")[0] for name in found["left_out"]] == ["legrad"]
    measured = {
        (c["method"].partition("(")[0], c["batch"], c["accelerate"]) for c in found["cases"]
    }
    named = {"grad_cam", "integrated_gradients", "occlusion"}
    assert measured == {(m, b, a) for m in named for b in (1, 2) for a in ("off", "onnx")} | {
        ("forward", 1, "off"),
        ("forward", 2, "off"),
    }
    for case in found["cases"]:
        assert case["rounds"] >= 3
        assert 0 < case["p50"] <= case["p95"]
        assert case["images_per_second"] > 0
        assert case["of_forward"]["low"] <= case["of_forward"]["median"]
        assert case["peak_mib"] is None
    fast = next(
        c for c in found["cases"] if c["accelerate"] == "onnx" and "grad_cam" in c["method"]
    )
    assert fast["ran"] == "onnx below the layer"
    assert any("occlusion" in step and "batch 2" in step for step in steps)
    assert json.loads(json.dumps(found)) == found


def test_precisions_and_models_stand_in_one_table(small: list[str], tmp_path: Path) -> None:
    steps: list[str] = []
    given = setup(model="a,b", precision="fp32,bf16", accelerate=("off", "onnx"), batches=(1,))
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        pytest.skip("needs the extra onnx")
    found = bench.run(given, steps.append)
    forms = {(c["accelerate"], c["precision"]) for c in found["cases"] if c["method"] != "forward"}
    assert forms == {("off", "fp32"), ("onnx", "fp32"), ("off", "bf16")}
    assert len(found["cases"]) == 2 * (3 + 1)  # of each model, and its forward
    assert [name.endswith("onnx in bf16") for name in found["left_out"]] == [True]
    assert found["precision"] == "fp32, bf16"
    assert any("about" in step and "second" in step for step in steps)
    assert "looking at b" in steps[: steps.index("loading a")]  # a wrong name costs no measurement
    table = bench.markdown(found)
    assert "| model | method |" in table
    assert "| off, bf16 |" in table
    assert bench.compare(found, found)[0][0].model
    bench.plots(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_what_can_not_be_measured_is_said_at_once(small: list[str], tmp_path: Path) -> None:
    steps: list[str] = []
    with pytest.raises(ArgumentError, match="legrad needs attention"):
        bench.run(setup(model="a,b", methods=("grad_cam", "legrad")), steps.append)
    assert not [step for step in steps if "about" in step]
    with pytest.raises(ArgumentError, match=r"serves the precision, got none \(onnx in bf16"):
        bench.run(setup(precision="bf16", accelerate=("onnx",)))
    with pytest.raises(ArgumentError, match=r"no such file or directory: check the path"):
        bench.read(tmp_path / "nothing.json")


def test_a_single_round_has_no_quartiles(small: list[str]) -> None:
    given = setup(methods=("grad_cam",), batches=(1,), accelerate=("off",), rounds=1, seconds=1e-9)
    found = bench.run(given)
    single = [case for case in found["cases"] if case["rounds"] == 1]
    assert single
    rows = report.rows({**found, "cases": single})
    assert {(row["± %"], row["quartiles"]) for row in rows} == {("-", "-")}


def test_a_cell_of_minutes_is_left_out_by_name(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cases, "timed", lambda *_: 1.0)  # second a row
    found = bench.run(setup(methods=("rise(masks=200)", "grad_cam"), batches=(1,)))
    ((name, why),) = found["left_out"].items()
    assert name.startswith("rise(")
    assert name.endswith(", batch 1")
    assert why == "a call would take about 3 minutes"
    assert {c["method"].partition("(")[0] for c in found["cases"]} == {"grad_cam", "forward"}
    found = bench.run(setup(methods=("rise(masks=200)",), batches=(1,), longest=2))
    assert found["cases"] == []
    report.tell(found, None, None, "")
    assert "left out: rise, batch 1: a call would take about 3 minutes" in capsys.readouterr().out


def test_weights_are_drawn_the_same_every_time() -> None:
    before = torch.get_rng_state()
    given = {"model": "timm:test_vit", "weights": False, "methods": ("grad_cam",)}
    one, other = (setup(**given).engine("off", "fp32").model for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.ref.weights_sha256 == other.ref.weights_sha256
    assert one.scores(zoo.inputs(1, 160)).any()  # timm draws a head of zeros


def test_wrong_settings_are_told_before_anything_runs(small: list[str]) -> None:
    for given in (
        {"batches": (0,)},
        {"accelerate": ("fast",)},
        {"methods": ("gradcm",)},
        {"precision": "fp32,half"},
        {"methods": ("legrad",)},  # this network has no attention
        {"seconds": 0},
        {"longest": 0},
        {"rounds": 0},
    ):
        with pytest.raises(ArgumentError):
            bench.run(setup(**given))
    assert len(small) <= 1


def made(**medians: float) -> dict[str, Any]:
    """A report whose methods take these seconds, quartiles 10 % apart."""
    cases = []
    for method, median in medians.items():
        seconds = {"median": median, "low": 0.95 * median, "high": 1.05 * median}
        cases.append(
            {
                "method": method,
                "batch": 8,
                "accelerate": "off",
                "precision": "fp32",
                "rounds": 7,
                "seconds": seconds,
                "p50": median,
                "p95": median,
                "images_per_second": 8 / median,
                "of_forward": {"median": 1.0, "low": 1.0, "high": 1.0},
                "peak_mib": 12.0,
            }
        )
    return {
        "visxai_bench": 1,
        "environment": measure.environment("cpu"),
        "model": "conv",
        "weights_sha256": "0" * 64,
        "device": "cpu",
        "precision": "fp32",
        "input": [3, 64, 64],
        "left_out": {},
        "cases": cases,
    }


def test_what_got_slower_is_told_beyond_noise() -> None:
    old = made(grad_cam=1.0, occlusion=1.0, saliency=1.0, forward=1.0)
    new = made(grad_cam=1.1, occlusion=1.2, saliency=0.8, lime=3.0, forward=1.0)
    changes, cautions = bench.compare(new, old)
    # Both spreads are 10 %: together 14 %.
    assert [round(change.noise, 3) for change in changes] == [0.141] * 4
    told = {change.method: (change.slower, change.faster) for change in changes}
    assert told == {
        "occlusion": (True, False),
        "grad_cam": (False, False),
        "forward": (False, False),
        "saliency": (False, True),
    }
    assert "occlusion, batch 8, off, fp32: slower, 1.20 times the seconds" in str(changes[0])
    assert cautions == []
    other = copy.deepcopy(old)
    other["environment"]["threads"] = 99
    _, cautions = bench.compare(made(forward=2.0), other)
    assert any(caution.startswith("threads was 99, is ") for caution in cautions)
    assert any("2.00 times as long itself" in caution for caution in cautions)
    assert bench.compare(made(lime=1.0), old)[1] == ["the reports have no case in common"]


def test_reports_are_written_with_a_summary_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra bench")
    found = made(grad_cam=0.5, forward=0.25)
    written = report.write(found, tmp_path / "new" / "bench.json")
    assert [path.name for path in written] == ["bench.json", "bench.md", "bench.png"]
    assert bench.read(written[0]) == found
    summary = written[1].read_text("utf-8")
    assert "| grad_cam | 8 | off | 500.0 |" in summary
    assert "GPU: not measured." in summary
    assert f"- torch: {found['environment']['torch']}" in summary
    assert written[2].read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "other.json").write_text("{}")
    for path in (tmp_path / "other.json", tmp_path / "none.json"):
        with pytest.raises(ArgumentError, match="visxai bench"):
            bench.read(path)


def visxai_(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(one) for one in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.mark.usefixtures("small")
def test_the_command_prints_writes_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--methods", f"grad_cam,{OCCLUSION}", "--seconds", 0.05]
    options += ["--batch-sizes", "1,2", "--accelerate", "off", "--no-memory"]
    assert visxai_("bench", *options, "--out", "bench.json") == 0
    printed = capsys.readouterr()
    assert "grad_cam(relu=True), batch 1" in printed.err
    assert "figures of the CPU" in printed.out
    assert "images/s" in printed.out
    assert all(len(line) <= 80 for line in printed.out.splitlines() if "forward" in line)
    found = bench.read("bench.json")
    assert found["command"].startswith("visxai bench --methods")
    assert len(found["cases"]) == 6
    assert Path("bench.md").is_file()
    for case in found["cases"]:  # as if it had been a hundred times as fast
        for name in case["seconds"]:
            case["seconds"][name] /= 100
    Path("old.json").write_text(json.dumps(found))
    assert visxai_("bench", *options, "--compare", "old.json") == 1
    assert "slower" in capsys.readouterr().out
    assert visxai_("bench", *options, "--compare", "nothing.json") == 2
    assert visxai_("bench", "--batch-sizes", "1,two") == 2
    assert "between the commas of --batch-sizes" in capsys.readouterr().err


def test_every_option_of_the_command_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    import inspect
    import typing

    for name, hint in typing.get_type_hints(cli.bench.bench, include_extras=True).items():
        if name != "return":
            (option,) = hint.__metadata__
            assert len(option.help) > 10, name
    assert visxai_("bench", "--help") == 0
    printed = capsys.readouterr().out
    for name in inspect.signature(cli.bench.bench).parameters:
        assert f"--{name.replace('_', '-')}" in printed


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    for package in ("captum", "torchcam", "pytorch_grad_cam", "skimage"):
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peers

    yield peers
    for name in ("peers", "contestants", "measure"):
        sys.modules.pop(name, None)


def test_rows_say_whether_their_bar_is_met(peers: Any, tmp_path: Path) -> None:
    reached = {"median": 2.5, "low": 2.0, "high": 3.0}
    rows = [
        peers.row("a", 2.0, reached, difference=1e-6),
        peers.row("b", 2.0, reached, most=True),
        peers.row("c", None, reached),
    ]
    assert [one["met"] for one in rows] == [True, False, None]
    assert "| b | ≥ 2 × |".replace("≥", "≤") in peers.table(rows)
    assert peers.table(rows).count("**no**") == 1


def test_the_readme_gets_one_line_for_each_comparison(peers: Any, tmp_path: Path) -> None:
    def row(what: str, bar: float | None, median: float) -> Any:
        return peers.row(what, bar, {"median": median, "low": median, "high": median})

    rows = [
        row("cam, batch 8: plain, of the fastest peer (captum)", None, 1.5),
        row("cam, batch 8: accelerated, of the fastest peer (captum)", 2.0, 2.5),
        row(
            "cam, batch 8: plain, of the fastest peer (torchcam), freed memory kept by all", 1, 1.1
        ),
        row("visxai --help", 1.0, 0.2),
    ]
    readme, source = tmp_path / "README.md", tmp_path / "peers.json"
    source.write_text(json.dumps({"rows": {"cam": rows}}))
    readme.write_text(f"# Speed\n\n{peers.START}\n{peers.END}\n\n## Next\n")
    for _ in range(2):  # the second time replaces
        peers.into_readme(readme, source)
        text = readme.read_text()
        assert text.count("| cam, batch 8, of the fastest peer | ≥ 2 × | 1.5 | 2.5 | 1.1 |  |") == 1
        assert text.endswith(f"{peers.END}\n\n## Next\n")


def test_peers_make_the_same_maps(peers: Any) -> None:
    import contestants

    module, x = zoo.module("resnet18"), zoo.inputs(2)
    classes = [3, 5]
    engine = visxai.Engine(module, precision="fp32", accelerate="off", layer="layer4")
    ours = engine.attribute(x, "grad_cam", classes)
    for make in (contestants.captum_grad_cam, contestants.torchcam_grad_cam):
        theirs = make(copy.deepcopy(module), "layer4", x, classes)()
        assert contestants.difference(ours, theirs) <= 1e-4
    theirs = contestants.captum_occlusion(module, x, classes, 32, 16, 4)()
    ours = engine.attribute(x, "occlusion(window=32, stride=16)", classes)
    assert contestants.difference(ours, theirs) <= 1e-4
