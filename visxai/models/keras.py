"""Keras models (Keras 3, on its torch backend) as modules from pixels to logits.

    module, known = load(Path("model.keras"))

A `.keras` file is loaded without running anything that it holds: Keras refuses Lambda layers and
classes of others in its safe mode. On the torch backend a layer is an nn.Module, so gradients and
layers are there for every method. What is done about Keras' own ways:

- Its tensors lie channels last; pixels are turned as the file's input wants them.
- A functional model registers none of its layers, so they are registered here, by Keras' names.
- The last layer's softmax or sigmoid is taken off, so that scores are logits.
- A copy shares the weights, which Keras' own copies don't.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visxai.errors import ModelError, require
from visxai.foreign import shown

_PREFIX = "layer_"  # of names that a module has already


class KerasModule(nn.Module):
    """A Keras model as a module from pixels (b, c, h, w) to logits (b, k); its layers by name."""

    def __init__(self, model: Any) -> None:
        """Wrap a Keras model on the torch backend, which is changed: its last activation goes."""
        super().__init__()
        self.keras: Any
        shape = model.input_shape
        self.channels_last = shape[-1] in (1, 3) or shape[1] not in (1, 3)
        # Out of sight of torch: its own names for weights would stand beside the layers'.
        object.__setattr__(self, "keras", model)
        _register(self, model)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (b, k) of pixels x (b, c, h, w)."""
        import keras

        turned = x.permute(0, 2, 3, 1) if self.channels_last else x
        place = x.device.type if x.device.index is None else f"{x.device.type}:{x.device.index}"
        with keras.device(place):
            found: Tensor = self.keras(turned, training=False)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasModule:
        """Copy the structure; weights that `memo` holds are shared."""
        import keras

        model = keras.models.clone_model(self.keras)
        for new, old in zip(model.variables, self.keras.variables, strict=True):
            new._value = copy.deepcopy(old._value, memo)
        for layer in model._flatten_layers():
            # A sequential model keeps a functional one inside, out of its layers' sight.
            for part in layer.modules():
                if hasattr(part, "_track_variables"):
                    part._track_variables()
        made = KerasModule(model)
        made.train(self.training)
        memo[id(self)] = made
        return made


def _register(holder: nn.Module, model: Any) -> None:
    """Make a model's layers submodules of a holder, those of models inside it theirs."""
    for layer in model.layers:
        name = str(layer.name).replace(".", "_")
        if hasattr(holder, name):
            name = f"{_PREFIX}{name}"
        holder.add_module(name, layer)
        if hasattr(layer, "layers"):
            _register(layer, layer)


def load(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Load a `.keras` file safely.

    Args:
        path: The file.

    Returns:
        A module from pixels to logits, and its activation.

    Raises:
        ModelError: The file can't be loaded, or isn't a model of one image with one output.
        MissingExtra: Keras isn't installed.
    """
    if path.suffix != ".keras" or not path.is_file():
        raise ModelError(
            f"expected a .keras file, got {shown(str(path))}: save the model with "
            'model.save("model.keras"), older formats can hold code'
        )
    keras = _keras()
    try:
        model = keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"expected a Keras model of Keras' own layers, got {shown(path.name)}, which can't be "
            f"loaded safely ({shown(reason)}): save it without Lambda layers and own classes"
        ) from None
    return _wrapped(model)


def of(model: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Wrap a Keras model of the caller's, whose weights are shared and which stays as it is.

    Args:
        model: The model, on the torch backend.

    Returns:
        A module from pixels to logits, and its activation.

    Raises:
        ModelError: It isn't on the torch backend, or isn't a model of one image with one output.
    """
    _keras()
    weights = {id(one._value): one._value for one in model.variables}
    return _wrapped(copy.deepcopy(KerasModule(model), weights).keras)


def _wrapped(model: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Wrap a model that is ours to change."""
    shape, out = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or not isinstance(out, tuple):
        raise ModelError(
            f"expected a Keras model of one image with one output, got inputs {shape} and outputs "
            f"{out}: save the part that classifies"
        )
    return KerasModule(model).eval(), {"activation": without_activation(model)}


def without_activation(model: Any) -> str:
    """Take softmax or sigmoid off a model's last layer.

    Returns:
        What turns its outputs into probabilities now: "softmax", "sigmoid" or "none".
    """
    import keras

    last = model.layers[-1]
    while hasattr(last, "layers"):
        last = last.layers[-1]
    name = getattr(getattr(last, "activation", None), "__name__", "")
    if name not in ("softmax", "sigmoid"):
        return "none"
    last.activation = keras.activations.linear
    return name


def _keras() -> Any:
    """Import Keras on its torch backend."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    keras = require("keras", "keras", "a .keras file")
    if keras.backend.backend() != "torch":
        raise ModelError(
            f"expected Keras on its torch backend, got {keras.backend.backend()}: set "
            "KERAS_BACKEND=torch before Keras is imported"
        )
    return keras
