"""ONNX files: read into the one form, or refused; none is run here."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any, get_args

import onnx
from onnx import TensorProto, helper

from visxai.models.onnx.graph import Layout, read, with_log

RUNS = 20_000
WORDS = ("Identity", "Softmax", "Sigmoid", "axis", "location", "offset", "length", "external")


def check(data: bytes) -> None:
    """The file in a folder of its own, in every layout, with its activation and without."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(data)
        (Path(folder) / "weights.bin").write_bytes(bytes(64))
        found = None
        for layout, keep in itertools.product((None, *get_args(Layout)), (False, True)):
            found = read(path, output=None, layout=layout, keep_activation=keep)
            assert found.input
        if found is not None:
            with_log(found)


def seeds() -> dict[str, bytes]:
    """Small graphs: with a softmax, channels last, weights outside, and some that are wrong."""
    chain = [("Identity", ["y"], ["z"])]
    graphs = {
        "softmax": _graph([("Softmax", ["x"], ["y"])]),
        "channels_last": _graph([("Relu", ["x"], ["y"])], shape=(1, 4, 4, 3)),
        "identities": _graph([("Sigmoid", ["x"], ["y"]), *chain], output="z"),
        "circle": _graph([("Identity", ["y"], ["y"])]),
        "two": _graph([("Identity", ["z"], ["y"]), *chain]),
        "bare": _graph([("Softmax", [], ["y"])]),
        "outside": _outside("weights.bin"),
        "above": _outside("../weights.bin"),
        "nul": _outside("weights\0.bin"),
        "long": _outside("w" * 5000),
    }
    return {f"{name}.onnx": data for name, data in graphs.items()}


def _graph(
    nodes: list[tuple[str, list[str], list[str]]],
    shape: tuple[int, ...] = (1, 3, 4, 4),
    output: str = "y",
    weights: tuple[Any, ...] = (),
) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, (1, 2))],
        initializer=list(weights),
    )
    data: bytes = helper.make_model(graph).SerializeToString()
    return data


def _outside(location: str) -> bytes:
    weight = onnx.TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="16")
    return _graph([("Relu", ["x"], ["y"])], weights=(weight,))
