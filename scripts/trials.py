"""Do what a newcomer does by the README, in a new environment, and write down what was seen.

    python scripts/trials.py [--write] [--environment FOLDER] [NAME ...]

A new virtual environment outside the tree gets PyTorch and the wheel of this tree, and nothing of
the environment that runs the script; extras are installed when a trial comes to them, as its
message says. Each trial is a few files and commands in a new folder under a new home, typed as the
README and the pages that it links to show them, in a process each. A trial holds when every
command ends with the exit code that stands beside it and prints what it should. With --write the
records of the trials that were done replace theirs in benchmarks/results/trials.json, of which
docs/trials.md is made. --environment keeps the environment in a folder, or goes on with the one
that is there and gives it the tree's wheel. Needs the extra demo, for its photographs, and `build`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
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
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "trials.md"
RESULTS = ROOT / "benchmarks" / "results" / "trials.json"
LIMIT = 1800  # seconds a command may take
LINES = 14  # of an output that are kept, the last ones


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


@dataclass(frozen=True)
class Place:
    """Where a newcomer types: a virtual environment, the wheel of the tree, a folder and a home."""

    environment: Path
    wheel: Path
    folder: Path
    home: Path

    def program(self, name: str) -> str:
        """Return the path of a program of the environment."""
        return str(self.environment / ("Scripts" if os.name == "nt" else "bin") / name)

    def variables(self) -> dict[str, str]:
        """Return a newcomer's shell: their own home and environment, a terminal of 100 columns."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VISXAI"))}
        path = os.pathsep.join((str(Path(self.program("python")).parent), os.environ["PATH"]))
        return kept | {"HOME": str(self.home), "PATH": path, "COLUMNS": "100"}

    def shown(self, text: str) -> str:
        """Replace the folder, the home and the environment in a text by what they stand for."""
        for place, name in ((self.folder, ""), (self.home, "~"), (self.environment, ".venv")):
            text = text.replace(f"{place}{os.sep}" if not name else str(place), name)
        return text


def one_sentence(*lines: str) -> list[Command]:
    """Commands that are wrong: each answers by one sentence and exit code 2."""
    return [Command(line, r"\Avisxai: [^\n]+\n\Z", 2) for line in lines]


def extra(names: str) -> Command:
    """The installation of extras, as a message names it."""
    return Command(f"pip install 'visxai[{names}]'", r"")


