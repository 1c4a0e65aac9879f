"""A photograph that travels with visxai, so that its first map needs none of your own."""

from __future__ import annotations

from pathlib import Path

PHOTOGRAPH = Path(__file__).parent / "espresso.jpg"
