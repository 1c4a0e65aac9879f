"""Showing an explanation to the person in front: in a notebook, or in the system's own viewer."""

from __future__ import annotations

import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

from visxai.errors import ArgumentError

_ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "text/html": ".html"}


def in_notebook() -> bool:
    """Tell whether this process is a notebook's kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def display(thing: Any) -> None:
    """Display an object in the notebook's cell."""
    from IPython.display import display as show

    show(thing)


def open_file(data: bytes, media_type: str) -> None:
    """Write a picture or a page into the temporary folder and open it as the system does.

    Args:
        data: The file's bytes.
        media_type: Its format.

    Raises:
        ArgumentError: The system has no viewer.
    """
    number, name = tempfile.mkstemp(_ENDINGS[media_type], "visxai-")
    with os.fdopen(number, "wb") as file:
        file.write(data)
    if not webbrowser.open(Path(name).as_uri()):
        raise ArgumentError(
            f"expected a browser or viewer that opens {name}, found none: look at that file, or "
            "save a picture yourself, as with panel().save('explained.jpg')"
        )
