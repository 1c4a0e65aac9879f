"""Accelerated maps equal plain ones; what can't be prepared runs plain and says why."""

from __future__ import annotations

import copy
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from torch import Tensor, nn

import visxai
from visxai import pipeline, results
from visxai.engine import acceleration, measuring
from visxai.engine.decision import Decision
from visxai.errors import ArgumentError
from visxai.models.interface import Need
from visxai.models.pytorch import exporting, folding, inductor
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.tracing import Traceable
from visxai.results import reading

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnx", reason="needs the extra onnx")

OCCLUSION = "occlusion(window=32, stride=32)"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VISXAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "accelerated"


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is exported from here on."""
    made: list[Path] = []
    plain = exporting.export

    def counted(module: Any, x: Tensor, path: Path) -> None:
        made.append(path)
        plain(module, x, path)

    monkeypatch.setattr(exporting, "export", counted)
    return made


def engine(kind: str, how: str = "onnx", **options: Any) -> visxai.Engine:
    return made_of(zoo.module(kind), how, **options)


def made_of(module: nn.Module, how: str = "onnx", **options: Any) -> visxai.Engine:
    return visxai.Engine(
        module, preprocess=zoo.PREPROCESS, accelerate=how, precision="fp32", **options
    )


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_maps_are_the_plain_ones(kind: str) -> None:
    fast, plain, x = engine(kind), engine(kind, "off"), zoo.inputs(3)
    for spec in ("grad_cam", OCCLUSION, "score_cam(top=4)"):
        found = fast.attribute(x, spec, 3)
        assert apart(found, plain.attribute(x, spec, 3)) <= 1e-4, spec
    # The forms were used: none was refused.
    assert fast.model.acceleration.why == {}
    assert fast.model.accelerated(Need.SCORES) == "onnx"
    assert plain.model.accelerated(Need.SCORES) == "off"


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_gradients_at_the_input_agree(kind: str) -> None:
    """Folded weights round differently, so single kinks may switch: 2 % of the map's norm."""
    fast, plain, x = engine(kind), engine(kind, "off"), zoo.inputs(2)
    spec = "integrated_gradients(steps=8, schedule='gauss_legendre')"
    found, expected = fast.attribute(x, spec, 3), plain.attribute(x, spec, 3)
    assert float((found - expected).norm() / expected.norm()) <= 0.02
    assert "gradients" not in fast.model.acceleration.why


def test_a_last_batch_of_another_size_needs_nothing_new(exports: list[Path]) -> None:
    fast, plain = engine("conv", batch_size=4), engine("conv", "off")
    for count in (4, 1, 3, 7):
        x = zoo.inputs(count)
        assert apart(fast.attribute(x, "grad_cam", 3), plain.attribute(x, "grad_cam", 3)) <= 1e-4
        assert apart(fast.attribute(x, OCCLUSION, 3), plain.attribute(x, OCCLUSION, 3)) <= 1e-4
    assert len(exports) == 2  # the trunk and the whole


def test_other_input_sizes_get_forms_of_their_own(exports: list[Path]) -> None:
    fast, plain = engine("conv"), engine("conv", "off")
    for size in (64, 96):
        x = zoo.inputs(2, size)
        assert apart(fast.attribute(x, OCCLUSION, 3), plain.attribute(x, OCCLUSION, 3)) <= 1e-4
    assert len(exports) == 2


def test_threads_share_one_engine(exports: list[Path]) -> None:
    fast, plain = engine("resnet18"), engine("resnet18", "off")
    batches = [zoo.inputs(2, seed=seed) for seed in range(4)]
    expected = [plain.attribute(x, "grad_cam", 3) for x in batches]
    start = threading.Barrier(4)

    def explain(x: Tensor) -> Tensor:
        start.wait()
        return fast.attribute(x, "grad_cam", 3)

    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(explain, batches), expected, strict=True):
            assert apart(found, wanted) <= 1e-4
    assert len(exports) == 1


def test_the_engine_leaves_the_module_alone() -> None:
    module = copy.deepcopy(zoo.module("resnet18")).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fast = made_of(module)
    fast.attribute(zoo.inputs(2), "grad_cam", 3)
    fast.attribute(zoo.inputs(2), "saliency", 3)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(not hook for part in module.modules() for hook in (part._forward_hooks,))


