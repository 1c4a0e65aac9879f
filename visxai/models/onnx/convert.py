"""ONNX graphs as nn.Modules, for gradients: onnx2torch, with the graph rewritten for it first.

Node names become plain identifiers, because onnx2torch writes them into source code, and operators
newer than opset 17 are replaced by their older forms. The result needn't be right: the caller
compares the module with the runtime on the original graph before using it.
"""

from __future__ import annotations

import keyword
import math
import re
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

from visxai.errors import require
from visxai.models.onnx.graph import Graph
from visxai.quiet import warnings_of

# The newest opset that the converter knows most operators of.
_OPSET = 17
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")


def convert(graph: Graph) -> nn.Module:
    """Convert a graph to an nn.Module by onnx2torch.

    Raises:
        MissingExtra: onnx2torch isn't installed.
        Exception: anything that onnx2torch raises where it can't convert the graph.
    """
    with warnings_of():
        onnx2torch = require("onnx2torch", "onnx", "gradients of an ONNX model")
        proto = type(graph.proto)()
        proto.CopyFrom(graph.proto)
        _older(proto)
        _without_aliases(proto)
        _plain_names(proto)
        module: nn.Module = onnx2torch.convert(proto)
        for part in [name for name, one in module.named_modules() if _slices(one)]:
            module.set_submodule(part, Slice())
        _fix_shapes(module)
    return module


class Reshape(nn.Module):
    """ONNX's Reshape to sizes that the graph fixes; the converter's own reads them from a tensor.

    A tracer with a symbolic batch can't read a tensor's values.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        """Reshape x, where a size of 0 is x's own and one of -1 is what is left."""
        return x.reshape([size or x.shape[axis] for axis, size in enumerate(self.sizes)])


class Slice(nn.Module):
    """ONNX's Slice; the converter's own indexes by a list, which torch has deprecated."""

    def forward(
        self,
        x: Tensor,
        starts: Tensor,
        ends: Tensor,
        axes: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        """Slice x along `axes` (all leading axes by default), as ONNX defines it."""
        count = len(starts)
        axis = range(count) if axes is None else axes.tolist()
        step = [1] * count if steps is None else steps.tolist()
        index = [slice(None)] * x.ndim
        flipped = []
        for a, start, end, by in zip(axis, starts.tolist(), ends.tolist(), step, strict=True):
            if by < 0:  # torch has no negative steps: count from the other end
                flipped.append(a)
                start, end, by = -start - 1, -end - 1, -by
            index[a] = slice(*slice(start, end, by).indices(x.shape[a]))
        found: Tensor = (x.flip(flipped) if flipped else x)[tuple(index)]
        return found


def _fix_shapes(module: nn.Module) -> None:
    """Replace each Reshape whose sizes are constants by one that knows them."""
    assert isinstance(module, GraphModule)
    parts, constants = dict(module.named_modules()), dict(module.named_buffers())
    for node in module.graph.nodes:
        if type(parts.get(str(node.target))).__name__ != "OnnxReshape":
            continue
        x, shape = node.args
        name = f"{shape.target}.value" if shape.op == "call_module" else str(shape.target)
        if name in constants and (shape.op == "get_attr" or not shape.args):
            module.set_submodule(node.target, Reshape(tuple(constants[name].tolist())))
            node.args = (x,)
    module.recompile()


def _slices(part: nn.Module) -> bool:
    """Return whether a module is the converter's Slice."""
    return type(part).__name__ == "OnnxSlice"


def _plain_names(proto: Any) -> None:
    """Give every node a unique name that is a plain identifier.

    Names are written into generated source code without escaping: a name with a quote in it could
    run anything.
    """
    taken: set[str] = set()
    for node in proto.graph.node:
        name = re.sub(r"\W", "_", node.name or node.op_type, flags=re.ASCII).lstrip("_")
        reserved = keyword.iskeyword(name) or hasattr(nn.Module, name) or name == "initializers"
        if not name or name[0].isdigit() or reserved:
            name = f"node_{name}"
        plain, number = name, 1
        while plain in taken:
            plain, number = f"{name}_{number}", number + 1
        taken.add(plain)
        node.name = plain


def _without_aliases(proto: Any) -> None:
    """Let nodes read a constant itself where they read another name of it.

    An exporter that keeps equal constants once names the others by Identity nodes; the converter
    looks for weights among constants alone.
    """
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    outputs = {output.name for output in graph.output}
    alias: dict[str, str] = {}
    kept = []
    for node in graph.node:  # in the order of computation, so that an alias of an alias is known
        for place, name in enumerate(node.input):
            node.input[place] = alias.get(name, name)
        named = node.op_type == "Identity" and node.input[0] in constants
        if named and node.output[0] not in outputs:
            alias[node.output[0]] = node.input[0]
            continue
        kept.append(type(node).FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)


def _older(proto: Any) -> None:
    """Replace operators newer than opset 17 by their older forms, where they have any."""
    onnx = require("onnx", "onnx", "gradients of an ONNX model")
    standard = [item for item in proto.opset_import if item.domain in ("", "ai.onnx")]
    if not standard or max(item.version for item in standard) <= _OPSET:
        return
    for item in standard:
        item.version = _OPSET
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    nodes = []
    for node in proto.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) == 2:
            # Axes were an attribute before opset 18.
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()]).tolist()
            node.attribute.append(onnx.helper.make_attribute("axes", axes))
        if node.op_type == "Reshape":
            _drop(node, "allowzero")
        if node.op_type == "Split":
            _drop(node, "num_outputs")
        nodes += _gelu(node, onnx.helper) if node.op_type == "Gelu" else [node]
    for name, value in (("half", 0.5), ("one", 1.0), ("root", math.sqrt(2))):
        proto.graph.initializer.append(onnx.helper.make_tensor(f"visxai_{name}", 1, [], [value]))
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(kept)


def _drop(node: Any, attribute: str) -> None:
    """Remove an attribute from a node, if the node has it."""
    for item in [item for item in node.attribute if item.name == attribute]:
        node.attribute.remove(item)


def _gelu(node: Any, helper: Any) -> list[Any]:
    """Write the Gelu of opset 20 by older operators: x/2 (1 + erf(x / sqrt 2))."""
    x, y, part = node.input[0], node.output[0], f"{node.output[0]}_visxai"
    return [
        helper.make_node("Div", [x, "visxai_root"], [f"{part}_1"]),
        helper.make_node("Erf", [f"{part}_1"], [f"{part}_2"]),
        helper.make_node("Add", [f"{part}_2", "visxai_one"], [f"{part}_3"]),
        helper.make_node("Mul", [x, f"{part}_3"], [f"{part}_4"]),
        helper.make_node("Mul", [f"{part}_4", "visxai_half"], [y]),
    ]
