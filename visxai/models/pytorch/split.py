"""A module in two parts: below a layer (the trunk) and above it (the head), without tracing.

    found = split(module, run, "layer4", x)
    scores = found.head(found.trunk(x))              # equals module(x)
    scores = found.head(changed)                     # only what lies above the layer runs

Both parts are copies that share every parameter and buffer with the module. The trunk is the
module stopped by an exception at the cut. The head is the module's own forward run again, in
which every outermost call that finished before the cut is replaced by a stub. A stub returns NaNs
of the recorded structure and shape: they cost nothing, being a single number expanded, and if
anything of the lower part still reached the scores, the NaNs would show it. At the cut the given
activation is inserted.

Cutting at the layer itself is wrong where something bypasses it: the residual around a
transformer block's norm. So cuts are tried outward: at the layer's output, then at the inputs of
the modules that enclose it, up to the model's own input. Each candidate is verified against the
plain module. What runs between a cut further out and the layer is part of the head.

The state of a replay is thread-local, so several threads may use a split at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from visxai.errors import LayerError, OutOfMemory
from visxai.models.pytorch.capture import first_tensor, with_first_tensor
from visxai.models.pytorch.modules import structural_copy
from visxai.models.pytorch.tracing import running

Part = Callable[..., Any]
Run = Callable[[Tensor, Part], Tensor]
TOLERANCE = 1e-5  # of the scores, relative to the largest


@dataclass(frozen=True)
class Cut:
    """A place in a forward: the output or the input of a module's call.

    Attributes:
        module: the module's dotted name; "" is the model itself.
        output: whether the place is the output.
    """

    module: str
    output: bool

    def __str__(self) -> str:
        return f"the {'output' if self.output else 'input'} of {self.module or 'the model'}"


@dataclass(frozen=True)
class Split:
    """A verified split: head(trunk(x)) equals the module's output, for any batch.

    Attributes:
        layer: the layer's name that the split was made for.
        at: where the cut lies.
        trunk: from x to the activation at the cut, a plain callable, so that a compiled form can
            replace it.
        head: from the activation to the module's output.
        axis: the activation's batch axis.
    """

    layer: str
    at: Cut
    trunk: Trunk
    head: Head
    axis: int

    @property
    def whole(self) -> bool:
        """Whether the cut is the model's own input, so that the head is the whole model."""
        return not self.at.module

    def rows(self, activation: Tensor, image: Tensor) -> Tensor:
        """Select images `image` (n,) from a batch's activation at the cut."""
        return activation.index_select(self.axis, image)


@dataclass(eq=False)
class Call:
    """A module's call as a forward made it.

    Attributes:
        module: the module's dotted name.
        parent: the call that it ran inside.
        given: the shape of its first tensor argument.
        output: its output's structure, with a `Shape` for every tensor.
    """

    module: str
    parent: Call | None
    given: Shape | None = None
    output: Any = None


@dataclass(frozen=True)
class Shape:
    """A tensor's size, type and device, without its numbers."""

    size: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Placeholder:
    """A tensor of NaNs to be made for any batch size.

    Attributes:
        size: its size for a single image.
        factors: for each axis, how many times the batch size it is long; 0 where it is always
            `size`.
        dtype: its type.
        device: its device.
    """

    size: tuple[int, ...]
    factors: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def make(self, batch: int) -> Tensor:
        """Make the tensor for `batch` images: NaN, or 0 for integers, a single number expanded."""
        sizes = [f * batch if f else s for s, f in zip(self.size, self.factors, strict=True)]
        fill = float("nan") if self.dtype.is_floating_point else 0
        return torch.full((), fill, dtype=self.dtype, device=self.device).expand(sizes)


class Unsplittable(Exception):
    """The reason why a candidate cut can't be used; never leaves this module."""


