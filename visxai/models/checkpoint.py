"""Checkpoints of the caller's own: their tensors, fitted to an architecture.

Checkpoints are safetensors, or what `torch.save(model.state_dict(), ...)` writes, read with
`weights_only=True`: no file can run code. Training scripts nest and prefix their state dicts;
`fit` undoes the usual forms, and `load_into` says in one sentence what still doesn't match.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
# The prefixes that DistributedDataParallel, torch.compile and Lightning give every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
_SHOWN = 3


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name, on the CPU.

    Args:
        path: a safetensors file by its suffix, else a file of `torch.save`.

    Raises:
        ModelError: the file doesn't exist, is damaged, or holds no state dict of plain tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"expected a checkpoint at {path}, found no such file: check the path")
    found = _safetensors(path) if path.suffix == ".safetensors" else _saved(path)
    for key in _NESTS:
        if isinstance(inner := found.get(key), Mapping):
            found = inner
            break
    tensors = {str(name): value for name, value in found.items() if hasattr(value, "shape")}
    if not tensors:
        raise ModelError(
            f"expected a state dict in {path.name}, found no tensors: save it with "
            "torch.save(model.state_dict(), path)"
        )
    return tensors


def _safetensors(path: Path) -> Mapping[str, Any]:
    """Read a safetensors file; raise ModelError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ModelError(
            f"expected safetensors in {path.name}, but the file is damaged ({error}): save or "
            "download it again"
        ) from None


def _saved(path: Path) -> Mapping[str, Any]:
    """Read a file of `torch.save` without unpickling; raise ModelError for other objects."""
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # torch's own message advises weights_only=False, which would run code in the file.
        found = None
    if not isinstance(found, Mapping):
        raise ModelError(
            f"expected a state dict of plain tensors in {path.name}, got a damaged file or one "
            "with other objects, which are never unpickled: save it with "
            "torch.save(model.state_dict(), path) or as safetensors"
        )
    return found


def fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a checkpoint's tensors to the architecture's own names.

    A usual prefix that all names of the checkpoint share, such as "module.", is dropped where no
    name of the architecture begins with it.

    Args:
        state: the checkpoint's tensors by name.
        wanted: the architecture's state dict.
    """
    found = dict(state)
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            all_have = all(name.startswith(prefix) for name in found)
            if all_have and not any(name.startswith(prefix) for name in wanted):
                found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def classes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], default: int) -> int | None:
    """Return the number of classes of a fitted checkpoint, from its classifier.

    Args:
        state: the checkpoint's tensors by name.
        wanted: the architecture's state dict, whose classifier is its last weight with `default`
            rows.
        default: the architecture's own number of classes.

    Returns:
        The number, or None where the classifier isn't in the checkpoint.
    """
    for name in reversed(list(wanted)):
        like = wanted[name]
        if like.ndim > 1 and like.shape[0] == default and name in state:
            return int(state[name].shape[0])
    return None


def load_into(module: Any, state: Mapping[str, Tensor], name: str) -> None:
    """Load a fitted checkpoint into a module, strictly.

    Args:
        module: the architecture, which is changed.
        state: the checkpoint's tensors by name.
        name: the model's name for the message.

    Raises:
        ModelError: tensors are missing, unexpected or of other shapes; the message names them.
    """
    wanted = module.state_dict()
    # Counters that older checkpoints lack and that eval mode never reads.
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted]
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:_SHOWN])}{', …' if len(keys) > _SHOWN else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of other shapes", shapes),
        )
        if keys
    ]
    if problems:
        raise ModelError(
            f"expected a checkpoint of {name}, but its tensors differ: {', '.join(problems)}: "
            "name the architecture it was trained with"
        )
    module.load_state_dict(state, strict=False)
