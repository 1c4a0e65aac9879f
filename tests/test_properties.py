"""Properties that hold for whatever Hypothesis thinks of: transforms, specs, targets, batches and
records."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch import Tensor, nn

from visxai import methods, metrics
from visxai.engine.gate import Gate
from visxai.errors import ArgumentError
from visxai.images import decoding
from visxai.images.decoding import Photo
from visxai.images.preprocess import FILTERS, Preprocess
from visxai.methods import base
from visxai.models.pytorch.model import TorchModel
from visxai.record.columns import pack, unpack
from visxai.record.image import ImageExplanation
from visxai.references import ImageRef, ModelRef, Transform
from visxai.results.rows import of_row, row_of
from visxai.target import Target

# The same cases on every machine, however slow, and within seconds.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("ci")

SIDES = st.integers(1, 90)
LABELS = ("tabby, tabby cat", "great grey owl", "a<b>c", "nsfw", "x y")
SHA = "0" * 64


@st.composite
def preprocesses(draw: st.DrawFn) -> Preprocess:
    pair = st.tuples(SIDES, SIDES)
    return Preprocess(
        draw(pair),
        draw(st.none() | SIDES | pair),
        draw(st.sampled_from(sorted(FILTERS))),
        rounding=draw(st.sampled_from(["even", "down"])),
        side=draw(st.sampled_from(["short", "long"])),
    )


@given(preprocesses(), SIDES, SIDES, st.integers(1, 8))
def test_the_view_lies_on_the_photograph_where_the_transform_says(
    preprocess: Preprocess, width: int, height: int, orientation: int
) -> None:
    """A white photograph: the view is white where it overlaps the resized one, and black around;
    a map laid back is seen exactly on the pixels whose centres lie in the view."""
    assume(max(width, height) <= 30 * min(width, height))
    photo = Photo(Image.new("RGB", (width, height), "white"), SHA, None, orientation)
    pixels, transform = preprocess.crop(photo)
    left, top, w, h = transform.crop
    assert (h, w) == preprocess.size
    xs, ys = np.arange(w) + left, np.arange(h) + top
    inside = ((ys >= 0) & (ys < transform.resized[1]))[:, None]
    inside = inside & (xs >= 0) & (xs < transform.resized[0])
    assert np.array_equal(pixels, np.where(inside[..., None], 255, 0) * np.ones(3))
    found = _record(np.ones((2, 2), np.float32), width, height, transform)
    heatmap = found.heatmap()
    centres_x = (np.arange(width) + 0.5) * transform.resized[0] / width - left
    centres_y = (np.arange(height) + 0.5) * transform.resized[1] / height - top
    rows, columns = (centres_y >= 0) & (centres_y <= h), (centres_x >= 0) & (centres_x <= w)
    assert np.array_equal(np.isfinite(heatmap), rows[:, None] & columns)
    x0, y0, x1, y1 = found.seen()
    assert np.isfinite(heatmap[y0:y1, x0:x1]).all()
    assert np.isfinite(heatmap).sum() == (x1 - x0) * (y1 - y0)


@given(SIDES, SIDES, st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_a_stored_heatmap_is_turned_as_the_file_is(
    width: int, height: int, orientation: int, seed: int
) -> None:
    """Turning the stored heatmap upright as a viewer does gives the upright heatmap."""
    values = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    transform = Transform((width, height), (0, 0, width, height), orientation)
    found = _record(values, width, height, transform)
    stored = Image.fromarray(found.heatmap(stored=True))
    turn = decoding._TURNS.get(orientation)
    upright = stored if turn is None else stored.transpose(turn)
    assert np.array_equal(np.asarray(upright), found.heatmap())


@given(
    st.tuples(*[st.floats(0, 1)] * 3),
    st.tuples(*[st.floats(0.05, 4)] * 3),
    st.sampled_from(["rgb", "bgr"]),
    arrays.arrays(np.uint8, (2, 3, 4, 3)),
)
def test_denormalising_undoes_normalising(
    mean: Any, std: Any, channels: Literal["rgb", "bgr"], pixels: Any
) -> None:
    preprocess = Preprocess((3, 4), mean=mean, std=std, channels=channels)
    back = preprocess.denormalise(preprocess.normalise(torch.from_numpy(pixels)))
    assert back.permute(0, 2, 3, 1).numpy() == pytest.approx(pixels / 255, abs=1e-5)


def _values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an option's annotation, most of which make sense."""
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is tuple:
        parts = [part for part in get_args(hint) if part is not ...]
        return st.tuples(*[_values(part) for part in parts])
    if parts := get_args(hint):
        return st.one_of([_values(part) for part in parts if part is not Tensor])
    known: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(1, 40),
        float: st.floats(0.01, 0.99) | st.floats(0, 1e9) | st.just(1),
        str: st.sampled_from(["mean", "blur", "layer4.1", "it's", "\u00e9\n"]),
        type(None): st.none(),
    }
    return known.get(hint, st.just("grad_cam"))


_CLASSES = [methods.find(name) for name in methods.names() if name != "captum"]
_CLASSES += [metrics.find(name) for name in metrics.names()]


@pytest.mark.parametrize("cls", _CLASSES, ids=lambda cls: cls.name())
@settings(max_examples=12)
@given(data=st.data())
def test_a_spec_gives_itself_back(cls: Any, data: st.DataObject) -> None:
    hints = get_type_hints(cls)
    names = [name for name in (item.name for item in fields(cls)) if name != "method"]
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    options = {name: data.draw(_values(hints[name])) for name in chosen}
    try:
        made = cls(**options)
    except ArgumentError:  # each alone makes sense, not all of them together
        return
    load = methods.load if issubclass(cls, base.Method) else metrics.load
    again = load(repr(made))
    # Not `again == made`: a method inside is a spec of any form, and given back in full.
    assert repr(again) == repr(made)
    assert load(repr(again)) == again


