"""Do what a newcomer does by the README, time it, and write down what was seen.

    python scripts/trials.py [--write] [NAME ...]

Each trial is a few files and commands in a new folder, typed as the README and the pages that it
links to show them, in a process each. A trial holds when every command ends with the exit code that
stands beside it and prints what it should. With --write the records of the trials that were done
replace theirs in benchmarks/results/trials.json, of which docs/trials.md is made. Needs the extras
demo, serve, onnx, tables and notebooks, and timm. The environment is the one that runs the script;
the wheel in a new one is tested by `tests/test_package.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "trials.md"
RESULTS = ROOT / "benchmarks" / "results" / "trials.json"
LIMIT = 900  # seconds a command may take


@dataclass(frozen=True)
class Command:
    """A command line, the exit code that it should have, and a pattern that it should print."""

    line: str
    prints: str
    code: int = 0


@dataclass(frozen=True)
class Trial:
    """A thing that a newcomer wants, with what they type for it."""

    name: str
    wants: str
    commands: list[Command]
    files: dict[str, str] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()  # files that must be there afterwards
    needs: tuple[str, ...] = ()  # trials that it builds on


def one_sentence(*lines: str) -> list[Command]:
    """Commands that are wrong: each answers by one sentence and exit code 2."""
    return [Command(line, r"\Avisxai: [^\n]+\n\Z", 2) for line in lines]


MODEL = """
import torch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
torch.manual_seed(0)
my_module = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU(),
    torch.nn.Conv2d(8, 16, 3, stride=2, padding=1), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 2),
)
"""
OWN = (
    MODEL
    + """
import visxai

engine = visxai.Engine(
    my_module,
    preprocess=visxai.Preprocess(size=(224, 224), resize=256, mean=MEAN, std=STD),
    labels=["cat", "dog"],
)
x = torch.randn(2, 3, 224, 224)
maps = engine.attribute(x, method="integrated_gradients", target=torch.tensor([1, 0]))
print(engine.explain("photos/chelsea.jpg")[0].label, tuple(maps.shape))
"""
)
FIVE = """
import visxai

engine = visxai.Engine()
images = ["photos/chelsea.jpg", "photos/coffee.jpg"]
for found in engine.explain(images, method="grad_cam", target="top1"):
    print(found.label, found.score, found.regions(top=1))
    found.overlay(boxes=1).save(f"{found.label}.jpg")
"""
ACT = """
import visxai

engine = visxai.Engine()
(found,) = engine.explain("photos/coffee.jpg")
print(found.regions(top=3))
print(engine.redact(found))
print(engine.explain("photos/coffee.jpg", check="faithfulness")[0].quality)
"""
READ = """
from visxai.results import read

for found in read("results"):
    print(found.label, found.regions(top=1))
"""
VIT = """
import timm
import torch

model = timm.create_model("vit_tiny_patch16_224", num_classes=3)
torch.save(model.state_dict(), "mine.pt")
open("names.txt", "w").write("cat\\ncup\\nrocket\\n")
"""
ONNX = (
    MODEL
    + """
torch.onnx.export(my_module.eval(), (torch.zeros(1, 3, 224, 224),), "model.onnx", dynamo=False,
                  input_names=["x"], dynamic_axes={"x": {0: "batch"}})
"""
)
NOTEBOOK = """
import nbformat
from nbclient import NotebookClient

