"""The comparison as a page that needs no other file: figures, gates, and what changed most."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

from visxai.compare.comparison import Comparison, Gate, Pair
from visxai.errors import ImageError
from visxai.foreign import for_html
from visxai.images import address
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation

SHOWN = 48  # pairs on the page: of those with another decision and of all others, half each
_SIDE = 240  # pixels of a picture's longer side
_STYLE = """
:root { color-scheme: light dark; --paper: light-dark(#faf9f7, #131316);
  --raised: light-dark(#fff, #1c1c21); --ink: light-dark(#1b1a19, #f1f0ee);
  --quiet: light-dark(#65615c, #a09ca4); --rule: light-dark(#e3e0da, #2d2d34);
  --bad: light-dark(#b3202c, #ff8d8d); --good: light-dark(#1c7443, #6fd49b); }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p { max-width: 46rem; margin: .4rem 0; } .quiet { color: var(--quiet); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 1.2rem .35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
.scroll { overflow-x: auto; } td { overflow-wrap: anywhere; min-width: 8ch; }
td:first-child { overflow-wrap: break-word; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.pairs { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
figure { margin: 0; padding: 12px; border: 1px solid var(--rule); border-radius: 12px;
  background: var(--raised); break-inside: avoid; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.two img { width: 100%; border-radius: 6px; display: block; }
.two p { margin: .3rem 0 0; font-size: 13px; overflow-wrap: anywhere; }
figcaption { font-size: 13px; overflow-wrap: anywhere; margin-top: 8px; }
@media (max-width: 400px) { .pairs { grid-template-columns: minmax(0, 1fr); } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(found: Comparison, gates: Sequence[Gate]) -> str:
    """Format the comparison as HTML.

    Args:
        found: The comparison. Images are opened again to draw their overlays; where an original is
            gone or has changed, the page shows the words alone.
        gates: What was required of it.
    """
    others = [one for one in found.pairs if not one.changed]
    changed = [one for one in found.pairs if one.changed]
    body = [
        "<h1>Two runs compared</h1>",
        "<p>Are decisions the same, and for the same reasons? Agreement is the rank correlation "
        "of an input's two maps: 1 is the same order, 0 none, −1 the opposite.</p>",
        _runs(found),
        "<h2>Figures</h2>",
        _table(["", "", ""], _figures(found, gates)),
        *_section("Other decisions", changed, "Every input has the same decision in both runs."),
        *_section(
            "The same decision, for the least similar reasons",
            others,
            "No input has the same decision in both runs.",
        ),
    ]
    title = for_html(f"{found.a['out']} and {found.b['out']}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · visxai compare</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _runs(found: Comparison) -> str:
    names = {"model": "Model", "weights": "Weights", "method": "Method", "out": "Folder"}
    rows = [
        [for_html(word), *(for_html(side[key][:64]) for side in (found.a, found.b))]
        for key, word in names.items()
    ]
    return _table(["", "A", "B"], rows)


def _figures(found: Comparison, gates: Sequence[Gate]) -> list[list[str]]:
    mean, share = found.agreement, found.changes
    rows = [
        [
            "Mean agreement",
            "none: every map is flat"
            if math.isnan(mean.value)
            else f"{mean.value:.3f} <span class=quiet>({mean.low:.3f} to {mean.high:.3f}, "
            f"n = {len(found.pairs) - found.flat})</span>",
            f"{found.flat} left out: a flat map" if found.flat else "",
        ],
        [
            "Changed decisions",
            f"{share.value:.1%} <span class=quiet>({share.low:.1%} to {share.high:.1%}, "
            f"n = {len(found.pairs)})</span>",
            f"{found.changed} inputs",
        ],
    ]
    for gate in gates:
        verdict = (
            '<span class="good">passed</span>' if gate.passed else '<span class="bad">failed</span>'
        )
        rows.append([f"Gate: {for_html(gate.name)}", for_html(gate.said), verdict])
    return rows


def _section(heading: str, pairs: Sequence[Pair], empty: str) -> list[str]:
    shown = pairs[: SHOWN // 2]
    note = f" The first {len(shown)} of {len(pairs)}." if len(shown) < len(pairs) else ""
    body = f'<div class="pairs">{"".join(map(_pair, shown))}</div>' if shown else ""
    said = f'<p class="quiet">The least agreement first.{note}</p>' if shown else f"<p>{empty}</p>"
    return [f"<h2>{heading}</h2>", said, body]


def _pair(pair: Pair) -> str:
    sides = "".join(
        f"<div>{_drawn(one)}<p><b>{name}</b> {for_html(one.label)} "
        f'<span class="quiet">{one.score:.3f}</span></p></div>'
        for name, one in (("A", pair.a), ("B", pair.b))
    )
    agreement = "a flat map" if math.isnan(pair.agreement) else f"agreement {pair.agreement:.3f}"
    return (
        f'<figure><div class="two">{sides}</div><figcaption>{agreement} · '
        f'<span class="quiet">{for_html(Path(pair.id).name)}</span></figcaption></figure>'
    )


def _drawn(one: Explanation) -> str:
    """Draw an explanation small, as an image element; "" where that can't be done."""
    if one.input.path and address.remote(one.input.path):
        return '<p class="quiet">The original lies behind a URL, which isn’t asked.</p>'
    try:
        if isinstance(one, ImageExplanation):
            picture = one.overlay()
            picture.thumbnail((_SIDE, _SIDE))
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=80)
            media, data = "image/jpeg", file.getvalue()
        else:
            media, data = one.render()
    except ImageError:
        return '<p class="quiet">The original is gone or has changed.</p>'
    if not media.startswith("image/"):
        return ""
    text = base64.b64encode(data).decode("ascii")
    return f'<img alt="overlay" src="data:{media};base64,{text}">'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table of cells that are HTML already."""
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in columns)}</tr>" if any(columns) else ""
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}{lines}</table></div>'
