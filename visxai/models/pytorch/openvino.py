"""An exported computation run by OpenVINO on the CPU, in float32 or with bfloat16 inside.

OpenVINO reads the ONNX file that ONNX Runtime reads. In bfloat16 it fuses a whole block of
convolutions, norms and activations, and what it returns is float32.
"""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from torch import Tensor

from visxai.errors import require
from visxai.models.pytorch.exporting import unsealed

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoForm:
    """An exported form in OpenVINO; several threads may call it.

    Args:
        path: the exported file.
        precision: "fp32" or "bf16", what it computes in.

    Raises:
        ValueError: the file's bytes aren't those that were written.
    """

    def __init__(self, path: Path, precision: str) -> None:
        openvino = require("openvino", "openvino", "accelerate='openvino'")
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Processes beside this one would be bound to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._model = core.compile_model(core.read_model(unsealed(path), b""), "CPU", settings)
        self._own = threading.local()  # a request serves one thread at a time

    def __call__(self, x: Tensor) -> Tensor:
        """Run it on inputs x (b, 3, h, w); MemoryError where memory runs out."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._model.create_infer_request()
        try:
            given = x.detach().float().contiguous().numpy()
            found = request.infer({0: given}, share_inputs=True)[0]
        except RuntimeError as error:
            if "llocate" in str(error) or "bad_alloc" in str(error):
                raise MemoryError(str(error)) from None
            raise
        return torch.from_numpy(found)
