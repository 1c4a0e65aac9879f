"""Gradients of the target at layers, with their activations, and at the input, in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visxai.models.blocks import joined_aim
from visxai.models.pytorch.capture import capture
from visxai.models.pytorch.forms import Forms
from visxai.models.pytorch.layers import Layout
from visxai.models.rows import Rows, wide
from visxai.models.views import AtInput, AtLayer, AtLayers
from visxai.target import Aim, Target


def at_layers(
    model: Forms, x: Tensor, target: Target, names: tuple[str, ...], layouts: Sequence[Layout]
) -> AtLayers:
    """Compute `Model.at_layers` for a torch model, block by block.

    Args:
        model: the network.
        x: inputs (b, 3, h, w).
        target: the target to settle on the scores.
        names: the layers' names.
        layouts: where the positions lie in each layer's output.
    """

    def run(part: Tensor, _image: Tensor, _turn: Tensor, first: int) -> AtLayers:
        return of_block(model, part, target.part(first, first + len(part)), names)

    parts = list(model._blocks(Rows.of(x), f"layer {names}", run))
    return _joined(parts, layouts)


def of_block(model: Forms, x: Tensor, target: Target, names: tuple[str, ...]) -> AtLayers:
    """Compute activations and gradients at layers for a block of inputs x (b, 3, h, w)."""
    module, run = model._above(names, x)
    with capture(module, *names, cut=True) as seen:
        scores = run()
        tensors = [seen[name] for name in names]
        plain = scores.detach()
        aim = target.aim(plain, model.probabilities(plain))
        gradients = gradients_of(model, aim, scores, tensors)
        activations = [t.detach() if aim.each_has == 1 else t.detach()[aim.rows] for t in tensors]
    layers = zip(names, activations, gradients, strict=True)
    return AtLayers(plain, aim, tuple(AtLayer(*layer) for layer in layers))


def at_input(model: Forms, x: Tensor, target: Target) -> AtInput:
    """Compute `Model.at_input` for a torch model, block by block."""

    def run(part: Tensor, _image: Tensor, _turn: Tensor, first: int) -> AtInput:
        with torch.inference_mode(False), torch.enable_grad():
            # Cloned: an inference tensor of the caller's can't be differentiated.
            leaf = part.detach().clone().requires_grad_()
            scores = wide(model.forward(leaf, model._differentiable(part)))
            plain = scores.detach()
            own = target.part(first, first + len(part))
            aim = own.aim(plain, model.probabilities(plain))
            return AtInput(plain, aim, gradients_of(model, aim, scores, [leaf])[0])

    parts = list(model._blocks(Rows.of(x), "gradients", run))
    aim = parts[0].aim if len(parts) == 1 else joined_aim(parts)
    scores, gradient = ([getattr(one, n) for one in parts] for n in ("scores", "gradient"))
    return AtInput(_together(scores), aim, _together(gradient))


def gradients_of(model: Forms, aim: Aim, scores: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Compute the gradient of each map's scalar at tensors (b, ...) that scores (b, k) depend on.

    Returns:
        For each tensor the gradients (maps, ...), float32 or wider.
    """
    if aim.each_has == 1:  # row i is of map i: nothing is moved
        return model.differentiate(aim(scores), tensors, False)
    # In float32: what fp16's scale has saved would vanish in fp16 again.
    gradients = [
        t.new_zeros((len(aim), *t.shape[1:]), dtype=torch.promote_types(t.dtype, torch.float32))
        for t in tensors
    ]
    passes = aim.passes
    for number, which in enumerate(passes):
        value = aim(scores[aim.rows[which]], which)
        found = model.differentiate(value, tensors, number + 1 < len(passes))
        for into, gradient in zip(gradients, found, strict=True):
            into[which] = gradient[aim.rows[which]]
    return gradients


def _joined(parts: Sequence[AtLayers], layouts: Sequence[Layout]) -> AtLayers:
    """Join the blocks of a batch, with activations and gradients as float32 maps."""
    scores = _together([part.scores for part in parts])
    aim = parts[0].aim if len(parts) == 1 else joined_aim(parts)
    layers = []
    for number, layout in enumerate(layouts):
        pieces = [part.layers[number] for part in parts]
        activation = _together([wide(layout.maps(piece.activation)) for piece in pieces])
        gradient = _together([wide(layout.maps(piece.gradient)) for piece in pieces])
        layers.append(AtLayer(pieces[0].name, activation, gradient))
    return AtLayers(scores, aim, tuple(layers))


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors along axis 0; a single one isn't copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