def test_another_module_or_output_is_not_run_by_the_first_ones_forms() -> None:
    fast, x = engine("conv"), zoo.inputs(2)
    before = fast.model.scores(x)
    doubled = fast.model.with_output(lambda found: 2 * found)
    assert apart(doubled.scores(x), 2 * before) <= 1e-4
    other = fast.model.with_module(zoo.randomise(zoo.Conv(), seed=5))
    assert apart(other.scores(x), before) > 0.1


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compile_gives_the_plain_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # What earlier runs of this test compiled serves again.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
    fast, plain = engine("conv", "compile"), engine("conv", "off")
    for count in (3, 1):
        x = zoo.inputs(count)
        assert apart(fast.attribute(x, "grad_cam", 3), plain.attribute(x, "grad_cam", 3)) <= 1e-4
    assert fast.model.acceleration.why == {}
    assert fast.model.accelerated(Need.LAYER_GRADIENT) == "compile below the layer"


def _even_vit() -> nn.Module:
    """torchvision's, with an even number of heads as all of its sizes have: attention without
    gradients then goes to a native kernel that no exporter knows."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(zoo.SIZE, 16, 2, 4, 48, 96, num_classes=zoo.CLASSES)


def _timm(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=zoo.CLASSES, **options)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "CNN": zoo.KINDS["resnet18"],
    "CNN with same padding": lambda: _timm("tf_mobilenetv3_small_minimal_100"),
    "torchvision ViT": _even_vit,
    "timm ViT": lambda: _timm(
        "vit_tiny_patch16_224", img_size=zoo.SIZE, depth=2, embed_dim=64, num_heads=4
    ),
    "Hugging Face ViT": zoo.KINDS["hf_vit"],
    "Swin": zoo.KINDS["swin"],
    "ConvNeXt": zoo.KINDS["convnext"],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_which_form_ran(
    family: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = zoo.randomise(FAMILIES[family]())
    measures_as(monkeypatch, 1.0)
    fast, plain = made_of(module, "auto"), made_of(module, "off")
    fast.plan("grad_cam", 1000)
    photograph = np.random.default_rng(0).integers(0, 255, (70, 70, 3), dtype=np.uint8)
    told = {}
    for spec in ("grad_cam", OCCLUSION):
        (found,), (expected,) = (one.explain(photograph, spec, 3) for one in (fast, plain))
        difference = np.abs(found.values - expected.values).max()
        assert difference <= 1e-4 * np.abs(expected.values).max()
        told[spec] = found.accelerate
    chosen = "run long enough"
    assert told == {"grad_cam": f"onnx below the layer ({chosen})", OCCLUSION: f"onnx ({chosen})"}
    forms = fast.model.acceleration._forms.values()
    assert len(forms) == 2
    assert all(isinstance(form, exporting.OnnxForm) for form in forms)
    assert capfd.readouterr().out == ""


def test_a_failing_export_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Odd(zoo.Conv):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(super().forward(x))

    fast = made_of(zoo.randomise(Odd()))
    fast.attribute(zoo.inputs(2), OCCLUSION, 3)
    assert "bessel_j0" in fast.model.acceleration.why["whole"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("how", ["onnx", "off"])
def test_weights_updated_in_place_are_seen(how: str, exports: list[Path]) -> None:
    module = zoo.randomise(zoo.Conv())
    fast, x = made_of(module, how), zoo.inputs(2)
    specs = ("grad_cam", OCCLUSION, "saliency")
    before = {spec: fast.attribute(x, spec, 3) for spec in specs}
    photograph = np.random.default_rng(0).integers(0, 255, (70, 70, 3), dtype=np.uint8)
    (old,) = fast.explain(photograph)
    made = len(exports)
    module.load_state_dict(zoo.randomise(zoo.Conv(), seed=4).state_dict())
    plain = made_of(copy.deepcopy(module), "off")
    for spec in specs:
        expected = plain.attribute(x, spec, 3)
        assert apart(fast.attribute(x, spec, 3), expected) <= 1e-4
        assert apart(before[spec], expected) > 0.1
    assert torch.allclose(fast.model.scores(x), plain.model.scores(x), atol=1e-4)
    (new,), (told,) = fast.explain(photograph), plain.explain(photograph)
    assert new.model.weights_sha256 == told.model.weights_sha256 != old.model.weights_sha256
    assert len(exports) == 2 * made  # once for each weights, whoever asks how often


class Counting(zoo.Conv):
    """Writes into a buffer of its own at every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1  # type: ignore[operator, misc]
        return super().forward(x) * (1 + self.count)


