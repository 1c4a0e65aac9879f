"""The command line, as a user meets it: exit codes, one-sentence errors, kills and Ctrl-C."""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import typing
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import visxai
from visxai import cli, methods, pipeline, record, results
from visxai.cli import bench, catalogue, evaluate, explain, outputs, terminal
from visxai.cli import listings as listing
from visxai.errors import ArgumentError
from visxai.spec import split_specs

ROOT = Path(__file__).parent.parent


def photograph(path: Path, seed: int, size: tuple[int, int] = (90, 70)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def visxai_(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main([str(one) for one in arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


@pytest.fixture
def quick(engine: visxai.Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The default engine, already loaded, whatever is asked for; what was asked for."""
    asked: dict[str, Any] = {}

    def made(model: str, **options: Any) -> visxai.Engine:
        asked.update(options, model=model)
        return engine

    monkeypatch.setattr("visxai.engine.engine.Engine", made)
    return asked


@pytest.mark.usefixtures("quick")
def test_explain_leaves_results_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path / "in" / "a" / "cat.jpg", 1)
    photograph(tmp_path / "in" / "b" / "cat.jpg", 2)
    assert visxai_("explain", "in", "--out", "out", "--method", "grad_cam") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "a/cat.jpg" in printed.out
    assert "2 images in" in printed.out
    assert "out/explanations" in printed.out
    explained = list(results.read("out"))
    assert explained[0].label in printed.out
    assert f"{explained[0].score:.3f}" in printed.out
    assert sorted(path.name for path in Path("out/overlays").rglob("*.jpg")) == ["cat.jpg.jpg"] * 2
    for one in explained:
        jsonschema.Draft202012Validator(record.schema()).validate(
            json.loads(json.dumps(one.to_dict()))
        )
    (tmp_path / "in" / "torn.jpg").write_bytes(b"\xff\xd8")
    assert visxai_("explain", "in", "--out", "out", "--method", "grad_cam") == 1
    printed = capsys.readouterr()
    assert "2 were done before" in printed.out
    assert "1 failure" in printed.out
    assert "torn.jpg" in printed.out
    assert visxai_("explain", "in", "--out", "out", "--method", "saliency") == 2
    error = capsys.readouterr().err
    assert (
        "(--method grad_cam(relu=True)), got --method saliency(signed=False): give those" in error
    )
    assert "choose another --out, or --fresh to delete" in error
    assert "fresh=True" not in error
    assert error.count("\n") == 1
    assert visxai_("explain", "in", "--out", "out", "--method", "saliency", "--fresh") == 1
    assert {one.method.partition("(")[0] for one in results.read("out")} == {"saliency"}


def test_options_reach_the_engine_and_the_run(tmp_path: Path, quick: dict[str, Any]) -> None:
    image = photograph(tmp_path / "cat.png", 1)
    options = ["--method", "grad_cam,occlusion(window=160, stride=64)", "--target", "top2"]
    options += ["--model", "timm:resnet18", "--layer", "layer4", "--labels", "names.txt"]
    options += ["--checkpoint", "mine.safetensors", "--device", "cpu", "--precision", "fp32"]
    options += ["--batch-size", "16", "--chunk-size", "32", "--workers", "0", "--panel"]
    options += ["--accelerate", "off", "--only", "top1>0.0"]
    options += ["--overlay-format", "png", "--colormap", "viridis", "--limit-pixels", "6300"]
    out = tmp_path / "out"
    assert visxai_("explain", image, "--out", out, "--method", "saliency", *options) == 0
    assert quick == {
        "model": "timm:resnet18",
        "layer": "layer4",
        "labels": "names.txt",
        "checkpoint": "mine.safetensors",
        "device": "cpu",
        "precision": "fp32",
        "accelerate": "off",
        "batch_size": 16,
    }
    run = json.loads((out / "run.json").read_text())
    settings = run["settings"]
    assert [one.partition("(")[0] for one in settings["methods"]] == [
        "saliency",
        "grad_cam",
        "occlusion",
    ]
    assert (settings["target"], settings["chunk"], settings["max_pixels"]) == ("top2", 32, 6300)
    assert (settings["only"], settings["accelerate"]) == ("top1>0.0", "off (asked for)")
    assert settings["overlays"] == {"format": "png", "colormap": "viridis", "panel": True}
    assert run["command"].startswith("visxai explain ")
    assert len(list((out / "overlays").iterdir())) == 6
    photograph(tmp_path / "large.png", 1, (100, 70))
    assert (
        visxai_("explain", tmp_path / "large.png", "--limit-pixels", 6300, "--out", out / "x") == 1
    )


WRONG = [
    (["explain"], "Missing argument 'SOURCE'"),
    (["explain", "nope"], "check the path"),
    (["explain", "bare"], "got none below"),
    (["explain", "in", "--method", "gradcm"], "did you mean grad_cam"),
    (["explain", "in", "--method", "grad_cam,,saliency"], "between the commas"),
    (["explain", "in", "--method", "occlusion(windw=3)"], "window"),
    (["explain", "in", "--target", "class=tabyy"], "tabby"),
    (["explain", "in", "--target", "class=5000"], "from 0 to 999"),
    (["explain", "in", "--target", "best"], "top1, top3"),
    (["explain", "in", "--overlay-format", "gif"], "jpg, webp, png, none"),
    (["explain", "in", "--out", "in"], "as source and --out"),
    (["explain", "in", "--only", "class=zzz>0.5"], "one of 1000"),
    (["explain", "in", "--overlay-format", "none", "--panel"], "--panel"),
    (["explain", "in", "--colormap", "rainbow"], "turbo"),
    (["explain", "in", "--batch-size", "0"], "--batch-size"),
    (["explain", "in", "--chunk-size", "17"], "multiple of the batch size"),
    (["explain", "in", "--frsh"], "--fresh"),
    (["explain", "in", "--out", "in/x.jpg"], "another --out"),
    (["expalin", "in"], "explain"),
    (["models", "nope"], "efficientnet_lite0"),
    (["models", "fetch", "efficientnet_lite0"], "installed"),
    (["methods", "gradcm"], "did you mean grad_cam"),
    (["evaluate", "in", "--metrics", "insertoin"], "did you mean insertion"),
    (["evaluate", "in", "--metrics", "pointing"], "--truth"),
    (["evaluate", "in", "--methods", "gradcm"], "did you mean grad_cam"),
    (["evaluate", "in", "--target", "truth"], "--truth"),
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(one[0]) for one in WRONG])
def test_wrong_arguments_are_one_sentence_and_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path / "in" / "x.jpg", 1)
    (tmp_path / "bare").mkdir()
    assert visxai_(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("visxai: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "resnet50"], "did you mean torchvision:resnet50 or timm:resnet50"),
        (["--model", "efficientnet_lite9"], "did you mean efficientnet_lite0"),
        (["--model", "here/net.onnx"], "did you mean onnx:here/net.onnx"),
        (["--model", "google/vit"], "did you mean hf:google/vit"),
        (["--model", "nothing"], "timm:NAME, hf:NAME, onnx:FILE or keras:FILE"),
        (["--model", "timmm:resnet18"], "timm"),
        (["--layer", "conv_hed"], "did you mean conv_head or conv_stem? (late ones are bn2,"),
        (["--layer", "nope"], "choose one of: bn2, bn2.act, conv_head, blocks, blocks.6 (late"),
        (["--labels", "nope.txt"], "nope.txt"),
        (["--device", "cuda:99"], "device='auto'"),
        (["--precision", "int8"], "bf16, fp16, got 'int8': use 'auto'"),
        (["--checkpoint", "nope.pth"], "name the architecture"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_the_engine_refuses_is_one_sentence_too(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photograph(tmp_path / "x.jpg", 1)
    assert visxai_("explain", image, "--out", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explain", "--method", "gradcm"], "did you mean grad_cam"),
        (["explain", "--methods", "grad_cam", "--method", "saliency(x=1)"], "option of saliency"),
        (["explain", "--check", "faithful"], "did you mean faithfulness"),
        (["explain", "--target", "best"], "expected a target"),
        (["explain", "--only", "nsfw"], "expected a condition on scores"),
        (["evaluate", "--methods", "grad_cam", "--method", "gradcm"], "did you mean grad_cam"),
        (["evaluate", "--metrics", "insertoin"], "did you mean insertion"),
        (["evaluate", "--target", "best"], "expected a target"),
        (["bench", "--methods", "grad_cam", "--method", "gradcm"], "did you mean grad_cam"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_misspelt_is_told_before_a_model_is_loaded(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "visxai.models.loading.load", lambda *_, **__: pytest.fail("loaded the model")
    )
    image = photograph(tmp_path / "x.jpg", 1)
    command, *options = arguments
    where = [] if command == "bench" else [image, "--out", tmp_path / "out"]
    assert visxai_(command, *where, *options) == 2
    assert words in capsys.readouterr().err


def test_labels_that_dont_fit_the_model_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = photograph(tmp_path / "x.jpg", 1)
    for names, words in (("cat\ndog\n", "expected 1000 names"), ("", "found none")):
        (tmp_path / "names.txt").write_text(names)
        options = ["--labels", tmp_path / "names.txt", "--out", tmp_path / "out"]
        assert visxai_("explain", image, *options) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="check the path"):
        cli.main(["explain", str(tmp_path / "nope"), "--debug"])


def test_a_bug_is_one_sentence_and_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("by nought\nand more")

    monkeypatch.setattr(catalogue, "models", broken)
    assert visxai_("models") == 1
    error = capsys.readouterr().err
    assert error == (
        "visxai: ZeroDivisionError: by nought (run it again with --debug to see where)\n"
    )


@pytest.mark.parametrize("width", [80, 200])
def test_tables_fit_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in (["methods"], ["models"], ["models", "efficientnet_lite0"], ["doctor"]):
        assert visxai_(*arguments) == 0
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= width
        if arguments == ["methods"]:
            for name in methods.names():
                assert re.search(rf"^{name}\b", printed, re.MULTILINE)
    assert visxai_("methods", "occlusion") == 0
    printed = capsys.readouterr().out
    assert "Zeiler" in printed
    assert "window=32" in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert visxai_("--version") == 0
    assert capsys.readouterr().out == f"visxai {visxai.__version__}\n"


def test_every_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    listed = (listing.methods, listing.doctor, listing._show, listing._fetch)
    made = (outputs.report, outputs.export)
    for function in (explain.explain, evaluate.evaluate, bench.bench, *listed, *made, cli._visxai):
        for name, hint in typing.get_type_hints(function, include_extras=True).items():
            if name in ("return", "context"):
                continue
            (option,) = hint.__metadata__
            assert len(option.help) > 10, f"{function.__name__} {name}"
    assert visxai_("explain", "--help") == 0
    printed = capsys.readouterr().out
    for name in inspect.signature(explain.explain).parameters:
        assert name == "paths" or f"--{name.replace('_', '-')}" in printed
    assert visxai_() == 0
    printed = capsys.readouterr().out
    for command in ("explain", "evaluate", "methods", "models", "doctor"):
        assert re.search(rf"\b{command}\b", printed)


def test_specs_are_split_at_outer_commas() -> None:
    text = "grad_cam, occlusion(window=(3, 4), baseline='a,b(') ,saliency"
    assert split_specs(text) == [
        "grad_cam",
        "occlusion(window=(3, 4), baseline='a,b(')",
        "saliency",
    ]


def test_progress_is_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from visxai.pipeline.progress import Progress

    monkeypatch.setattr(terminal, "_EVERY", 0.0)
    with terminal.Watch() as watch:
        watch(Progress(images=1200, done=300, before=100, maps=198, failures=2, seconds=10.0))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "300/1200 images, 20.0 images/s, 45 s left, 2 failed\n"
    assert terminal.duration(200) == "3 min 20 s"
    assert terminal.duration(18120) == "5 h 02 min"


def test_the_command_line_starts_without_torch() -> None:
    code = (
        "import sys, visxai.cli; heavy = {'torch', 'numpy', 'PIL', 'pyarrow', 'cv2'}; "
        "sys.exit(' '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class Run:
    """`python -m visxai explain` in a process group of its own."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.out = out
        options = ["--batch-size", "4", "--chunk-size", "4", "--workers", "2", "--device", "cpu"]
        command = [sys.executable, "-m", "visxai", "explain", folder, "--out", out, *options]
        self.process = subprocess.Popen(
            [*map(str, command), "--precision", "fp32", "--accelerate", "off"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"VISXAI_TEST_RUN": self.mark},
            start_new_session=True,
        )

    def parts(self) -> int:
        return len(list((self.out / "explanations").glob("part-*.parquet")))

    def wait_for_parts(self, count: int) -> None:
        end = time.monotonic() + 120
        while self.parts() < count and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)

    def survivors(self) -> list[int]:
        """The processes of this run that are still there."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def rows(out: Path) -> list[dict[str, Any]]:
    table = pq.read_table(out / "explanations")
    found: list[dict[str, Any]] = table.drop_columns(["created", "seconds"]).to_pylist()
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_at_any_moment_a_run_goes_on_to_the_same_rows(
    tmp_path: Path, engine: visxai.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(36):
        photograph(tmp_path / "in" / f"{index:02d}.jpg", index % 30)
    (tmp_path / "in" / "20.jpg").write_bytes(b"torn")
    # The whole run in this process: neither processes nor kills may change a bit.
    monkeypatch.setattr(engine, "batch_size", 4)
    pipeline.explain([tmp_path / "in"], tmp_path / "whole", engine, chunk_size=4, workers=0)
    rng = random.Random(20260101)
    for kill in range(2):
        run = Run(tmp_path / "in", tmp_path / "killed")
        run.wait_for_parts(1 + 5 * kill)
        time.sleep(rng.random() * 0.3)
        run.process.kill()
        run.process.communicate()
        for part in (tmp_path / "killed" / "explanations").glob("part-*.parquet"):
            pq.read_table(part)
        end = time.monotonic() + 20
        while run.survivors() and time.monotonic() < end:
            time.sleep(0.05)
        assert not run.survivors()
    last = Run(tmp_path / "in", tmp_path / "killed")
    said = last.process.communicate()
    assert last.process.returncode == 1, said
    assert "done before" in said[0]
    found = rows(tmp_path / "killed")
    assert found == rows(tmp_path / "whole")
    assert len({row["path"] for row in found}) == len(found) == 35
    assert [one.path for one in results.failures(tmp_path / "killed")] == [
        str(tmp_path / "in" / "20.jpg")
    ]
    names = [
        sorted(p.name for p in (tmp_path / n / "overlays").iterdir()) for n in ("whole", "killed")
    ]
    assert names[0] == names[1]
    assert not list((tmp_path / "killed").rglob("*.part"))


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process group")
def test_control_c_stops_after_the_batch_and_says_how_to_go_on(tmp_path: Path) -> None:
    for index in range(200):
        photograph(tmp_path / "in" / f"{index:03d}.jpg", index)
    run = Run(tmp_path / "in", tmp_path / "out")
    run.wait_for_parts(1)
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: workers get it too
    out, error = run.process.communicate(timeout=120)
    assert run.process.returncode == 130, (out, error)
    assert "Stopping after this batch" in error
    assert "Traceback" not in error
    assert re.search(r"Stopped: \d+ of 200 images are finished and kept; go on with: visxai ", out)
    state = json.loads((tmp_path / "out" / "run.json").read_text())
    assert state["state"] == "interrupted"
    assert 4 <= state["counts"]["finished"] < 200
    assert len(rows(tmp_path / "out")) == state["counts"]["finished"]
    assert not run.survivors()


@pytest.mark.usefixtures("quick")
def test_failures_of_earlier_sources_are_no_failure_of_a_later_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"torn")
    for index in range(2):
        photograph(tmp_path / f"{index}.jpg", index)

    def explain(*names: str) -> tuple[Any, str]:
        given = [*(str(tmp_path / name) for name in names), "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as left:
            cli.main(["explain", *given])
        return left.value.code, capsys.readouterr().out

    status, said = explain("torn.jpg", "0.jpg")
    assert (status, "failed expected" in said) == (1, True)
    status, said = explain("1.jpg")
    assert (status, "failed expected" in said) == (0, False)
    assert "1 of earlier sources" in said
    status, said = explain("torn.jpg")
    assert (status, "failed expected" in said) == (1, True)
    assert "earlier sources" not in said


def test_a_strangers_text_steers_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J"
    photograph(tmp_path / "in" / f"a{hostile}.png", 1)
    (tmp_path / "in" / f"b{hostile}.png").write_bytes(b"no image")
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"label {hostile}\n" for _ in range(1000)))
    arguments = ("explain", str(tmp_path / "in"), "--out", str(tmp_path / f"out{hostile}"))
    assert visxai_(*arguments, "--labels", str(labels)) == 1
    assert visxai_("report", str(tmp_path / f"out{hostile}")) == 0
    assert visxai_("export", str(tmp_path / f"out{hostile}")) == 0
    assert visxai_("report", str(tmp_path / f"none{hostile}")) == 2
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert not set(text) & {"\x1b", "\x07"}
    assert "\\x1b]0;owned" in told.out
    assert "\\x1b]0;owned" in told.err


def test_the_doctor_tells_of_the_sandbox(capsys: pytest.CaptureFixture[str]) -> None:
    assert visxai_("doctor") == 0
    assert "limits on workers" in " ".join(capsys.readouterr().out.split())


def test_a_group_without_a_command_prints_its_help_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["govern"])
    told = "".join(capsys.readouterr())
    assert left.value.code == 2
    assert "fairness" in told
    assert "(see " not in told
