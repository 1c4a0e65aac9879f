"""The greatest states of a bidirectional LSTM over texts that are padded in front, fast on a CPU.

    p_j = max_t h_tj    over both directions' states h, padding included

Rows of one padding share the forward direction's states there: they are computed once for all rows.
The backward direction reads the text first and the padding after it, so its states at the padding
belong to each row, but their input is one vector. Gradients go to the text's embeddings alone, as
attributions need them: none to weights, and none to the padding.

States are held as (features, rows): each step is one matrix product and a few operations on memory
without gaps. Gates lie in the order input, forget, output, cell, so that one call serves the three
that are sigmoids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_ORDER = (0, 1, 3, 2)  # of PyTorch's gates input, forget, cell, output


@dataclass(frozen=True)
class Direction:
    """One direction's weights, gates in this module's order.

    Attributes:
        inner: (4h, d) from the input.
        outer: (4h, h) from the state.
        bias: (4h, 1).
    """

    inner: Tensor
    outer: Tensor
    bias: Tensor

    @classmethod
    def of(cls, lstm: nn.LSTM, suffix: str) -> Direction:
        """Take a direction's weights out of a layer; the suffix is "" or "_reverse"."""
        held: dict[str, Tensor] = dict(lstm.named_parameters())

        def part(name: str) -> Tensor:
            chunks = held[f"{name}_l0{suffix}"].detach().chunk(4)
            return torch.cat([chunks[place] for place in _ORDER])

        bias = part("bias_ih") + part("bias_hh")
        return cls(part("weight_ih"), part("weight_hh"), bias.unsqueeze(1))


@dataclass(frozen=True)
class Trace:
    """The steps of one direction, what its gradients need.

    Attributes:
        gates: (s, 4h, n) after their functions.
        cells: (s, h, n).
        squashed: (s, h, n) tanh of the cells.
        states: (s, h, n).
        first: (h, n) the cell before the first step.
    """

    gates: Tensor
    cells: Tensor
    squashed: Tensor
    states: Tensor
    first: Tensor


def run(
    way: Direction, given: Tensor, later: Tensor | None, count: int, h: Tensor, c: Tensor
) -> Trace:
    """Run a direction.

    Args:
        way: The weights.
        given: (s, 4h, n) the input's part of the first steps' gates, with the bias.
        later: (4h, 1) that of all later steps.
        count: The number of later steps.
        h: (h, n) the state before.
        c: (h, n) the cell before.
    """
    size, rows = h.shape
    steps = len(given) + count
    gates = h.new_empty(steps, 4 * size, rows)
    cells, squashed, states = (h.new_empty(steps, size, rows) for _ in range(3))
    first = c
    # Views are made for all steps at once: one by one they'd cost as much as the arithmetic.
    starts: list[Any] = [*given.unbind(0), *[later] * count]
    kept = [one.unbind(0) for one in (cells, squashed, states)]
    parts: Any = zip(starts, *_parts(gates, size), *kept, strict=True)
    for start, gate, sigmoids, into, keep, out, fresh, cell, flat, state in parts:
        torch.addmm(start, way.outer, h, out=gate)
        sigmoids.sigmoid_()
        fresh.tanh_()
        c = torch.mul(keep, c, out=cell).addcmul_(into, fresh)
        torch.tanh(c, out=flat)
        h = torch.mul(out, flat, out=state)
    return Trace(gates, cells, squashed, states, first)


def _parts(gates: Tensor, size: int) -> list[tuple[Tensor, ...]]:
    """Divide gates (s, 4h, n) by steps: whole, sigmoids, input, forget, output, cell."""
    cuts = ((0, 4), (0, 3), (0, 1), (1, 2), (2, 3), (3, 4))
    return [gates[:, a * size : b * size].unbind(0) for a, b in cuts]


def greatest(
    way: Direction, given: Tensor, later: Tensor | None, count: int, h: Tensor, c: Tensor
) -> Tensor:
    """Run a direction as `run` does, and keep nothing but the greatest states (h, n)."""
    size, rows = h.shape
    gate = h.new_empty(1, 4 * size, rows)
    _, sigmoids, into, keep, out, fresh = (one[0] for one in _parts(gate, size))
    c, flat, state = c.clone(), h.new_empty(size, rows), h
    most = torch.full_like(flat, -torch.inf)
    starts: list[Any] = [*given.unbind(0), *[later] * count]
    for start in starts:
        torch.addmm(start, way.outer, state, out=gate[0])
        sigmoids.sigmoid_()
        fresh.tanh_()
        c.mul_(keep).addcmul_(into, fresh)
        state = torch.mul(out, torch.tanh(c, out=flat), out=flat)
        torch.maximum(most, state, out=most)
    return most


