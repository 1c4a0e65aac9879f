"""The store killed, or refused by the disk, at each call that changes the disk (`faulty.py`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
THOROUGH = os.environ.get("VISXAI_THOROUGH") == "1"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks into /proc")


@pytest.mark.parametrize(
    ("mode", "stride"), [("kill", 1), ("torn", 5), ("full", 5), ("readonly", 5), ("error", 5)]
)
def test_a_history_that_is_broken_off_anywhere_goes_on_to_the_same_rows(
    tmp_path: Path, mode: str, stride: int
) -> None:
    command = [sys.executable, HERE / "faulty.py", tmp_path, mode, str(1 if THOROUGH else stride)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert not told["complaints"], done.stderr[-3000:]
    assert told["broken"] >= 20