class _Reached(BaseException):
    """The exception that carries the activation out of a stopped forward.

    It is a BaseException, so that no `except Exception` in the network catches it.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value


def split(module: nn.Module, run: Run, layer: str, x: Tensor) -> Split | str:
    """Split a module at the cut nearest to a layer.

    Args:
        module: the network; it is only copied, never run or hooked, so other threads may copy it
            too.
        run: run(x, part) computes the scores of a part on x.
        layer: the layer's name.
        x: any input (1, 3, h, w) of the size to split for.

    Returns:
        The split, or a sentence that states why there is none.

    Raises:
        LayerError: the layer doesn't run exactly once in a forward.
        OutOfMemory: memory ran out, which says nothing about the cut.
    """
    traced = structural_copy(module)
    probe = _waves(2, 40, x)
    with torch.inference_mode(False), torch.no_grad():
        one = _trace(traced, run, probe[:1])
        two = _trace(traced, run, probe)
        # Other pictures in other batch sizes: what a module cached of the traced ones fails here.
        checks = [(seen, run(seen, traced)) for seen in (_waves(3, 29, x), _waves(1, 17, x))]
        if [call.module for call in one] != [call.module for call in two]:
            return "the forward of two images calls other modules than that of one"
        found = [call for call in two if call.module == layer]
        if len(found) != 1:
            raise LayerError(
                f"expected layer {layer!r} to run once in a forward, but it ran {len(found)} "
                "times: choose a layer that the model calls once"
            )
        trace = Trace(list(zip(one, two, strict=True)))
        reasons = []
        for cut, call in _candidates(found[0]):
            try:
                made = _make(module, layer, cut, call, trace)
                for seen, expected in checks:
                    _verify(made, run, seen, expected)
            except (OutOfMemory, MemoryError):
                raise  # which says nothing about the cut
            except Exception as error:  # whatever a module raises that isn't run as it was built
                reasons.append(
                    f"{cut}: {next(iter(str(error).splitlines()), type(error).__name__)}"
                )
            else:
                return made
    return "; ".join(reasons)


def _waves(count: int, periods: float, like: Tensor) -> Tensor:
    """Return `count` different pictures of waves, (count, 3, h, w), none of them constant."""
    waves = torch.linspace(-periods, periods, count * like[0].numel(), device=like.device).sin()
    return (waves * 1.5).reshape(count, *like.shape[1:]).to(like.dtype)


def _verify(made: Split, run: Run, probe: Tensor, expected: Tensor) -> None:
    """Check a split's scores on `probe` (n, 3, h, w) against the expected scores (n, k).

    Raises:
        Unsplittable: the scores differ, or the head overwrites its input.
    """
    kept: list[tuple[Tensor, Tensor]] = []

    def trunk_and_head(x: Tensor) -> Any:
        activation = made.trunk(x)
        kept.append((activation, activation.clone()))
        return made.head(activation)

    found = run(probe, trunk_and_head)
    if found.shape != expected.shape or not found.isfinite().all():
        raise Unsplittable("something goes around it")
    if not (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
        raise Unsplittable("the scores differ")
    if not all(torch.equal(now, before) for now, before in kept):
        raise Unsplittable("the head overwrites its input")


@dataclass(frozen=True)
class Trace:
    """The calls of a forward of one image, each paired with the same call for two images.

    Attributes:
        pairs: in order of the calls' starts.
    """

    pairs: list[tuple[Call, Call]]

    def before(self, call: Call) -> Iterator[tuple[Call, Call]]:
        """Yield the pairs that began before `call`."""
        for pair in self.pairs:
            if pair[1] is call:
                return
            yield pair


def _trace(module: nn.Module, run: Run, x: Tensor) -> list[Call]:
    """Record the module calls of a forward in order of their starts; leave no hook behind."""
    calls: list[Call] = []
    stack: list[Call] = []
    owner = threading.get_ident()

    def before(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            if threading.get_ident() == owner:
                given = [_shape(a) for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
                parent = stack[-1] if stack else None
                calls.append(Call(name, parent, given[0] if given else None))
                stack.append(calls[-1])

        return hook

    def after(_module: nn.Module, _args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            stack.pop().output = pytree.tree_map_only(Tensor, _shape, output)

    handles: list[Any] = []
    try:
        for name, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(before(name), with_kwargs=True))
            handles.append(part.register_forward_hook(after))
        run(x, module)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _shape(value: Tensor) -> Shape:
    """Return a tensor's shape, without its numbers."""
    return Shape(tuple(value.shape), value.dtype, value.device)


