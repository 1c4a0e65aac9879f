"""Letters to all who were refused in a run, as files that are ready to print.

    write_letters("results", engine, "letters", wording="de", actions={"duration": "lower"})

One page for each row below the threshold, named by the row's id, or by its table and number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visxai import files
from visxai.errors import StoreError
from visxai.record.table import TableExplanation
from visxai.results import names, reading
from visxai.tabular.counterfactuals import Actions
from visxai.tabular.engine import Engine
from visxai.tabular.letters import letter


@dataclass(frozen=True)
class Mailing:
    """The letters of a run.

    Attributes:
        folder: Where they are.
        letters: How many were written.
        without: How many of them say that no reasons can be given.
        rows: How many rows the run explained, refused or not.
    """

    folder: Path
    letters: int
    without: int
    rows: int


def write_letters(
    out: str | os.PathLike[str],
    engine: Engine,
    folder: str | os.PathLike[str],
    *,
    wording: str | os.PathLike[str] = "en",
    sender: str = "",
    contact: str = "",
    actions: Actions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mailing:
    """Write the letter for each refused row of a run.

    Args:
        out: The folder of a run over a table.
        engine: The engine that explained it, with a background and a threshold.
        folder: Where the letters go; those of the same names are replaced.
        wording: "en", "de", or the path of a TOML file with the same keys.
        sender: Who writes.
        contact: How to ask for a review.
        actions: The features that an applicant can change, as for `what_would_change`.
        progress: Called with the number of rows looked at, and of all.

    Raises:
        StoreError: The folder isn't that of a run over a table, or a letter can't be written.
        ArgumentError: The run is of another engine, or the wording lacks a sentence.
    """
    target = Path(os.path.abspath(folder))
    total, written, without = reading.count(out), 0, 0
    taken: set[str] = set()
    with files.one_sentence(f"to write {target}", "make room there or choose another folder"):
        target.mkdir(parents=True, exist_ok=True)
    for at, record in enumerate(reading.read(out)):
        progress(at, total)
        if not isinstance(record, TableExplanation):
            raise StoreError(
                expected=f"a run over the rows of a table in {os.fspath(out)}",
                got=f"one over inputs of the kind {record.kind}",
                remedy="letters are written for rows: visxai explain TABLE --model CARD",
                field="out",
            )
        if record.favourable is not False:
            continue
        made = letter(engine, record, wording, sender=sender, contact=contact, actions=actions)
        made.save(target / f"{_name(record, taken)}.html")
        written += 1
        without += made.reasons.note is not None
    progress(total, total)
    return Mailing(target, written, without, total)


def _name(record: TableExplanation, taken: set[str]) -> str:
    """Name a row's letter by its id, where no earlier row has it, on every system."""
    table = Path(record.input.path or "row").name
    number = f"{table}-{(record.input.row or 0) + 1}"
    name = names.output_name((record.id or number).replace("/", "_"), "")
    if name.casefold() in taken:
        name = names.output_name(f"{name}-{number}", "")
    taken.add(name.casefold())
    return name
