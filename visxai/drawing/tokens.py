"""Highlighted texts: words with a background by their values, for HTML pages and terminals.

    blue  against the target      orange  for it      the deeper, the stronger

Values are divided by the text's greatest magnitude. Blue and orange stay apart in every common kind
of colour blindness, words against the target are underlined with dots too, and each word's number
shows when the pointer rests on it. Nothing here runs scripts, and any text stays text: markup is
escaped, and characters that turn the direction of writing or can't be seen are shown by their code.
"""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.references import Caption

if TYPE_CHECKING:
    from rich.text import Text

Spans = Sequence[tuple[int, int]]
Values = NDArray[np.float32]

_FOR, _AGAINST = (240, 128, 24), (46, 110, 220)
_FAINT = 0.02  # of the greatest magnitude: below it a word isn't coloured
_DEPTH = 0.62  # how opaque the strongest word is: its letters keep a contrast of 4.5, also if light
# Joiners that emoji and Indic and Persian scripts need, and line ends and tabs.
_KEPT = frozenset("\u200d\u200c\n\t")
_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.7 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem;
       color: #1a1a1a; background: #fff }
figure { margin: 0 0 1.6rem }
figcaption, footer { font-size: .85rem; line-height: 1.4; color: #555 }
figcaption b { color: #1a1a1a; font-size: 1rem }
footer span { color: #1a1a1a }
h1 { font-size: 1.2rem }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
          gap: 0 1.6rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4 }
th, td { text-align: start; vertical-align: top; padding: .2rem 1rem .2rem 0;
         border-bottom: 1px solid #8886; overflow-wrap: anywhere }
th { white-space: nowrap }
@media (prefers-color-scheme: dark) {
  body { color: #eee; background: #16181c }
  figcaption, footer { color: #aaa }
  figcaption b, footer span { color: #eee }
}
"""
_BLOCK = "white-space:pre-wrap;overflow-wrap:anywhere;margin:.4em 0;line-height:1.9"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Part(NamedTuple):
    """One highlighted text of a page.

    Attributes:
        text: The text.
        spans: (start, end) of each word.
        values: A value for each word.
        caption: What stands above it.
        two_sided: Whether values can be below zero.
    """

    text: str
    spans: Spans
    values: Values
    caption: Caption
    two_sided: bool


def check(text: str, spans: Spans, values: Values) -> None:
    """Raise ArgumentError unless there is a value for each word, and the words lie in the text."""
    if len(spans) != len(values):
        raise ArgumentError(
            f"expected a value for each of {len(spans)} words, got {len(values)}: pass as many "
            "values as spans"
        )
    last = 0
    for start, end in spans:
        if not last <= start < end <= len(text):
            raise ArgumentError(
                f"expected words one after another within {len(text)} characters, got "
                f"({start}, {end}): pass their starts and ends in order"
            )
        last = end


def visible(text: str) -> str:
    r"""Show characters that can't be seen, or that turn the direction of writing, as \uXXXX."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in _KEPT or c == "\u00a0" or c == "\u3000" else _code(c)
        for c in text
    )


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def strengths(values: Values) -> Values:
    """Divide values (n,) by their greatest magnitude; values that aren't finite become 0."""
    finite = np.where(np.isfinite(values), values, 0).astype(np.float32)
    peak = float(np.abs(finite).max(initial=0.0))
    return finite / np.float32(peak) if peak > 0 else finite


def html(text: str, spans: Spans, values: Values) -> str:
    """Draw a text with its words highlighted.

    Args:
        text: Any text.
        spans: (start, end) of each word.
        values: (n,) a value for each word.

    Returns:
        A <div> with styles of its own and no script, for any page.

    Raises:
        ArgumentError: The values don't fit the words, or the words don't fit the text.
    """
    check(text, spans, values)
    parts, last = [], 0
    for (start, end), value, strength in zip(spans, values, strengths(values), strict=True):
        if abs(strength) < _FAINT:
            continue
        parts += [_escaped(text[last:start]), _marked(text[start:end], value, strength)]
        last = end
    parts.append(_escaped(text[last:]))
    return f'<div dir="auto" style="{_BLOCK}">{"".join(parts)}</div>'


def _escaped(text: str) -> str:
    return escaping.escape(visible(text))


def _marked(word: str, value: Any, strength: Any) -> str:
    red, green, blue = _FOR if strength > 0 else _AGAINST
    line = "" if strength > 0 else ";text-decoration:underline dotted"
    style = f"background:rgba({red},{green},{blue},{abs(strength) * _DEPTH:.2f}){line}"
    return f'<span style="{style};border-radius:3px" title="{value:+.4g}">{_escaped(word)}</span>'


def page(parts: Sequence[Part], title: str = "") -> str:
    """Draw highlighted texts one below the other as a whole page, which runs no script.

    Args:
        parts: The texts.
        title: The page's title; "" takes the first text's caption.
    """
    name = title or (f"{parts[0].caption.label} · {parts[0].caption.source}" if parts else "")
    figures = "".join(figure(part) for part in parts)
    footer = f"<footer>{legend(any(part.two_sided for part in parts))}</footer>"
    return document(name, figures + footer, heading=title)


def document(name: str, body: str, heading: str | None = None) -> str:
    """Make a whole page, which runs no script, of HTML that is safe already.

    Args:
        name: The page's name, any text.
        body: The HTML.
        heading: What stands above it; None is the name, "" nothing.
    """
    shown = name if heading is None else heading
    title = f"<h1>{_escaped(shown)}</h1>" if shown else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escaped(name)}</title><style>{_STYLE}</style>{title}{body}</html>\n"
    )


def figure(part: Part) -> str:
    """Draw a highlighted text under its caption, as a <figure> for `document`."""
    told = part.caption
    return (
        f"<figure><figcaption><b>{_escaped(told.label)} {told.score:.3f}</b> "
        f"{_escaped(told.method)}<br>{_escaped(told.source)}</figcaption>"
        f"{html(part.text, part.spans, part.values)}</figure>"
    )


def legend(two_sided: bool = True) -> str:
    """Return the key to the colours, as HTML."""
    strong = f"background:rgba({','.join(map(str, _FOR))},{_DEPTH});border-radius:3px"
    weak = (
        f"background:rgba({','.join(map(str, _AGAINST))},{_DEPTH});border-radius:3px;"
        "text-decoration:underline dotted"
    )
    against = f' <span style="{weak}">against it</span>' if two_sided else ""
    return (
        f'<span style="{strong}">for the label</span>{against}, deeper is stronger, relative to '
        "the strongest word of the text; the numbers show on hovering"
    )


def terminal(text: str, spans: Spans, values: Values) -> Text:
    """Draw a text with its words highlighted for rich's console.

    Args:
        text: Any text; what could control the terminal is shown by its code.
        spans: (start, end) of each word.
        values: (n,) a value for each word.

    Raises:
        ArgumentError: The values don't fit the words, or the words don't fit the text.
    """
    from rich.text import Text

    check(text, spans, values)
    drawn, last = Text(), 0
    for (start, end), strength in zip(spans, strengths(values), strict=True):
        if abs(strength) < _FAINT:
            continue
        drawn.append(visible(text[last:start]))
        drawn.append(visible(text[start:end]), _styled(float(strength)))
        last = end
    drawn.append(visible(text[last:]))
    return drawn


def _styled(strength: float) -> str:
    """Return rich's style of a word: black letters on a tint, underlined where it is against."""
    tint = [
        round(245 + (hue - 245) * abs(strength)) for hue in (_FOR if strength > 0 else _AGAINST)
    ]
    ink = "black" if strength > 0 or strength > -0.6 else "white"
    line = " underline" if strength < 0 else ""
    return f"{ink} on rgb({tint[0]},{tint[1]},{tint[2]}){line}"