def _candidates(call: Call) -> Iterator[tuple[Cut, Call]]:
    """Yield where to cut for a layer, the nearest first: its output, then inputs outward."""
    yield Cut(call.module, output=True), call
    outer: Call | None = call
    while outer is not None:
        yield Cut(outer.module, output=False), outer
        outer = outer.parent


def _make(module: nn.Module, layer: str, cut: Cut, call: Call, trace: Trace) -> Split:
    """Build the trunk and the head for a cut at a call."""
    one = next(pair[0] for pair in trace.pairs if pair[1] is call)
    # Calls still running at the cut are replayed; what they called before it becomes stubs, in
    # order, so that a shared module's later calls are kept apart from its earlier ones.
    running = []
    outer = call.parent
    while outer is not None:
        running.append(outer)
        outer = outer.parent
    stubs: dict[str, list[Any]] = {}
    earlier = Counter[str]()
    for single, double in trace.before(call):
        earlier[double.module] += 1
        if double.parent in running and double not in running:
            recipe = _recipe(single.output, double.output)
            stubs.setdefault(double.module, []).append(recipe)
    at = _recipe(*((one.output, call.output) if cut.output else (one.given, call.given)))
    axis = _batch_axis(at)
    root = _recipe(trace.pairs[0][0].given, trace.pairs[0][1].given)
    trunk = Trunk(module, cut, earlier[cut.module])
    head = Head(structural_copy(module), cut, layer, stubs, at, axis, root)
    return Split(layer, cut, trunk, head, axis)


def _batch_axis(recipe: Any) -> int:
    """Return the axis of a recipe's first tensor along which every image takes a single place."""
    first = next((p for p in pytree.tree_leaves(recipe) if isinstance(p, Placeholder)), None)
    if first is None or sorted(first.factors) != [0] * (len(first.factors) - 1) + [1]:
        raise Unsplittable("no axis of images")
    return first.factors.index(1)


def _recipe(one: Any, two: Any) -> Any:
    """Merge a call's outputs for one and two images, with a `Placeholder` for each tensor."""
    leaves, spec = pytree.tree_flatten(one)
    others, other_spec = pytree.tree_flatten(two)
    if spec != other_spec:
        raise Unsplittable("an output changes its structure with the batch")
    made = []
    for a, b in zip(leaves, others, strict=True):
        if not isinstance(a, Shape):
            made.append(a)
            continue
        if len(a.size) != len(b.size):
            raise Unsplittable("an output changes its rank with the batch")
        factors = tuple(0 if m == n else m for m, n in zip(a.size, b.size, strict=True))
        if any(f and 2 * f != n for f, n in zip(factors, b.size, strict=True)):
            raise Unsplittable("an output doesn't grow with the batch")
        made.append(Placeholder(a.size, factors, a.dtype, a.device))
    return pytree.tree_unflatten(made, spec)


class _State(threading.local):
    """The state of a thread's run of a part."""

    def __init__(self) -> None:
        self.activation: Tensor | None = None
        self.output: Tensor | None = None
        self.calls = Counter[str]()