@pytest.mark.parametrize("spec", [OCCLUSION, "saliency"])
def test_a_module_that_writes_into_its_own_weights_runs_plain(
    spec: str, exports: list[Path]
) -> None:
    fast, x = made_of(zoo.randomise(Counting())), zoo.inputs(2)
    for _ in range(3):
        fast.attribute(x, spec, 3)
    assert "its weights change while it runs" in fast.model.acceleration.why.values()
    first = fast.model.scores(x)
    assert apart(fast.model.scores(x), first) > 1e-3  # it goes on counting, as it would alone
    assert len(exports) <= 1


def test_a_runtime_serves_only_the_weights_it_was_made_of() -> None:
    model = TorchModel(zoo.randomise(zoo.Conv()), name="conv")
    model.runtime = lambda x: torch.zeros(len(x), zoo.CLASSES)
    x = zoo.inputs(2)
    assert not model.scores(x).any()
    with torch.no_grad():
        model.module.head.bias += 1  # type: ignore[operator, union-attr]
    assert bool(model.scores(x).all())
    assert model.accelerated(Need.SCORES) == "off"


class Moody(zoo.Conv):
    """What it computes depends on what it sees: no trace of it holds."""

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 5:
            raise RuntimeError("too bright")
        return super().forward(x) * (2 if float(x.sum()) > 0 else 1)


class Untraceable(zoo.Conv):
    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            raise RuntimeError("no exporting\nof this one")
        return super().forward(x)


def test_a_form_that_cannot_be_made_leaves_the_plain_one() -> None:
    module = zoo.randomise(Untraceable())
    fast, plain, x = made_of(module), made_of(module, "off"), zoo.inputs(2)
    assert torch.equal(fast.attribute(x, OCCLUSION, 3), plain.attribute(x, OCCLUSION, 3))
    assert fast.model.acceleration.why["whole"] == "RuntimeError: no exporting"
    photograph = np.full((80, 80, 3), 99, np.uint8)
    (found,) = fast.explain(photograph, OCCLUSION, 3)
    assert found.accelerate == "onnx (plain: whole: RuntimeError: no exporting) (asked for)"


def test_a_form_that_disagrees_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = exporting.OnnxForm.__call__
    monkeypatch.setattr(
        exporting.OnnxForm, "__call__", lambda self, x: honest(self, x) * (1 + 1e-3)
    )
    fast, plain, x = engine("conv"), engine("conv", "off"), zoo.inputs(2)
    assert torch.equal(fast.attribute(x, OCCLUSION, 3), plain.attribute(x, OCCLUSION, 3))
    assert fast.model.acceleration.why["whole"].startswith("differs by 1.0e-03")


def test_control_flow_that_the_first_rows_show_is_refused() -> None:
    module = zoo.randomise(Moody())
    fast, plain = made_of(module), made_of(module, "off")
    x = zoo.inputs(2)
    assert apart(fast.attribute(x, OCCLUSION, 3), plain.attribute(x, OCCLUSION, 3)) <= 1e-4


