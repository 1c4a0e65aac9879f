"""The package as a whole: what it imports and when, its wheel, its cards, its documentation."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import visxai
from visxai import methods

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "visxai"

# Imports point upward only. Files of one row may not import each other, but for a package's own.
ORDER = [
    [
        *("_version", "errors", "evidence", "foreign", "memory", "options", "quiet"),
        *("sandbox", "schemas", "scores"),
    ],
    ["files"],
    ["checkpoint", "fetch"],
    ["record", "spec"],
    ["target", "signs"],
    ["shards", "objects", "heif"],
    ["origin"],
    ["images", "tables", "cluster"],
    ["folders"],
    ["preprocess"],
    ["capture", "attention"],
    ["backends"],
    ["hubs"],
    ["models", "machine"],
    ["methods"],
    ["metrics"],
    ["recheck", "planning"],
    ["engine"],
    ["fonts"],
    ["render"],
    ["sheets"],
    ["sealed"],
    ["results"],
    ["sources", "leftovers"],
    ["inputs"],
    ["store", "workers"],
    ["asked", "progress"],
    ["batch"],
    ["pipeline"],
    ["scale"],
    ["report", "export", "bench", "evaluate"],
    ["terminal", "listings"],
    ["cli"],
    ["__main__"],
]
# The record reaches down twice, lazily: to decode its original and to draw itself.
LAZY = {("record", "images"), ("record", "render")}


def imports(path: Path) -> set[str]:
    """The first-level visxai modules that a file imports, type-checking imports left out."""
    found = set()
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "visxai":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("visxai."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("visxai.")}
    return found


def test_imports_point_one_way() -> None:
    rank = {name: row for row, names in enumerate(ORDER) for name in names}
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if here == "__init__":
            continue
        assert here in rank, f"{here} has no place in the layout"
        wrong += [
            f"{path.relative_to(ROOT)} imports {name}"
            for name in imports(path) - {here, "__version__"}
            if rank.get(name, -1) >= rank[here] and (here, name) not in LAZY
        ]
    assert not wrong


@pytest.mark.parametrize("module", ["visxai", "visxai.cli", "visxai.record", "visxai.images"])
def test_light_modules_import_nothing_heavy(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print([m for m in ('torch', 'torchvision', 'timm', 'captum', 'cv2') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed.stderr


def test_the_public_names_resolve() -> None:
    for name in visxai.__all__:
        assert getattr(visxai, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = visxai.nothing
    assert visxai.methods.load("occlusion(window=32, stride=16)").window == 32


@pytest.mark.parametrize("name", methods.names())
def test_every_method_documents_itself(name: str) -> None:
    method = methods.find(name)
    assert method.about("").endswith(".")
    assert method.about("Cost")
    assert method.about("Source")
    spec = repr(methods.load("captum:Saliency" if name == "captum" else name))
    assert spec.startswith(name)
    assert repr(methods.load(spec)) == spec


def test_a_wheel_in_a_new_environment_explains_an_image(tmp_path: Path) -> None:
    """The wheel carries the cards; the new environment borrows only the dependencies."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    # A path in a .pth file is added without running the .pth files inside it, so the checkout's
    # own (editable) visxai stays out.
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    code = (
        "import numpy, visxai; "
        "found, = visxai.Engine(device='cpu').explain("
        "[numpy.full((300, 300, 3), 128, numpy.uint8)]); "
        "print(visxai.__file__, visxai.models.folder(), found.values.shape)"
    )
    printed = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    assert str(home) in printed.split()[0]
    assert "_models" in printed.split()[1]
    assert "(7, 7)" in printed
    version = [python, "-c", "import importlib.metadata as m; print(m.version('visxai'))"]
    installed = subprocess.run(version, check=True, capture_output=True, text=True).stdout.strip()
    assert wheel.name.split("-")[1] == installed == visxai.__version__
    printed = subprocess.run(
        [python, "-m", "visxai", "--version"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    ).stdout
    assert printed.strip() == f"visxai {visxai.__version__}"


def test_the_readme_names_every_method() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [name for name in methods.names() if f"`{name}`" not in readme]
    assert not missing


def test_no_paths_of_a_machine_in_the_tree() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    suspicious = re.compile(r"/(home|root|Users|work)/[a-z]")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".json", ""} and path.is_file():
            text = path.read_text("utf-8", errors="replace")
            assert not suspicious.search(text.replace(str(Path(__file__).name), "")) or (
                path == Path(__file__)
            ), name
