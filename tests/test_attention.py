"""Attention capture against formulas in float64, and each transformer method against a slow one.

The slow references build full matrices from an explicit attention that autograd differentiates.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import visxai
from visxai import methods
from visxai.engine.batch import compute
from visxai.errors import ArgumentError, ModelError
from visxai.methods._attention import outlying, smoothed
from visxai.methods.attention_rollout import rollout
from visxai.models.interface import Need
from visxai.models.probe import Probe
from visxai.models.pytorch import narrow, sdpa
from visxai.models.pytorch.model import TorchModel
from visxai.models.pytorch.sdpa import record_attention
from visxai.models.views import Attended
from visxai.target import Target

PLAIN = F.scaled_dot_product_attention
TRANSFORMERS = ["vit", "timm_registers", "timm_mean", "hf_vit"]
PREFIX = {"vit": 1, "timm_registers": 5, "timm_mean": 0, "hf_vit": 1}
CLASS = Target.of("class=3")


def timm_vit(**options: object) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
    return zoo.randomise(VisionTransformer(**{**sizes, "num_classes": 10, **options}))


def module(kind: str) -> nn.Module:
    if kind == "timm_mean":
        return timm_vit(class_token=False, global_pool="avg")
    return zoo.module(kind)


def double(kind: str) -> TorchModel:
    import copy

    return TorchModel(copy.deepcopy(module(kind)).double(), name=kind)


def maps_of(model: TorchModel, spec: str, x: Tensor, target: Target = CLASS) -> Tensor:
    return compute(methods.load(spec), Probe(model, x), x, target).values


@pytest.mark.parametrize("kind", ["vit", "timm_registers", "hf_vit"])
def test_capture_is_exact(kind: str) -> None:
    model, x = double(kind), zoo.inputs(2).double()
    with record_attention(model.module) as calls:
        model.forward(x)
    assert len(calls) == 3
    for call in calls:
        (weights, gradient), *rest = call.heads()
        assert not rest
        assert gradient is None
        assert weights.dtype == torch.float64
        expected = (call.query @ call.key.mT / math.sqrt(call.query.shape[-1])).softmax(-1)
        assert (weights - expected).abs().max() < 1e-12
        assert (weights @ call.value - call.output).abs().max() < 1e-12
        assert not call.output.requires_grad


@pytest.mark.parametrize("options", ["bool", "float", "causal", "scale", "gqa"])
def test_masks_and_scales(options: str) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8, dtype=torch.float64)
    given: dict[str, object] = {}
    if options == "bool":
        given["attn_mask"] = torch.rand(2, 1, 5, 5) > 0.3
        given["attn_mask"][..., 0] = True  # type: ignore[index]
    elif options == "float":
        given["attn_mask"] = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    elif options == "causal":
        given["is_causal"] = True
    elif options == "scale":
        given["scale"] = 0.7
    else:
        key, value, given = key[:, :2], value[:, :2], {"enable_gqa": True}
    with record_attention(nn.Identity()) as calls:
        output = F.scaled_dot_product_attention(query, key, value, **given)
    (call,) = calls
    weights = torch.cat([part for part, _ in call.heads()], 1)
    assert (weights @ call.value - output).abs().max() < 1e-12
    both = torch.tensor([1, 0])
    swapped = torch.cat([part for part, _ in call.of(both, None).heads()], 1)
    assert torch.equal(swapped, weights[both])


def test_heads_come_in_parts_when_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = double("vit"), zoo.inputs(2).double()
    whole = maps_of(model, "chefer", x)
    monkeypatch.setattr("visxai.models.pytorch.sdpa._MOST_WEIGHTS", 1)
    assert torch.allclose(maps_of(model, "chefer", x), whole, rtol=1e-6)


def test_the_function_comes_back() -> None:
    model, x = zoo.model("vit"), zoo.inputs(1)
    with record_attention(model.module):
        with record_attention(model.module) as inner:
            model.forward(x)
        assert F.scaled_dot_product_attention is not PLAIN
    assert len(inner) == 3
    assert F.scaled_dot_product_attention is PLAIN

    def interrupted() -> None:
        with record_attention(model.module, leaves=(0,)):
            model.forward(x)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert F.scaled_dot_product_attention is PLAIN
    assert torch.is_grad_enabled()
    assert all(not part._forward_pre_hooks for part in model.module.modules())


def test_threads_record_their_own() -> None:
    kinds = ["vit", "timm_registers", "hf_vit"]
    models = {kind: double(kind) for kind in kinds}
    inputs = {kind: zoo.inputs(1, seed=seed).double() for seed, kind in enumerate(kinds)}
    expected = {}
    for kind in kinds:
        with record_attention(models[kind].module) as calls:
            models[kind].forward(inputs[kind])
        expected[kind] = calls
    wrong: list[object] = []

    def work(kind: str) -> None:
        try:
            for _ in range(15):
                with record_attention(models[kind].module) as calls:
                    models[kind].forward(inputs[kind])
                pairs = zip(calls, expected[kind], strict=True)
                if not all(torch.allclose(a.output, b.output, atol=1e-12) for a, b in pairs):
                    wrong.append(kind)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert F.scaled_dot_product_attention is PLAIN


def explicit(
    model: TorchModel, x: Tensor, target: Callable[[Tensor], Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """A and dy/dA (b, h, n, n) of every layer, by an attention whose weights autograd sees."""
    seen: list[Tensor] = []

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **given: object) -> Tensor:
        scale = given.get("scale") or 1 / math.sqrt(query.shape[-1])
        weights = (query @ key.mT * scale).softmax(-1)
        if not weights.requires_grad:
            weights.requires_grad_()
        seen.append(weights)
        return weights @ value

    F.scaled_dot_product_attention = attention
    try:
        with torch.enable_grad():
            value = target(model.forward(x)).sum()
            gradients = torch.autograd.grad(value, seen)
    finally:
        F.scaled_dot_product_attention = PLAIN
    return [weights.detach() for weights in seen], list(gradients)


def start(kind: str, count: int) -> Tensor:
    row = torch.zeros(count, dtype=torch.float64)
    if PREFIX[kind]:
        row[0] = 1
    else:
        row[:] = 1 / count
    return row


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_gradients_equal_autograd(kind: str) -> None:
    model, x = double(kind), zoo.inputs(2).double()
    weights, gradients = explicit(model, x, lambda scores: scores[:, 3])
    found: list[tuple[Tensor, Tensor]] = []

    def reduce(seen: Attended) -> Tensor:
        found.extend(next(layer.heads()) for layer in seen.layers)  # type: ignore[arg-type]
        return seen.start

    model.attention(x, CLASS, reduce)
    for (a, g), weight, gradient in zip(found, weights, gradients, strict=True):
        assert (a - weight).abs().max() < 1e-12
        assert (g - gradient).abs().max() < 1e-12


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_tokens_are_found(kind: str) -> None:
    tokens = double(kind).tokens(zoo.inputs(1))
    assert (tokens.prefix, tokens.height, tokens.width) == (PREFIX[kind], 4, 4)
    assert tokens.read == ((0,) if PREFIX[kind] else tuple(range(16)))
    assert len(tokens.blocks) == 3
    assert tokens.droppable


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_rollout(kind: str) -> None:
    model, x = double(kind), zoo.inputs(2).double()
    weights, _ = explicit(model, x, lambda scores: scores[:, 3])
    product = torch.eye(weights[0].shape[-1], dtype=torch.float64)
    for weight in weights:
        mixed = weight.mean(1) + torch.eye(weight.shape[-1])
        product = mixed / mixed.sum(-1, keepdim=True) @ product
    row = start(kind, product.shape[-1]) @ product
    assert torch.allclose(product.sum(-1), torch.ones(()).double())
    seen = model.attention(x, CLASS, rollout, gradient="none")
    assert torch.allclose(seen.values, row, atol=1e-12)
    assert torch.allclose(seen.values.sum(1), torch.ones(()).double(), atol=1e-12)
    patches = row[:, PREFIX[kind] :].unflatten(1, (4, 4)).float()
    assert torch.allclose(maps_of(model, "attention_rollout", x), patches, atol=1e-6)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_chefer(kind: str) -> None:
    model, x = double(kind), zoo.inputs(2).double()
    weights, gradients = explicit(model, x, lambda scores: scores[:, 3])
    relevance = torch.eye(weights[0].shape[-1], dtype=torch.float64).expand(2, -1, -1)
    identity = relevance
    for weight, gradient in zip(weights, gradients, strict=True):
        relevance = relevance + (weight * gradient).relu().mean(1) @ relevance
    row = start(kind, relevance.shape[-1]) @ (relevance - identity)
    compare(maps_of(model, "chefer", x), row, kind)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_attention_cam(kind: str) -> None:
    model, x = double(kind), zoo.inputs(2).double()
    weights, gradients = explicit(model, x, lambda scores: scores[:, 3])
    e = start(kind, weights[-1].shape[-1])
    attention, gradient = e @ weights[-1], e @ gradients[-1]
    signed = (attention * gradient.mean(-1, keepdim=True)).mean(1)
    compare(maps_of(model, "attention_cam(relu=False)", x), signed, kind)
    compare(maps_of(model, "attention_cam", x), signed.relu(), kind)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_beyond_intuition(kind: str) -> None:
    model, x = double(kind), zoo.inputs(2).double()
    weights, gradients = explicit(model, x, lambda scores: scores[:, 3])
    relevance = torch.eye(weights[0].shape[-1], dtype=torch.float64).expand(2, -1, -1)
    for weight, gradient in zip(weights, gradients, strict=True):
        importance = (weight.mT @ gradient).abs().mean((-2, -1))
        importance = importance / importance.sum(1, keepdim=True)
        relevance = relevance + (importance[:, :, None, None] * weight).sum(1) @ relevance
    worth = torch.stack(
        [explicit(model, x * k / 20, lambda scores: scores[:, 3])[1][-1] for k in range(1, 21)]
    )
    e = start(kind, relevance.shape[-1])
    row = (e @ relevance) * (e @ worth.mean(0)).relu().mean(1)
    compare(maps_of(model, "beyond_intuition", x), row, kind)


def test_legrad_by_hand() -> None:
    """Block by block on timm's model, whose parts can be called one at a time."""
    for kind in ("timm_registers", "timm_mean"):
        model, x = double(kind), zoo.inputs(2).double()
        vit = model.module
        tokens = vit._pos_embed(vit.patch_embed(x))  # type: ignore[operator]
        total = torch.zeros(())
        for block in vit.blocks:  # type: ignore[union-attr]
            seen: list[Tensor] = []

            def attention(
                q: Tensor, k: Tensor, v: Tensor, seen: list[Tensor] = seen, **_: object
            ) -> Tensor:
                seen.append((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1).detach())
                return seen[0].requires_grad_() @ v

            F.scaled_dot_product_attention = attention
            try:
                tokens = block(tokens.detach())
            finally:
                F.scaled_dot_product_attention = PLAIN
            scores = vit.forward_head(vit.norm(tokens))  # type: ignore[operator]
            (gradient,) = torch.autograd.grad(scores[:, 3].sum(), seen)
            total = total + gradient.relu().mean((1, 2))
        compare(maps_of(model, "legrad", x), total.detach(), kind)


