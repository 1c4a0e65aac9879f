"""Files of a caller's own: a checkpoint's tensors, fitted to an architecture, and class labels.

Checkpoints are safetensors, or what `torch.save(model.state_dict(), ...)` writes, read with
`weights_only=True`: no file can run code. Training scripts nest and prefix their state dicts;
`fit` undoes what is usual and says in one sentence what still doesn't match.
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
# What DistributedDataParallel, torch.compile and Lightning put in front of every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")
_SHOWN = 3


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU."""
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
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        # Its own message advises weights_only=False, which would run what is in the file.
        found = None
    if not isinstance(found, Mapping):
        raise ModelError(
            f"expected a state dict of plain tensors in {path.name}, got a damaged file or one "
            "with other objects, which are never unpickled: save it with "
            "torch.save(model.state_dict(), path) or as safetensors"
        )
    return found


def fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint under the architecture's own names: prefixes that all names share are
    dropped where the architecture has none of them."""
    found = dict(state)
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            all_have = all(name.startswith(prefix) for name in found)
            if all_have and not any(name.startswith(prefix) for name in wanted):
                found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def classes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], default: int) -> int | None:
    """The number of classes of a fitted checkpoint, from its classifier: the architecture's last
    weight with `default` rows. None where that isn't in the checkpoint."""
    for name in reversed(list(wanted)):
        like = wanted[name]
        if like.ndim > 1 and like.shape[0] == default and name in state:
            return int(state[name].shape[0])
    return None


def load_into(module: Any, state: Mapping[str, Tensor], name: str) -> None:
    """Load a fitted checkpoint, strictly; ModelError names what doesn't match."""
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
