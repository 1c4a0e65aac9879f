"""ONNX files in a single form: pixels (n, c, h, w) in, logits (n, k) out.

A file may come from anywhere, so nothing in it is trusted: weights in other files must lie in the
model's own folder, and operators must be ONNX's or the runtime's own. A softmax or sigmoid at the
end is cut off, since methods read logits; channels-last inputs get a transpose in front.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from visxai.errors import ArgumentError, ModelError, UnknownName, require

Layout = Literal["nchw", "nhwc"]

# Protobuf can't hold more in one message.
_MOST_BYTES = 2**31 - 2**20
# The domains whose operators the runtime contains; others need a library that comes with the file.
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
# TensorProto's numbers for float32, float16, float64.
FLOATS = {1: "float32", 10: "float16", 11: "float64"}
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Graph:
    """An ONNX graph from pixels (n, c, h, w) to logits (n, k).

    Attributes:
        proto: its ModelProto, weights included.
        sha256: of the file and of the weights files it names.
        batch: the fixed batch size of its input, None where it is free.
        size: the fixed (height, width) of its input, None where they are free.
        channels: the number of its input's channels.
        dtype: its input's type, such as "float32".
        activation: the activation that was cut off its end.
    """

    proto: Any
    sha256: str
    batch: int | None
    size: tuple[int | None, int | None]
    channels: int
    dtype: str
    activation: Literal["softmax", "sigmoid"] | None

    @property
    def input(self) -> str:
        """The name of its input."""
        return str(self.proto.graph.input[0].name)

    @property
    def output(self) -> str:
        """The name of its output."""
        return str(self.proto.graph.output[0].name)


def read(path: Path, *, output: str | None, layout: Layout | None, keep_activation: bool) -> Graph:
    """Read the graph of an ONNX file.

    Args:
        path: the file; weights in other files must lie in its folder.
        output: which of several outputs holds the scores; by default the first output of rank 2.
        layout: the input's axes; by default the axis of 1, 3 or 4 channels decides.
        keep_activation: whether a final softmax or sigmoid stays in the graph.

    Raises:
        MissingExtra: the package onnx isn't installed.
        ModelError: the file is missing, damaged or too large, has custom operators, or has an input
            of another form.
        UnknownName: the graph has no output of this name, or there is no such layout.
        ArgumentError: `output` isn't a name.
    """
    proto, sha256 = _parse(path)
    _check_operators(proto, path.name)
    _single_input(proto, path.name)
    _single_output(proto, output, path.name)
    activation = None if keep_activation else _cut_activation(proto)
    dims, dtype = _input(proto, path.name)
    if _layout(dims, layout, path.name) == "nhwc":
        dims = _transposed(proto, dims)
    return Graph(proto, sha256, dims[0], (dims[2], dims[3]), dims[1] or 3, dtype, activation)


def with_log(graph: Graph) -> Graph:
    """Return the graph followed by a logarithm, which turns probabilities into logits."""
    from dataclasses import replace

    onnx = require("onnx", "onnx", "reading an ONNX model")
    proto = onnx.ModelProto()
    proto.CopyFrom(graph.proto)
    tiny = onnx.helper.make_tensor("visxai_tiny", 1, [], [1e-30])
    proto.graph.initializer.append(tiny)
    proto.graph.node.extend(
        [
            onnx.helper.make_node("Add", [graph.output, "visxai_tiny"], ["visxai_sum"]),
            onnx.helper.make_node("Log", ["visxai_sum"], ["visxai_log"]),
        ]
    )
    proto.graph.output[0].name = "visxai_log"
    return replace(graph, proto=proto, activation="softmax")


def _parse(path: Path) -> tuple[Any, str]:
    """Read a file into (ModelProto with all weights inside, sha256 of all bytes that were read)."""
    onnx = require("onnx", "onnx", f"the model {path.name}")
    if not path.is_file():
        raise ModelError(f"expected an ONNX file, found none at {path}: check the path")
    _check_size(path.stat().st_size, path.name)
    content = path.read_bytes()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except Exception:
        proto.Clear()
    if not proto.graph.node or not proto.graph.output:
        raise ModelError(
            f"expected an ONNX model in {path.name}, but the file is damaged or something else: "
            "export or download it again"
        )
    _check_names(proto, path.name)
    digest, total = hashlib.sha256(content), len(content)
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        content = _external(tensor, path)
        total += len(content)
        _check_size(total, path.name)
        digest.update(content)
        tensor.raw_data = content
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return proto, digest.hexdigest()


def _check_names(proto: Any, name: str) -> None:
    """Raise ModelError unless all names are UTF-8 and every input and output has a name."""
    ends = (*proto.graph.input, *proto.graph.output)
    if not _is_text(proto) or not all(value.name for value in ends):
        raise ModelError(
            f"expected inputs and outputs with names in {name}, all names in UTF-8, got others: "
            "the file is damaged, export or download it again"
        )


def _is_text(message: Any) -> bool:
    """Return whether every string inside a protobuf message is UTF-8; others are read as bytes."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = value if hasattr(value, "__len__") else (value,)
            if not all(map(_is_text, parts)):
                return False
        elif field.type == field.TYPE_STRING:
            items = (value,) if isinstance(value, (str, bytes)) else value
            if not all(isinstance(item, str) for item in items):
                return False
    return True


