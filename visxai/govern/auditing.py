"""The explanation audit: is what an organisation promises of its explanations true?

    govern.audit("OUT").write("audit.html")              a folder run
    govern.audit("sqlite:///visxai.db").lines            a log
    govern.audit("OUT", randomise=30)                    with the check of its models and methods

    line              pass                                   warn               fail
    coverage          95 % of the judged items explained     80 %               less
    records           none is damaged or flat                1 % are            more
    chain             intact, and signed by the key          no key given       a flaw
    faithfulness      half of the checked maps are faithful  fewer than 30      less
    randomisation     maps change with the model's weights   unsure, or none    they don't
    drift             no open alert                          no window tested   an open alert
    fairness          no gap beyond chance                   nothing compared   -

A gap between groups is a warning, as it is a fact and not yet a verdict. What can't be told from
the source is a warning that says how to have it told.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from visxai import files
from visxai.foreign import for_html, shown
from visxai.govern.randomisation import Checks, read_checks, run_checks
from visxai.ledger.canonical import timestamp
from visxai.results import reading
from visxai.web.page import as_json

if TYPE_CHECKING:
    from visxai.govern.log import Log
    from visxai.ledger.ledger import Ledger
    from visxai.record.base import Explanation

Verdict = Literal["pass", "warn", "fail"]
_ENOUGH = 30  # items below which a share is uncertain


@dataclass(frozen=True)
class Line:
    """A line of the audit.

    Attributes:
        name: What is asked.
        verdict: "pass", "warn" or "fail".
        said: What was found, with the numbers.
        remedy: What to do, "" where nothing is.
    """

    name: str
    verdict: Verdict
    said: str
    remedy: str = ""


@dataclass(frozen=True)
class Audit:
    """An audit's lines.

    Attributes:
        source: What was audited.
        at: When, ISO 8601 in UTC.
        lines: The lines.
    """

    source: str
    at: str
    lines: tuple[Line, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the lines."""
        known = {one.verdict for one in self.lines}
        return "fail" if "fail" in known else "warn" if "warn" in known else "pass"

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain values, ready for JSON."""
        return {**asdict(self), "verdict": self.verdict}

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write the audit as an HTML page, and its figures beside it as JSON.

        Args:
            out: The page's file.

        Raises:
            StoreError: A file can't be written.
        """
        target = Path(os.path.abspath(out))
        with files.one_sentence(f"to write {os.fspath(out)}", "name another file"):
            files.write(target, _page(self))
            files.write(target.with_suffix(".json"), as_json(self.to_dict()) + "\n")


def audit(
    source: str | os.PathLike[str],
    *,
    key: str | None = None,
    evaluations: Sequence[str | os.PathLike[str]] = (),
    randomise: int = 0,
    models: Sequence[str] = (),
) -> Audit:
    """Audit a folder run or a log.

    Args:
        source: The folder of a run, or the address of a database.
        key: The file of the signing key whose checkpoints count.
        evaluations: Folders of `visxai evaluate` with the metric model_randomisation, which say for
            each model and method whether its maps depend on what the model has learnt.
        randomise: Images on which that check is run here for each model and method that no
            evaluation speaks of, where the model can be opened; 0 for none, 30 for a verdict.
        models: Names of models to open for it, beside those that travel with visxai.

    Returns:
        The audit.

    Raises:
        StoreError: The source can't be read, or an evaluation lacks the metric.
    """
    text = os.fspath(source)
    checks = read_checks(evaluations)
    if "://" not in text and Path(text).is_dir():
        if randomise:
            checks = {**checks, **run_checks(reading.read(text), models, randomise, checks)}
        lines = _of_run(Path(text), checks)
    else:
        from visxai.govern.log import Log
        from visxai.ledger.ledger import Ledger
        from visxai.ledger.signing import Signer

        signer = None if key is None else Signer.read(key)
        with Ledger(text, signer=signer) as ledger, Log(ledger) as log:
            if randomise:
                found = run_checks(_stored(ledger), models, randomise, checks)
                checks = {**checks, **found}
            lines = _of_log(log, key is not None, checks)
    return Audit(text, timestamp(time.time()), tuple(lines))


