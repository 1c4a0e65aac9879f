"""A method that is nothing but a file in the folder of methods gets the contract tests unasked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

GOOD = '''
"""Planted: gradient times activation at a layer.

Cost: one forward, and one backward from the score down to the layer.
Source: this test.
"""

from dataclasses import dataclass

from visxai.methods.base import Cam


@dataclass(frozen=True, repr=False)
class Planted(Cam):
    """The sum over channels."""

    def map(self, at):
        return (at.gradient * at.activation).sum(1)
'''
# It compares the images of its batch, which no method may.
BAD = GOOD.replace(".sum(1)", ".sum(1) - at.activation.mean()")

# `visxai.methods` finds files by its __path__; a package's file may add folders to it.
PLANT = """
import sys
import visxai.methods
visxai.methods.__path__.append(sys.argv[1])
import pytest
sys.exit(pytest.main([*sys.argv[2:], "-q", "-p", "no:cacheprovider", "-n", "0"]))
"""


def contracts(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the contract tests of what lies in a folder, for the small CNN and the transformer."""
    chosen = "planted and (conv or vit) and not hf_vit and not convnext"
    return subprocess.run(
        [sys.executable, "-c", PLANT, folder, TESTS / "test_contracts.py", "-k", chosen, *more],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.mark.parametrize(("source", "failed"), [(GOOD, ""), (BAD, "test_batch_invariance")])
def test_a_planted_file_gets_the_contract_tests(tmp_path: Path, source: str, failed: str) -> None:
    (tmp_path / "planted.py").write_text(source.lstrip(), "utf-8")
    ran = contracts(tmp_path, *(["-k", "planted-conv and batch_invariance"] if failed else []))
    if not failed:
        assert ran.returncode == 0, ran.stdout + ran.stderr
        # A dozen contracts over every kind of model, here two; the others draw kinds of their own.
        assert ran.stdout.count(".") > 20
    else:
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert f"FAILED tests/test_contracts.py::{failed}[planted-conv]" in ran.stdout
