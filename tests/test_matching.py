"""Images matched with texts: both maps belong to the model's own cosine, and name what matches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from encoders import PROMPTS, image_and_text, saved, tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

import visxai
from visxai.errors import ArgumentError
from visxai.matching import Matcher

WINDOWS = "occlusion(window=32, stride=32)"
METHODS = {
    "grad_eclip": "grad_eclip",
    "chefer": "chefer",
    "legrad": "leave_one_out",
    WINDOWS: "leave_one_out",
}
PICTURE = np.random.default_rng(0).integers(0, 256, (zoo.SIZE, zoo.SIZE, 3), np.uint8)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def matcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    folder: Path = tmp_path_factory.mktemp(request.param)
    name = saved(image_and_text(request.param), folder)
    tokenizer(folder)
    return Matcher(name, device="cpu")


def pixels(matcher: Matcher) -> Tensor:
    """What the model sees of the picture (1, 3, h, w)."""
    engine = visxai.Engine(matcher.model, device="cpu", precision="fp32", accelerate="off")
    return engine.tensor([engine.prepare(PICTURE).pixels])  # type: ignore[union-attr]


def own(matcher: Matcher) -> Any:
    """The model of transformers that is matched with."""
    return matcher.model.module.model  # type: ignore[union-attr]


@pytest.mark.parametrize("method", METHODS)
def test_both_maps_are_of_the_models_own_cosine(matcher: Matcher, method: str) -> None:
    found = matcher.explain(PICTURE, PROMPTS, method, METHODS[method])
    assert [match.prompt for match in found] == list(PROMPTS)
    transformers = pytest.importorskip("transformers")
    words = transformers.AutoTokenizer.from_pretrained(matcher.model.ref.name.removeprefix("hf:"))
    text = words(list(PROMPTS), padding="max_length", max_length=8, return_tensors="pt")
    module = own(matcher)
    mask = {} if "siglip" in module.config.model_type else {"attention_mask": text.attention_mask}
    with torch.no_grad():
        joint = module(pixel_values=pixels(matcher), input_ids=text.input_ids, **mask)
    cosines = F.normalize(joint.image_embeds) @ F.normalize(joint.text_embeds).T
    for match, cosine in zip(found, cosines[0].tolist(), strict=True):
        assert match.similarity == pytest.approx(cosine, abs=1e-5)
        assert match.words.logit == pytest.approx(cosine, abs=1e-5)
        assert match.words.words == tuple(match.prompt.split())
        assert match.image.label == match.prompt
        assert match.overlay(PICTURE).size == (zoo.SIZE, zoo.SIZE)
    alone = matcher.explain(PICTURE, PROMPTS[1], method, METHODS[method])[0]
    assert np.allclose(alone.image.values, found[1].image.values, atol=1e-6)
    assert np.allclose(alone.words.values, found[1].words.values, atol=1e-6)
    told = matcher.similarities(PICTURE, PROMPTS)
    assert torch.allclose(told, cosines, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_an_image_runs_once_for_all_its_texts(matcher: Matcher, count: int) -> None:
    matcher.explain(PICTURE, PROMPTS[:count], "grad_eclip")  # the model is looked into once
    rows: list[int] = []
    handle = own(matcher).vision_model.register_forward_hook(
        lambda _m, _a, output: rows.append(len(output.last_hidden_state))
    )
    try:
        matcher.explain(PICTURE, PROMPTS[:count], "grad_eclip")
    finally:
        handle.remove()
    assert rows == [1]


def of_last_layer(tower: Any, run: Any) -> dict[str, Tensor]:
    """Queries, keys and values of a tower's last layer, and the scalar's gradient at its output."""
    layer, seen = tower.encoder.layers[-1].self_attn, {}
    handles = [
        getattr(layer, f"{part}_proj").register_forward_hook(
            lambda _m, _a, output, part=part: seen.update({part: output})
        )
        for part in "qkv"
    ]
    handles.append(layer.out_proj.register_forward_pre_hook(lambda _m, a: seen.update({"o": a[0]})))
    try:
        (seen["g"],) = torch.autograd.grad(run(), seen["o"])
    finally:
        for handle in handles:
            handle.remove()
    return {key: value[0].detach() for key, value in seen.items()}


def by_hand(seen: dict[str, Tensor], read: list[int], keys: list[int]) -> list[float]:
    """Grad-ECLIP's sum, one token read and one key after the other."""
    total = dict.fromkeys(keys, 0.0)
    for token in read:
        near = {k: float(F.cosine_similarity(seen["q"][token], seen["k"][k], 0)) for k in keys}
        low, high = min(near.values()), max(near.values())
        for key in keys:
            scaled = (near[key] - low) / (high - low)
            total[key] += scaled * float((seen["g"][token] * seen["v"][key]).sum())
    return [max(value, 0.0) for value in total.values()]