_CLASS = st.sampled_from(["0", "3", "tabby", "great grey owl", "a<b>c", "nsfw", "X Y"])
_SPACE = st.sampled_from(["", " "])
_TARGETS = st.one_of(
    st.integers(1, 9).map(lambda count: f"top{count}"),
    st.builds("class{1}={1}{0}".format, _CLASS, _SPACE),
    st.lists(_CLASS, min_size=1, max_size=4).map(lambda some: "any=" + ", ".join(some)),
    st.lists(_CLASS, min_size=1, max_size=4).map(lambda some: "odd ones=any:" + ", ".join(some)),
    st.sampled_from(["diff=0,3", "diff=tabby, nsfw"]),
    st.floats(-2, 2).map(lambda limit: f"above={limit}"),
)


@given(_TARGETS)
def test_a_target_gives_itself_back(text: str) -> None:
    found = Target.of(text, LABELS)
    assert Target.of(str(found), LABELS) == found


@given(st.one_of(st.just("top1"), _CLASS.map("class={}".format)), _SPACE, st.floats(-9, 9))
def test_a_gate_on_it_gives_itself_back(target: str, space: str, limit: float) -> None:
    for sign in "<>":
        found = Gate.of(f"{target}{space}{sign}{space}{limit}", LABELS)
        assert Gate.of(str(found), LABELS) == found
        assert (found.limit, found.above) == (limit, sign == ">")


@settings(max_examples=12)
@given(
    st.integers(0, 2**31),
    st.integers(1, 6),
    st.sampled_from([nn.ReLU, nn.GELU, nn.Tanh]),
    st.booleans(),
    st.sampled_from(["grad_cam", "saliency", "integrated_gradients(steps=4)", "occlusion"]),
)
def test_an_image_has_one_map_in_any_batch(
    seed: int, channels: int, activation: type[nn.Module], normalised: bool, name: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        *([nn.BatchNorm2d(channels)] if normalised else []),
        activation(),
        nn.Conv2d(channels, 4, 3, stride=2),
        activation(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()
    for weight in module.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    preprocess = Preprocess((12, 10))
    model = TorchModel(module, name="random", preprocess=preprocess, layer="0")
    x = torch.rand(3, 3, 12, 10, generator=generator)
    method = methods.load("occlusion(window=4, stride=4)" if name == "occlusion" else name)
    target = Target.of("top1")
    together = method(model, x, target).values
    alone = torch.cat([method(model, x[i : i + 1], target).values for i in range(3)])
    scale = float(together.abs().max().clamp_min(1e-6))
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4 * scale)


def _record(
    values: Any, width: int, height: int, transform: Transform, **more: Any
) -> ImageExplanation:
    return ImageExplanation(
        input=ImageRef(width, height, transform, SHA, more.pop("path", None)),
        model=ModelRef("m", SHA, "none"),
        values=values,
        method="grad_cam(relu=True)",
        target="top1",
        class_index=more.pop("class_index", None),
        label=more.pop("label", "owl"),
        score=more.pop("score", 0.5),
        logit=1.0,
        created="2026-01-01T00:00:00+00:00",
        **more,
    )


_FINITE = st.floats(-(2.0**127), 2.0**127, width=32)
_MAPS = arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=_FINITE)


@given(_MAPS)
def test_a_packed_map_keeps_eleven_bits(values: Any) -> None:
    back = unpack(*_swapped(pack(values), values.shape))
    peak = float(np.abs(values).max())
    assert back.shape == values.shape
    assert np.abs(back.astype(np.float64) - values).max() <= peak * 2.0**-11


def _swapped(packed: tuple[bytes, float], shape: Any) -> tuple[bytes, Any, float]:
    return packed[0], shape, packed[1]


@given(
    _MAPS,
    SIDES,
    SIDES,
    st.tuples(st.integers(-50, 50), st.integers(-50, 50), SIDES, SIDES),
    st.integers(1, 8),
    st.fixed_dictionaries(
        {},
        optional={
            "path": st.none() | st.text(),
            "label": st.text(),
            "score": st.floats(0, 1),
            "class_index": st.none() | st.integers(0, 2**31 - 1),
            "layer": st.none() | st.text(),
            "degenerate": st.booleans(),
            "seconds": st.floats(0, 1e6),
            "quality": st.dictionaries(st.text(), st.floats(allow_nan=False) | st.booleans()),
            "versions": st.dictionaries(st.text(), st.text()),
        },
    ),
)
def test_a_record_comes_back_from_json_and_from_a_row(
    values: Any, width: int, height: int, crop: Any, orientation: int, more: dict[str, Any]
) -> None:
    old = _record(values, width, height, Transform((width, height), crop, orientation), **more)
    plain = old.to_dict()
    for new in (
        ImageExplanation.from_dict(json.loads(json.dumps(plain))),
        ImageExplanation.from_dict(old.row()),
        of_row({**row_of(old, None), "path": old.input.path}),
    ):
        # The map itself was rounded once; what is packed from it again is the same.
        assert {**new.to_dict(), "map": 0, "map_scale": 0} == {**plain, "map": 0, "map_scale": 0}
        assert new.input == old.input
        assert np.array_equal(new.values, ImageExplanation.from_dict(plain).values)
