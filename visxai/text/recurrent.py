"""The greatest states of a bidirectional LSTM over texts that are padded in front, fast on a CPU.

    p_j = max_t h_tj    over both directions' states h, padding included

Rows of one padding share the forward direction's states there: they are computed once for all rows.
The backward direction reads the text first and the padding after it, so its states at the padding
belong to each row, but their input is one vector. Gradients go to the text's embeddings alone, as
attributions need them: none to weights, and none to the padding.

Scores are exact. Slopes leave out what comes from states more than `REACH` steps into the padding
behind the text: the text is all but forgotten there, and with the packaged weights they change no
value by more than 1e-5 of the text's greatest one.

States are held as (features, rows) with a row of ones below, which the biases multiply: each step
is one matrix product and a few operations on memory without gaps. Gates lie in the order input,
forget, output, cell, so that one call serves the three that are sigmoids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

REACH = 32
_ORDER = (0, 1, 3, 2)  # of PyTorch's gates input, forget, cell, output


@dataclass(frozen=True)
class Direction:
    """One direction's weights, gates in this module's order.

    Attributes:
        inner: (4h, d) from the input.
        outer: (4h, h + 1) from the state, and the bias.
        still: (4h, h + 1) the same where the input is padding.
    """

    inner: Tensor
    outer: Tensor
    still: Tensor

    @classmethod
    def of(cls, lstm: nn.LSTM, suffix: str, pad: Tensor) -> Direction:
        """Take a direction's weights out of a layer; the suffix is "" or "_reverse".

        Args:
            lstm: The layer.
            suffix: Which direction.
            pad: (d,) the embedding of padding.
        """
        held: dict[str, Tensor] = dict(lstm.named_parameters())

        def part(name: str) -> Tensor:
            chunks = held[f"{name}_l0{suffix}"].detach().chunk(4)
            return torch.cat([chunks[place] for place in _ORDER])

        inner, outer, bias = part("weight_ih"), part("weight_hh"), part("bias_ih") + part("bias_hh")
        ends = (bias, bias + inner @ pad)
        return cls(inner, *(torch.cat([outer, end.unsqueeze(1)], 1) for end in ends))


@dataclass(frozen=True)
class Trace:
    """The steps of one direction: what they lead to, and what their gradients need.

    Attributes:
        most: (h, n) the greatest states.
        place: (h, n) the steps of these, -1 where what came before is as great.
        last: (h + 1, n) the last state, with the row of ones.
        cell: (h, n) the last cell.
        gates: (s, 4h, n) after their functions.
        cells: (s, h, n).
        squashed: (s, h, n) tanh of the cells.
        first: (h, n) the cell before the first step.
    """

    most: Tensor
    place: Tensor
    last: Tensor
    cell: Tensor
    gates: Tensor
    cells: Tensor
    squashed: Tensor
    first: Tensor


def run(
    way: Direction,
    text: Tensor,
    count: int,
    h: Tensor,
    c: Tensor,
    most: Tensor | None = None,
    traced: bool = False,
) -> Trace:
    """Run a direction over a text, then over padding.

    Args:
        way: The weights.
        text: (s, d, n) the text's embeddings in the direction's order.
        count: The steps of padding.
        h: (h + 1, n) the state before, with the row of ones.
        c: (h, n) the cell before.
        most: (h, n) the greatest states before; None for none.
        traced: Whether all steps are kept, for their gradients.
    """
    (size, rows), steps, first = c.shape, len(text) + count, c
    h = h.clone(memory_format=torch.contiguous_format)
    state, newer = h[:size], torch.empty_like(c, dtype=torch.bool)
    most = torch.full_like(h[:size], -torch.inf) if most is None else most.clone()
    place = torch.full_like(most, -1)
    gates = c.new_empty(steps if traced else len(text) + 1, 4 * size, rows)
    torch.matmul(way.inner, text, out=gates[: len(text)])
    cells = c.new_empty(steps if traced else 1, size, rows)
    squashed = torch.empty_like(cells) if traced else state.unsqueeze(0)
    # Views are made for all steps at once: one by one they'd cost as much as the arithmetic.
    kept = (*_parts(gates, size), cells.unbind(0), squashed.unbind(0))
    parts: Any = zip(*(_lengthened(one, steps) for one in kept), strict=True)
    for step, (gate, sigmoids, into, keep, out, fresh, cell, flat) in enumerate(parts):
        if step < len(text):
            gate.addmm_(way.outer, h)
        else:
            torch.mm(way.still, h, out=gate)
        sigmoids.sigmoid_()
        fresh.tanh_()
        c = torch.mul(keep, c, out=cell).addcmul_(into, fresh)
        torch.mul(out, torch.tanh(c, out=flat), out=state)
        if traced:
            place.masked_fill_(torch.gt(state, most, out=newer), step)
        torch.maximum(most, state, out=most)
    return Trace(most, place, h, c, gates, cells, squashed, first)


def _parts(gates: Tensor, size: int) -> list[tuple[Tensor, ...]]:
    """Divide gates (s, 4h, n) by steps: whole, sigmoids, input, forget, output, cell."""
    cuts = ((0, 4), (0, 3), (0, 1), (1, 2), (2, 3), (3, 4))
    return [gates[:, a * size : b * size].unbind(0) for a, b in cuts]


def _lengthened(views: tuple[Tensor, ...], steps: int) -> list[Tensor]:
    """Let the steps that have no memory of their own share the last one's."""
    return [*views[:steps], *views[-1:] * (steps - len(views))]