class Looping(zoo.Conv):
    """A trace of it runs as many images as it was traced with."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super(Looping, self).forward(x[i : i + 1]) for i in range(len(x))])


def test_a_form_for_one_number_of_images_is_refused() -> None:
    module = zoo.randomise(Looping())
    for first in (1, 2, 3, 4):
        fast, plain = made_of(module), made_of(module, "off")
        for count in (first, 5, 1):
            x = zoo.inputs(count)
            assert apart(fast.model.scores(x), plain.model.scores(x)) <= 1e-5
            assert fast.attribute(x, OCCLUSION, 3).shape[0] == count
        assert fast.model.acceleration.why["whole"].startswith("differs by")


def test_a_form_that_loses_rows_later_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = exporting.OnnxForm.__call__
    monkeypatch.setattr(exporting.OnnxForm, "__call__", lambda self, x: honest(self, x)[:4])
    fast, plain = engine("conv"), engine("conv", "off")
    for count in (3, 5, 2):
        x = zoo.inputs(count)
        assert apart(fast.model.scores(x), plain.model.scores(x)) <= 1e-5
    assert fast.model.acceleration.why["whole"] == "gave 4 rows for 5 images"


def test_a_form_that_gives_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = exporting.OnnxForm.__call__
    monkeypatch.setattr(
        exporting.OnnxForm, "__call__", lambda self, x: honest(self, x) * float("nan")
    )
    fast, plain, x = engine("conv"), engine("conv", "off"), zoo.inputs(2)
    assert torch.equal(fast.attribute(x, OCCLUSION, 3), plain.attribute(x, OCCLUSION, 3))
    assert fast.model.acceleration.why["whole"] == "differs by nan"


@pytest.mark.parametrize("gives", ["scores", "gradients"])
def test_a_streamlined_module_that_gives_nan_is_refused(
    gives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * (float("nan") if gives == "scores" else 1)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * float("nan")

    def broken(module: nn.Module, *_: Any) -> int:
        plain = module.forward
        module.forward = lambda x: Broken.apply(plain(x))  # type: ignore[method-assign]
        return 0

    monkeypatch.setattr(folding, "fold", broken)
    fast, plain, x = engine("conv"), engine("conv", "off"), zoo.inputs(2)
    assert torch.equal(fast.attribute(x, "saliency", 3), plain.attribute(x, "saliency", 3))
    assert fast.model.acceleration.why["gradients"] == f"{gives} differ by nan"


def test_a_second_engine_finds_the_forms_on_disk(cache: Path, exports: list[Path]) -> None:
    x = zoo.inputs(2)
    expected = engine("conv").attribute(x, "grad_cam", 3)
    assert len(exports) == 1
    assert [path.name for path in cache.iterdir()] == [exports[0].name]
    assert torch.equal(engine("conv").attribute(x, "grad_cam", 3), expected)
    assert len(exports) == 1
    # Other weights are another model.
    made_of(zoo.randomise(zoo.Conv(), seed=9)).attribute(x, "grad_cam", 3)
    assert len(exports) == 2


@pytest.mark.parametrize("damage", [b"", b"not a model", None])
def test_a_damaged_file_is_made_again(
    cache: Path, exports: list[Path], damage: bytes | None
) -> None:
    x = zoo.inputs(2)
    expected = engine("conv").attribute(x, "grad_cam", 3)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    again = engine("conv")
    assert apart(again.attribute(x, "grad_cam", 3), expected) <= 1e-6
    assert again.model.acceleration.why == {}
    assert len(exports) == 2
    assert len(list(cache.iterdir())) == 1  # nothing half written stays


def test_an_altered_file_is_made_again(cache: Path, exports: list[Path]) -> None:
    """One that still is a model, and still agrees on the rows that would check it."""
    import onnx

    x = zoo.inputs(2)
    expected = engine("conv").attribute(x, "grad_cam", 3)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    altered = onnx.load_from_string(whole)  # the seal leaves it an ONNX file
    assert [entry.key for entry in altered.metadata_props] == ["visxai_sha256"]
    altered.producer_name = "somebody else"
    path.write_bytes(altered.SerializeToString())
    assert torch.equal(engine("conv").attribute(x, "grad_cam", 3), expected)
    assert len(exports) == 2
    assert onnx.load_from_string(path.read_bytes()).producer_name != "somebody else"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no such modes")
def test_others_may_read_what_lies_in_a_shared_cache(cache: Path) -> None:
    before = os.umask(0o022)
    try:
        engine("conv").attribute(zoo.inputs(2), "grad_cam", 3)
    finally:
        os.umask(before)
    (path,) = cache.iterdir()
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no such modes")
def test_inductors_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> Path:
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        inductor.keep_private(tmp_path / "cache")
        return Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])

    own = kept()
    assert own.parent == tmp_path / "cache"
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    assert kept() == own
    assert own.stat().st_mode & 0o777 == 0o700
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own.rmdir()
    own.symlink_to(elsewhere)  # another's doing
    other = kept()
    assert other not in (own, elsewhere)
    assert other.stat().st_mode & 0o777 == 0o700
    other.rmdir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "as asked")
    inductor.keep_private(tmp_path / "cache")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "as asked"


def auto(monkeypatch: pytest.MonkeyPatch, seconds: float, kind: str = "conv") -> visxai.Engine:
    """An engine that chooses, where a plain forward of an image takes these seconds."""
    measures_as(monkeypatch, seconds)
    return engine(kind, "auto")


def measures_as(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let ONNX Runtime be all that is installed, and be measured to take 0.4 of these seconds."""
    monkeypatch.setattr(measuring, "runtimes", lambda *_: ("onnx",))
    monkeypatch.setattr(measuring, "plain", lambda *_: seconds)
    timing = measuring.Timing(0.4 * seconds, seconds, 1.0)
    monkeypatch.setattr(measuring, "measure", lambda *_: timing)


