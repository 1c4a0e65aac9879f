"""A network below a layer and its traced head as one ONNX graph.

images (batch, c, h, w), float32     the network's input
class  (batch,), int64               where it was wanted: the class to explain, -1 the strongest
scores (batch, k), float32           logits
maps   (batch, u, v), float32        at native resolution, unscaled
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from visxai._version import __version__
from visxai.errors import require
from visxai.models.pytorch.exporting import write_onnx
from visxai.models.pytorch.mapped import Parts
from visxai.models.pytorch.sdpa import off_the_fast_path
from visxai.models.pytorch.tracing import Traceable, alone, silent_exporter
from visxai.quiet import warnings_of

OPSET = 18
INPUT, GIVEN, OUTPUTS = "images", "class", ("scores", "maps")
_BATCH = "batch"
_MOST_ROWS = 65536


def joined(parts: Parts, x: Tensor, given: bool) -> Any:
    """Export the parts of a network for inputs like x (2, c, h, w) and merge them into one graph.

    Args:
        parts: The network below a layer, and its head.
        x: Two inputs.
        given: Whether the head takes the class of each image.

    Returns:
        The graph, an onnx.ModelProto.

    Raises:
        MissingExtra: A package isn't installed.
    """
    onnx: Any = require("onnx", "onnx", "packing a model")
    compose: Any = require("onnx.compose", "onnx", "packing a model")
    with TemporaryDirectory() as folder, alone(), warnings_of(), silent_exporter():
        head = _head(parts, given, Path(folder, "head.onnx"))
        if parts.trunk is None:
            return _named(head)
        path = str(Path(folder, "trunk.onnx"))
        _trunk(parts, x, path)
        trunk = onnx.load(path)
    trunk.ir_version = head.ir_version = min(trunk.ir_version, head.ir_version)
    merged = compose.merge_models(
        trunk, head, io_map=[(name, f"head/{name}") for name in _between(parts)], prefix2=None
    )
    return _named(merged)


def _between(parts: Parts) -> list[str]:
    """Name the activations that go from the trunk to the head."""
    return [f"activation{i}" for i in range(len(parts.activations))]


def _trunk(parts: Parts, x: Tensor, path: str) -> None:
    """Export the network below the cut, with its batch norms folded into its convolutions."""
    trunk = parts.trunk
    assert trunk is not None
    handles = off_the_fast_path(trunk.module)  # whose native attention has no form in ONNX
    try:
        plain = Traceable(parts.below, trunk.module)
        write_onnx(plain, x, path, [INPUT], _between(parts), parts.axis, OPSET)
    finally:
        for handle in handles:
            handle.remove()


def _head(parts: Parts, given: bool, path: Path) -> Any:
    """Export the traced head."""
    onnx: Any = require("onnx", "onnx", "packing a model")
    batch = torch.export.Dim(_BATCH, min=1, max=_MOST_ROWS)
    arguments = parts.activations
    sizes: tuple[Any, ...] = ({parts.axis: batch},) * len(arguments)
    names = [INPUT] if parts.trunk is None else [f"head/{name}" for name in _between(parts)]
    if given:
        arguments, sizes = (*arguments, torch.full((2,), -1)), (*sizes, {0: batch})
        names.append(GIVEN)
    with torch.no_grad():
        program = torch.export.export(parts.head, arguments, dynamic_shapes=sizes, strict=False)
        made: Any = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET, external_data=False
        )
    made.save(str(path))
    proto = onnx.load(str(path))
    renamed = dict(zip([one.name for one in proto.graph.input], names, strict=True))
    renamed |= dict(zip([one.name for one in proto.graph.output], OUTPUTS, strict=True))
    _rename(proto.graph, renamed)
    return proto


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give values of a graph their `names`, and all other inner ones the prefix "head/".

    What the exporter noted of the source code goes: it holds paths of this machine.
    """

    def new(name: str) -> str:
        return names.get(name) or (f"head/{name}" if name else "")

    for values in (graph.input, graph.output, graph.initializer, graph.value_info):
        for value in values:
            value.name = new(value.name)
            if hasattr(value, "metadata_props"):
                del value.metadata_props[:]
    for node in graph.node:
        node.name = new(node.name)
        node.doc_string = ""
        del node.metadata_props[:]
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]


def _named(proto: Any) -> Any:
    """Name the graph, and the batch axis of its inputs and outputs."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    proto.graph.name = "explainable"
    proto.producer_name, proto.producer_version = "visxai", __version__
    return proto