def back(way: Direction, trace: Trace, slopes: Tensor, wanted: int) -> Tensor:
    """Go a direction's steps back.

    Args:
        way: The weights.
        trace: Its steps.
        slopes: (h, n) the scalar's slopes at the greatest states.
        wanted: The steps, from the first, whose slopes at the gates are wanted.

    Returns:
        (wanted, 4h, n) the slopes at the gates before their functions.
    """
    steps, size, rows = trace.cells.shape
    kept = slopes.new_empty(wanted, 4 * size, rows)
    spare = slopes.new_empty(1, 4 * size, rows)
    carried = slopes.new_zeros(size, rows)
    zero, slope, moved = (torch.zeros_like(carried) for _ in range(3))
    here = torch.empty_like(carried, dtype=torch.bool)
    turned = way.outer[:, :size].T.contiguous()
    sigmoid: Any = torch.ops.aten.sigmoid_backward.grad_input
    tanh: Any = torch.ops.aten.tanh_backward.grad_input
    outs = zip(_parts(kept, size), _parts(spare, size), strict=True)
    made = list(zip(*([*a, *b * (steps - wanted)] for a, b in outs), strict=True))
    before = [trace.first, *trace.cells[:-1].unbind(0)]
    gates = list(zip(*_parts(trace.gates, size), trace.squashed.unbind(0), before, strict=True))
    following: Tensor | None = None
    for s in range(steps - 1, -1, -1):
        _, sigmoids, into, keep, out, fresh, flat, last = gates[s]
        whole, to_sigmoids, to_into, to_keep, to_out, to_fresh = made[s]
        torch.where(torch.eq(trace.place, s, out=here), slopes, zero, out=slope)
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
        forth, reverse = Direction.of(lstm, "", pad), Direction.of(lstm, "_reverse", pad)
        text = embedded.permute(1, 2, 0).contiguous()  # (s, d, n)
        none, padding = text[:0], run(forth, text[:0, :, :1], lead, *_start(forth, 1))
        h, c, most = (one.expand(-1, rows) for one in (padding.last, padding.cell, padding.most))
        start = _start(reverse, rows)
        if not ctx.needs_input_grad[0]:
            ways = run(forth, text, 0, h, c, most), run(reverse, text.flip(0), lead, *start)
            return torch.cat([way.most for way in ways]).T.contiguous()
        near = min(lead, REACH)
        front = run(forth, text, 0, h, c, most, traced=True)
        rear = run(reverse, text.flip(0), near, *start, traced=True)
        late = run(reverse, none, lead - near, rear.last, rear.cell, rear.most).most
        rear.place.masked_fill_(late > rear.most, -1)
        ctx.kept = (forth, front), (reverse, rear)
        return torch.cat([front.most, late]).T.contiguous()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the slopes at the embeddings."""
        wanted = len(ctx.kept[0][1].cells)
        front, rear = (
            torch.matmul(way.inner.T, back(way, trace, side.contiguous(), wanted))
            for (way, trace), side in zip(ctx.kept, slope.T.chunk(2), strict=True)
        )
        return front.add_(rear.flip(0)).permute(2, 0, 1), None, None, None


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


def _start(way: Direction, rows: int) -> tuple[Tensor, Tensor]:
    """Return the state (h + 1, n) and the cell (h, n) that a direction starts from."""
    none = way.outer.new_zeros(len(way.outer) // 4, rows)
    return torch.cat([none, torch.ones_like(none[:1])]), none
