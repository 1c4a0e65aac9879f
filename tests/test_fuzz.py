"""The inputs kept for fuzzing: what once went wrong with a stranger's file stays right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from visxai.errors import ArgumentError

ROOT = Path(__file__).parents[1]


def test_the_corpus_of_every_target_passes() -> None:
    # A process of its own: what an input adds to the peak of memory is only seen in a small one.
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "replay"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_replay_tells_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from fuzz import replay
    from fuzz.targets import spec

    folder = tmp_path / "spec"
    folder.mkdir()
    for name, text in {"damage": "error", "refusal": "refused", "slow": "slow"}.items():
        (folder / name).write_text(text)

    def check(data: bytes) -> None:
        if data == b"refused":
            raise ArgumentError("as it should be")
        if data == b"error":
            raise KeyError("lost")
        if data == b"slow":
            monkeypatch.setattr(replay, "SECONDS", -1.0)

    monkeypatch.setattr(replay, "CORPUS", tmp_path)
    monkeypatch.setattr(replay, "HERE", tmp_path)
    monkeypatch.setattr(spec, "check", check)
    wrong = replay.replay("spec")
    assert [line.split(": ")[0] for line in wrong] == ["spec/damage", "spec/slow"]
    assert "KeyError" in wrong[0]
    assert "took" in wrong[1]