book = nbformat.v4.new_notebook()
cell = "import visxai\\nvisxai.Engine().explain('photos/coffee.jpg')"
book.cells = [nbformat.v4.new_code_cell(cell)]
NotebookClient(book, timeout=300).execute()
shown = next(o.data for o in book.cells[0].outputs if "data" in o)
print(sorted(shown), len(shown["text/html"]) // 1024, "KB of HTML")
"""
TABLE = """
import numpy as np
import pandas as pd
import xgboost

from visxai import tabular

rng = np.random.default_rng(0)
applicants = pd.DataFrame(
    {
        "duration": rng.integers(6, 60, 500),
        "savings": rng.choice(["none", "some", "much"], 500),
        "age": rng.integers(19, 75, 500),
    }
)
repaid = (applicants.savings != "none") & (applicants.duration < 40)
features = tabular.Features.of({"duration": None, "savings": ["none", "some", "much"]})
data = tabular.arrow(applicants)
model = xgboost.XGBClassifier(n_estimators=20, max_depth=3).fit(features.matrix(data), repaid)
first = tabular.Engine(model, features=features)
approved = tabular.Background.approved_near(applicants, first.predict(applicants), 0.5, most=100)
engine = tabular.Engine(model, approved, features, threshold=0.5, label="repaid", protected=["age"])
record = engine.explain(applicants[:1])[0]
print(record.score, record.favourable, record.contributions[0])
record.bars().save("applicant.png")
"""
COMMENTS = "text\nThank you for the fix\nYou are an idiot\nYou are not stupid at all\n"

TRIALS = [
    Trial(
        "hello",
        "see that it works",
        [Command("visxai hello", r"visxai_hello\.jpg")],
        leaves=("visxai_hello.jpg",),
    ),
    Trial(
        "folder",
        "explain a folder, then look at it",
        [
            Command("visxai explain photos --method grad_cam --out results", r"5 images in"),
            Command(
                "visxai explain photos --method grad_cam --out results", r"nothing|already|0 im"
            ),
            Command("visxai report results", r"report|index\.html"),
        ],
    ),
    Trial(
        "read",
        "read the rows back",
        [Command("python read.py", r"Region")],
        {"read.py": READ},
        needs=("folder",),
    ),
    Trial(
        "python",
        "the five lines of Python",
        [Command("python five.py", r"Egyptian cat|tiger cat|tabby")],
        {"five.py": FIVE},
        ("espresso.jpg",),
    ),
    Trial(
        "own model",
        "explain a module of their own",
        [Command("python own.py", r"\(2, 224, 224\)")],
        {"own.py": OWN},
    ),
    Trial(
        "vit",
        "a vision transformer with weights of their own",
        [
            Command("python vit.py", r"\A\Z"),
            Command(
                "visxai explain photos --model timm:vit_tiny_patch16_224 --checkpoint mine.pt "
                "--labels names.txt --method legrad,attention_rollout --out vit",
                r"10 rows",
            ),
        ],
        {"vit.py": VIT},
    ),
    Trial(
        "onnx",
        "an ONNX file, by scores alone and with gradients",
        [
            Command("python onnx_file.py", r""),
            Command(
                "visxai explain photos --model onnx:model.onnx --size 224 --resize 256 "
                "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --method 'rise(masks=64)' "
                "--out rise",
                r"5 rows",
            ),
        ],
        {"onnx_file.py": ONNX},
    ),
    Trial(
        "gate",
        "explain only what the model is unsure of, and keep every score",
        [Command("visxai explain photos --only 'top1<0.6' --out unsure", r"of 5|5 images")],
        leaves=("unsure/scores.parquet",),
    ),
    Trial(
        "act",
        "regions, redaction, faithfulness",
        [Command("python act.py", r"hidden")],
        {"act.py": ACT},
    ),
    Trial(
        "evaluate",
        "compare two methods by a metric",
        [
            Command(
                "visxai evaluate photos/coffee.jpg photos/chelsea.jpg --methods grad_cam,layer_cam "
                "--metrics 'insertion(steps=14)' --out judged",
                r"grad_cam",
            )
        ],
    ),
    Trial(
        "compare",
        "compare two runs",
        [
            Command("visxai explain photos --method layer_cam --out results2", r"5 images in"),
            Command("visxai compare results results2", r"agree|correlat"),
        ],
        needs=("folder",),
    ),
    Trial(
        "export",
        "hand the results on",
        [
            Command("visxai export results --to csv", r"csv"),
            Command("visxai export results --to coco --folder annotations", r"annotations"),
        ],
        needs=("folder",),
    ),
    Trial(
        "bench",
        "know what it costs here",
        [
            Command(
                "visxai bench --methods grad_cam,saliency --batch-sizes 1 --seconds 1 "
                "--accelerate off",
                r"grad_cam",
            )
        ],
    ),
    Trial(
        "notebook",
        "see an explanation in a notebook",
        [Command("python notebook.py", r"text/html")],
        {"notebook.py": NOTEBOOK},
    ),
    Trial(
        "text",
        "explain comments",
        [Command("visxai explain comments.csv --model toxicity --out words", r"3 texts|3 rows")],
        {"comments.csv": COMMENTS},
    ),
    Trial(
        "table",
        "explain a credit decision",
        [Command("python table.py", r"repaid|duration|savings")],
        {"table.py": TABLE},
        ("applicant.png",),
    ),
    Trial(
        "package",
        "one ONNX file that gives scores and maps",
        [
            Command(
                "visxai package efficientnet_lite0 --images photos/coffee.jpg "
                "--out explainable.onnx",
                r"explainable\.onnx",
            )
        ],
    ),
    Trial(
        "demo",
        "try it live",
        [Command("visxai demo --port 0", r"http://127\.0\.0\.1:\d+")],
    ),
    Trial(
        "lists",
        "find a method, a metric, a model",
        [
            Command("visxai methods", r"grad_cam"),
            Command("visxai methods GradCAM", r"grad_cam"),
            Command("visxai metrics", r"insertion"),
            Command("visxai models", r"efficientnet_lite0"),
            Command("visxai doctor", r"openvino|onnx"),
        ],
    ),
    Trial(
        "wrong",
        "wrong commands",
        one_sentence(
            "visxai explain",
            "visxai explain nowhere.jpg",
            "visxai explian photos",
            "visxai explain photos --methd grad_cam",
            "visxai explain photos --method gradcam3",
            "visxai explain photos --method 'occlusion(windw=3)'",
            "visxai explain photos --target class=dragonfish",
            "visxai explain photos --model resnet50",
            "visxai explain photos --model onnx:model.onnx --out no_size",
            "visxai explain photos --only 'top1>two'",
            "visxai explain photos --batch-size 0",
            "visxai explain photos --every 3",
            "visxai explain comments.csv --model toxicity --target class=rude",
            "visxai report photos",
            "visxai export results --to excel",
            "visxai evaluate photos --metrics insert",
            "visxai bench --precision fp8",
            "visxai methods grad_camm",
            "visxai package toxicity --out words.onnx",
            "visxai compare results nowhere",
            "visxai demo --model nothing",
            "visxai serve --config nowhere.toml",
            "visxai explain nowhere.mp4",
        ),
        needs=("folder", "onnx", "text"),
    ),
]


def environment() -> dict[str, str]:
    """The environment of a newcomer's shell: this checkout's package, a terminal of 100 columns."""
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def run(line: str, folder: Path) -> tuple[int, str, float]:
    """Run a command line; return its exit code, what it printed and the seconds that it took."""
    words = shlex.split(line)
    words[:1] = {"visxai": [sys.executable, "-m", "visxai"], "python": [sys.executable]}[words[0]]
    began = time.perf_counter()
    if words[3:4] == ["demo"] and "--port" in words:
        code, text = served(words, folder)
    else:
        done = subprocess.run(
            words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=LIMIT
        )
        code, text = done.returncode, done.stdout + done.stderr
    return code, text, time.perf_counter() - began


def served(words: list[str], folder: Path) -> tuple[int, str]:
    """Start a server, open the page that it names, and stop it by Ctrl-C."""
    process = subprocess.Popen(
        words, cwd=folder, env=environment() | {"PYTHONUNBUFFERED": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    text, page = "", None
    try:
        while page is None and (line := process.stdout.readline()):
            text += line
            page = re.search(r"http://[\w.]+:\d+\S*", line)
        if page is not None:
            with urllib.request.urlopen(page.group().rstrip("."), timeout=60) as answer:
                text += f"page: {answer.status}, {len(answer.read()) // 1024} KB\n"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
    return (0 if page is not None else process.returncode or 1), text


def prepared(folder: Path) -> None:
    """Put five photographs of scikit-image into a folder `photos`, as a newcomer has some."""
    from PIL import Image
    from skimage import data

    (folder / "photos").mkdir()
    for name in ("chelsea", "coffee", "astronaut", "rocket", "cat"):
        image = Image.fromarray(getattr(data, name)())
        image.save(folder / "photos" / f"{name}.jpg", quality=92)


def tried(trial: Trial, folder: Path) -> dict[str, Any]:
    """Do a trial, and return its record."""
    for name, text in trial.files.items():
        (folder / name).write_text(text.lstrip("\n"), "utf-8")
    typed = []
    for command in trial.commands:
        code, text, seconds = run(command.line, folder)
        holds = code == command.code and re.search(command.prints, text) is not None
        said = [line.strip() for line in text.splitlines() if line.strip(" ─╭╮╰╯│━")]
        seen = re.sub(r"\s+", " ", said[-1].replace(str(folder), "")) if said else ""
        kept = {
            "line": command.line,
            "seconds": round(seconds, 1),
            "code": code,
            "seen": seen[:160],
        }
        typed.append(kept | {"holds": holds})
        print(f"{'ok ' if holds else 'NO '} {seconds:6.1f} s  {command.line}", flush=True)
        if not holds:
            print(text[-1500:], flush=True)
    missing = [name for name in trial.leaves if not (folder / name).exists()]
    if missing:
        print("NO  missing:", *missing, flush=True)
    holds = not missing and all(one["holds"] for one in typed)
    return {"wants": trial.wants, "holds": holds, "missing": missing, "commands": typed}


def page(kept: dict[str, Any]) -> str:
    """Write the page of all trials."""
    lines = [
        "# Trials",
        "",
        f"What a newcomer does by the README alone: {len(kept)} tasks, each typed as the README",
        "and the pages that it links to show it, in a new folder with five photographs.",
        "`python scripts/trials.py --write` does all of them and writes this page; it fails where",
        "a command ends otherwise than it should. Times are by the clock, each with the start of a",
        "process, on a machine that other programs used as well: they say what waiting felt like.",
        "How fast visxai is says [another page](performance.md).",
        "",
        "| task | wants | holds | seconds |",
        "|---|---|---|---|",
    ]
    for name, one in kept.items():
        seconds = sum(command["seconds"] for command in one["commands"])
        holds = "yes" if one["holds"] else "**no**"
        lines.append(f"| {name} | {one['wants']} | {holds} | {seconds:.0f} |")
    for name, one in kept.items():
        lines += ["", f"## {name.capitalize()}", "", f"{one['wants'].capitalize()}.", ""]
        lines += ["| typed | seconds | the last line seen |", "|---|---|---|"]
        for command in one["commands"]:
            typed, seen = (
                command[key].replace("|", "\\|").replace("`", "'") for key in ("line", "seen")
            )
            mark = "" if command["holds"] else f" **(not as it should, exit {command['code']})**"
            shown = f"`{seen}`" if seen else "nothing"
            lines.append(f"| `{typed}` | {command['seconds']:.1f} | {shown}{mark} |")
        lines += [f"\n**Missing: {', '.join(one['missing'])}.**"] if one["missing"] else []
    return "\n".join(lines) + "\n"


def chosen(names: list[str]) -> list[Trial]:
    """Choose the trials of these names and those that they build on; all without names."""
    wanted = set(names)
    for trial in TRIALS:
        wanted |= set(trial.needs) if trial.name in names else set()
    return [trial for trial in TRIALS if not names or trial.name in wanted]


def main() -> None:
    """Do the trials that the command line names, and write the page if it says so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="trials to do, all by default")
    parser.add_argument("--write", action="store_true", help="write docs/trials.md")
    asked = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared(folder)
        for trial in chosen(asked.names):
            record = tried(trial, folder)
            fine &= record["holds"]
            if asked.write:
                kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
                kept[trial.name] = record
                kept = {one.name: kept[one.name] for one in TRIALS if one.name in kept}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
                PAGE.write_text(page(kept), "utf-8")
    if not fine:
        raise SystemExit("some trials don't hold")


if __name__ == "__main__":
    main()
