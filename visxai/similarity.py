"""Why two pictures match under an embedding: a map on each of them.

    y(x) = cos( e(x), e(other) )

e is what the model returns, an embedding (b, d). Each picture is explained against the other's
embedding as it is, by any method: `occlusion` is SBSM, which needs nothing but embeddings (SBSM
drops what speaks against the match, which stays here as negative values); `saliency`,
`input_x_gradient` and `grad_cam` are the gradient forms.

    found = explain(embedder, "one.jpg", "two.jpg", method="occlusion,grad_cam")
    found.figure().savefig("match.pdf")

Source: Dong et al., Explainability for content-based image retrieval, CVPR workshops 2019 (SBSM);
Stylianou et al., Visualizing deep similarity networks, WACV 2019 (maps on both pictures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visxai.engine.engine import Engine
from visxai.images.prepared import Prepared
from visxai.models.pytorch.classifier import classifiers
from visxai.models.pytorch.model import TorchModel
from visxai.record.collection import Explanations
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.methods.base import Method


def explain(
    model: Any, first: Any, second: Any, method: str | Method | Sequence[str | Method] = "occlusion"
) -> Explanations:
    """Explain why two pictures match.

    Args:
        model: An `Engine`, or what one takes as its model, that returns an embedding (n, d) instead
            of scores: a module or a function.
        first: A picture: a path, bytes, PIL image or array.
        second: The other picture.
        method: One method or several, also in one string with commas between them.

    Returns:
        Two explanations for each method, the map on the first picture and that on the second; their
        score is the cosine of the two embeddings, -1 to 1.

    Raises:
        ImageError: A picture can't be read.
        ArgumentError: The model can't serve a method.
    """
    engine = model if isinstance(model, Engine) else Engine(model, activation="none", labels=[])
    pair = [engine.prepare(one) for one in (first, second)]
    pixels = [one.pixels for one in pair if isinstance(one, Prepared)]
    embeddings = engine.model.scores(engine.tensor(pixels))
    found = Explanations()
    maps = [
        engine.explain([one], method, match(other, name))
        for one, other, name in (
            (first, embeddings[1], "the second picture"),
            (second, embeddings[0], "the first picture"),
        )
    ]
    for both in zip(*maps, strict=True):
        found.extend(both)
    return found


def embedder(engine: Engine, layer: str | None = None) -> Engine:
    """Make an engine for the embedding that a classifier computes before it decides.

    Args:
        engine: An engine with a classifier, or with a model that returns an embedding.
        layer: The layer that CAMs look at; None lets the model choose.

    Returns:
        An engine for what enters the classifier's last layer; the same engine where its model
        returns an embedding, so that it has no names of classes, or is a function.
    """
    model = engine.model
    if not isinstance(model, TorchModel) or not model.labels or model.preprocess is None:
        return engine
    size = model.preprocess.size  # type: ignore[union-attr]
    names = classifiers(model.survey(torch.zeros(1, 3, *size)), model.module)
    module = model.copied()
    for name in names:
        module.set_submodule(name, nn.Identity())
    cut = TorchModel(
        module,
        name=f"{model.ref.name} without its classes",
        preprocess=model.preprocess,
        activation="none",
        layer=layer,
    )
    return Engine(cut, device=engine.device, precision="fp32", accelerate="off")


def match(embedding: Tensor, name: str = "another picture") -> Target:
    """Aim at the similarity with an embedding, for `Engine.explain` and its neighbours.

    Args:
        embedding: (d,), as the same model gives it.
        name: What it is of, for the record.

    Returns:
        A target whose scalar is the cosine with the embedding.
    """
    other = F.normalize(embedding.detach().float(), dim=0)

    def cosine(embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings.float(), dim=1) @ other.to(embeddings.device)

    return Target("callable", f"match={name}", function=cosine)
