"""A module as visxai runs it: its types and its scalars."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visxai.models.pytorch.model import TorchModel
from visxai.models.rows import wide
from visxai.target import Aim

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Scalars(nn.Module):
    """(inputs (n, 3, h, w), map (n,)) -> the target's scalars (n, 1), by a copy of the module
    that may be hooked at will: it shares the weights and nothing else."""

    def __init__(self, model: TorchModel, aim: Aim) -> None:
        super().__init__()
        self.network = model.copied()
        for part in self.network.modules():
            if getattr(part, "inplace", None) is True:
                # A backward hook's view of its input can't be overwritten.
                setattr(part, "inplace", False)  # noqa: B010 - modules have no such field
        self._forward, self._aim = model.forward, aim

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        return self._aim(wide(self._forward(x, self.network)), which).unsqueeze(1)
