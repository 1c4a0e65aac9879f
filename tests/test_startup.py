"""What a fresh process imports until the first map, and the graph of the default model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import visxai
from visxai import cli
from visxai.models import cards, loading
from visxai.models.checkpoint import read
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.modules import weights_sha256
from visxai.models.weights import packaged_file

PHOTOS = [
    Path(__file__).parent / "data" / "version1" / "photos" / f"{name}.jpg"
    for name in ("astronaut", "chelsea", "coffee")
]
# Each of these takes from a tenth of a second to several, and the default model needs none.
HEAVY = (
    *("timm", "torchvision", "transformers", "huggingface_hub", "captum", "onnx", "onnxruntime"),
    *("torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "scipy", "matplotlib", "skimage"),
    *("pyarrow.dataset", "ray", "fsspec", "requests", "sklearn", "wandb", "tensorboard"),
)
# pyarrow imports pandas where it is installed, which visxai doesn't ask for.
_RUN = """
import json, sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
import torch, numpy
before = set(sys.modules)
{what}
json.dump([len(set(sys.modules) - before), sorted(sys.modules)], open({told!r}, "w"))
"""
# The command line keeps pandas out by itself, and lets it in for whoever asks for data frames.
_WITH = "sys.meta_path = [one for one in sys.meta_path if type(one) is not Without]"
_ASKED = """
import importlib.util, pyarrow
alone = dict(sys.modules)
assert not importlib.util.find_spec("pandas") or len(pyarrow.table({"a": [1]}).to_pandas()) == 1
sys.modules = alone
"""


def _imported(what: str, told: Path) -> tuple[int, set[str]]:
    """Run code in a fresh process; return how many modules it imports beyond torch, and all."""
    code = _RUN.format(what=what, told=str(told))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    count, names = json.loads(told.read_text("utf-8"))
    return count, set(names)


def test_an_engine_and_its_first_map_import_only_what_the_model_needs(tmp_path: Path) -> None:
    what = f"import visxai; visxai.Engine().explain({str(PHOTOS[0])!r})"
    count, names = _imported(what, tmp_path / "told.json")
    assert not names & {*HEAVY, "pyarrow", "typer", "rich"}
    # 120 when this was written; torch alone has 1,200.
    assert count <= 140, count


def test_the_command_line_imports_only_what_a_run_needs(tmp_path: Path) -> None:
    words = ["explain", str(PHOTOS[0]), "--out", str(tmp_path / "out")]
    run = f"sys.argv[1:] = {words!r}\ntry: main()\nexcept SystemExit as end: assert not end.code"
    what = f"from visxai.cli import main\n{_WITH}\n{run}\n{_ASKED}"
    count, names = _imported(what, tmp_path / "told.json")
    assert not names & {*HEAVY, "pandas", "pyarrow.compute"}
    # 366 when this was written: typer, rich, pyarrow, OpenCV and Pillow are among them.
    assert count <= 410, count


@pytest.fixture(scope="module")
def timms() -> torch.nn.Module:
    import timm

    card = cards.card(cards.DEFAULT)
    module = timm.create_model("tf_efficientnet_lite0")
    state = loading._renamed(read(packaged_file(card.source)), module.state_dict(), card.name)
    module.load_state_dict(state)
    made: torch.nn.Module = module.eval()
    return made


def test_the_default_model_has_timms_layers_weights_and_scores(timms: torch.nn.Module) -> None:
    own, _ = loading._carded(cards.card(cards.DEFAULT))
    assert list(own.state_dict()) == list(timms.state_dict())
    assert weights_sha256(own) == weights_sha256(timms)
    generator = torch.Generator().manual_seed(0)
    for size in ((224, 224), (97, 130)):
        x = torch.randn(1, 3, *size, generator=generator)
        with torch.no_grad():
            assert torch.equal(own(x), timms(x))


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam(layer='blocks.4.2')", "saliency"])
def test_the_default_models_maps_equal_timms_bit_for_bit(
    timms: torch.nn.Module, method: str
) -> None:
    stated = cards.card(cards.DEFAULT).stated()
    model = TorchModel(timms, name="timms", **stated)
    theirs = visxai.Engine(model, device="cpu", precision="fp32", accelerate="off")
    own = visxai.Engine(device="cpu", precision="fp32", accelerate="off")
    for a, b in zip(own.explain(PHOTOS, method), theirs.explain(PHOTOS, method), strict=True):
        assert isinstance(a, visxai.Explanation)
        assert isinstance(b, visxai.Explanation)
        assert (a.values == b.values).all()
        assert (a.score, a.layer, a.label) == (b.score, b.layer, b.label)


@pytest.mark.parametrize("words", [["methods", "--help"], ["models", "--help"], ["govern", "-h"]])
def test_a_command_is_built_alone_and_says_what_it_says_among_all(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(words)
    alone = capsys.readouterr().out
    cli.app(words, prog_name="visxai", standalone_mode=False)
    assert alone == capsys.readouterr().out
    narrow = cli._narrowed(words)
    assert len(narrow.registered_commands) + len(narrow.registered_groups) == 1
