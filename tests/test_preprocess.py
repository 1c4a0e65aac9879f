"""Preprocessing equals the transforms it is converted from, and says where its crop lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from visxai.errors import ArgumentError, UnknownName
from visxai.images.decoding import Limits, Photo, decode
from visxai.images.preprocess import Opaque, Preprocess
from visxai.references import Transform

# width, height: both odd remainders, up- and downscaling, wide and high, exact fits.
SIZES = [(301, 224), (224, 307), (640, 427), (427, 641), (97, 131), (256, 256), (500, 333)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Waking threads for arrays this small takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photo(width: int, height: int, seed: int = 0) -> Photo:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return decode(noise)


def smooth() -> Photo:
    rows, columns = np.mgrid[0:333, 0:500]
    return decode(
        np.stack([rows * 0.7, columns * 0.5, (rows + columns) * 0.3], -1).astype(np.uint8)
    )


def run(preprocess: Preprocess | Opaque, source: Photo) -> torch.Tensor:
    pixels, _ = preprocess.crop(source)
    return preprocess.normalise(torch.from_numpy(pixels)[None])[0]


def largest_difference(original: Any, converted: Preprocess | Opaque) -> float:
    worst = 0.0
    for width, height in SIZES:
        source = photo(width, height)
        worst = max(worst, float((original(source.image) - run(converted, source)).abs().max()))
    return worst


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos", "box"])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), ((100, 90), 80), (60, 91)])
def test_crop_equals_torchvision_bit_for_bit(interpolation: str, resize: Any, crop: int) -> None:
    from torchvision import transforms

    original = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(crop),
        ]
    )
    ours = Preprocess((crop, crop), resize, interpolation)
    for width, height in SIZES:
        source = photo(width, height)
        pixels, transform = ours.crop(source)
        assert np.array_equal(pixels, np.asarray(original(source.image)))
        assert transform.crop[2:] == (crop, crop)


@pytest.mark.parametrize(
    "name", ["ResNet50_Weights.V1", "ResNet50_Weights.V2", "ViT_B_16_Weights", "Swin_T_Weights",
             "ConvNeXt_Tiny_Weights", "EfficientNet_B1_Weights.V2"],
)  # fmt: skip
def test_torchvision_presets(name: str) -> None:
    from torchvision import models

    weights, _, version = name.partition(".")
    choice = getattr(getattr(models, weights), f"IMAGENET1K_{version or 'V1'}")
    preset = choice.transforms()
    ours = Preprocess.of(preset)
    assert isinstance(ours, Preprocess)
    assert largest_difference(preset, ours) <= 1e-6


def test_torchvision_compose() -> None:
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    cases = [
        v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor(), v1.Normalize(mean, std)]),
        v1.Compose([v1.Resize([80, 96], v1.InterpolationMode.BICUBIC), v1.ToTensor()]),
        v1.Compose(
            [v1.CenterCrop([64, 300]), v1.PILToTensor(), v1.ConvertImageDtype(torch.float32)]
        ),
        v2.Compose(
            [
                v2.Resize(232, "bicubic"),
                v2.CenterCrop(224),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
                v2.ToPureTensor(),
            ]
        ),
    ]
    for original in cases:
        ours = Preprocess.of(original)
        assert isinstance(ours, Preprocess)
        assert largest_difference(original, ours) <= 1e-6
    assert Preprocess.of(cases[0]) == Preprocess(
        (224, 224), 256, "bilinear", tuple(mean), tuple(std)
    )


def test_torchvision_on_tensors_is_near() -> None:
    """uint8 tensors are resized by torch's kernels, which round otherwise than Pillow's."""
    from torchvision.transforms import v2

    original = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.uint8, scale=True),
            v2.Resize(256, antialias=True),
            v2.CenterCrop(224),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    ours = Preprocess.of(original)
    assert isinstance(ours, Preprocess)
    assert largest_difference(original, ours) <= 1.01 / 255


def test_what_cannot_be_told_stays_opaque() -> None:
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    crop, tensor = v1.CenterCrop(32), v1.ToTensor()
    for steps in (
        [v1.Grayscale(3), crop, tensor],
        [v1.RandomCrop(32), tensor],
        [v1.Resize(32, max_size=64), crop, tensor],
        [crop, v1.Resize(16), tensor],
        [v1.Resize(32), tensor],
        [tensor, v1.Resize(32), crop],
        [v1.Resize(32, v1.InterpolationMode.HAMMING), crop, tensor],
        [v2.ToImage(), v2.Resize(32, antialias=False), crop, v1.ConvertImageDtype(torch.float32)],
        [crop, v1.PILToTensor()],
    ):  # fmt: skip
        original = v1.Compose(steps)
        assert isinstance(Preprocess.of(original), Opaque), steps
    original = v1.Compose([v1.Grayscale(3), crop, tensor])
    assert largest_difference(original, Preprocess.of(original)) == 0


@pytest.mark.parametrize(
    "config",
    [
        {"input_size": (3, 224, 224), "crop_pct": 0.9, "interpolation": "bicubic"},
        {"input_size": (3, 224, 224), "crop_pct": 1.0, "interpolation": "bicubic"},
        {"input_size": (3, 240, 240), "crop_pct": 0.882, "interpolation": "bilinear"},
        {"input_size": (3, 96, 128), "crop_pct": 0.95, "crop_mode": "squash"},
        {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3},
    ],
)
def test_timm(config: dict[str, Any]) -> None:
    from timm.data import create_transform, resolve_data_config

    config = resolve_data_config(config)
    original = create_transform(**config, is_training=False)
    for source in (original, config):
        ours = Preprocess.of(source)
        assert isinstance(ours, Preprocess)
        assert largest_difference(original, ours) <= 1e-6
    assert Preprocess.of(original) == Preprocess.of(config)


def test_timm_with_borders_is_opaque_or_refused() -> None:
    from timm.data import create_transform, resolve_data_config

    for odd in ({"crop_mode": "border"}, {"input_size": (3, 96, 128)}):
        config = resolve_data_config(odd)
        original = create_transform(**config, is_training=False)
        ours = Preprocess.of(original)
        assert isinstance(ours, Opaque)
        assert largest_difference(original, ours) == 0
        with pytest.raises(ArgumentError, match="config"):
            Preprocess.of(config)


PROCESSORS = [
    ("ViT", {}),
    ("ViT", {"size": {"height": 96, "width": 80}, "do_normalize": False}),
    ("ViT", {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}),
    ("CLIP", {}),
    ("CLIP", {"size": {"shortest_edge": 97}, "crop_size": {"height": 90, "width": 64}}),
    ("ConvNext", {}),
    ("ConvNext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}),
    ("Bit", {"size": {"shortest_edge": 256}}),
    ("DeiT", {}),
    ("Siglip", {}),
    ("Beit", {}),
    ("MobileNetV1", {}),
    ("MobileNetV2", {}),
]


@pytest.mark.parametrize(("kind", "options"), PROCESSORS)
def test_hugging_face(kind: str, options: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    for suffix in ("ImageProcessorPil", "ImageProcessor"):
        processor = getattr(transformers, kind + suffix)(**options)
        ours = Preprocess.of(processor)
        assert isinstance(ours, Preprocess)
        assert Preprocess.of(processor.to_dict()) == ours
        # The default processors resize uint8 tensors with torch's kernels, which round otherwise
        # than Pillow's: by one 255th a pixel of a smooth picture, divided by std.
        tolerance = 1e-6 if suffix.endswith("Pil") else 1.01 / 255 / min(ours.std)
        for source in (photo(301, 224), photo(320, 463)) if tolerance == 1e-6 else (smooth(),):
            expected = processor(images=source.image, return_tensors="pt")["pixel_values"][0]
            assert float((run(ours, source) - expected).abs().max()) <= tolerance


def test_hugging_face_configs() -> None:
    values = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    old_vit = {"do_normalize": True, "do_resize": True, "size": 224, **values}
    assert Preprocess.of(old_vit) == Preprocess(
        (224, 224), (224, 224), "bilinear", (0.5,) * 3, (0.5,) * 3, rounding="down"
    )
    old_clip = old_vit | {"feature_extractor_type": "CLIPFeatureExtractor", "resample": 3}
    old_clip |= {"do_center_crop": True, "crop_size": 224}
    assert Preprocess.of(old_clip) == Preprocess(
        (224, 224), 224, "bicubic", (0.5,) * 3, (0.5,) * 3, rounding="down"
    )
    for unknown in (
        old_vit | {"image_processor_type": "PoolFormerImageProcessor"},
        old_vit | {"size": {"shortest_edge": 224, "longest_edge": 300}},
        old_vit | {"do_pad": True},
        {},
    ):
        with pytest.raises(ArgumentError, match="expected a Preprocess"):
            Preprocess.of(unknown)


def test_a_processor_of_another_kind_is_opaque() -> None:
    class OddImageProcessor:
        image_mean = (0.5,) * 3

        def to_dict(self) -> dict[str, Any]:
            return {"image_processor_type": "OddImageProcessor", "size": {"height": 4, "width": 4}}

        def __call__(self, images: Image.Image, return_tensors: str) -> dict[str, torch.Tensor]:
            assert return_tensors == "pt"
            return {"pixel_values": torch.ones(1, 3, 4, 4, dtype=torch.float16)}

    ours = Preprocess.of(OddImageProcessor())
    assert isinstance(ours, Opaque)
    assert run(ours, photo(9, 9)).dtype == torch.float32
    assert "OddImageProcessor" in str(ours)
    assert "0x" not in str(ours)


def test_opaque_functions() -> None:
    def centre(image: Image.Image) -> torch.Tensor:
        return torch.full((3, 6, 8), 0.25, dtype=torch.float64, requires_grad=True)

    ours = Preprocess.of(centre)
    assert isinstance(ours, Opaque)
    pixels, transform = ours.crop(photo(50, 40))
    assert pixels.dtype == np.float32
    assert transform == Transform((8, 6), (0, 0, 8, 6), 1, assumed=True)
    assert Preprocess.of(ours) is ours
    for wrong in (torch.zeros(1, 3, 4, 4), torch.zeros(4, 4, 3), torch.zeros(3, 4, 4).byte(), "no"):
        with pytest.raises(ArgumentError, match=r"\(3, h, w\)"):
            Opaque(lambda _, wrong=wrong: wrong).crop(photo(9, 9))


def test_what_is_no_preprocessing_is_refused() -> None:
    for wrong in (None, 3, "resnet50", Preprocess, {"a": 1}):
        with pytest.raises(ArgumentError, match="expected a Preprocess"):
            Preprocess.of(wrong)
    for wrong in ({"size": 224}, {"size": (0, 4)}, {"size": (4, 4), "mean": (1, 1)},
                  {"size": (4, 4), "std": (0, 1, 1)}, {"size": (4, 4), "resize": 0},
                  {"size": (4, 4), "resize": (1, 2, 3)}):  # fmt: skip
        with pytest.raises(ArgumentError, match="expected"):
            Preprocess(**wrong)
    with pytest.raises(UnknownName, match="bilinear"):
        Preprocess((4, 4), interpolation="bilinar")


def test_channels_and_the_inverse() -> None:
    source = photo(8, 8)
    plain = Preprocess((8, 8), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    caffe = Preprocess(
        (8, 8), mean=(104 / 255, 117 / 255, 123 / 255), std=(1 / 255,) * 3, channels="bgr"
    )
    rgb = torch.from_numpy(np.array(source.image)).permute(2, 0, 1)
    expected = rgb.flip(0) - torch.tensor([104, 117, 123.0]).view(3, 1, 1)
    assert torch.allclose(run(caffe, source), expected, atol=1e-4)
    for ours in (plain, caffe):
        x = run(ours, source)[None]
        assert x.is_contiguous()
        assert torch.allclose(ours.denormalise(x)[0], rgb / 255, atol=1e-6)
    assert plain.denormalise(torch.full((1, 3, 2, 2), 99.0)).max() == 1


def test_normalise_leaves_its_input_alone() -> None:
    pixels = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    before = pixels.clone()
    Preprocess((4, 4), mean=(0.5,) * 3).normalise(pixels)
    assert torch.equal(pixels, before)


def test_the_transform_places_the_crop() -> None:
    ours = Preprocess((224, 224), 256)
    _, transform = ours.crop(photo(640, 480))
    assert transform == Transform((341, 256), (58, 16, 224, 224), 1)
    _, transform = Preprocess((10, 20)).crop(photo(15, 15))
    assert transform == Transform((15, 15), (-2, 2, 20, 10), 1)


def test_a_sliver_does_not_fill_the_memory() -> None:
    ours = Preprocess((224, 224), 256, "bicubic")
    ramp = np.linspace(0, 255, 20_000)[None, :, None].repeat(5, 0).repeat(3, 2).astype(np.uint8)
    source = decode(ramp, Limits(max_aspect=1e9))
    pixels, transform = ours.crop(source)
    assert transform.resized == (1_024_000, 256)
    assert np.ptp(pixels) <= 1
    assert pixels.mean() == pytest.approx(127.5, abs=1)


def test_only_the_crop_equals_the_whole_nearly(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a smooth picture; between its two passes Pillow rounds, and chooses their order anew."""
    from visxai.images import preprocess

    source = smooth()
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        ours = Preprocess((224, 224), 256, interpolation)
        whole, placed = ours.crop(source)
        monkeypatch.setattr(preprocess, "_WHOLE", 0)
        part, same = ours.crop(source)
        monkeypatch.undo()
        assert placed == same
        assert np.abs(whole.astype(int) - part).max() <= 1


def test_its_text_is_stable() -> None:
    ours = Preprocess((224, 224), 256, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert str(ours) == "resize 256 bicubic, crop 224x224, rgb, mean 0.5 0.5 0.5, std 0.5 0.5 0.5"
    other = Preprocess([8, 9], [10, 11], channels="bgr", rounding="down")  # type: ignore[arg-type]
    assert str(other).startswith("resize 10x11 bilinear, crop 8x9, rounded down, bgr, mean 0 0 0")
    assert str(Preprocess((8, 9))).startswith("no resize, crop 8x9, rgb")
    assert hash(other) == hash(Preprocess((8, 9), (10, 11), channels="bgr", rounding="down"))


@pytest.mark.parametrize(
    "config",
    [
        {"input_size": [3, 24]},
        {"input_size": [3, 24, 24], "crop_pct": 1e-320, "mean": [0], "std": [1]},
        {"input_size": [3, 24, 24], "mean": "dark", "std": [1]},
        {"size": {"height": "x", "width": 3}},
        {"size": {"height": 24, "width": 24}, "resample": 2},
    ],
)
def test_a_config_of_another_form_is_refused(config: dict) -> None:
    with pytest.raises(ArgumentError):
        Preprocess.of(config)
