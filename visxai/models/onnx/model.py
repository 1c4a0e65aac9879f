"""ONNX files as models: scores by ONNX Runtime, gradients by a converted copy that agrees with it.

    load(Path("model.onnx"), preprocess=Preprocess(...), labels=[...])

Where onnx2torch converts the file and both agree to 1e-4 on a first batch, the model is a
`TorchModel` whose plain forwards in float32 run in ONNX Runtime: every method can use it. Otherwise
it is an `OnnxModel`, which offers scores alone: perturbation methods can use it, and the error of
any other method states why the file wasn't converted.

A final softmax or sigmoid is cut off, so that scores are logits; where rows of the output still
are probabilities that sum to 1, their logarithm is taken. Batches are padded to a fixed size where
the file has one, and channels-last inputs are transposed. Sessions may be run from several threads
at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visxai.errors import MissingExtra, ModelError, require
from visxai.foreign import shown
from visxai.images.preprocess import Preprocess
from visxai.models.blackbox import BlackBox
from visxai.models.interface import Activation, Model, Need
from visxai.models.onnx import convert
from visxai.models.onnx.graph import Graph, Layout, read, with_log
from visxai.models.pytorch.model import TorchModel
from visxai.quiet import warnings_of
from visxai.references import ModelRef

# The height and width at which inputs of a free size are tried out.
_USUAL_SIZE = 224
_AGREEMENT = 1e-4


class Runtime:
    """An ONNX Runtime session: float pixels (n, c, h, w) to logits (n, k), float32.

    The logits lie on the pixels' device.

    Attributes:
        provider: the execution provider that runs it: CUDA's where `device` is a CUDA device that
            both torch and the runtime can use, else the CPU's. (The runtime's GPU build lists CUDA
            on machines without it, too.)
        device: where the session computes.
        sample: two different inputs (2, c, h, w) for checks.
    """

    def __init__(self, graph: Graph, name: str, device: torch.device) -> None:
        ort = require("onnxruntime", "onnx", f"the model {name}")
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors that matter are raised
        options.intra_op_num_threads = torch.get_num_threads()
        providers: list[Any] = ["CPUExecutionProvider"]
        wants_cuda = device.type == "cuda" and torch.cuda.is_available()
        if wants_cuda and "CUDAExecutionProvider" in ort.get_available_providers():
            index = torch.cuda.current_device() if device.index is None else device.index
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": index}))
        try:
            self._session = ort.InferenceSession(
                graph.proto.SerializeToString(), options, providers=providers
            )
        except Exception as error:
            raise ModelError(
                f"expected an ONNX model that ONNX Runtime {ort.__version__} can run, but {name} "
                f"isn't ({_reason(error)}): export it again, for an older opset if need be"
            ) from None
        self.provider = str(self._session.get_providers()[0])
        self.device = device if self.provider == "CUDAExecutionProvider" else torch.device("cpu")
        self._version = str(ort.__version__)
        self._graph = graph
        self._name = name
        self._dtype = getattr(torch, graph.dtype)
        height, width = (side or _USUAL_SIZE for side in graph.size)
        self.sample = _sample(graph.channels, height, width)
        first = self._session.run(None, {graph.input: self._whole(self.sample).numpy()})[0]
        self._tail = first.shape[1:]
        self._output_dtype = torch.from_numpy(first[:0]).dtype
        classes = [side for side in self._tail if side != 1]
        if first.ndim < 1 or len(first) != len(self._whole(self.sample)) or len(classes) > 1:
            raise ModelError(
                f"expected {name} to output scores (batch, classes), got shape "
                f"{tuple(first.shape)}: name another output with output="
            )

    def __str__(self) -> str:
        return f"onnxruntime {self._version} {self.provider}"

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the logits (n, k), float32, of pixels x (n, c, h, w), on the device of x.

        Raises:
            MemoryError: memory ran out.
            ModelError: the file takes pixels of another size, or the session failed.
        """
        self._check(x)
        inside = x.detach().to(self.device)
        batch = self._graph.batch
        if batch is None:
            return self._run(self._ready(inside)).to(x.device)
        blocks = (inside[start : start + batch] for start in range(0, len(inside), batch))
        parts = [self._run(self._whole(part))[: len(part)] for part in blocks]
        return torch.cat(parts).to(x.device)

    def _run(self, x: Tensor) -> Tensor:
        """Run the session on pixels of its own type and batch size; return logits (n, k), float32.

        Raises:
            MemoryError: memory ran out.
            ModelError: the session failed for another reason.
        """
        binding = self._session.io_binding()
        out = torch.empty(len(x), *self._tail, dtype=self._output_dtype, device=self.device)
        for bind, name, tensor in (
            (binding.bind_input, self._graph.input, x),
            (binding.bind_output, self._graph.output, out),
        ):
            bind(
                name,
                self.device.type,
                self.device.index or 0,
                str(tensor.dtype).removeprefix("torch."),
                tuple(tensor.shape),
                tensor.data_ptr(),
            )
        if self.device.type == "cuda":
            # The session runs on a stream of its own and must find the pixels written.
            torch.cuda.current_stream(self.device).synchronize()
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            text = str(error)
            if "llocate" in text or "out of memory" in text.lower():
                raise MemoryError(text) from None
            raise ModelError(
                f"expected {self._name} to run on pixels {tuple(x.shape)}, but it failed "
                f"({_reason(error)}): use the input size it was exported for"
            ) from None
        return out.reshape(len(x), -1).float()

    def _ready(self, x: Tensor) -> Tensor:
        """Convert pixels to the session's type, contiguous in memory."""
        return x.to(self._dtype).contiguous()

    def _whole(self, x: Tensor) -> Tensor:
        """Repeat the last row of x up to the fixed batch size, where the file has one."""
        missing = (self._graph.batch or len(x)) - len(x)
        if missing > 0:
            x = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])
        return self._ready(x[: self._graph.batch])

    def _check(self, x: Tensor) -> None:
        """Raise ModelError for pixels of another size or number of channels than the file's."""
        wanted = (self._graph.channels, *self._graph.size)
        if any(side not in (None, got) for side, got in zip(wanted, x.shape[1:], strict=True)):
            raise ModelError(
                f"expected pixels (batch, {', '.join(str(s or 'any') for s in wanted)}) for "
                f"{self._name}, got {tuple(x.shape)}: give preprocess= the size it was exported for"
            )


