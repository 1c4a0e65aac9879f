"""Files of an evaluation: written aside and renamed, so that each is there whole or not at all."""

from __future__ import annotations

import uuid
from pathlib import Path

from visxai.errors import StoreError


def write(path: Path, content: str | bytes) -> None:
    """Write text (UTF-8) or bytes; StoreError where that fails."""
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(
            f"expected to write {path}, got: {reason}; make room there or choose another --out"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
