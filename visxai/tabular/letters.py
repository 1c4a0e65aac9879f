"""The letter to an applicant who was refused: reasons, and what would have changed the decision.

    found = letter(engine, record, "en", sender="The Bank", actions={"duration": "lower"})
    found.save("letter.html")

One page of HTML that prints on A4 and Letter paper, without script or outside address. It says
what the record and the model say and no more: the sentences are those of `reasons_for`, with the
applicant's own and the typical values, and a change is named only after the model has scored it.

It helps whoever writes to applicants and is no legal opinion: what a letter must hold differs from
country to country.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visxai import files
from visxai.errors import ArgumentError
from visxai.foreign import for_html
from visxai.record.table import TableExplanation
from visxai.references import Cell
from visxai.tabular.counterfactuals import Actions, Counterfactual, what_would_change
from visxai.tabular.engine import Engine
from visxai.tabular.reasons import Reasons, name_in, reasons_for, wording_of

_KEYS = (
    *("language", "subject", "greeting", "opening", "reasons", "compared", "change", "item"),
    *("unchanged", "caveat", "review", "closing", "record"),
)
_STYLE = """
:root { color-scheme: light }
body { font: 11pt/1.5 "Liberation Serif", Georgia, serif; color: #111; background: #fff;
       max-width: 42rem; margin: 2.5rem auto; padding: 0 1.25rem; overflow-wrap: anywhere }
header { display: flex; justify-content: space-between; gap: 2rem; margin-bottom: 2.5rem }
h1 { font-size: 13pt; margin: 0 0 1.2rem }
p { margin: 0 0 .9rem }
ol, ul { margin: 0 0 .9rem; padding-left: 1.4rem }
li { margin-bottom: .35rem; break-inside: avoid }
.closing { margin-top: 1.8rem }
footer { margin-top: 2.5rem; padding-top: .5rem; border-top: 1px solid #bbb;
         font: 8pt/1.4 "Liberation Sans", Arial, sans-serif; color: #444 }
@page { margin: 22mm 20mm }
@media print { body { margin: 0; max-width: none; padding: 0 } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Letter:
    """A written letter.

    Attributes:
        html: The page.
        reasons: The reasons in it, or the note that there are none.
        counterfactual: The changes in it, None where none were asked for or found.
        sentences: What it says of the applicant, sentence by sentence.
    """

    html: str
    reasons: Reasons
    counterfactual: Counterfactual | None
    sentences: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, and return its path.

        Raises:
            StoreError: It can't be written.
        """
        target = Path(path)
        with files.one_sentence(f"to write {target}", "make room there or choose another folder"):
            files.write(target, self.html)
        return target


def letter(
    engine: Engine,
    record: TableExplanation,
    wording: str | os.PathLike[str] = "en",
    *,
    sender: str = "",
    applicant: str = "",
    contact: str = "",
    date: datetime.date | None = None,
    actions: Actions | None = None,
) -> Letter:
    """Write the letter for a record of an unfavourable score.

    Args:
        engine: The engine that made the record, with a background and a threshold.
        record: The record.
        wording: "en", "de", or the path of a TOML file with the same keys.
        sender: Who writes.
        applicant: The applicant's name; by default the record's id.
        contact: How to ask for a review.
        date: The letter's date, today by default.
        actions: The features that an applicant can change, as for `what_would_change`; without
            them the letter doesn't speak of changes.

    Raises:
        ArgumentError: The score is favourable, the record is another engine's, or the wording
            lacks a sentence.
    """
    words = wording_of(wording)
    told = words.get("letter", {})
    lacking = [key for key in _KEYS if not isinstance(told.get(key), str)]
    if lacking:
        raise ArgumentError(
            f"expected the sentences {', '.join(_KEYS)} in the table [letter], got none for "
            f"{', '.join(lacking)}: copy them from en.toml",
            field="wording",
        )
    reasons = reasons_for(engine, record, wording)
    compared = told["compared"].format(rows=record.background["rows"])
    body = [f"<p>{for_html(told['opening'])}</p>"]
    if reasons.note:
        body.append(f"<p>{for_html(reasons.note)}</p>")
    else:
        body.append(f"<p>{for_html(told['reasons'])}</p>{_listed('ol', reasons.sentences)}")
    body.append(f"<p>{for_html(compared)}</p>")
    found: Counterfactual | None = None
    changes: tuple[str, ...] = ()
    if actions:
        found = what_would_change(engine, record, actions)
        changes = _changes(found, words) if found else (told["unchanged"],)
        body.append(
            f"<p>{for_html(told['change'])}</p>{_listed('ul', changes)}"
            if found
            else f"<p>{for_html(told['unchanged'])}</p>"
        )
        body.append(f"<p>{for_html(told['caveat'])}</p>")
    body.append(f"<p>{for_html(told['review'].format(contact=contact).strip())}</p>")
    name = applicant or record.id or ""
    values = {
        "language": told["language"],
        "subject": told["subject"],
        "sender": sender,
        "date": (date or datetime.date.today()).isoformat(),
        "greeting": told["greeting"].format(applicant=name).replace(" ,", ","),
        "closing": told["closing"],
        "record": told["record"].format(
            record=(record.id or record.input.source_sha256[:12]),
            model=f"{record.model.name} {record.model.weights_sha256[:12]}",
            score=f"{record.score:.3f}",
            threshold=f"{record.threshold:g}",
        ),
    }
    html = _page({key: for_html(value) for key, value in values.items()}, "".join(body))
    return Letter(html, reasons, found, (*reasons.sentences, compared, *changes))


def _changes(found: Counterfactual, words: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        words["letter"]["item"].format(
            name=name_in(words, one.feature),
            own=_shown(one.own, words),
            needed=_shown(one.needed, words),
        )
        for one in found.changes
    )


def _shown(cell: Cell, words: Mapping[str, Any]) -> Any:
    return words["missing"] if cell is None else cell


def _listed(kind: str, sentences: tuple[str, ...]) -> str:
    items = "".join(f"<li>{for_html(one)}</li>" for one in sentences)
    return f"<{kind}>{items}</{kind}>"


def _page(values: Mapping[str, str], body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="{values["language"]}">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{values['subject']}</title>\n<style>{_STYLE}</style>\n"
        f"<header><div>{values['sender']}</div><div>{values['date']}</div></header>\n"
        f"<h1>{values['subject']}</h1>\n<p>{values['greeting']}</p>\n{body}\n"
        f'<p class="closing">{values["closing"]}<br>{values["sender"]}</p>\n'
        f"<footer>{values['record']}</footer>\n</html>\n"
    )