def back(way: Direction, trace: Trace, slopes: Tensor, wanted: int) -> Tensor:
    """Go a direction's steps back.

    Args:
        way: The weights.
        trace: Its steps.
        slopes: (s, h, n) the scalar's slopes at the states, changed by this.
        wanted: The steps, from the first, whose slopes at the gates are wanted.

    Returns:
        (wanted, 4h, n) the slopes at the gates before their functions.
    """
    steps, size, rows = slopes.shape
    kept = slopes.new_empty(wanted, 4 * size, rows)
    spare = slopes.new_empty(1, 4 * size, rows).expand(steps - wanted, -1, -1)
    moved = slopes.new_empty(size, rows)
    carried = slopes.new_zeros(size, rows)
    turned = way.outer.T.contiguous()
    sigmoid: Any = torch.ops.aten.sigmoid_backward.grad_input
    tanh: Any = torch.ops.aten.tanh_backward.grad_input
    outs = [[*a, *b] for a, b in zip(_parts(kept, size), _parts(spare, size), strict=True)]
    before = [trace.first, *trace.cells[:-1].unbind(0)]
    parts = [
        *zip(slopes.unbind(0), trace.squashed.unbind(0), before, strict=True),
    ]
    gates = list(zip(*_parts(trace.gates, size), strict=True))
    made = list(zip(*outs, strict=True))
    following: Tensor | None = None
    for s in range(steps - 1, -1, -1):
        slope, flat, last = parts[s]
        _, sigmoids, into, keep, out, fresh = gates[s]
        whole, to_sigmoids, to_into, to_keep, to_out, to_fresh = made[s]
        if following is not None:
            slope.addmm_(turned, following)
        torch.mul(slope, out, out=moved)
        carried += tanh(moved, flat, grad_input=moved)
        torch.mul(carried, fresh, out=to_into)
        torch.mul(carried, last, out=to_keep)
        torch.mul(slope, flat, out=to_out)
        sigmoid(to_sigmoids, sigmoids, grad_input=to_sigmoids)
        torch.mul(carried, into, out=moved)
        tanh(moved, fresh, grad_input=to_fresh)
        carried *= keep
        following = whole
    return kept


class Pooled(torch.autograd.Function):
    """The greatest states; see `pooled`."""

    @staticmethod
    def forward(ctx: Any, embedded: Tensor, lead: int, lstm: nn.LSTM, pad: Tensor) -> Tensor:
        """Run both directions and keep the greatest states (n, 2h)."""
        rows = len(embedded)
        ways = Direction.of(lstm, ""), Direction.of(lstm, "_reverse")
        text = embedded.permute(1, 2, 0).contiguous()  # (s, d, n)
        none = embedded.new_zeros(lstm.hidden_size, rows)
        known, h, c = _padding(ways[0], pad, lead)
        still = ways[1].inner @ pad.unsqueeze(1) + ways[1].bias
        forth = ways[0], _given(ways[0], text), None, 0, h.expand_as(none), c.expand_as(none)
        reverse = ways[1], _given(ways[1], text.flip(0)), still, lead, none, none
        if not ctx.needs_input_grad[0]:
            best = torch.maximum(greatest(*forth), known)
            return torch.cat([best, greatest(*reverse)]).T.contiguous()
        front, rear = run(*forth), run(*reverse)
        best, place = front.states.max(0)
        place = place.masked_fill(best < known, -1)  # a state at the padding, the same for all rows
        most, where = rear.states.max(0)
        ctx.kept = ways, front, rear, place, where
        return torch.cat([torch.maximum(best, known), most]).T.contiguous()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the slopes at the embeddings."""
        ways, front, rear, place, where = ctx.kept
        sides = slope.T.chunk(2)
        wanted = len(front.states)
        at = _placed(front.states, place.clamp(min=0), sides[0] * (place >= 0))
        found = torch.matmul(ways[0].inner.T, back(ways[0], front, at, wanted))
        at = _placed(rear.states, where, sides[1])
        found += torch.matmul(ways[1].inner.T, back(ways[1], rear, at, wanted)).flip(0)
        return found.permute(2, 0, 1), None, None, None


def pooled(embedded: Tensor, lead: int, lstm: nn.LSTM, pad: Tensor) -> Tensor:
    """Compute the greatest states of a bidirectional layer over padded texts.

    Args:
        embedded: (n, s, d) embeddings behind the padding that all rows share, at least one.
        lead: The positions of that padding.
        lstm: The layer.
        pad: (d,) the embedding of the padding.

    Returns:
        (n, 2h), differentiable in `embedded`.
    """
    found: Tensor = Pooled.apply(embedded, lead, lstm, pad)
    return found


def _given(way: Direction, text: Tensor) -> Tensor:
    return torch.matmul(way.inner, text).add_(way.bias)


def _padding(way: Direction, pad: Tensor, lead: int) -> tuple[Tensor, Tensor, Tensor]:
    """Run a direction over padding: the greatest state, the last state and cell, each (h, 1)."""
    none = pad.new_zeros(way.outer.shape[1], 1)
    if not lead:
        return torch.full_like(none, -torch.inf), none, none
    trace = run(way, none.new_empty(0), way.inner @ pad.unsqueeze(1) + way.bias, lead, none, none)
    return trace.states.amax(0), trace.states[-1], trace.cells[-1]


def _placed(like: Tensor, place: Tensor, slope: Tensor) -> Tensor:
    """Put slopes (h, n) at the steps `place` (h, n) of zeros (s, h, n)."""
    return torch.zeros_like(like).scatter_(0, place.unsqueeze(0), slope.unsqueeze(0))
