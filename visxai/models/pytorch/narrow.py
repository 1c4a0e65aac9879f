"""A network prepared for half precision: folded, channels-last, detached, the scores in float32.

Autocast casts every weight again in every forward and computes norms that a convolution could hold.
Here that is done once, in a copy: batch norms are folded into the convolutions before them, weights
lie channels-last and in half precision, no parameter asks for a gradient but those of
`_fold_products`, and the layers that make the scores stay in float32 (`classifier.py`).

The copy has the module's names, so layers are read and cut in it as in the module. A convolution
that has taken up a norm outputs something else than before, so such a layer is read in the module.

A copy runs only where it was found to agree with float32 on the first rows, and to be faster than
autocast on this machine. What was measured is kept on disk, by weights, input, device, versions and
threads; where the copy can't run, `Narrow.refused` says why and autocast serves.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from visxai.models.budget import is_out_of_memory
from visxai.models.measured import Subject, keep, read
from visxai.models.prompts import PromptClassifier
from visxai.models.pytorch.agreement import three_rows
from visxai.models.pytorch.classifier import InWeightsType
from visxai.models.pytorch.folding import fold
from visxai.models.pytorch.modules import structural_copy

Scores = Callable[[nn.Module, Tensor], Tensor]

COSINE = 0.999  # of the centred scores with float32's, at least, on each of the first rows
PROBABILITY = 0.02  # difference of a softmax from float32's, at most
_ROUNDS = 3
_WIDE = (InWeightsType, PromptClassifier, nn.BatchNorm2d)


@dataclass(frozen=True, eq=False)
class Narrow:
    """A prepared copy of a network.

    Attributes:
        module: the copy that runs, whose layers may be captured.
        pristine: a copy over the same weights that never runs, for further copies.
        folded: the names of the convolutions that have taken up a norm.
        dtype: the type of its weights and inputs.
    """

    module: nn.Module
    pristine: nn.Module
    folded: frozenset[str]
    dtype: torch.dtype

    def inputs(self, x: Tensor) -> Tensor:
        """Return x, inputs (b, c, h, w), as the copy takes them: never x itself."""
        if x.ndim == 4:
            return x.to(self.dtype, memory_format=torch.channels_last, copy=True)
        return x.to(self.dtype, copy=True)


@dataclass(frozen=True)
class Seconds:
    """The seconds of a forward of three rows: the copy's, autocast's and plain float32's."""

    narrow: float
    autocast: float
    fp32: float


