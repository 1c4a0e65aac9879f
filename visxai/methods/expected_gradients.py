"""Expected gradients: integrated gradients averaged over many baselines, one point of each path.

    M_p = mean over j of  sum over c of  (x - b_j)_cp * dy/dx_cp ( b_j + a_j (x - b_j) )

No single colour then counts as "absent". The points a_j are drawn one from each of `samples`
equal parts of [0, 1], in random order: unbiased, as uniform draws are, with less noise. The map
sums to y(x) - mean y(b) in the limit. All images share the draws, made from `seed`.

* baselines='pink' (default): noise with the 1/f amplitudes of photographs, a new one for every
  sample, mean 0 and variance 1 in every channel of model space, the channels correlated at 0.9
  as a photograph's are. It stands in for a sample of the training images and needs no file.
* baselines='colours': a plain colour for every sample, normal in model space.
* a tensor (k, c, h, w) or (k, c, 1, 1) in model space, used in turn. With one baseline and many
  samples the map tends to integrated gradients.

    visxai.Engine().explain("cat.jpg", method="expected_gradients(samples=50)")

Cost: 1 + samples forwards, samples backwards.
Source: Erion et al., Improving performance of deep learning models with axiomatic attribution
priors and expected gradients, Nature Machine Intelligence 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._draws import shared
from visxai.methods._path import gradient_sum
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target

CORRELATION = 0.9  # correlation between the channels of a photograph


@dataclass(frozen=True, repr=False)
class ExpectedGradients(Method):
    """Integrated gradients in expectation over baselines; see the module's docstring.

    Attributes:
        samples: Points, each on the path from a baseline to the image.
        baselines: 'pink', 'colours', or a tensor (k, c, h, w) or (k, c, 1, 1) in model space.
        seed: Seed of the points and of the drawn baselines.
    """

    samples: int = 50
    baselines: str | Tensor = "pink"
    seed: int = 0

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.samples >= 1, "at least 1 sample", self.samples)
        check_baselines(self, self.baselines)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim = model.aim(x, target)
        generator = torch.Generator().manual_seed(self.seed)
        part = torch.randperm(self.samples, generator=generator)
        alphas = (part + torch.rand(self.samples, generator=generator)) / self.samples
        alphas = alphas.to(x).reshape(-1, 1, 1, 1)
        bank = baselines_of(x, self.baselines, self.samples, generator)

        def build(image: Tensor, turn: Tensor) -> Tensor:
            return bank[turn % len(bank)].lerp(x[image], alphas[turn])

        def weigh(gradient: Tensor, image: Tensor, turn: Tensor) -> Tensor:
            return (x[image] - bank[turn % len(bank)]) * gradient

        rows = Rows(len(x), self.samples, tuple(x.shape[1:]), build)
        total, _ = gradient_sum(model, rows, aim, weigh)
        return Maps(total.sum(1) / self.samples)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1 + self.samples, backwards=self.samples)


def check_baselines(method: Method, baselines: str | Tensor) -> None:
    """Raise ArgumentError unless a method's baselines are 'pink', 'colours' or (k, c, h, w)."""
    if isinstance(baselines, Tensor):
        shape = tuple(baselines.shape)
        method._require(len(shape) == 4 and shape[0] > 0, "baselines (k, c, h, w)", shape)
        return
    known = ("pink", "colours")
    method._require(
        baselines in known, f"baselines of {' or '.join(known)}, or a tensor", baselines
    )


def baselines_of(
    x: Tensor, baselines: str | Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return the baselines for a batch x (b, c, h, w): those given, or `count` that are drawn.

    Args:
        x: The batch.
        baselines: 'pink', 'colours', or a tensor (k, c, h, w) or (k, c, 1, 1).
        count: The number of draws.
        generator: The generator to draw from, last of all: it isn't used where the same baselines
            were drawn for an earlier batch.
    """
    if isinstance(baselines, Tensor):
        return baselines.to(x)
    draw, shape = pink if baselines == "pink" else colours, tuple(x.shape[1:])
    key = (baselines, count, shape, generator.get_state().numpy().tobytes())
    return shared(key, x, lambda: draw(count, shape, generator))


def colours(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw plain colours (count, c, 1, 1), normal with variance 1."""
    return _correlated(torch.randn(count, shape[0], 1, 1, generator=generator))


def pink(count: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw noise (count, c, h, w) whose amplitudes fall with frequency as 1/f; variance 1.

    Args:
        count: The number of draws.
        shape: The shape (c, h, w) of a draw.
        generator: The generator to draw from.
    """
    _, height, width = shape
    down, across = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    frequency = torch.hypot(down[:, None], across)
    # The constant term, an image's mean colour, gets the amplitude of the lowest frequency.
    amplitude = 1 / frequency.clamp_min(1 / max(height, width))
    white = torch.randn((count, *shape), generator=generator)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, (height, width))
    return _correlated(noise / _deviation(amplitude, width))


def _deviation(amplitude: Tensor, width: int) -> Tensor:
    """Compute the standard deviation of white noise filtered by a half-plane of amplitudes."""
    twice = torch.full(amplitude.shape[-1:], 2.0)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1  # the highest frequency of an even width is its own mirror image
    return ((amplitude.square() * twice).sum() / (amplitude.shape[0] * width)).sqrt()


def _correlated(noise: Tensor) -> Tensor:
    """Correlate independent channels of variance 1 (count, c, h, w), with the variance kept."""
    channels = noise.shape[1]
    mean = noise.mean(1, keepdim=True)  # variance 1 / c
    common = (channels * CORRELATION + 1 - CORRELATION) ** 0.5
    mixed: Tensor = common * mean + (1 - CORRELATION) ** 0.5 * (noise - mean)
    return mixed