def _stored(ledger: Ledger) -> Iterator[Explanation]:
    """Read the explanations on record that can be read; the audit says of the others."""
    from visxai.errors import VisxaiError
    from visxai.record.base import Explanation

    try:
        for one in ledger.find():
            if one.record is not None:
                yield Explanation.from_dict(one.record)
    except VisxaiError:
        return


def _of_run(out: Path, checks: Checks) -> list[Line]:
    images = done = flat = checked = faithful = 0
    broken = ""
    methods: set[tuple[str, str]] = set()
    about = reading.about(out) or {}
    try:
        failed = len(reading.failures(out))
        before = None
        for one in reading.read(out):
            methods.add((one.model.weights_sha256, one.method))
            done += 1
            flat += one.degenerate
            images += one.input.source_sha256 != before
            before = one.input.source_sha256
            if isinstance(one.quality.get("faithful"), bool):
                checked += 1
                faithful += one.quality["faithful"]
    except Exception as error:
        if done == 0 and not about:
            raise
        broken, failed = str(error), 0
    total = int((about.get("counts") or {}).get("images") or images + failed)
    return [
        _coverage(images, total, "see the failures, and go on with --resume"),
        _records(done, flat, broken),
        Line(
            "audit chain",
            "warn",
            "a folder has checksums of its files and no chain",
            "put it on record: visxai govern import",
        ),
        _faithfulness(faithful, checked),
        _randomisation(methods, checks),
        Line("drift", "warn", "not tested", "visxai govern drift REFERENCE OUT"),
        Line("fairness", "warn", "no groups", "visxai govern fairness OUT --by …"),
    ]


def _of_log(log: Log, keyed: bool, checks: Checks) -> list[Line]:
    import json

    from sqlalchemy import func, select

    from visxai.errors import VisxaiError
    from visxai.govern import tables
    from visxai.govern.watching import alerts
    from visxai.ledger.tables import explanations

    log.catch_up()
    verdict = log.ledger.verify()
    measures = tables.measures.c
    with log.ledger.database.reading() as connection:
        seen, explained = connection.execute(
            select(func.sum(tables.coverage.c.seen), func.sum(tables.coverage.c.explained))
        ).one()
        count, flat = connection.execute(
            select(func.count(), func.sum(measures.flat)).select_from(tables.measures)
        ).one()
        there = connection.execute(
            select(func.count()).select_from(explanations).where(explanations.c.erased.is_(None))
        ).scalar_one()
        tested = connection.execute(select(func.count()).select_from(tables.windows)).scalar_one()
        gaps = connection.execute(select(tables.gaps.c.attribute, tables.gaps.c.result)).all()
    methods: set[tuple[str, str]] = set()
    checked = faithful = 0
    broken = f"{there - count} records have no features" if there > count else ""
    try:
        for stored in log.ledger.find():
            record = stored.record or {}
            quality = record.get("quality") or {}
            methods.add((str(record.get("weights_sha256")), str(record.get("method"))))
            if isinstance(quality.get("faithful"), bool):
                checked += 1
                faithful += quality["faithful"]
    except VisxaiError as error:
        broken = str(error)
    opened = [one for one in alerts(log) if one["state"] == "open"]
    found = [
        (str(row.attribute), one)
        for row in gaps
        for told in [json.loads(row.result)]
        for one in told["gaps"]
        if one["p"] <= told["level"] and not one["warning"]
    ]
    return [
        _coverage(int(explained or 0), int(seen or 0), "raise the sampled share"),
        _records(int(count), int(flat or 0), broken),
        Line(
            "audit chain",
            "fail" if not verdict else "pass" if verdict.covered else "warn",
            f"{verdict.entries} entries, "
            + (
                "; ".join(one.sentence for one in verdict.flaws[:5])
                if not verdict
                else f"intact, signed up to entry {verdict.covered}"
                if verdict.covered
                else "intact, no signature checked"
            ),
            "restore the database from a backup, and find out who wrote to it"
            if not verdict
            else ""
            if verdict.covered
            else "sign a checkpoint with the key"
            if keyed
            else "name the key with --key",
        ),
        _faithfulness(faithful, checked),
        _randomisation(methods, checks),
        Line(
            "drift",
            "fail" if opened else "pass" if tested else "warn",
            f"{len(opened)} open alerts, {tested} windows tested",
            "look into them and acknowledge: visxai govern alerts"
            if opened
            else ""
            if tested
            else "visxai govern watch",
        ),
        Line(
            "fairness",
            "warn" if found or not gaps else "pass",
            (
                f"{len(found)} gaps beyond chance: "
                + ", ".join(sorted({f"{name} ({one['figure']})" for name, one in found})[:6])
                if found
                else f"{len(gaps)} attributes compared, no gap beyond chance"
                if gaps
                else "nothing compared"
            ),
            "explain or remove them"
            if found
            else ""
            if gaps
            else "log groups as metadata, then visxai govern watch",
        ),
    ]


