"""The plain forward of a network in every runtime at hand, each at its best for one batch size.

What a map costs beside the fastest of these is its share of what this machine can do. Each form is
made as its documentation says, without visxai: eager PyTorch, inductor with frozen weights, ONNX
Runtime, and OpenVINO where it is installed.
"""

from __future__ import annotations

import copy
import importlib.util
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Work = Callable[[], Any]


def forwards(module: nn.Module, x: Tensor, compiled: bool) -> dict[str, Work]:
    """Calls of the forward of x (b, 3, h, w), by runtime; `compiled` adds inductor's."""
    made = {"onnxruntime fp32": onnxruntime(module, x)}
    if compiled:
        narrow = copy.deepcopy(module).to(torch.bfloat16).to(memory_format=torch.channels_last)
        half = x.to(torch.bfloat16, memory_format=torch.channels_last)
        made["inductor fp32"] = inductor(copy.deepcopy(module), x)
        made["inductor bf16"] = inductor(narrow, half)
    if importlib.util.find_spec("openvino"):
        made["openvino fp32"] = openvino(module, x, "f32")
        made["openvino bf16"] = openvino(module, x, "bf16")
    return made


def inductor(module: nn.Module, x: Tensor) -> Work:
    """Compiled for any batch size, which is faster here than compiling for one."""
    from torch._inductor import config

    batch = torch.export.Dim("batch", min=1, max=65536)
    with torch.no_grad(), config.patch(freezing=True):
        traced = torch.export.export(module, (x,), dynamic_shapes=({0: batch},)).module()
        compiled = torch.compile(traced, dynamic=True)
        compiled(x)

    def run() -> Any:
        with torch.no_grad(), config.patch(freezing=True):
            return compiled(x)

    return run


def exported(module: nn.Module, x: Tensor) -> bytes:
    """The network as ONNX for x's batch size."""
    file = io.BytesIO()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            torch.onnx.export(module, (x,), file, dynamo=False, input_names=["x"])
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return file.getvalue()


def onnxruntime(module: nn.Module, x: Tensor) -> Work:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(exported(module, x), options, ["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return lambda: session.run(None, given)


def openvino(module: nn.Module, x: Tensor, precision: str) -> Work:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(exported(module, x), b"")
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    given = x.numpy()
    return lambda: request.infer({0: given}, share_inputs=True)
