"""What computes: the module itself, a runtime, a prepared form, or a copy in half precision.

In float32 a forward that needs no graph may run in a prepared form (`accelerate.py`); in half
precision a detached copy runs (`narrow.py`), compiled where that was asked for. For gradients at a
layer the model is cut below it (`split.py`): the trunk runs in such a form, the head in autograd.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import LayerError, OutOfMemory
from visxai.models.budget import looking
from visxai.models.interface import Need
from visxai.models.measured import Subject
from visxai.models.pytorch import narrow as half
from visxai.models.pytorch.accelerate import Acceleration
from visxai.models.pytorch.agreement import turned
from visxai.models.pytorch.modules import structural_copy
from visxai.models.pytorch.network import DTYPES, Network
from visxai.models.pytorch.split import Cut, Split, Trunk, split
from visxai.models.pytorch.tracing import running
from visxai.models.rows import wide
from visxai.models.speed import machine
from visxai.models.weights import cache_folder

# How far compiled code in half precision may turn from the same copy run as it is.
HALF: dict[str, Any] = {"limit": 3e-2, "difference": turned}
# How far a runtime in half precision may turn from float32: a cosine of 0.999, as the copy may, or
# this many times as far as the copy turns.
EXACT, FARTHER = HALF | {"limit": 4.5e-2}, 1.2


class Forms(Network):
    """A network with its faster forms; see `Network` for the arguments.

    Attributes:
        runtime: what computes float32 forwards that need no graph, where the module itself doesn't.
        acceleration: prepared forms of the module; None runs plain PyTorch.
    """

    def __init__(self, original: nn.Module, **given: Any) -> None:
        super().__init__(original, **given)
        # What runs float32 forwards that need no graph, where it isn't the module itself.
        self.runtime: Callable[[Tensor], Tensor] | None = None
        # Faster forms of forwards without a graph and of gradients at the input; None is plain.
        self.acceleration: Acceleration | None = None
        self._splits: dict[tuple[str, tuple[int, ...]], Split | str] = {}
        # Copies in half precision by precision and input size, or why there is none, each with the
        # mark of the weights that it was made of.
        self._narrows: dict[tuple[str, tuple[int, ...]], tuple[Any, half.Narrow | str]] = {}

    def _plain(self, x: Tensor) -> Tensor:
        """Compute the logits (b, k), float32, by a forward that needs no graph."""
        runtime, fast = self._served, self._fast
        if runtime is not None:
            return runtime(x)
        narrow = self._narrow(x)
        if narrow is not None:
            return self._plain_half(narrow, x)
        if fast is None or self.precision != "fp32":
            return wide(self.forward(x))

        return fast.form("whole", self._in_float32, self._fresh_exact, x)(x)

    @property
    def _served(self) -> Callable[[Tensor], Tensor] | None:
        """The runtime where it may run: in float32, while the weights are those it was made of."""
        usable = self.runtime is not None and self.precision == "fp32" and self.weights.original
        return self.runtime if usable else None

    @property
    def _fast(self) -> Acceleration | None:
        """The acceleration, where it may be used: its forms compute in float32."""
        fast = self.acceleration
        if self.dtype != torch.float32 or fast is None:
            return None
        return fast if self.precision in fast.precisions else None

    @property
    def graphs(self) -> bool:
        """Whether graphs that make maps beside the scores serve: in bfloat16, in a long run."""
        fast = self._fast
        return fast is not None and fast.graphs and self.precision == "bf16"

    def accelerated(self, needs: Need, graph: str = "") -> str:
        """Describe what runs methods with `needs`, for the record; "off" is PyTorch alone."""
        if self._served is not None:
            return str(self._served)
        told = "off" if self._fast is None else self._fast.describe(needs, graph)
        if graph:
            return told
        if self.precision == "fp32" or Need.INPUT_GRADIENT in needs or Need.MODULE in needs:
            return told if self.precision == "fp32" else "off"
        known = [found for (kind, _), (_, found) in self._narrows.items() if kind == self.precision]
        if not known:
            return told
        how = f"autocast: {known[-1]}" if isinstance(known[-1], str) else "prepared copy"
        return f"{told}; {self.precision} by {how}"

    # ---- half precision --------------------------------------------------------------------

    def _narrow(self, x: Tensor) -> half.Narrow | None:
        """Return the copy that computes in half precision (see `narrow.py`), None without one.

        It is made for the first inputs of a size, which check it, and anew for other weights.

        Args:
            x: rows (b, c, h, w) that it will run on.
        """
        dtype = DTYPES[self.precision]
        scripted = isinstance(self.module, torch.jit.ScriptModule)
        if dtype is None or scripted or self.dtype != torch.float32 or x.ndim != 4:
            return None
        key = (self.precision, tuple(x.shape[1:]))
        with self._lock:
            mark = self.weights.mark()
            known = self._narrows.get(key)
            if known is None or known[0] not in (None, mark):
                self._splits.clear()
                found = self._prepared(x.detach(), dtype)
                if self.weights.mark() != mark:  # a copy would keep its own count
                    known = (None, "its weights change while it runs")
                else:
                    known = (mark, found)
                self._narrows[key] = known
        return None if isinstance(known[1], str) else known[1]

    def _prepared(self, x: Tensor, dtype: torch.dtype) -> half.Narrow | str:
        """Prepare a copy in half precision; or return why it can't run, or doesn't pay."""
        exact = self.in_precision("fp32")
        works = (
            lambda module, rows: wide(exact.forward(rows, module)),
            lambda module, rows: self._half(rows, module),
            lambda module, rows: wide(self.forward(rows, module)),
        )
        # Hooks of other threads act in their threads alone, and this module has run before.
        made = half.prepare(self.module, *works, x, dtype)
        if isinstance(made, str):
            return made
        subject = self.subject(x, self.precision)
        seconds = half.measured(made, self.module, *works, x, cache_folder(), subject)
        return made if seconds.narrow <= seconds.autocast else "the prepared copy is slower here"

    def subject(self, x: Tensor, form: str) -> Subject:
        """Return what the time of a form of this model depends on, for inputs like x.

        Args:
            x: inputs (b, c, h, w).
            form: what computes, and in which precision.
        """
        weights, device = self.weights.sha256()[:16], x.device
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return (self._name, weights, "x".join(map(str, x.shape[1:])), form, gpu, *machine())

    def _half(self, x: Tensor, part: Callable[[Tensor], Any]) -> Tensor:
        """Compute the scores (b, k), float32, of a part of a copy in half precision."""
        with running():
            return wide(self.logits(part(x)))

    def _plain_half(self, narrow: half.Narrow, x: Tensor) -> Tensor:
        """Compute the logits (b, k), float32, by the copy or by its compiled form."""

        def plain(part: Tensor) -> Tensor:
            return self._half(narrow.inputs(part), narrow.module)

        def fresh() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
            if fast is not None and fast.exports:
                return self._fresh_exact()
            module = structural_copy(narrow.pristine)
            return lambda part: self._half(narrow.inputs(part), module), module

        fast = self._fast
        if fast is None:
            return plain(x)
        check, held = (self._in_float32, EXACT) if fast.exports else (None, HALF)
        return fast.form("whole", plain, fresh, x, precision=self.precision, exact=check, **held)(x)

    def _fresh_exact(self) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
        """Return the float32 forward on a copy of the module, and the copy, for tracers."""
        module, exact = self.copied(), self.in_precision("fp32")
        return lambda part: wide(exact.forward(part, module)), module

    def _in_float32(self, x: Tensor) -> Tensor:
        """Compute the logits (b, k) in float32 by the module itself."""
        return wide(self.in_precision("fp32").forward(x))

    def at_work(self, x: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
        """Return the module that computes in this precision; see `Network.at_work`."""
        narrow = self._narrow(x)
        if narrow is None:
            return super().at_work(x)
        return narrow.module, lambda: self._half(narrow.inputs(x), narrow.module)

    def _above(self, names: tuple[str, ...], x: Tensor) -> tuple[nn.Module, Callable[[], Tensor]]:
        """Choose what runs and is differentiated for gradients at layers `names`.

        That is the module itself on x, or its copy in half precision. With acceleration it is the
        head above the first of the layers, whose input the trunk's fast form computes from x.

        Returns:
            The module that holds the layers, and what computes the scores (b, k) by it.
        """
        narrow = self._narrow(x)
        if narrow is not None and not narrow.folded.intersection(names):
            return self._above_half(narrow, names, x)
        whole = self.module, lambda: wide(self.forward(x))
        if self._fast is None or self.precision != "fp32":
            return whole
        first = min(names, key=self.survey(x).order)
        parts = self.split(first, x)
        if parts.whole:
            return whole

        def fresh() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
            trunk = parts.trunk.again()
            return lambda part: self._run(trunk, part), trunk.module

        with torch.inference_mode(False), torch.no_grad():
            inside = self._fast.form(
                f"below {parts.at}", lambda part: self._run(parts.trunk, part), fresh, x, parts.axis
            )(x)
        return parts.head.module, lambda: wide(self.forward(inside, parts.head))

    def _above_half(
        self, narrow: half.Narrow, names: tuple[str, ...], x: Tensor
    ) -> tuple[nn.Module, Callable[[], Tensor]]:
        """Choose what runs in half precision; see `_above`."""
        first, fast = min(names, key=self.survey(x).order), self._fast
        parts = None if fast is None else self._split_half(narrow, first, x)
        if parts is None or parts.whole or fast is None:
            return narrow.module, lambda: self._half(narrow.inputs(x), narrow.module)
        trunk, exact = parts.trunk, None
        if fast.exports:
            # The runtime computes in half precision what was exported in float32.
            exact = self._trunk(first, parts.at, x)
            if exact is None:
                return narrow.module, lambda: self._half(narrow.inputs(x), narrow.module)

        def plain(part: Tensor) -> Tensor:
            return trunk(narrow.inputs(part))

        def check(part: Tensor) -> Tensor:
            assert exact is not None
            below: Tensor = self._run(exact, part)
            return below

        def limit(rows: Tensor) -> float:
            return max(float(EXACT["limit"]), FARTHER * turned(plain(rows), check(rows)))

        def fresh() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
            own = (exact or trunk).again()
            if exact is not None:
                return lambda part: self._run(own, part), own.module
            return lambda part: own(narrow.inputs(part)), own.module

        with torch.inference_mode(False), torch.no_grad():
            inside = fast.form(
                f"below {parts.at}",
                plain,
                fresh,
                x,
                parts.axis,
                precision=self.precision,
                exact=None if exact is None else check,
                **(HALF if exact is None else EXACT | {"limit": limit}),
            )(x).to(narrow.dtype)
        return parts.head.module, lambda: self._half(inside, parts.head)

    def _trunk(self, layer: str, at: Cut, x: Tensor) -> Trunk | None:
        """Return the module below a cut in float32; None where it isn't split at that cut."""
        try:
            parts = self.split(layer, x)
        except LayerError:
            return None
        return parts.trunk if parts.at == at else None

    def _split_half(self, narrow: half.Narrow, name: str, x: Tensor) -> Split | None:
        """Split the copy in half precision at a layer; None where it can't be split."""
        key = (f"{name} in {self.precision}", tuple(x.shape[1:]))
        with self._lock:
            if key not in self._splits:
                with looking(self._name):
                    self._splits[key] = split(
                        narrow.pristine,
                        lambda rows, part: self._half(narrow.inputs(rows), part),
                        name,
                        x[:1],
                    )
            found = self._splits[key]
        return None if isinstance(found, str) else found

    def _changed(self) -> None:
        self._splits.clear()
        self._narrows.clear()

    def _differentiable(self, x: Tensor) -> nn.Module | None:
        """Return the faster module for gradients at the input; None means the module itself."""
        if self._fast is None:
            return None
        return self._fast.gradient_module(self.pristine, lambda m, part: self.forward(part, m), x)

    def split(self, name: str, x: Tensor) -> Split:
        """Split the model at layer `name`, for inputs like x; kept for each input size.

        Raises:
            LayerError: the model can't be split there, or the layer doesn't run exactly once.
        """
        key = (name, tuple(x.shape[1:]))
        with self._lock:
            if key not in self._splits:
                self._splits[key] = split(self.pristine, self._exactly, name, x[:1])
            found = self._splits[key]
        if isinstance(found, str):
            raise LayerError(
                f"expected {self._name} to run again from layer {name!r}, but it can't be split "
                f"there ({found}): choose another layer, or a method that needs no scores from one"
            )
        return found

    def _exactly(self, x: Tensor, part: Callable[[Tensor], Any]) -> Tensor:
        """Compute the scores of a part of the model on up to three images, in float32."""
        plain = self.in_precision("fp32")
        if len(x) <= 2:
            with looking(self._name):
                return plain.forward(x, part)
        with contextlib.suppress(OutOfMemory), looking(self._name):
            return plain.forward(x, part)
        return torch.cat([self._exactly(rows, part) for rows in (x[:2], x[2:])])
