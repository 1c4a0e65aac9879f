"""Attention, and the score's gradient at it, for the maps of a block of rows.

Nothing of size tokens x tokens outlives a block: of each layer the inputs and the output of its
attention are kept, and the weights of a few heads are computed when a method reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visxai.models.blocks import Chosen, joined_aim, maps_of
from visxai.models.interface import AttentionGradient
from visxai.models.pytorch.capture import capture
from visxai.models.pytorch.sdpa import Call, record_attention
from visxai.models.pytorch.tokens import dropping, separate
from visxai.models.rows import Rows, vanished, wide
from visxai.models.views import AtAttention, Attended, Tokens
from visxai.target import Aim, Target

if TYPE_CHECKING:
    from visxai.models.pytorch.network import Network

Reduce = Callable[[Attended], Tensor]


@dataclass(frozen=True)
class AttentionRequest:
    """A method's request for attention.

    Attributes:
        reduce: the method's function, from the attention seen by n maps to values (n, ...).
        gradient: what the gradients are of (see `Model.attention`).
        last: whether to read the last layer alone.
    """

    reduce: Reduce
    gradient: AttentionGradient
    last: bool

    @property
    def key(self) -> str:
        """The kind of computation, by which the budget remembers block sizes."""
        return f"attention {self.gradient}{' last' if self.last else ''}"


@dataclass(frozen=True)
class Part:
    """The results of a block of rows with m maps.

    Attributes:
        scores: (rows, k).
        aim: the target settled on the images.
        map: (m,) the maps.
        turn: (m,) their turns.
        values: (m, ...) what the method computed from the attention.
        norms: (m, patches) the norms of the patches' final tokens.
        vanished: (m,) whether a gradient was all zero or not finite.
    """

    scores: Tensor
    aim: Aim
    map: Tensor
    turn: Tensor
    values: Tensor
    norms: Tensor
    vanished: Tensor


def attend(model: Network, x: Tensor, target: Target, request: AttentionRequest) -> AtAttention:
    """Compute `Model.attention` for a torch model."""
    tokens = model.tokens(x)

    def run(part: Tensor, image: Tensor, turn: Tensor, first: int) -> Part:
        def settle(scores: Tensor) -> tuple[Aim, Tensor]:
            own = target.part(first, first + len(part))
            return own.aim(scores, model.probabilities(scores)), image - first

        found = _part(model, tokens, part, turn, settle, request)
        order = found.map.argsort()
        ordered = (found.values[order], found.norms[order], found.vanished[order])
        return replace(
            found, map=found.map[order], values=ordered[0], norms=ordered[1], vanished=ordered[2]
        )

    blocks = list(model._blocks(Rows.of(x), request.key, run))
    return AtAttention(
        torch.cat([part.scores for part in blocks]),
        blocks[0].aim if len(blocks) == 1 else joined_aim(blocks),
        torch.cat([part.values for part in blocks]),
        torch.cat([part.norms for part in blocks]),
        tokens,
        torch.cat([part.vanished for part in blocks]),
    )


def attend_rows(
    model: Network, rows: Rows, aim: Aim, request: AttentionRequest
) -> tuple[Tensor, Tensor]:
    """Compute `Model.attention_rows` for a torch model.

    Returns:
        The reduced values (maps, turns, ...), and (maps, turns) whether a gradient vanished.
    """
    tokens = model.tokens(torch.zeros(1, *rows.shape, device=model.device))
    out: Tensor | None = None
    lost = torch.zeros(len(aim), rows.turns, dtype=torch.bool, device=model.device)

    def run(part: Tensor, image: Tensor, turn: Tensor, _: int) -> Part:
        return _part(model, tokens, part, turn, lambda _: (aim, image), request)

    for part in model._blocks(rows, request.key, run):
        if out is None:
            out = part.values.new_zeros((len(aim), rows.turns, *part.values.shape[1:]))
        out[part.map, part.turn] = part.values
        lost[part.map, part.turn] = part.vanished
    assert out is not None
    return out, lost


def token_values(model: Network, x: Tensor, keep: Tensor, aim: Aim) -> Tensor:
    """Compute `Model.token_values` for a torch model."""
    tokens = model.tokens(x)
    keep = keep.to(model.device)
    out = torch.empty(len(aim), len(keep), device=model.device)
    rows = Rows(x.shape[0], len(keep), tuple(x.shape[1:]), lambda image, _: x[image])

    def run(part: Tensor, image: Tensor, turn: Tensor, _: int) -> bool:
        with dropping(model.module, tokens, keep[turn]):
            scores = wide(model.forward(part))
        for chosen, which in maps_of(aim, image):
            out[which, turn[chosen]] = aim(scores[chosen], which).to(out.dtype)
        return True

    with torch.inference_mode(False), torch.no_grad():
        all(model._blocks(rows, "tokens", run))
    return out


def _part(
    model: Network,
    tokens: Tokens,
    x: Tensor,
    turn: Tensor,
    settle: Callable[[Tensor], tuple[Aim, Tensor]],
    request: AttentionRequest,
) -> Part:
    """Run a forward of a block, and reduce its attention for each of its maps.

    Args:
        model: the network.
        tokens: its tokens.
        x: the block's inputs (n, 3, h, w).
        turn: (n,) the turn of each row.
        settle: from the scores (n, k) to the aim and the image (n,) of each row.
        request: the method's request.
    """
    wanted = tokens.calls[-1:] if request.last else tokens.calls
    leaves = {"none": (), "scores": wanted[:1], "blocks": wanted}[request.gradient]
    module, run = model.at_work(x)
    separately = separate(module, tokens) if request.gradient == "blocks" else nullcontext()
    final = tokens.blocks[-1]
    with (
        record_attention(module, leaves=leaves) as recorded,
        capture(module, final) as seen,
        separately,
    ):
        scores = run()
        calls = [recorded[i] for i in wanted]
        norms = wide(seen[final])[:, tokens.prefix :].norm(dim=2)
        plain = scores[: len(x)].detach()
        aim, image = settle(plain)
        none = torch.empty(0, dtype=torch.long, device=x.device)
        pairs = maps_of(aim, image) or [(none, none)]
        made = []
        for number, (chosen, which) in enumerate(pairs):
            gradients, lost = None, torch.zeros(len(which), dtype=torch.bool, device=x.device)
            if request.gradient != "none":
                parts = torch.split(scores, len(x))  # a part a layer with "blocks"
                value = torch.stack([aim(part[chosen], which) for part in parts]).sum(0)
                outputs = [call.output for call in calls]
                gradients = model.differentiate(value, outputs, number + 1 < len(pairs))
                gradients = [gradient[chosen] for gradient in gradients]
                lost = torch.stack([vanished(gradient) for gradient in gradients]).any(0)
            with torch.no_grad():
                layers = _of(calls, chosen, gradients)
                made.append(
                    (
                        which,
                        turn[chosen],
                        request.reduce(Attended(layers, tokens)),
                        norms[chosen],
                        lost,
                    )
                )
    return Part(plain, aim, *(torch.cat(column) for column in zip(*made, strict=True)))


def _of(calls: list[Call], chosen: Chosen, gradients: list[Tensor] | None) -> tuple[Call, ...]:
    """Select the chosen rows of each layer's call."""
    return tuple(
        call.of(chosen, None if gradients is None else gradients[number])
        for number, call in enumerate(calls)
    )