class OnnxModel(BlackBox):
    """A model that offers the scores of an ONNX file, computed by ONNX Runtime.

    Attributes:
        runtime: the session.
        unconverted: why the model has no gradients.
    """

    def __init__(self, runtime: Runtime, ref: ModelRef, unconverted: str, **known: Any) -> None:
        super().__init__(runtime, ref=ref, device=runtime.device, **known)
        self.runtime = runtime
        self.unconverted = unconverted

    def accelerated(self, needs: Need, graph: str = "") -> str:
        return str(self.runtime)

    def remedy(self, missing: Need) -> str:
        return (
            f"export it otherwise, since its graph could not be turned into PyTorch's for "
            f"gradients ({self.unconverted})"
        )

    def _called(self, x: Tensor) -> Tensor:
        return self.runtime(x)


def load(
    path: Path,
    *,
    name: str,
    device: Any = None,
    preprocess: Any = None,
    labels: Sequence[str] | None = None,
    activation: Activation | None = None,
    layer: str | None = None,
    output: str | None = None,
    layout: Layout | None = None,
) -> Model:
    """Load the model in an ONNX file, with gradients where the file can be converted.

    Args:
        path: the file; weights in other files must lie in its folder.
        name: the model's name, for records and messages.
        device: where the model runs; the CPU by default.
        preprocess: how an image becomes pixels.
        labels: the names of the classes, in order.
        activation: how scores become probabilities; "none" takes the scores as the file outputs
            them.
        layer: the layer whose activations a CAM reads.
        output: the output that holds the scores; by default the first output of rank 2.
        layout: the input's axes, "nchw" or "nhwc", where the file leaves them open.

    Raises:
        MissingExtra: the packages for ONNX aren't installed.
        ModelError: the file is damaged, has an input or output of another form, or can't be run.
        UnknownName: the file has no output of this name, or there is no such layout.
    """
    graph = read(path, output=output, layout=layout, keep_activation=activation == "none")
    wanted = torch.device(device or "cpu")
    runtime = Runtime(graph, name, wanted)
    if graph.activation is None and activation in (None, "softmax"):
        rows = runtime(runtime.sample)
        if rows.shape[1] > 1 and rows.min() >= 0 and (rows.sum(1) - 1).abs().max() < 1e-4:
            graph = with_log(graph)
            runtime = Runtime(graph, name, wanted)
    known: dict[str, Any] = {
        "preprocess": None if preprocess is None else Preprocess.of(preprocess),
        "labels": labels,
        "activation": activation or graph.activation or "softmax",
    }
    described = "none" if known["preprocess"] is None else str(known["preprocess"])
    ref = ModelRef(name, graph.sha256, described)
    converted = _converted(graph, runtime)
    if isinstance(converted, str):
        return OnnxModel(runtime, ref, converted, **known)
    model = TorchModel(converted, name=name, ref=ref, layer=layer, device=wanted, **known)
    if wanted.type == runtime.device.type:
        model.runtime = runtime
    return model


def _converted(graph: Graph, runtime: Runtime) -> nn.Module | str:
    """Convert the graph to a module, or return why the module can't compute its gradients."""
    try:
        module = convert.convert(graph)
    except MissingExtra:
        raise
    except Exception as error:
        # Whatever a converter fails at, the runtime still computes the scores.
        return f"onnx2torch: {_told(error)}"
    expected = runtime(runtime.sample)
    with torch.inference_mode(False), torch.enable_grad(), warnings_of(action="error"):
        # What warns here would warn at every forward.
        leaf = runtime.sample.clone().requires_grad_()
        try:
            scores = module.eval()(leaf.to(getattr(torch, graph.dtype)))
            found = scores.detach().reshape(len(leaf), -1).float()
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        except Exception as error:
            # A fixed batch, an operator that can't be differentiated: scores remain.
            return _told(error)
    if found.shape != expected.shape:
        return f"the converted graph gives {tuple(found.shape)}, not {tuple(expected.shape)}"
    worst, largest = (found - expected).abs().max(), expected.abs().max()
    if not bool(worst <= _AGREEMENT * largest):
        return f"the converted graph's scores differ from ONNX Runtime's by {float(worst):.2g}"
    if not bool(gradient.isfinite().all()):
        return "the converted graph's gradients are not finite"
    return module


def _told(error: Exception) -> str:
    """Return an error's kind and first line, shortened."""
    line = next(iter(str(error).strip().splitlines()), "")
    return shown(f"{type(error).__name__}: {line}".rstrip(": "))[:240]


def _sample(channels: int, height: int, width: int) -> Tensor:
    """Return two different pictures (2, channels, height, width) without a random generator."""
    at = torch.linspace(0, 1, 2 * channels * height * width)
    return (at * 977).sin().add((at * 31).cos()).reshape(2, channels, height, width)


def _reason(error: Exception) -> str:
    """Return the first line of a runtime's message, without its status code, shortened."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line.rpartition("[ONNXRuntimeError] : ")[2][:160]
