"""A PyTorch module as visxai runs it: its forward, its backward, and its properties.

The module that runs is a structural copy that shares every parameter and buffer with the caller's:
it is in eval mode and carries visxai's hooks, while the caller's own keeps its mode, its hooks and
its `requires_grad`, and weights that the caller updates take effect here.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from visxai.errors import LayerError, ModelError
from visxai.images.preprocess import Preprocess
from visxai.models.budget import RowBudget, looking
from visxai.models.interface import Activation, Model
from visxai.models.pytorch.classifier import classifiers, keep_wide
from visxai.models.pytorch.isolation import Inputs, check_independent
from visxai.models.pytorch.layers import Survey, survey
from visxai.models.pytorch.modules import Weights, adapt, private_copy, structural_copy
from visxai.models.pytorch.tracing import running
from visxai.models.rows import Rows, wide
from visxai.references import ModelRef
from visxai.target import Aim

T = TypeVar("T")

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# fp16 gradients below 6e-8 vanish: the target is scaled before the backward and unscaled after.
_FP16_SCALE = 1024.0


class Network(Model):
    """A module that classifies images, without the computations at its layers and tokens.

    `visxai.models.pytorch.model.TorchModel` adds these and describes the arguments.

    Attributes:
        pristine: the copy that never runs, from which further copies are made.
        module: the copy that runs.
        weights: the parameters and buffers, and whether they were written to.
        dtype: the type of the parameters, which inputs are converted to.
    """

    def __init__(
        self,
        original: nn.Module,
        *,
        name: str | None,
        preprocess: Any,
        labels: Sequence[str] | None,
        activation: Activation,
        output: Callable[[Any], Tensor] | None,
        device: str | torch.device | None,
        precision: str,
        ref: ModelRef | None,
    ) -> None:
        self.pristine = private_copy(original, device)
        self.module = structural_copy(self.pristine)
        self.weights = Weights(self.pristine, None if ref is None else ref.weights_sha256)
        check_independent(self.module, name or type(original).__name__)
        parameter = next(itertools.chain(self.module.parameters(), self.module.buffers()), None)
        self.device = torch.device(device or "cpu") if parameter is None else parameter.device
        floating = parameter is not None and parameter.is_floating_point()
        self.dtype = parameter.dtype if floating and parameter is not None else torch.float32
        self.precision = precision
        self.preprocess = None if preprocess is None else Preprocess.of(preprocess)
        self.labels = None if labels is None else tuple(labels)
        self.activation = activation
        self.budget = RowBudget()
        self.precisions = tuple(DTYPES)
        self._output = output
        self._name = name or type(original).__name__
        self._surveys: dict[tuple[int, ...], Survey] = {}
        self._classifiers: list[str] = []  # shared by the same model in all its precisions
        self._inputs = Inputs()
        self._ref = ref
        self._lock = threading.RLock()

    @property
    def ref(self) -> ModelRef:  # type: ignore[override]
        """The name, the sha256 of the weights and the preprocessing.

        The sha256 is computed on first use and again after writes.
        """
        sha256 = self.weights.sha256()
        with self._lock:
            if self._ref is None:
                described = "none" if self.preprocess is None else str(self.preprocess)
                self._ref = ModelRef(self._name, sha256, described)
            if self._ref.weights_sha256 != sha256:
                self._ref = replace(self._ref, weights_sha256=sha256)
            return self._ref

    @property
    def channels(self) -> int:
        """The number of channels of its input, which is that of its first convolution."""
        for part in self.module.modules():
            if isinstance(part, nn.Conv2d):
                return part.in_channels
        return super().channels

    def copied(self) -> nn.Module:
        """Copy the module over the same weights, for a caller to hook or change at will.

        Returns:
            A module that carries no hook of any forward in progress.
        """
        return structural_copy(self.pristine)

    def forward(self, x: Tensor, module: Callable[[Tensor], Any] | None = None) -> Tensor:
        """Compute the logits (b, k) of x, in the caller's grad mode.

        Args:
            x: inputs (b, 3, h, w), or what a given module takes.
            module: what runs instead of the module itself; its number of rows isn't checked.

        Raises:
            ModelError: the output holds no scores, or another number of rows than x.
        """
        with running(), torch.autocast(self.device.type, DTYPES[self.precision], self._autocast):
            scores = self.logits(self._run(module or self.module, x))
        if module is None and scores.shape[0] != x.shape[0]:
            raise ModelError(
                f"expected {self._name} to output one row of scores an image, got {len(scores)} "
                f"rows for {len(x)} images: pass output=, a function from the model's output to "
                "scores (batch, classes)"
            )
        return scores

    def at_work(self, x: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
        """Return the module that computes in this precision, for hooks, and its scores of x.

        Args:
            x: inputs (b, c, h, w); the number of rows of scores isn't checked.
        """
        return self.module, lambda: wide(self.forward(x, self.module))

    def _run(self, part: Callable[[Tensor], Any], x: Tensor) -> Any:
        """Run a part on x in the module's own type, such that nothing is written into x."""
        inside = x.to(self.device, self.dtype)
        if inside is not x:
            return part(inside)
        return self._inputs.run(part, x, whole=part is self.module)

    @property
    def _autocast(self) -> bool:
        """Whether the precision is computed by autocast."""
        return DTYPES[self.precision] is not None

    def _blocks(
        self, rows: Rows, call: str, run: Callable[[Tensor, Tensor, Tensor, int], T]
    ) -> Iterator[T]:
        if self._autocast:
            self._keep_scores_wide(rows.shape)
        return super()._blocks(rows, call, run)

    def _keep_scores_wide(self, shape: tuple[int, ...]) -> None:
        """Let the layers that make the scores compute in float32 (see `classifier.py`).

        This takes a forward, so it is done before anything is hooked for one.

        Args:
            shape: an input's shape; any other once the layers are known.
        """
        if isinstance(self.module, torch.jit.ScriptModule):
            return
        with self._lock:
            if self._classifiers:
                return
            names = classifiers(self.survey(torch.empty(1, *shape)), self.module)
            for module in (self.pristine, self.module):
                keep_wide(module, names)
            self._changed()
            self._classifiers += names or ["none"]

    def _changed(self) -> None:
        """Forget copies of the module that were made before it changed."""

    def logits(self, output: Any) -> Tensor:
        """Return the scores (b, k) in what the module returned.

        Raises:
            ModelError: the output holds no float scores (b, k).
        """
        scores = self._output(output) if self._output is not None else adapt(output)
        if scores.ndim == 1:
            scores = scores.unsqueeze(1)
        elif scores.ndim == 4 and scores.shape[2:] == (1, 1):
            scores = scores.flatten(1)
        if scores.ndim != 2 or not scores.is_floating_point():
            raise ModelError(
                f"expected {self._name} to output float scores (batch, classes), got "
                f"{scores.dtype} of shape {tuple(scores.shape)}: pass output=, a function from the "
                "model's output to scores"
            )
        return scores

    def differentiate(
        self, value: Tensor, inputs: Sequence[Tensor], keep_graph: bool
    ) -> list[Tensor]:
        """Compute the gradients of value.sum() at the inputs, in float32 or wider.

        In fp16 the value is scaled before the backward, so that fewer gradients vanish.

        Args:
            value: the target's scalars (n,), with a graph.
            inputs: tensors in that graph.
            keep_graph: whether another backward follows.

        Raises:
            LayerError: the value doesn't depend on all inputs.
        """
        if not value.requires_grad:
            raise LayerError(
                "expected the score to depend on the layer or input that was differentiated, but "
                "no gradient reaches it: choose a layer that feeds the scores"
            )
        scale = _FP16_SCALE if self.precision == "fp16" else 1.0
        found = torch.autograd.grad(
            value.sum() * scale, inputs, retain_graph=keep_graph, allow_unused=True
        )
        if any(gradient is None for gradient in found):
            raise LayerError(
                "expected the score to depend on every layer asked for, but no gradient reaches "
                "one of them: choose layers that feed the scores"
            )
        gradients = [wide(gradient) for gradient in found if gradient is not None]
        return gradients if scale == 1 else [gradient / scale for gradient in gradients]

    def survey(self, x: Tensor) -> Survey:
        """Record the modules in a forward of an image like x; kept for each input size."""
        size = tuple(x.shape[1:])
        with self._lock:
            if size not in self._surveys:
                # Any picture will do; this one is made without the global random generator.
                noise = torch.linspace(-1, 1, x[0].numel()).sin().reshape(1, *size)
                with looking(self._name):
                    # In float32, whose forward needs to know nothing of the module yet.
                    run = self.in_precision("fp32").forward
                    self._surveys[size] = survey(self.module, run, noise)
            return self._surveys[size]

    def head_weight(self, x: Tensor, classes: int) -> Tensor:
        """Return the weight (classes, features) of the last linear layer or 1x1 convolution.

        Raises:
            ModelError: no such layer has this number of classes.
        """
        for visit in reversed(self.survey(x).visits):
            part = self.module.get_submodule(visit.name)
            weight = getattr(part, "weight", None)
            linear = isinstance(part, nn.Linear) or (
                isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)
            )
            if linear and isinstance(weight, Tensor) and len(weight) == classes:
                return wide(weight.detach().flatten(1))
        raise self._lacks(f"a last linear layer with its {classes} classes")


class Scalars(nn.Module):
    """A module from (inputs (n, 3, h, w), map (n,)) to the target's scalars (n, 1).

    It runs a copy of the network that shares the weights alone and may be hooked freely.

    Args:
        module: the copy, whose activation modules are set not to work in place.
        forward: forward(x, module) computes the scores.
        aim: the target settled on the images.

    Attributes:
        overwriting: the activation modules that worked in place, and may write into their inputs.
    """

    def __init__(
        self, module: nn.Module, forward: Callable[[Tensor, nn.Module], Tensor], aim: Aim
    ) -> None:
        super().__init__()
        self.network = module
        self.overwriting = set()
        for part in self.network.modules():
            if getattr(part, "inplace", None) is True:
                self.overwriting.add(part)
                # A backward hook's view of its input can't be overwritten.
                setattr(part, "inplace", False)  # noqa: B010 - modules have no such field
        self._forward, self._aim = forward, aim

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        """Compute the target's scalars (n, 1) of inputs x (n, 3, h, w) for maps `which` (n,)."""
        return self._aim(wide(self._forward(x, self.network)), which).unsqueeze(1)