def test_auto_prepares_when_the_run_is_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = auto(monkeypatch, 0.01)
    assert found.plan("grad_cam", 1000) == "run too short"
    assert found.accelerate == "off"
    # 0.5 * 10,000 * 0.01 s saved against twice the preparation.
    assert found.plan("grad_cam", 10_000) == "run long enough"
    assert found.accelerate == "onnx"


def test_auto_counts_the_rows_of_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    found = auto(monkeypatch, 0.05)
    few = found.plan("grad_cam", 100)
    assert (found.accelerate, few) == ("off", "run too short")
    found.plan("occlusion(window=8, stride=4)", 100)  # 225 windows each
    assert found.accelerate == "onnx"


def test_forms_on_disk_pay_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    engine("conv").attribute(zoo.inputs(1), OCCLUSION, 3)  # leaves the whole in the cache
    found = auto(monkeypatch, 0.01)
    found.plan("grad_cam", 900)  # saves 4.5 s: twice the loading, a fraction of the exporting
    assert found.accelerate == "onnx"


def test_auto_stays_off_where_it_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    half = visxai.Engine(zoo.module("conv"), preprocess=zoo.PREPROCESS, precision="fp16")
    assert half.plan("grad_cam", 10**6) == "only in float32 and bf16"
    monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(measuring, "_compiler", lambda: False)
    assert engine("conv", "auto").plan("grad_cam", 10**6) == (
        "the extra onnx or openvino isn't installed"
    )


def test_a_wrong_choice_is_refused() -> None:
    with pytest.raises(ArgumentError, match="auto, off, onnx, openvino, compile, got 'fast'"):
        engine("conv", "fast")


def test_records_say_what_ran() -> None:
    photograph = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    for how, told in (("off", "off (asked for)"), ("onnx", "onnx below the layer (asked for)")):
        (found,) = engine("conv", how).explain(photograph)
        assert found.accelerate == told
    (found,) = engine("conv", "auto").explain(photograph)
    assert found.accelerate == "off (run too short)"
    (found,) = engine("resnet18").explain(photograph, "saliency")
    assert found.accelerate == "onnx; gradients channels-last, batch norms folded (asked for)"


