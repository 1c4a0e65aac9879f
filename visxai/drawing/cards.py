"""Cards: an explanation as a piece of HTML that a notebook shows, without any script.

A row of radio buttons is the slider between the photograph and the overlay: it needs no script,
works by mouse, finger and arrow keys, and, being inside a form of its own, knows nothing of other
cards of the notebook. Colours are those of the page around it, light or dark.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from visxai.drawing.colours import Scale, lut
from visxai.foreign import for_html
from visxai.references import Caption

_SIDE = 448  # the most pixels a side of an embedded picture
_STOPS = 9  # colours of the key's gradient
_STEPS = (0, 25, 50, 75, 100)  # opacities of the overlay, in per cent

_STYLE = """
.visxai-card{display:inline-grid;grid-template-columns:auto repeat(5,1fr) auto;align-items:center;
width:min(100% - 1em,448px);gap:.35em .25em;margin:.4em 1em .8em 0;vertical-align:top;
font:14px/1.45 system-ui,sans-serif;color:inherit;background:none}
.visxai-card .photo{grid-area:1/1/2/-1;position:relative;line-height:0;margin:0}
.visxai-card img{width:100%;height:auto;margin:0;border-radius:4px}
.visxai-card img+img{position:absolute;inset:0;transition:opacity .15s}
.visxai-card input{margin:0 auto;cursor:pointer;color-scheme:light dark}
.visxai-card .about,.visxai-card .key{grid-column:1/-1}
.visxai-card .quiet{opacity:.72;font-size:13px;overflow-wrap:anywhere}
.visxai-card .key{display:flex;gap:.5em;align-items:center;font-size:12px}
.visxai-card .bar{flex:1;height:8px;border-radius:2px}
"""


def card(
    photograph: Image.Image, overlay: Image.Image | None, caption: Caption, scale: Scale, said: str
) -> str:
    """Draw a card: photograph and overlay with a slider between them, the caption and a sentence.

    Args:
        photograph: The upright photograph, or the map where there is none.
        overlay: The overlay at the photograph's size, None without a photograph.
        caption: The label, its score, the method and the source.
        scale: The colour scale of the overlay.
        said: The explanation in one sentence, or what is missing.

    Returns:
        HTML, in which all text is escaped.
    """
    pictures = [(photograph, "photograph" if overlay is not None else "map")]
    steps = ""
    if overlay is not None:
        pictures.append((overlay, "overlay"))
        steps = _steps()
    colours = lut(scale.colormap)[np.linspace(0, 255, _STOPS).astype(int)]
    gradient = ",".join(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours)
    images = "".join(
        f'<img alt="{for_html(f"{what}: {caption.label}")}" src="{_embedded(picture)}">'
        for picture, what in pictures
    )
    ends = [for_html(end) for end in scale.ends]
    return (
        f'<form class="visxai-card"><style>{_STYLE}</style>{steps}'
        f'<div class="photo">{images}</div>'
        f'<div class="key"><span class="quiet">{ends[0]}</span>'
        f'<span class="bar" style="background:linear-gradient(90deg,{gradient})"></span>'
        f'<span class="quiet">{ends[1]}</span></div>'
        f'<div class="about"><b>{for_html(caption.label)}</b> {caption.score:.3f}<br>'
        f'<span class="quiet">{for_html(caption.method)}<br>{for_html(said)}</span></div></form>'
    )


def cards(drawn: Iterable[str], more: str = "") -> str:
    """Lay cards side by side as far as there is room.

    Args:
        drawn: The cards, as HTML.
        more: A sentence below them, any text.
    """
    below = f"<div>{for_html(more)}</div>" if more else ""
    return f'<div style="max-width:100%">{"".join(drawn)}{below}</div>'


def _steps() -> str:
    """Draw the slider, and the rules by which its steps set the overlay's opacity."""
    rules, buttons = "", ""
    for number, percent in enumerate(_STEPS, 1):
        chosen = f".visxai-card input:nth-of-type({number}):checked~.photo img+img"
        rules += f"{chosen}{{opacity:{percent / 100:g}}}"
        checked = " checked" if percent == 100 else ""
        buttons += (
            f'<input type="radio" name="opacity"{checked} title="{percent} %" '
            f'aria-label="Overlay at {percent} %">'
        )
    return (
        f'<style>{rules}</style><span class="quiet">photograph</span>{buttons}'
        '<span class="quiet">overlay</span>'
    )


def _embedded(image: Image.Image) -> str:
    """Encode a picture, shrunk to what a card shows, as a data URI."""
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