def lacking(line: str, names: str) -> Command:
    """A command that needs extras which aren't there: one sentence that says how to get them."""
    return Command(line, rf"\Avisxai: [^\n]*pip install 'visxai\[{names}\]'[^\n]*\n\Z", 2)


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
        "install",
        "install it",
        [
            Command("pip install torch torchvision", r""),
            Command("pip install visxai", r""),
            Command("visxai --version", r"visxai \d"),
        ],
    ),
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
        "extras",
        "what isn't installed yet",
        [
            lacking("visxai demo", "serve"),
            lacking("visxai serve", "serve"),
            lacking("visxai explain photos --accelerate onnx --out fast", "onnx"),
            lacking("visxai package efficientnet_lite0 --out explainable.onnx", "onnx"),
            lacking("visxai explain https://example.org/cat.jpg", "remote"),
            lacking("visxai export results --to coco", "export"),
        ],
        needs=("folder",),
    ),
    Trial(
        "onnx",
        "an ONNX file, by scores alone and with gradients",
        [
            extra("onnx"),
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
            Command("visxai export results --to fiftyone --folder samples", r"samples"),
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
        [extra("notebooks"), Command("python notebook.py", r"text/html")],
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
        [extra("tables"), Command("python table.py", r"repaid|duration|savings")],
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
        needs=("onnx",),
    ),
    Trial(
        "demo",
        "try it live",
        [extra("serve"), Command("visxai demo --port 0", r"page: 200")],
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


def run(line: str, place: Place) -> tuple[int, str, float]:
    """Run a command line; return its exit code, what it printed and the seconds that it took."""
    words = shlex.split(line)
    if words[0] == "pip":  # the tree's wheel, by the name that a newcomer types; torch's own pages
        words = [re.sub(r"^visxai\b", str(place.wheel), word) for word in words]
        words = [
            f"{word}=={importlib.metadata.version(word)}" if word.startswith("torch") else word
            for word in words
        ]
        words[:1] = ["python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    words[0] = place.program(words[0])
    variables = place.variables()
    if line.startswith("pip "):  # the settings of this machine's pip are in its home
        variables["HOME"] = os.environ.get("HOME", "")
    began = time.perf_counter()
    if words[1:2] == ["demo"] and "--port" in words:
        code, text = served(words, place)
    else:
        done = subprocess.run(
            words, cwd=place.folder, env=variables, capture_output=True, text=True, timeout=LIMIT
        )
        code, text = done.returncode, done.stdout + done.stderr
        if line.startswith("pip ") and code == 0:
            text = ""  # the registry's own messages
    return code, text, time.perf_counter() - began


def served(words: list[str], place: Place) -> tuple[int, str]:
    """Start a server, open the page that it names, and stop it by Ctrl-C."""
    process = subprocess.Popen(
        words, cwd=place.folder, env=place.variables() | {"PYTHONUNBUFFERED": "1"}, text=True,
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


def tried(trial: Trial, place: Place) -> dict[str, Any]:
    """Do a trial, and return its record."""
    for name, text in trial.files.items():
        (place.folder / name).write_text(text.lstrip("\n"), "utf-8")
    typed = []
    for command in trial.commands:
        code, text, seconds = run(command.line, place)
        holds = code == command.code and re.search(command.prints, text) is not None
        said = [line.rstrip() for line in place.shown(text).splitlines() if line.strip()]
        kept = {"line": command.line, "seconds": round(seconds, 1), "code": code, "holds": holds}
        typed.append(kept | {"lines": len(said), "seen": said[-LINES:]})
        print(f"{'ok ' if holds else 'NO '} {seconds:6.1f} s  {command.line}", flush=True)
        if not holds:
            print(text[-1500:], flush=True)
    missing = [name for name in trial.leaves if not (place.folder / name).exists()]
    if missing:
        print("NO  missing:", *missing, flush=True)
    holds = not missing and all(one["holds"] for one in typed)
    return {
        "wants": trial.wants,
        "holds": holds,
        "missing": missing,
        "files": trial.files,
        "commands": typed,
    }


def page(kept: dict[str, Any]) -> str:
    """Write the page of all trials."""
    lines = [
        "# Trials",
        "",
        f"What a newcomer does by the README alone: {len(kept)} tasks, each typed as the README",
        "and the pages that it links to show it, in a new virtual environment, a new home and",
        "a new folder with five photographs. `python scripts/trials.py --write` does all of them",
        "and writes this page; it fails where a command ends otherwise than it should. Extras are",
        "installed when a task comes to them. Times are by the clock, each with the start of a",
        "process, on a machine that other programs used as well: they say what waiting felt like.",
        "How fast visxai is says",
        "[another page](performance.md).",
        "",
        "| task | wants | holds | seconds |",
        "|---|---|---|---|",
    ]
    for name, one in kept.items():
        seconds = sum(command["seconds"] for command in one["commands"])
        holds = "yes" if one["holds"] else "**no**"
        anchor = name.replace(" ", "-")
        lines.append(f"| [{name}](#{anchor}) | {one['wants']} | {holds} | {seconds:.0f} |")
    for name, one in kept.items():
        lines += ["", f"## {name[0].upper()}{name[1:]}", ""]
        lines += [f"{one['wants'][0].upper()}{one['wants'][1:]}."]
        for file, text in one["files"].items():
            lines += ["", f"`{file}`:", "", "```text", text.strip("\n"), "```"]
        for command in one["commands"]:
            code = f", exit code {command['code']}" if command["code"] else ""
            wrong = "" if command["holds"] else " **It shouldn't end so.**"
            lines += ["", f"{command['seconds']:.1f} s{code}{wrong}", "", "```text"]
            cut = command["lines"] - len(command["seen"])
            lines += [f"$ {command['line']}", *([f"... {cut} lines"] if cut else ())]
            lines += [*command["seen"], "```"]
        lines += [f"\n**Missing: {', '.join(one['missing'])}.**"] if one["missing"] else []
    return "\n".join(lines) + "\n"


def chosen(names: list[str]) -> list[Trial]:
    """Choose the trials of these names and those that they build on; all without names."""
    wanted = set(names)
    for trial in TRIALS:
        wanted |= set(trial.needs) if trial.name in names else set()
    return [trial for trial in TRIALS if not names or trial.name in wanted]


def wheel(folder: Path) -> Path:
    """Build the wheel of this tree into a folder."""
    building = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*building, str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def main() -> None:
    """Do the trials that the command line names, and write the page if it says so."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="trials to do, all by default")
    parser.add_argument("--write", action="store_true", help="write docs/trials.md")
    parser.add_argument("--environment", type=Path, metavar="FOLDER", help="kept, or gone on with")
    asked = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory() as name:
        base = Path(name).resolve()
        for inner in ("desk", "home"):
            (base / inner).mkdir()
        environment = (asked.environment or base / "environment").resolve()
        place = Place(environment, wheel(base), base / "desk", base / "home")
        prepared(place.folder)
        if not environment.exists():
            venv.create(environment, with_pip=True)
        elif asked.names:  # it has an older wheel, and needs this one
            again = [place.program("python"), "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*again, "--force-reinstall", str(place.wheel)], check=True)
        for trial in chosen(asked.names):
            record = tried(trial, place)
            fine &= record["holds"]
            if asked.write and (not asked.names or trial.name in asked.names):
                kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
                kept[trial.name] = record
                kept = {one.name: kept[one.name] for one in TRIALS if one.name in kept}
                RESULTS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
                PAGE.write_text(page(kept), "utf-8")
    if not fine:
        raise SystemExit("some trials don't hold")


if __name__ == "__main__":
    main()