def _check_size(size: int, name: str) -> None:
    """Raise ModelError for more bytes than a protobuf message can hold."""
    if size > _MOST_BYTES:
        raise ModelError(
            f"expected an ONNX model of less than 2 GiB, got {name} with more: use the model in "
            "its PyTorch form"
        )


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every TensorProto inside a protobuf message: initializers, attributes, subgraphs."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        repeated = hasattr(value, "__len__")
        for item in value if repeated else (value,):
            if field.message_type.name == "TensorProto":
                yield item
            else:
                yield from _tensors(item)


def _external(tensor: Any, path: Path) -> bytes:
    """Read the bytes of a tensor kept in another file, which must lie in the model's folder."""
    entry = {item.key: item.value for item in tensor.external_data}
    location = str(entry.get("location", ""))
    folder = path.parent.resolve()
    outside = ModelError(
        f"expected the weights of {path.name} beside it, got {location!r}, which leads outside "
        "its folder: put the weights there and export the model again"
    )
    forms = (PurePosixPath(location), PureWindowsPath(location))
    if not location or any(form.anchor or ".." in form.parts for form in forms):
        raise outside
    try:
        file: Path = (folder / location).resolve()
        found = file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long a name, a NUL in it, links in a circle
        raise outside from None
    if not file.is_relative_to(folder):
        raise outside
    if not found:
        raise ModelError(
            f"expected the weights of {path.name} in {location!r} beside it, found no such file: "
            "copy it there"
        )
    try:
        offset = int(entry.get("offset") or 0)
        length = int(entry.get("length") or file.stat().st_size - offset)
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        raise ModelError(
            f"expected {location!r} to hold the weights of {path.name}, but it is too short: "
            "export or download both again"
        )
    _check_size(length, path.name)
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(length)


def _check_operators(proto: Any, name: str) -> None:
    """Raise ModelError for operators that neither ONNX, nor the runtime, nor the file defines."""
    known = {*_DOMAINS, *(function.domain for function in proto.functions)}
    foreign = sorted({node.domain for node in proto.graph.node} - known)
    if foreign:
        raise ModelError(
            f"expected only operators of ONNX in {name}, got some of {', '.join(foreign)}, whose "
            "library visxai never loads: export the model without custom operators"
        )


