"""Faster forms of what needs no graph, and of the graph where one is needed.

    onnx     exported once and run by ONNX Runtime on the CPU
    compile  traced once and compiled by inductor, frozen, on the CPU or CUDA

Two parts of a model are prepared, each when it is first asked for: the whole (plain forwards),
and the trunk below a layer (what a CAM runs without a graph; its head stays in autograd). For
gradients at the input the module itself runs in a copy with channels-last weights and batch norms
folded into the convolutions before them.

Every prepared form is checked against the plain one on the first rows it is used for; where it
can't be made or doesn't agree, the plain one runs and `why` says so. Exported forms are kept in
the cache folder by weights, place, input shape and versions, so a second run starts fast.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visxai.backends.base import Need
from visxai.backends.budget import is_out_of_memory
from visxai.errors import ArgumentError, require
from visxai.quiet import warnings_of

Form = Callable[[Tensor], Tensor]
KINDS = ("onnx", "compile")
AGREEMENT = 1e-4  # relative to the largest value, on the first rows
# ReLU6 and friends switch elsewhere when folded weights round differently: single pixels of a
# gradient may change, its direction may not.
GRADIENT_AGREEMENT = 2e-2
# That memory ran out says nothing of a form: it is tried again, but not for ever.
_NO_ROOM = "no memory left to prepare it"
_TRIES = 3


class Acceleration:
    """The prepared forms of one model; `kind` is "onnx" or "compile"."""

    def __init__(self, kind: str, weights: str, folder: Path) -> None:
        if kind not in KINDS:
            raise ArgumentError(f"expected acceleration by {' or '.join(KINDS)}, got {kind!r}")
        if kind == "onnx":
            require("onnxruntime", "onnx", "accelerate='onnx'")
            require("onnx", "onnx", "accelerate='onnx'")
        self.kind = kind
        self.why: dict[str, str] = {}
        self.seconds = 0.0  # that preparing took
        self._weights = weights
        self._folder = folder
        self._forms: dict[tuple[str, tuple[int, ...]], Form | None] = {}
        self._modules: dict[tuple[int, ...], nn.Module | None] = {}
        self._tries = Counter[tuple[str, tuple[int, ...]]]()
        self._lock = threading.RLock()

    def form(self, place: str, plain: Form, module: nn.Module, x: Tensor) -> Form:
        """The prepared form of `plain` at `place` ("whole", "below layer4") for inputs like x.

        module: what `plain` runs, so that tracers find its weights. x (b, ...): the first rows
        it will run on; two of them check it.
        """
        key = (place, tuple(x.shape[1:]))
        with self._lock:
            if key not in self._forms:
                with self._timed():
                    found = self._made(place, plain, module, x)
                if found is None and self._may_fit_later(place, key):
                    return plain
                self._forms[key] = found
            return self._forms[key] or plain

    def describe(self, needs: Need) -> str:
        """What methods with `needs` run on, for the record; the same for every image of a run."""
        if Need.INPUT_GRADIENT in needs:
            text = f"{self.kind}; gradients channels-last, batch norms folded"
        elif Need.LAYER_GRADIENT in needs:
            text = f"{self.kind} below the layer"
        else:
            text = self.kind
        if not self.why:
            return text
        return f"{text} (plain: {'; '.join(f'{k}: {v}' for k, v in sorted(self.why.items()))})"

    def gradient_module(
        self, module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor
    ) -> nn.Module | None:
        """The module for gradients at the input (see `streamlined`), or None for the plain one."""
        shape = tuple(x.shape[1:])
        with self._lock:
            if shape not in self._modules:
                try:
                    with self._timed():
                        made = streamlined(module, run, x)
                except Exception as error:  # what can't be copied or folded runs as it is
                    made = _reason(error)
                if isinstance(made, str):
                    self.why["gradients"] = made
                    if self._may_fit_later("gradients", ("gradients", shape)):
                        return None
                else:
                    self._fits("gradients")
                self._modules[shape] = None if isinstance(made, str) else made
            return self._modules[shape]

    def _may_fit_later(self, place: str, key: tuple[str, tuple[int, ...]]) -> bool:
        """Whether `place` failed for lack of memory alone, so that it is worth another try."""
        self._tries[key] += 1
        return self.why[place] == _NO_ROOM and self._tries[key] < _TRIES

    def _fits(self, place: str) -> None:
        if self.why.get(place) == _NO_ROOM:
            del self.why[place]

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began

    def known(self, place: str, shape: tuple[int, ...]) -> bool:
        """Whether a form is on disk already, so that preparing it costs next to nothing."""
        return self.kind == "onnx" and self._path(place, shape).is_file()

    def _made(self, place: str, plain: Form, module: nn.Module, x: Tensor) -> Form | None:
        few = x[:2].detach()
        try:
            if self.kind == "onnx":
                made = self._exported(place, _Module(plain, module), few)
            else:
                made = _compiled(_Module(plain, module), few)
            difference = _difference(made(few), plain(few))
        except Exception as error:  # whatever a tracer or a runtime raises: the plain form runs
            self.why[place] = _reason(error)
            return None
        if difference > AGREEMENT:
            self.why[place] = f"differs by {difference:.1e}"
            return None
        self._fits(place)
        return made

    def _path(self, place: str, shape: tuple[int, ...]) -> Path:
        runtime = require("onnxruntime", "onnx", "accelerate='onnx'").__version__
        text = f"{self._weights} {place} {shape} {torch.__version__} {runtime} 3"
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self._folder / "accelerated" / f"{name}.onnx"

    def _exported(self, place: str, plain: _Module, x: Tensor) -> Form:
        path = self._path(place, tuple(x.shape[1:]))
        if not path.is_file():
            _export(plain, x, path)
        try:
            return OnnxForm(path)
        except Exception:
            # A damaged file in the cache is made anew, once.
            path.unlink(missing_ok=True)
            _export(plain, x, path)
            return OnnxForm(path)


class OnnxForm:
    """An exported form in an ONNX Runtime session; may be called from several threads."""

    def __init__(self, path: Path) -> None:
        ort = require("onnxruntime", "onnx", "accelerate='onnx'")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        # Idle threads of the pool would spin against torch's own.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Tensor) -> Tensor:
        try:
            (out,) = self._session.run(None, {"x": x.detach().float().contiguous().numpy()})
        except Exception as error:
            if "llocate" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return torch.from_numpy(out)


class _Module(nn.Module):
    """A callable as a module: what tracers want."""

    def __init__(self, form: Form, module: nn.Module) -> None:
        super().__init__()
        self.form = form
        self.module = module
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x)


def _export(plain: _Module, x: Tensor, path: Path) -> None:
    """Write `plain` as ONNX with a free batch axis: beside its place, then renamed into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp, whose files only their owner may read: a cache may be a team's.
    name = str(path.with_name(f".{uuid.uuid4().hex}.partial"))
    try:
        _write(plain, x, name)
        if _computes_padding(name):
            with contextlib.suppress(Exception):  # what can't be traced stays as it is
                traced = _traced(plain, x)
                _write(_Module(lambda rows: traced(rows), plain.module), x, name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _write(plain: _Module, x: Tensor, name: str) -> None:
    with warnings_of(), torch.no_grad():
        torch.onnx.export(
            plain,
            (x,),
            name,
            dynamo=False,
            input_names=["x"],
            output_names=["out"],
            dynamic_axes={"x": {0: "batch"}, "out": {0: "batch"}},
        )


def _computes_padding(name: str) -> bool:
    """Whether an exported file computes what a convolution's input is padded by from its size, as
    "same" padding does: the runtime can't merge that into the convolution, which costs a third of
    the time. Traced once more by torch.export, sizes are numbers."""
    onnx = require("onnx", "onnx", "accelerate='onnx'")
    nodes = onnx.load(name, load_external_data=False).graph.node
    made_by = {output: node for node in nodes for output in node.output}
    sources = [made_by.get(node.input[0]) for node in nodes if node.op_type == "Conv"]
    waiting = [n.input[1] for n in sources if n is not None and n.op_type == "Pad" and n.input[1:]]
    seen = set(waiting)
    while waiting:
        node = made_by.get(waiting.pop())
        if node is not None:
            if node.op_type == "Shape":
                return True
            waiting += set(node.input) - seen
            seen.update(node.input)
    return False


def _traced(plain: _Module, x: Tensor) -> Form:
    """`plain` traced by torch.export for any batch and inputs of x's size."""
    if len(x) == 1:
        x = torch.cat([x, x])  # a batch of one would be traced as always one
    batch = torch.export.Dim("batch", min=1, max=65536)
    with torch.no_grad(), warnings_of():
        return torch.export.export(
            plain, (x,), dynamic_shapes={"x": {0: batch}}, strict=False
        ).module()


def _compiled(plain: _Module, x: Tensor) -> Form:
    """`plain` traced for any batch, then compiled by inductor with its weights frozen."""
    from torch._inductor import config

    traced = _traced(plain, x)
    with torch.no_grad(), warnings_of(), config.patch(freezing=True):
        compiled = torch.compile(traced, dynamic=True)
        compiled(x)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = compiled(x)
            return out

    return run


# ---- gradients at the input --------------------------------------------------------------------


def streamlined(
    module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor
) -> nn.Module | str:
    """A copy of `module` with channels-last weights and folded batch norms, or why there is none.

    run(module, x) gives the scores. The copy's scores must agree to 1e-4 and its gradients at x
    in direction; otherwise a sentence says what didn't.
    """
    one = x[-1:]
    made = copy.deepcopy(module)
    fold(made, run, one)
    made = made.to(memory_format=torch.channels_last)
    found, expected = (_scores_and_gradient(part, run, one) for part in (made, module))
    scores = _difference(found[0], expected[0])
    gradients = float((found[1] - expected[1]).norm() / expected[1].norm().clamp_min(1e-30))
    if scores > AGREEMENT:
        return f"scores differ by {scores:.1e}"
    if gradients > GRADIENT_AGREEMENT:
        return f"gradients differ by {gradients:.1e}"
    return made


def fold(module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> int:
    """Fold every batch norm that directly follows a convolution into it; returns how many.

    What follows what is seen in one forward: a norm whose input is the very tensor that a
    convolution put out. That nobody else reads it is checked by the caller, by the scores.
    """
    owner = threading.get_ident()
    made: dict[int, tuple[nn.Conv2d, Any]] = {}
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}

    def after_convolution(part: nn.Conv2d, _args: Any, output: Any) -> None:
        if threading.get_ident() == owner:
            made[id(output)] = (part, output)

    def before_norm(part: nn.BatchNorm2d, args: Any) -> None:
        if threading.get_ident() == owner and args and id(args[0]) in made:
            pairs[part] = made[id(args[0])][0]

    handles: list[Any] = []
    try:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                handles.append(part.register_forward_hook(after_convolution))
            elif isinstance(part, nn.BatchNorm2d) and part.track_running_stats:
                handles.append(part.register_forward_pre_hook(before_norm))
        with torch.inference_mode(False), torch.no_grad():
            run(module, x)
    finally:
        for handle in handles:
            handle.remove()
    folded: set[int] = set()
    for norm, convolution in pairs.items():
        if id(convolution) in folded:
            continue
        folded.add(id(convolution))
        fused = torch.nn.utils.fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        # timm's norms bring their activation along; plain ones leave nothing to do.
        rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
        norm.forward = nn.Sequential(*rest).forward  # type: ignore[method-assign]
    return len(folded)


def _scores_and_gradient(
    module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        scores = run(module, leaf)
        best = scores.max(1).values
        (gradient,) = torch.autograd.grad(best.sum(), leaf)
    return scores.detach(), gradient


def _difference(found: Tensor, expected: Tensor) -> float:
    """max|found - expected| / max|expected|; infinite where the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    worst = (found.to(expected) - expected).abs().max()
    return float(worst / expected.abs().max().clamp_min(1e-30))


def _reason(error: Exception) -> str:
    if is_out_of_memory(error):
        return _NO_ROOM
    line = next((text for text in str(error).splitlines() if text.strip()), "")
    return f"{type(error).__name__}: {line.strip()[:120]}"
