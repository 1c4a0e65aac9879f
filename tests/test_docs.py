"""The documentation: its site builds without a broken link, and its Python blocks run."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import visxai

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# What these pages show fetches weights from a hub, and starts a cluster.
ELSEWHERE = {"transformers.md", "scale.md"}
PAGES = sorted(
    {
        path.relative_to(DOCS).as_posix()
        for path in DOCS.rglob("*.md")
        if "```python" in path.read_text("utf-8")
    }
    - ELSEWHERE
)


def blocks(page: str) -> str:
    """The Python blocks of a page, in order, as one script."""
    found = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)
    return "\n".join(found)


def _detector(file: Path) -> None:
    """Write a file with the inputs, outputs and metadata of an exported YOLO with two classes.

    How red a quarter of the picture is counts for "cat", how green for "dog".
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    boxes = np.array([[16, 48, 16, 48], [16, 16, 48, 48], [32] * 4, [32] * 4], np.float32)
    values = {"boxes": boxes[None], "shape": np.array([1, 3, 4]), "two": np.array([0, 1])}
    nodes = [
        helper.make_node(
            "AveragePool", ["images"], ["cells"], kernel_shape=[32, 32], strides=[32, 32]
        ),
        helper.make_node("Reshape", ["cells", "shape"], ["flat"]),
        helper.make_node("Gather", ["flat", "two"], ["scores"], axis=1),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 4])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "{0: 'cat', 1: 'dog'}"})
    onnx.save(model, file)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages speak of."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("desk")
    for name, make in (("cat", data.chelsea), ("dog", data.coffee)):
        Image.fromarray(make()).save(folder / f"{name}.jpg")
    _detector(folder / "yolo11n.onnx")
    (folder / "photos").mkdir()
    shutil.copy(folder / "cat.jpg", folder / "photos" / "cat.jpg")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(
    page: str, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, which has PyTorch already, as the script that they are together."""
    work = Path(shutil.copytree(desk, tmp_path / "desk"))
    script = work / "page.py"
    script.write_text(blocks(page), "utf-8")
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", [script.name])
    monkeypatch.syspath_prepend(work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that a page imports
        runpy.run_path(str(script), run_name="__main__")


def test_the_site_builds_strictly_and_without_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9"},
    )
    assert built.returncode == 0, built.stderr[-3000:]
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.search(r'<(?:script|img)[^>]*src="https?:|<link[^>]*href="https?:', text)
        assert 'class="mermaid"' not in text  # its script would be fetched
    methods = (tmp_path / "site" / "reference" / "methods" / "index.html").read_text("utf-8")
    assert all(f'id="{name}"' in methods for name in visxai.methods.names())
    metrics = (tmp_path / "site" / "reference" / "metrics" / "index.html").read_text("utf-8")
    assert all(f'id="{name}"' in metrics for name in visxai.metrics.names())


def test_what_is_public_is_in_the_reference() -> None:
    stable = (DOCS / "api-stability.md").read_text("utf-8")
    reference = (DOCS / "reference" / "python.md").read_text("utf-8")
    classes = [name for name in visxai.__all__ if name[0].isupper()]
    assert all(f"`visxai.{name}`" in stable for name in classes)
    assert all(re.search(rf"^::: visxai\..*\b{name}$", reference, re.M) for name in classes)
