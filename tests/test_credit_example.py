"""The example of a credit model, from training to letters, and the script that judges it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from visxai import results

for library in ("xgboost", "shap", "sklearn", "matplotlib"):
    pytest.importorskip(library, reason="needs the extra tables")

EXAMPLE = Path(__file__).parents[1] / "examples" / "credit"


def run(script: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLE / script, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_example_goes_from_training_to_the_letters(tmp_path: Path) -> None:
    told = run("credit.py", tmp_path)
    refused = int(re.findall(r"300 applicants, (\d+) refused", told)[0])
    records = list(results.read(tmp_path / "results"))
    assert sum(not one.favourable for one in records) == refused > 50
    for number in (1, 2, 3):
        english = (tmp_path / f"letter-{number}-en.html").read_text("utf-8")
        german = (tmp_path / f"letter-{number}-de.html").read_text("utf-8")
        assert english.count("<li>") == german.count("<li>") >= 4
        assert "duration in months" in english + told
        assert 'lang="de"' in german
    for name in ("summary", "waterfall", "beside"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert "favourable" in told
    assert re.search(r"Age can be told from the scored columns to \d+%", told)
    assert (tmp_path / "results" / "report" / "index.html").is_file()


def test_the_model_is_judged_and_its_card_written(tmp_path: Path) -> None:
    run("train.py", "--seeds", "1", "--draws", "5", "--card", tmp_path / "card.md")
    made, kept = (path.read_text("utf-8") for path in (tmp_path / "card.md", EXAMPLE / "card.md"))
    (auc,) = re.findall(r"\| AUC \| (0\.\d+)", made)
    assert 0.7 < float(auc) < 0.85
    # Apart from figures and seeds, the kept card is what the script writes.
    plain = [re.sub(r"[+-]?\d+\.\d+|\d+ seeds", "#", text) for text in (made, kept)]
    assert plain[0] == plain[1]