def test_preparing_is_not_what_a_map_took(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = exporting.export

    def slow(module: Any, x: Tensor, path: Path) -> None:
        time.sleep(5)
        plain(module, x, path)

    monkeypatch.setattr(exporting, "export", slow)
    (found,) = engine("conv").explain(np.zeros((40, 40, 3), np.uint8))
    assert found.accelerate.startswith("onnx")
    assert 0 < found.seconds < 4


def test_a_folder_run_decides_once_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()

    def add(number: int) -> None:
        pixels = np.random.default_rng(number).integers(0, 255, (70, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")

    add(0)
    first = auto(monkeypatch, 100.0)  # so slow a forward that preparing pays
    monkeypatch.setattr(acceleration, "_FEW", 1)
    monkeypatch.setattr(acceleration, "_FEWEST", 1)
    pipeline.explain([folder], out, first, style=None)
    assert first.accelerate == "onnx"
    assert reading.about(out)["settings"]["accelerate"] == "onnx (run long enough)"
    add(1)
    second = auto(monkeypatch, 0.0)  # which would never choose it by itself
    pipeline.explain([folder], out, second, style=None)
    assert second.accelerate == "onnx"
    told = {one.accelerate for one in results.read(out)}
    assert told == {"onnx below the layer (run long enough)"}
    with pytest.raises(visxai.errors.StoreError, match="accelerate='onnx"):
        pipeline.explain([folder], out, engine("conv", "off"), style=None)


def test_a_folder_run_explains_only_what_a_gate_lets_through(tmp_path: Path) -> None:
    from PIL import Image

    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 60 * (number + 1), (70, 70, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    found = engine("conv", "off")
    scores = found.score(sorted(folder.iterdir()))
    limit = (sorted(scores)[1] + sorted(scores)[2]) / 2
    outcome = pipeline.explain([folder], out, found, only=f"top1>{limit}", workers=0)
    assert outcome.complete
    assert outcome.counts | {"maps": 2, "finished": 4} == outcome.counts
    assert all(one.score > limit for one in results.read(out))
    assert len(list((out / "overlays").iterdir())) == 2


class Net(nn.Module):
    """Two convolutions with batch norms; `skip` reads the first convolution around its norm."""

    def __init__(self, norm: Any = nn.BatchNorm2d, skip: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, stride=4), nn.Conv2d(8, 8, 3, bias=False)
        self.a, self.b = norm(8), norm(8)
        self.head = nn.Linear(8, zoo.CLASSES)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x)
        x = self.b(self.two(torch.tanh(self.a(first))))
        if self.skip:
            x = x + first[..., 1:-1, 1:-1]
        return self.head(x.mean((2, 3)))


def run(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)  # type: ignore[no-any-return]


def test_folding_is_exact() -> None:
    module, x = zoo.randomise(Net()), zoo.inputs(2)
    folded = copy.deepcopy(module)
    assert folding.fold(folded, run, x) == 2
    assert apart(folded(x), module(x)) <= 1e-5
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in folded.modules())
    made = folding.streamlined(module, run, x)
    assert isinstance(made, nn.Module)
    assert made.one.weight.is_contiguous(memory_format=torch.channels_last)
    assert apart(module(x), zoo.randomise(Net())(x)) == 0  # the original is as it was


def test_norms_that_bring_their_activation_keep_it() -> None:
    from timm.layers import BatchNormAct2d

    module, x = zoo.randomise(Net(BatchNormAct2d)), zoo.inputs(2)
    folded = copy.deepcopy(module)
    assert folding.fold(folded, run, x) == 2
    assert apart(folded(x), module(x)) <= 1e-5


def test_a_convolution_that_others_read_is_not_folded_unnoticed() -> None:
    module = zoo.randomise(Net(skip=True))
    found = folding.streamlined(module, run, zoo.inputs(2))
    assert isinstance(found, str)
    assert found.startswith("scores differ by")
    fast, plain, x = made_of(module), made_of(module, "off"), zoo.inputs(2)
    assert torch.equal(fast.attribute(x, "saliency", 3), plain.attribute(x, "saliency", 3))
    assert fast.model.acceleration.why["gradients"] == found


def test_same_padding_is_merged_into_the_convolutions(tmp_path: Path) -> None:
    layers = pytest.importorskip("timm.layers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = layers.Conv2dSame(3, 8, 3, stride=2)
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
        module = nn.Sequential(convolution, *head).eval()
    path = tmp_path / "same.onnx"
    exporting.export(Traceable(module, module), zoo.inputs(2), path)
    assert not exporting._computes_padding(str(path))
    form = exporting.OnnxForm(path)
    for batch in (1, 3):
        x = zoo.inputs(batch)
        with torch.no_grad():
            assert torch.allclose(form(x), module(x), atol=1e-5)


@pytest.mark.parametrize(("failures", "prepared"), [(1, True), (2, True), (3, False)])
def test_running_out_of_memory_while_preparing_is_tried_again(
    failures: int, prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    plain = exporting.export

    def scarce(module: Any, x: Tensor, path: Path) -> None:
        tries.append(1)
        if len(tries) <= failures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        plain(module, x, path)

    monkeypatch.setattr(exporting, "export", scarce)
    fast, x = engine("conv"), zoo.inputs()
    fast.plan("occlusion", 3)
    model = fast.model
    assert isinstance(model, TorchModel)
    expected = zoo.model("conv").scores(x)
    for _ in range(5):
        assert torch.allclose(model.scores(x), expected, atol=1e-4)
    assert len(tries) == min(failures + 1, 3)
    assert model.acceleration is not None
    assert model.acceleration.why == ({} if prepared else {"whole": "no memory left to prepare it"})


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_forms_in_a_shared_cache_are_readable(tmp_path: Path) -> None:
    module = zoo.module("conv")
    before = os.umask(0o022)
    try:
        exporting.export(Traceable(module, module), zoo.inputs(2), tmp_path / "a.onnx")
    finally:
        os.umask(before)
    assert (tmp_path / "a.onnx").stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize("reason", ["run long enough", "asked for (twice)", ""])
def test_a_decision_is_read_back_as_it_was_written(reason: str) -> None:
    decision = Decision("onnx", reason)
    assert Decision.of(str(decision)) == decision


def test_an_earlier_decision_is_taken_over_only_where_it_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier = Decision("onnx", "run long enough")
    closed = engine("conv", "off")
    closed.settle(earlier)
    assert (closed.accelerate, closed.plan("grad_cam", 10**6)) == ("off", "asked for")
    open_ = auto(monkeypatch, 100.0)
    open_.settle(Decision("off", "run too short"))
    assert (open_.accelerate, open_.plan("grad_cam", 10**6)) == ("off", "run too short")