class Trunk:
    """The network up to the cut: from x to the activation there; nothing above it runs.

    Attributes:
        module: the copy that runs.
    """

    def __init__(self, source: nn.Module, cut: Cut, earlier: int) -> None:
        self.module = structural_copy(source)
        self._made_of = (source, cut, earlier)
        self._state = state = _State()
        part = self.module.get_submodule(cut.module)
        plain = part.forward

        def stop(*args: Any, **kwargs: Any) -> Any:
            state.calls[""] += 1
            if state.calls[""] <= earlier:
                return plain(*args, **kwargs)
            output = plain(*args, **kwargs) if cut.output else None
            found = first_tensor(output if cut.output else [*args, *kwargs.values()])
            if not torch.compiler.is_exporting():
                raise _Reached(found)
            # torch.export follows modules in and out, so nothing may leave them early; what runs
            # on from here is dead code to it. Cloned: it may work in place.
            state.activation = found.clone()
            return output if cut.output else plain(*args, **kwargs)

        part.forward = stop

    def again(self) -> Trunk:
        """Return the same trunk on a module of its own, because tracers change what they trace."""
        return Trunk(*self._made_of)

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the activation at the cut for inputs x (b, 3, h, w).

        Raises:
            LayerError: the forward took another path and didn't reach the cut.
        """
        state = self._state
        state.calls.clear()
        try:
            with running():
                self.module(x)
        except _Reached as reached:
            return reached.value
        found, state.activation = state.activation, None
        if found is not None:
            return found
        raise LayerError("expected the forward to reach the cut, but it took another way")


class Head:
    """The network above the cut: from the activation there to the module's output.

    Attributes:
        module: the copy that runs: its layers can be captured and cut like the model's own.
    """

    def __init__(
        self,
        module: nn.Module,
        cut: Cut,
        layer: str,
        stubs: Mapping[str, Sequence[Any]],
        at: Any,
        axis: int,
        root: Any,
    ) -> None:
        self.module = module
        self._made_of = (cut, layer, stubs, at, axis, root)
        self._axis, self._root = axis, root
        self._state = _State()
        if not cut.output:
            self._wrap(layer, self._overwritten)
        for name, recipes in stubs.items():
            self._wrap(name, self._stubbed, name, recipes)
        self._wrap(cut.module, self._injected, len(stubs.get(cut.module, ())), cut, at)

    def on(self, module: nn.Module) -> Head:
        """Return the same head on another module of the same structure, which is changed."""
        return Head(module, *self._made_of)

    def __call__(self, activation: Tensor, output: Tensor | None = None) -> Any:
        """Compute the module's output from the activation at the cut.

        Args:
            activation: the activation at the cut.
            output: what overwrites the layer's output, for a cut further out.
        """
        state = self._state
        state.activation, state.output = activation, output
        state.calls.clear()
        try:
            return self.module(_filled(self._root, activation.shape[self._axis]))
        finally:
            state.activation = state.output = None

    def _wrap(self, name: str, wrap: Callable[..., Part], *how: Any) -> None:
        """Replace the forward of a submodule by wrap(forward, *how)."""
        part = self.module.get_submodule(name)
        part.forward = wrap(part.forward, *how)

    def _stubbed(self, plain: Part, name: str, recipes: Sequence[Any]) -> Callable[..., Any]:
        """Return a forward whose first calls return the recipes' structures instead of running."""
        state = self._state

        def forward(*args: Any, **kwargs: Any) -> Any:
            number = state.calls[name]
            state.calls[name] += 1
            if number >= len(recipes) or state.activation is None:
                return plain(*args, **kwargs)
            return _filled(recipes[number], state.activation.shape[self._axis])

        return forward

    def _injected(self, plain: Part, earlier: int, cut: Cut, at: Any) -> Callable[..., Any]:
        """Return a forward that inserts the activation at the cut, after `earlier` other calls."""
        state = self._state

        def forward(*args: Any, **kwargs: Any) -> Any:
            state.calls["cut"] += 1
            if state.calls["cut"] != earlier + 1 or state.activation is None:
                return plain(*args, **kwargs)
            # Cloned: what follows may work in place.
            value = state.activation.clone()
            if cut.output:
                whole = _filled(at, value.shape[self._axis])
                return with_first_tensor(whole, value)
            given = iter((value,))
            new = [next(given, a) if isinstance(a, Tensor) else a for a in args]
            named = {
                key: next(given, a) if isinstance(a, Tensor) else a for key, a in kwargs.items()
            }
            return plain(*new, **named)

        return forward

    def _overwritten(self, plain: Part) -> Callable[..., Any]:
        """Return a forward whose output is overwritten where the caller passed an output."""
        state = self._state

        def forward(*args: Any, **kwargs: Any) -> Any:
            output = plain(*args, **kwargs)
            return output if state.output is None else with_first_tensor(output, state.output)

        return forward


def _filled(recipe: Any, batch: int) -> Any:
    """Build a recipe's structure for `batch` images."""
    return pytree.tree_map_only(Placeholder, lambda tensor: tensor.make(batch), recipe)