def narrowed(module: nn.Module, run: Scores, x: Tensor, dtype: torch.dtype) -> Narrow:
    """Copy a network in half precision, with folded norms and channels-last weights.

    Args:
        module: the network, which is only copied; layers that make scores are `InWeightsType`.
        run: run(module, x) computes its scores in float32.
        x: any input (b, c, h, w).
        dtype: the half precision.
    """
    made = copy.deepcopy(module)
    convolutions = {id(part): name for name, part in made.named_modules()}
    folded = fold_all(made, run, x[-1:])
    for part in made.modules():
        if isinstance(part, _WIDE):  # these compute in float32 on inputs of any type
            continue
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                part._parameters[name] = nn.Parameter(_cast(parameter, dtype), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                part._buffers[name] = _cast(buffer, dtype)
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    _fold_products(made)
    names = frozenset(convolutions[id(part)] for part in folded)
    return Narrow(structural_copy(made), made, names, dtype)


def _fold_products(module: nn.Module) -> None:
    """Let the input products of attention be one matrix product each.

    `nn.MultiheadAttention` multiplies a transposed view (tokens, b, channels). PyTorch folds the
    first two axes of such a view only where the weight asks for a gradient, and else copies the
    weight once for each token: most of a transformer's time in half precision. No gradient of a
    weight is ever computed here.
    """
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention) and part.in_proj_weight is not None:
            part.in_proj_weight.requires_grad_(True)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy a tensor in another type, channels-last where it has four axes."""
    if tensor.ndim == 4:
        return tensor.detach().to(dtype, memory_format=torch.channels_last)
    return tensor.detach().to(dtype)


def fold_all(module: nn.Module, run: Scores, x: Tensor) -> list[nn.Module]:
    """Fold norms into convolutions, and return the convolutions that took one up."""
    before = {id(p): p.weight for p in module.modules() if isinstance(p, nn.Conv2d)}
    fold(module, run, x)
    convolutions = (p for p in module.modules() if isinstance(p, nn.Conv2d))
    return [part for part in convolutions if part.weight is not before[id(part)]]


def disagreement(found: Tensor, expected: Tensor) -> str:
    """Return why scores (n, k) can't stand for float32's, "" where they can.

    Compared are the direction of each row of centred scores, the class with the greatest score
    unless two are all but equal, and the softmax.
    """
    if found.shape != expected.shape or not found.isfinite().all():
        return "scores aren't finite"
    found, expected = found.float(), expected.float()
    if found.shape[1] > 1:
        own, exact = (s - s.mean(1, keepdim=True) for s in (found, expected))
        cosine = float(nn.functional.cosine_similarity(own, exact, dim=1).min())
        # A row of equal scores has no direction, in either precision.
        if not cosine >= COSINE and float(exact.abs().max()) > 1e-6:
            return f"scores turn by a cosine of {cosine:.4f}"
    reported = [s.softmax(1) if s.shape[1] > 1 else s.sigmoid() for s in (found, expected)]
    apart = float((reported[0] - reported[1]).abs().max())
    if not apart <= PROBABILITY:
        return f"probabilities differ by {apart:.3f}"
    best = reported[1].gather(1, found.argmax(1, keepdim=True)).squeeze(1)
    if float((reported[1].amax(1) - best).max()) > PROBABILITY:
        return "another class comes first"
    return ""


def prepare(
    module: nn.Module, exact: Scores, half: Scores, autocast: Scores, x: Tensor, dtype: torch.dtype
) -> Narrow | str:
    """Prepare a copy and check its scores.

    Args:
        module: the network (see `narrowed`).
        exact: computes scores in float32.
        half: computes the copy's scores.
        autocast: computes the module's scores under autocast, which the copy must be as good as.
        x: rows (b, c, h, w) that check it.
        dtype: the half precision.

    Returns:
        The copy, or why it can't run.
    """
    rows = three_rows(x)
    try:
        with torch.inference_mode(False), torch.no_grad():
            made = narrowed(module, exact, rows, dtype)
            for few in (rows, rows[:1]):
                expected = exact(module, few)
                why = disagreement(half(made.module, made.inputs(few)), expected)
                # What autocast itself loses is half precision's, not the copy's.
                if why and not disagreement(autocast(module, few), expected):
                    return why
    except Exception as error:  # whatever a module raises that mixes types itself
        if is_out_of_memory(error):
            raise
        line = next(iter(str(error).splitlines()), "")
        return f"{type(error).__name__}: {line[:100]}"
    return made


def measured(
    narrow: Narrow,
    module: nn.Module,
    exact: Scores,
    half: Scores,
    autocast: Scores,
    x: Tensor,
    folder: Path,
    subject: Subject,
) -> Seconds:
    """Time the copy beside autocast and float32, in turn; the best of three rounds.

    Args:
        narrow: the copy.
        module: the network.
        exact: see `prepare`.
        half: see `prepare`.
        autocast: see `prepare`.
        x: rows (b, c, h, w).
        folder: visxai's cache folder, which keeps the result.
        subject: what it depends on.
    """
    if kept := read(folder, "copy", subject, ("narrow", "autocast", "fp32")):
        return Seconds(**kept)
    rows, best = three_rows(x), [float("inf")] * 3
    works: tuple[Callable[[], Tensor], ...] = (
        lambda: half(narrow.module, narrow.inputs(rows)),
        lambda: autocast(module, rows),
        lambda: exact(module, rows),
    )
    with torch.inference_mode(False), torch.no_grad():
        for _ in range(_ROUNDS):
            for number, work in enumerate(works):
                began = time.perf_counter()
                work()
                if rows.device.type == "cuda":
                    torch.cuda.synchronize(rows.device)
                best[number] = min(best[number], time.perf_counter() - began)
    found = Seconds(*(round(one, 6) for one in best))
    keep(folder, "copy", subject, vars(found))
    return found
