"""The package as a whole: what it imports and when, its wheel, its cards, its documentation."""

from __future__ import annotations

import ast
import os
import re
import shutil
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

# The rooms of the package, floor by floor: a file imports from lower floors and its own room only.
FLOORS = [
    ["_lazy", "_version", "errors", "foreign", "process", "quiet", "sandbox", "schemas"],
    ["files", "options", "references", "web"],
    ["labels", "spec", "images"],
    ["target_form"],
    ["target", "drawing"],
    ["record", "models"],
    ["results", "methods", "ledger"],
    ["metrics"],
    ["engine"],
    [
        "pipeline",
        "bench",
        "moderation",
        "package",
        "detection",
        "similarity",
        "concepts",
        "nearest",
    ],
    ["text", "govern", "tabular"],
    ["scale", "report", "evaluate", "fused", "video", "adapters", "matching"],
    ["compare", "serve", "recommendation"],
    ["demo"],
    ["cli"],
    ["__main__"],
]


def name_of(path: Path, package: Path) -> str:
    """The dotted name of a module."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, names: set[str]) -> set[str]:
    """The package's modules that a file imports: anywhere in it, for type checking included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in names else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & names


def graph(package: Path) -> dict[str, set[str]]:
    """For each module of a package those that it imports; the package's own front is left out."""
    files = {name_of(path, package): path for path in sorted(package.rglob("*.py"))}
    names = set(files) - {package.name}
    return {name: imports(files[name], names) - {name} for name in sorted(names)}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, in order; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(edges[name]):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in edges if (found := walk(name, []))), [])


def wrong_floors(edges: dict[str, set[str]]) -> list[str]:
    """Imports that don't point to a lower floor or the same room."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    wrong = []
    for name, others in edges.items():
        here = name.split(".")[1]
        assert here in floor, f"{here} has no place in the layout"
        for other in others:
            there = other.split(".")[1]
            if there != here and floor[there] >= floor[here]:
                wrong.append(f"{name} imports {other}")
    return wrong


def test_imports_point_one_way() -> None:
    edges = graph(PACKAGE)
    assert circle(edges) == []
    assert wrong_floors(edges) == []


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("images/tars.py", "from visxai.images.sources import find"),
        ("images/tars.py", "def late():\n    from visxai.images import sources"),
        (
            "record/base.py",
            "if TYPE_CHECKING:\n    from visxai.record.image import ImageExplanation",
        ),
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, place: str, line: str) -> None:
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "visxai"))
    planted = copy / place
    planted.write_text(planted.read_text("utf-8") + f"\n\n{line}\n", "utf-8")
    name = name_of(planted, copy)
    assert name in circle(graph(copy))


def test_a_planted_step_up_is_found(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "visxai"))
    planted = copy / "spec.py"
    planted.write_text("import visxai.engine.gate\n" + planted.read_text("utf-8"), "utf-8")


@pytest.mark.parametrize(
    "module",
    [
        "visxai",
        "visxai.cli",
        "visxai.record.image",
        "visxai.images.decoding",
        "visxai.pipeline.tasks",
    ],
)
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
    assert methods.load(methods.load(spec).brief) == methods.load(spec)


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
    # A path of the caller's own would come before the wheel.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    printed = subprocess.run(
        [python, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path, env=clean
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
        env=clean,
    ).stdout
    assert printed.strip() == f"visxai {visxai.__version__}"


def test_the_table_of_methods_has_a_row_for_each() -> None:
    table = (ROOT / "docs" / "methods.md").read_text("utf-8").partition("## Method by method")[2]
    missing = [name for name in methods.names() if f"\n| `{name}` |" not in table]
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
