"""A computation compiled by inductor, in a folder that only its user can read and write.

By default inductor uses a folder in the shared /tmp, from which it loads and runs code.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from visxai.models.pytorch.agreement import Form
from visxai.models.pytorch.graphs import Graphed, record_cuda
from visxai.models.pytorch.tracing import Traceable, traced
from visxai.quiet import warnings_of

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_private(folder: Path) -> None:
    """Set inductor's cache to a subfolder of `folder` for this user alone.

    The setting holds for the whole process, since inductor compiles again when inputs change. A
    setting that exists already, from the environment or an earlier call, stays.

    Args:
        folder: visxai's cache folder, which several users may share.
    """
    if os.environ.get(_VARIABLE):
        return
    own = folder / f"inductor-{getpass.getuser()}"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(own):
        own = Path(tempfile.mkdtemp(prefix="visxai-inductor-"))  # for this process alone
    os.environ[_VARIABLE] = str(own)


def _is_private(folder: Path) -> bool:
    """Return whether the folder is this user's alone, after taking away the rights of others."""
    if not hasattr(os, "getuid"):
        return True  # where there are no modes, the user's cache folder is private by itself
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return False
    folder.chmod(0o700)
    return True


def compile_frozen(plain: Traceable, x: Tensor) -> Form:
    """Trace `plain` for any batch size, and compile it by inductor with its weights frozen.

    On a GPU its kernels are launched as one for shapes that come again (see `graphs.py`).
    """
    from torch._inductor import config

    sized = traced(plain, x)
    with torch.no_grad(), warnings_of(), config.patch(freezing=True):
        compiled = torch.compile(sized, dynamic=True)
        compiled(x)

    def run(x: Tensor) -> Tensor:
        # Another number of rows may compile anew: frozen, too.
        with torch.no_grad(), config.patch(freezing=True):
            out: Tensor = compiled(x)
            return out

    return Graphed(run, record_cuda) if x.is_cuda else run
