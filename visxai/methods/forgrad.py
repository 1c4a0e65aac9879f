"""FORGrad: a gradient method on gradients whose high frequencies are left out.

    g' = inverse Fourier transform of ( F [ frequency <= cutoff ] ),    F the Fourier transform of g

Striding and pooling put high frequencies into a network's gradients that have little to do with
what it has learnt. They are removed from every gradient at the input before the method inside
makes its map of them; `cutoff` is the highest frequency that is kept, in cycles over the image's
shorter side, a circle in the plane of frequencies. A cutoff of the image's diagonal changes
nothing.

    visxai.Engine().explain("cat.jpg", method="forgrad(method='integrated_gradients', cutoff=15)")

Best cutoffs differ between models: `visxai evaluate` compares several on your own images. A method
that promises to add up to the score doesn't with filtered gradients, and its quality figures are
left out.

Cost: that of the method inside.
Source: Muzellec et al., Saliency strikes back: how filtering out high frequencies improves
white-box explanations, ICML 2024.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from visxai import methods
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.models.views import AtInput, Gradients
from visxai.target import Aim, Target


@dataclass(frozen=True, repr=False)
class Forgrad(Method):
    """A gradient method on smooth gradients; see the module's docstring.

    Attributes:
        method: The method inside: a spec string, or a method. It must read gradients at the input.
        cutoff: The highest frequency kept, in cycles over the image's shorter side.
    """

    method: str | Method = "saliency"
    cutoff: float = 15.0

    needs = Need.INPUT_GRADIENT  # the default method's; an instance has those of its own method

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.cutoff > 0, "a cutoff above 0", self.cutoff)
        inner = self.inner
        reads = bool(inner.needs & Need.INPUT_GRADIENT)
        self._require(reads, "a method of gradients at the input", str(inner))
        object.__setattr__(self, "needs", inner.needs)

    @property
    def inner(self) -> Method:
        """Return the method inside."""
        return methods.load(self.method)

    @property
    def two_sided(self) -> bool:
        return self.inner.two_sided

    def __repr__(self) -> str:
        return f"{self.name()}(method={str(self.inner)!r}, cutoff={self.cutoff!r})"

    __str__ = __repr__

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        def filtered(rows: Rows, aim: Aim) -> Iterator[Gradients]:
            for block in model.gradients(rows, aim):
                yield replace(block, gradient=low_passed(block.gradient, self.cutoff))

        def filtered_at_input(x: Tensor, target: Target) -> AtInput:
            found = model.at_input(x, target)
            return replace(found, gradient=low_passed(found.gradient, self.cutoff))

        # The same model, whose gradients alone are others; the caller's is left as it is.
        smooth = copy.copy(model)
        setattr(smooth, "gradients", filtered)  # noqa: B010 - methods of this one object
        setattr(smooth, "at_input", filtered_at_input)  # noqa: B010
        return Maps(self.inner(smooth, x, target).values)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return self.inner.cost(model, x)


def low_passed(gradient: Tensor, cutoff: float) -> Tensor:
    """Remove the frequencies of gradients (n, c, h, w) above `cutoff` cycles a shorter side."""
    height, width = gradient.shape[2:]
    side = min(height, width)
    down = torch.fft.fftfreq(height, device=gradient.device) * side
    across = torch.fft.rfftfreq(width, device=gradient.device) * side
    kept = torch.hypot(down[:, None], across) <= cutoff
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(gradient) * kept, s=(height, width))
    return found
