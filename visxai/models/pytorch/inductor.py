"""The folder for inductor's compiled code, which only its user can read and write.

By default inductor uses a folder in the shared /tmp, from which it loads and runs code.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

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