def _coverage(done: int, total: int, remedy: str) -> Line:
    share = done / total if total else math.nan
    verdict: Verdict = "pass" if share >= 0.95 else "warn" if share >= 0.8 else "fail"
    said = f"{done} of {total} items explained" + (f", {share:.1%}" if total else "")
    return Line("coverage", verdict, said, "" if verdict == "pass" else remedy)


def _records(count: int, flat: int, broken: str) -> Line:
    if broken or not count:
        return Line("records", "fail", broken or "there are none", "restore the damaged files")
    verdict: Verdict = "pass" if not flat else "warn" if flat <= 0.01 * count else "fail"
    said = f"{count} explanations, {flat} flat"
    return Line("records", verdict, said, "" if not flat else "choose another method for these")


def _faithfulness(faithful: int, checked: int) -> Line:
    remedy = "explain with a check of faithfulness: --check faithfulness"
    if checked < _ENOUGH:
        return Line("faithfulness", "warn", f"only {checked} explanations were checked", remedy)
    share = faithful / checked
    half = 1.96 * math.sqrt(share * (1 - share) / checked)
    said = f"{share:.1%} ± {half:.1%} of {checked} checked explanations are faithful"
    if share >= 0.5:
        return Line("faithfulness", "pass", said)
    return Line("faithfulness", "fail", said, "choose another method: visxai evaluate")


def _randomisation(methods: set[tuple[str, str]], checks: Checks) -> Line:
    """Judge every method of every model by the checks on record."""
    remedy = (
        "visxai govern audit --randomise 30, or visxai evaluate --metrics model_randomisation and "
        "--evaluation"
    )
    known = {one: checks[one] for one in sorted(methods) if one in checks}
    missing = sorted(f"{method} of {weights[:8]}" for weights, method in methods - set(known))
    said = [f"{method} of {weights[:8]}: {one.said}" for (weights, method), one in known.items()]
    if missing or not methods:
        said.append(f"no check for {', '.join(map(shown, missing)) or 'any method'}")
    verdicts = {one.verdict for one in known.values()} | ({"warn"} if missing else set())
    if "fail" in verdicts:
        remedy = "choose another method: its maps don't depend on what the model has learnt"
        return Line("randomisation", "fail", "; ".join(said), remedy)
    if "warn" in verdicts or not methods:
        return Line("randomisation", "warn", "; ".join(said), remedy)
    return Line("randomisation", "pass", "; ".join(said))


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem;
  color: light-dark(#1b1a19, #f1f0ee); background: light-dark(#faf9f7, #131316); }
table { border-collapse: collapse; width: 100%; } .scroll { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .5rem 1rem .5rem 0;
  border-bottom: 1px solid light-dark(#e3e0da, #2d2d34); overflow-wrap: anywhere; }
td:nth-child(-n+2), th { white-space: nowrap; } td:nth-child(3) { min-width: 9rem; }
td:last-child { min-width: 11rem; }
b.pass { color: light-dark(#1c7443, #6fd49b); } b.warn { color: light-dark(#9a4a00, #ffb35c); }
b.fail { color: light-dark(#b3202c, #ff8d8d); }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def _page(found: Audit) -> str:
    rows = "".join(
        f'<tr><td>{for_html(one.name)}</td><td><b class="{one.verdict}">{one.verdict}</b></td>'
        f"<td>{for_html(one.said)}</td><td>{for_html(one.remedy)}</td></tr>"
        for one in found.lines
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Explanation audit</title><style>{_STYLE}</style></head><body>"
        f"<h1>Explanation audit</h1><p>{for_html(found.source)}, {found.at[:16]} UTC: "
        f'<b class="{found.verdict}">{found.verdict}</b></p>'
        '<div class="scroll"><table><tr><th>question</th><th>verdict</th><th>found</th>'
        f"<th>what to do</th></tr>{rows}</table></div></body></html>\n"
    )