def _single_input(proto: Any, name: str) -> None:
    """Remove all inputs but the image: old files list the weights among the inputs."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelError(
            f"expected {name} to have one input, the image, got "
            f"{', '.join(value.name for value in inputs) or 'none'}: export it with one"
        )
    kept = [type(inputs[0]).FromString(inputs[0].SerializeToString())]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)


def _single_output(proto: Any, wanted: str | None, name: str) -> None:
    """Remove all outputs but the scores."""
    outputs = list(proto.graph.output)
    if wanted is not None and not isinstance(wanted, str):
        raise ArgumentError(
            f"expected output= to be the name of an output of {name}, got "
            f"{type(wanted).__name__}: choose of {', '.join(one.name for one in outputs)}"
        )
    if wanted is not None:
        found = [one for one in outputs if one.name == wanted]
        if not found:
            raise UnknownName("output", wanted, [one.name for one in outputs], f"of {name}")
    else:
        found = [one for one in outputs if len(one.type.tensor_type.shape.dim) == 2] or outputs
    kept = type(found[0]).FromString(found[0].SerializeToString())
    del proto.graph.output[:]
    proto.graph.output.append(kept)


def _input(proto: Any, name: str) -> tuple[list[int | None], str]:
    """Return the input's four axes, None where they are free, and its type."""
    tensor = proto.graph.input[0].type.tensor_type
    dims = [
        int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in tensor.shape.dim
    ]
    if len(dims) != 4 or tensor.elem_type not in FLOATS:
        raise ModelError(
            f"expected {name} to take a float image (batch, channels, height, width), got "
            f"{len(dims)} axes of ONNX type {tensor.elem_type}: export it with such an input"
        )
    return dims, FLOATS[tensor.elem_type]


def _layout(dims: list[int | None], given: Layout | None, name: str) -> Layout:
    """Return the input's axis order: the given layout, or by the axis of 1, 3 or 4 channels."""
    if given is not None:
        if given not in ("nchw", "nhwc"):
            raise UnknownName("layout", given, ("nchw", "nhwc"))
        return given
    if dims[1] in _CHANNELS:
        return "nchw"
    if dims[3] in _CHANNELS:
        return "nhwc"
    if dims[1] is None:
        return "nchw"
    raise ModelError(
        f"expected {name} to take 1, 3 or 4 channels, got axes {dims}: pass layout='nchw' or "
        "'nhwc' to visxai.models.load"
    )


def _transposed(proto: Any, dims: list[int | None]) -> list[int | None]:
    """Put a transpose in front of a channels-last graph; return its new axes (n, c, h, w)."""
    onnx = require("onnx", "onnx", "reading an ONNX model")
    given = proto.graph.input[0]
    node = onnx.helper.make_node(
        "Transpose", ["visxai_nchw"], [given.name], "visxai_to_nhwc", perm=[0, 2, 3, 1]
    )
    proto.graph.node.insert(0, node)
    given.name = "visxai_nchw"
    shape = given.type.tensor_type.shape.dim
    axes = [type(shape[0]).FromString(shape[i].SerializeToString()) for i in (0, 3, 1, 2)]
    del shape[:]
    shape.extend(axes)
    return [dims[0], dims[3], dims[1], dims[2]]


def _cut_activation(proto: Any) -> Literal["softmax", "sigmoid"] | None:
    """Remove the graph's final softmax or sigmoid, if it has one, and return which it was."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    output = proto.graph.output[0]
    chain: list[Any] = []
    node = makers.get(output.name)
    while node is not None and node.op_type == "Identity" and len(node.input) == 1:
        if len(chain) == len(makers):
            return None  # nodes that feed each other in a circle
        chain.append(node)
        node = makers.get(node.input[0])
    if node is None or node.op_type not in ("Softmax", "LogSoftmax", "Sigmoid"):
        return None
    if len(node.input) != 1:
        return None
    axis = next((item.i for item in node.attribute if item.name == "axis"), -1)
    if node.op_type != "Sigmoid" and axis not in (1, -1):
        return None
    if node.input[0] not in makers:
        return None
    output.name = node.input[0]
    for dead in (*chain, node):
        used = {name for other in proto.graph.node for name in other.input}
        if not used & set(dead.output):
            proto.graph.node.remove(dead)
    return "sigmoid" if node.op_type == "Sigmoid" else "softmax"