def test_grad_eclip_by_hand(matcher: Matcher) -> None:
    found = matcher.explain(PICTURE, PROMPTS, "grad_eclip", "grad_eclip")
    module, x = own(matcher), pixels(matcher)
    clip = module.config.model_type == "clip"
    words = torch.tensor([[0, 4, 7, 8, 1]]) if clip else torch.tensor([[0, 4, 7, 8, 1, 2, 2, 2]])

    def cosine() -> Tensor:
        image = module.get_image_features(pixel_values=x).pooler_output
        text = module.get_text_features(input_ids=words).pooler_output
        return F.cosine_similarity(image, text).sum()

    match = found[2]  # "a red fox"
    assert float(cosine().detach()) == pytest.approx(match.similarity, abs=1e-5)
    seen = of_last_layer(module.vision_model, cosine)
    patches = list(range(len(seen["k"])))[1 if clip else 0 :]
    expected = by_hand(seen, [0] if clip else patches, patches)
    assert match.image.values.ravel() == pytest.approx(expected, abs=1e-6, rel=1e-3)
    seen = of_last_layer(module.text_model, cosine)
    expected = by_hand(seen, [4 if clip else 7], [1, 2, 3])
    assert match.words.values == pytest.approx(expected, abs=1e-6, rel=1e-3)


class Colours(nn.Module):
    """An embedding of how much of each colour a picture holds."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_any_pair_of_towers_serves() -> None:
    names = ("red", "green", "blue")

    def embed(texts: list[str]) -> Any:
        return np.array([[word in text.split() for word in names] for text in texts], float)

    whole = visxai.Preprocess((zoo.SIZE,) * 2, zoo.SIZE, mean=(0.0,) * 3, std=(1.0,) * 3)
    picture = np.zeros((zoo.SIZE, zoo.SIZE, 3), np.uint8)
    picture[:32, :32, 0] = picture[32:, 32:, 2] = 250  # red, and blue
    for tower in (Colours().eval(), lambda x: x.mean((2, 3)).numpy()):
        found = Matcher(tower, text=embed, preprocess=whole, device="cpu").explain(
            picture, ["so red", "very blue", "a green one"], WINDOWS
        )
        red, blue, green = found
        assert red.similarity == pytest.approx(0.5**0.5, abs=1e-6)
        assert np.unravel_index(red.image.values.argmax(), (64, 64)) < (32, 32)
        assert float(blue.image.values[48, 48]) > 0 > float(blue.image.values[16, 16])
        assert np.argmax(red.words.values) == 1
        assert "“red”" in red.describe()
        assert green.image.degenerate
        assert "so red: 0.707" in red._repr_html_()


@pytest.mark.parametrize("method", ["grad_eclip", "chefer", "legrad", WINDOWS])
def test_a_model_of_openclip_serves(method: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    image = {"image_size": zoo.SIZE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
    module = open_clip.CLIP(16, image, text).eval()

    def embed(prompts: list[str]) -> Tensor:
        rows = torch.zeros(len(prompts), 8, dtype=torch.long)
        for row, prompt in zip(rows, prompts, strict=True):
            numbers = [*(1 + sum(map(ord, word)) % 60 for word in prompt.split()), 63]
            row[: len(numbers)] = torch.tensor(numbers)
        found: Tensor = module.encode_text(rows).detach()
        return found

    matcher = Matcher(module.visual, text=embed, preprocess=zoo.PREPROCESS, device="cpu")
    found = matcher.explain(PICTURE, PROMPTS[:2], method)
    with torch.no_grad():
        cosines = (
            F.normalize(module.encode_image(pixels(matcher)))
            @ F.normalize(embed(list(PROMPTS[:2]))).T
        )
    for match, cosine in zip(found, cosines[0].tolist(), strict=True):
        assert match.similarity == pytest.approx(cosine, abs=1e-5)
        assert match.words.logit == pytest.approx(cosine, abs=1e-5)
        assert np.ptp(match.image.values) > 0
    assert not np.allclose(found[0].image.values, found[1].image.values)


def test_what_is_missing_is_said(matcher: Matcher) -> None:
    with pytest.raises(ArgumentError, match="at least one text"):
        matcher.explain(PICTURE, [])
    with pytest.raises(ArgumentError, match="shorten it"):
        matcher.explain(PICTURE, "a cat a dog a red fox a cat")
    with pytest.raises(ArgumentError, match="AutoTokenizer"):
        Matcher(own(matcher))
    with pytest.raises(ArgumentError, match="text="):
        Matcher(nn.Flatten())
    with pytest.raises(ArgumentError, match="hf:FOLDER"):
        Matcher("efficientnet_lite0")
