"""The README's lines and the hints that are printed, each as a reader runs it: in a new process."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import visxai

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
LIMIT = 900


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
    )


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def photograph(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((260, 240), Image.Resampling.BICUBIC).save(path)


@pytest.mark.parametrize(
    "code",
    [
        "import visxai; visxai.record.schema()",
        "import visxai; visxai.results.read",
        *(f"import visxai; visxai.{name}" for name in visxai.__all__ if name.islower()),
    ],
)
def test_a_part_is_there_after_importing_visxai_alone(code: str) -> None:
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_importing_visxai_and_reading_a_schema_load_no_torch() -> None:
    code = "import gc, sys, visxai; before = gc.get_threshold(); visxai.record.schema(); "
    done = run("-c", code + "print('torch' in sys.modules, gc.get_threshold() == before)")
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_every_dotted_name_that_is_told_is_reached_from_visxai() -> None:
    """In docstrings, messages and documents; `visxai.x.y` is there after `import visxai`."""
    texts = [*(ROOT / "visxai").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = set()
    for path in texts:
        for line in path.read_text("utf-8").splitlines():
            if not re.match(r"\s*(from|import) ", line):
                named |= set(re.findall(r"\bvisxai\.([a-z]+\.[a-z_]+|[A-Z]\w+)\(", line))
    assert {"record.schema", "results.read", "Engine"} <= named
    for name in sorted(named):
        found = visxai
        for part in name.split("."):
            found = getattr(found, part)


def test_the_hint_after_a_run_is_python_that_works(tmp_path: Path) -> None:
    photograph(tmp_path / "cat.jpg", 1)
    done = run("-m", "visxai", "explain", "cat.jpg", "--model", "digits_vit", folder=tmp_path)
    (hint,) = re.findall(r"visxai\.results\.read\('.*?'\)", done.stdout)
    assert done.returncode == 0, done.stderr
    read = run("-c", f"import visxai; print(len(list({hint})))", folder=tmp_path)
    assert read.stdout.strip() == "1", read.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader stands: two photographs, and a folder of them."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for seed, name in enumerate(("cat.jpg", "dog.jpg", "photos/cat.jpg")):
        photograph(folder / name, seed)
    return folder


def test_the_commands_and_the_python_of_the_readme_work(home: Path) -> None:
    pytest.importorskip("pandas")
    lines = [line for block in blocks("console") for line in block.splitlines() if line]
    for line in lines:
        command, *words = shlex.split(line, comments=True)
        if command.startswith("scripts/"):
            assert (ROOT / command).is_file()
            continue
        assert command == "visxai"
        # What judges maps costs hundreds of forwards, so a small model is judged.
        more = ["--model", "digits_vit"] if words[0] == "evaluate" else []
        done = run("-m", "visxai", *words, *more, folder=home)
        assert done.returncode == 0, f"{line}\n{done.stderr}"

    first, own, acting, read = blocks("python")
    given = """
import torch, timm
from torch import nn
class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(9)))
        self.head = nn.Linear(3, 2)
    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
my_module, MEAN, STD = Small(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
x = torch.rand(2, 3, 224, 224)
"""
    done = run("-c", "\n".join([first, acting, given, own, read]), folder=home)
    assert done.returncode == 0, done.stderr
    assert "hidden" in done.stdout


def test_inline_commands_of_the_readme_are_commands(home: Path) -> None:
    told = set(re.findall(r"`visxai ([a-z]+)", README))
    done = run("-m", "visxai", "--help")
    assert told
    for command in told:
        assert re.search(rf"\b{command}\b", done.stdout), command


def test_names_that_are_told_in_python_blocks_import() -> None:
    for module in re.findall(r"^from (visxai[.\w]*) import", README, re.MULTILINE):
        importlib.import_module(module)


def test_what_the_readme_and_the_changelog_count_is_there() -> None:
    rows = {
        family: [set(re.findall(r"`(\w+)`", names)), names]
        for family, names in re.findall(r"^\| ([a-z ,]+) \| (`.*) \|$", README, re.MULTILINE)
    }
    known = set(visxai.methods.names())
    cams, text = rows["class activation"]
    named = set().union(*(found for found, _ in rows.values()))
    assert named <= known
    others = {name for name in known if "_cam" in name} | {"fem"}
    # Guided Grad-CAM is a gradient at the input, and attention_cam stands with the transformers.
    relatives = others - named - {"guided_grad_cam"}
    words = {"eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12}
    assert len(relatives) == words[re.findall(r"and (\w+) relatives", str(text))[0]]
    assert len(cams) > 8
    models = set(re.findall(r"^\| `(\w+)` \| ", README, re.MULTILINE))
    assert models == set(visxai.models.names())
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    told = {
        what: int(n) for n, what in re.findall(r"^- (\d+) (methods|metrics)\b", changelog, re.M)
    }
    # `captum` stands for another library's.
    assert told == {"methods": len(known) - 1, "metrics": len(visxai.metrics.names())}


def test_the_table_of_speed_is_what_the_kept_figures_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    readme = importlib.import_module("benchmarks.readme")
    assert readme.fill(README) == README, "run python benchmarks/readme.py"