@pytest.mark.parametrize("kind", ["vit", "hf_vit"])
def test_legrad_elsewhere(kind: str) -> None:
    """The last layer's share, alone: there LeGrad's score is the model's own."""
    model, x = double(kind), zoo.inputs(2).double()
    _, gradients = explicit(model, x, lambda scores: scores[:, 3])

    def share(seen: Attended) -> Tensor:
        return seen.layers[-1].mean(lambda _, gradient: gradient.relu().mean(2))

    seen = model.attention(x, CLASS, share, gradient="blocks")
    assert torch.allclose(seen.values, gradients[-1].relu().mean((1, 2)), atol=1e-12)
    assert torch.allclose(seen.scores, model.scores(x), atol=1e-12)


def compare(maps: Tensor, row: Tensor, kind: str) -> None:
    expected = row[:, PREFIX[kind] :].unflatten(1, (4, 4))
    assert maps.shape == expected.shape
    assert (maps - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_only_models_that_attend_over_patches_offer_it() -> None:
    for kind in zoo.CNNS:
        assert not zoo.model(kind).offers & (Need.ATTENTION | Need.TOKENS)
    assert not zoo.model("swin").offers & Need.ATTENTION
    for kind in ("vit", "timm_registers", "hf_vit"):
        assert zoo.model(kind).offers & Need.ATTENTION
        assert zoo.model(kind).offers & Need.TOKENS


def test_eager_attention_names_the_remedy() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"image_size": 64, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = ViTConfig(**sizes, intermediate_size=96, num_labels=10, attn_implementation="eager")
    eager = ViTForImageClassification(config)
    engine = visxai.Engine(eager, device="cpu", precision="fp32")
    with pytest.raises(ArgumentError, match="attn_implementation='sdpa', or use one of"):
        engine.attribute(zoo.inputs(1), "chefer")
    with pytest.raises(ModelError, match="attn_implementation='sdpa'"):
        engine.model.tokens(zoo.inputs(1))


def test_unfused_timm_names_the_remedy() -> None:
    from timm.layers import set_fused_attn

    set_fused_attn(False)
    try:
        unfused = timm_vit(reg_tokens=1)
    finally:
        set_fused_attn(True)
    with pytest.raises(ArgumentError, match="set_fused_attn"):
        visxai.Engine(unfused, device="cpu").attribute(zoo.inputs(1), "legrad")


def test_swin_says_what_remains() -> None:
    engine = visxai.Engine(zoo.module("swin"), device="cpu")
    with pytest.raises(
        ArgumentError, match=r"needs attention: use one of grad_cam, .*rise, or of \d+ more"
    ):
        engine.attribute(zoo.inputs(1), "chefer")


def test_outliers_take_their_neighbours_median() -> None:
    norms = torch.tensor([[1.0, 1.1, 0.9, 1.0, 9.0, 1.05, 1.0, 0.95, 1.0]])
    assert outlying(norms, 5.0).nonzero().tolist() == [[0, 4]]
    maps = torch.arange(9.0).reshape(1, 3, 3)
    maps[0, 1, 1] = 100.0
    mask = outlying(norms, 5.0).reshape(1, 3, 3)
    expected = torch.arange(9.0).reshape(1, 3, 3)
    expected[0, 1, 1] = 3.0  # the lower median of 0 1 2 3 5 6 7 8
    assert torch.equal(smoothed(maps, mask), expected)


def test_a_far_limit_masks_nothing() -> None:
    model, x = zoo.model("timm_registers"), zoo.inputs()
    plain = maps_of(model, "chefer", x)
    assert torch.equal(maps_of(model, "chefer(outliers=1e6)", x), plain)
    assert not torch.equal(maps_of(model, "chefer(outliers=0.1)", x), plain)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_keeping_all_tokens_changes_nothing(kind: str) -> None:
    model, x = TorchModel(module(kind), name=kind), zoo.inputs()
    aim = model.aim(x, CLASS)
    every = torch.arange(16).expand(2, -1)
    values = model.token_values(x, every, aim)
    clean = aim(model.scores(x))
    assert torch.allclose(values, clean.unsqueeze(1).expand(-1, 2), atol=1e-5)


def test_dropped_tokens_are_not_attended_to() -> None:
    """The scores equal those of the whole sequence with the dropped keys masked out."""
    model, x = double("vit"), zoo.inputs(2).double()
    keep = torch.tensor([[0, 3, 5, 10, 15]])
    mask = torch.zeros(17, dtype=torch.bool)
    mask[torch.cat([torch.zeros(1, dtype=torch.long), keep[0] + 1])] = True

    def masked(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> Tensor:
        return PLAIN(q, k, v, attn_mask=mask.expand(17, -1))

    with record_attention(model.module):
        inner, F.scaled_dot_product_attention = F.scaled_dot_product_attention, masked
        try:
            expected = model.forward(x)
        finally:
            F.scaled_dot_product_attention = inner
    aim = model.aim(x, CLASS)
    values = model.token_values(x, keep, aim)
    assert torch.allclose(values[:, 0].double(), expected[:, 3], atol=1e-6)


def test_relative_positions_forbid_dropping() -> None:
    from timm.models.beit import Beit

    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
    options = {"num_classes": 10, "use_abs_pos_emb": False, "use_rel_pos_bias": True}
    beit = TorchModel(zoo.randomise(Beit(**sizes, **options)), name="beit")
    assert beit.offers & Need.ATTENTION
    assert not beit.offers & Need.TOKENS
    maps = maps_of(beit, "chefer", zoo.inputs())
    assert maps.shape == (3, 4, 4)


def test_an_aim_without_maps_gives_none() -> None:
    maps = maps_of(zoo.model("vit"), "chefer", zoo.inputs(), Target.of("above=1.0"))
    assert maps.shape == (0, 4, 4)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", ["", "boolean", "added"])
def test_attention_by_products_equals_the_fused_kernel(causal: bool, masked: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4, generator=generator).bfloat16() for _ in range(3))
    mask = torch.rand(7, 7, generator=generator).add(torch.eye(7)) > 0.4
    given = {"": None, "boolean": mask, "added": torch.randn(7, 7, generator=generator)}[masked]
    if causal and given is not None:
        pytest.skip("PyTorch's function takes a mask or the causal flag")
    found = sdpa._by_products(query, key, value, given, is_causal=causal)
    wide = (one.float() for one in (query, key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(*wide, given, is_causal=causal)
    assert found is not None
    assert (found.float() - expected).abs().max() < 0.03
    assert sdpa._by_products(query.float(), key.float(), value.float()) is None


def test_the_input_products_of_attention_in_a_half_precision_copy_are_folded() -> None:
    """Each is one matrix product; PyTorch otherwise copies the weight once for each token."""
    module = zoo.module("vit")
    x = zoo.inputs(2)
    made = narrow.narrowed(module, lambda part, rows: part(rows), x, torch.bfloat16)
    weights = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten.bmm.default:
                weights.append(tuple(args[1].shape[1:]))
            return func(*args, **(kwargs or {}))

    part = next(p for p in module.modules() if isinstance(p, nn.MultiheadAttention))
    expected = tuple(part.in_proj_weight.mT.shape)
    with torch.no_grad(), Products():
        for one in made.module.parameters():
            one.requires_grad_(False)  # as a copy would be without its mend
        made.module(made.inputs(x))
        assert expected in weights
        weights.clear()
        narrow._fold_products(made.module)
        made.module(made.inputs(x))
    assert expected not in weights
