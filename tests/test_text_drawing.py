"""Highlighted texts: any text stays text, words keep their places, colours follow the values."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from visxai.drawing import tokens
from visxai.errors import ArgumentError
from visxai.record.text import TextExplanation, sheet
from visxai.references import ModelRef, TextRef
from visxai.text.words import words


def record(text: str, values: list[float] | None = None, **more: object) -> TextExplanation:
    spans = tuple(words(text))
    told = np.linspace(-1, 1, len(spans)) if values is None else np.array(values)
    fields = {
        "input": TextRef(text, spans, "0" * 64, "comments.csv#row=1"),
        "model": ModelRef("tiny", "0" * 64, "words"),
        "values": told.astype(np.float32),
        "method": "lime()",
        "target": "top1",
        "class_index": 0,
        "label": "toxic",
        "score": 0.93,
        "logit": 2.5,
    }
    return TextExplanation(**{**fields, **more})


class Reader(HTMLParser):
    """Collects the text and the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


HOSTILE = [
    "<script>alert(1)</script> & <img src=x onerror=alert(1)>",
    "\"><style>*{display:none}</style> '",
    "a\u202ereversed\u2066 b\u200bc\x00\x1b[31mred",
    "</div></figure></html> ]]> -->",
    "nice 👩‍🚀 شكرا",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    found = read(record(text).html())
    assert {tag for tag, _ in found.tags} <= {"div", "span"}
    assert found.text == tokens.visible(text)
    page = record(text, label=text, method=text).render()
    assert page.media_type == "text/html"
    tags = read(page.data.decode()).tags
    allowed = {"html", "meta", "title", "style", "figure", "figcaption", "b", "br", "div", "span"}
    assert {tag for tag, _ in tags} <= allowed | {"footer", "h1"}
    assert not any(name.startswith("on") for _, attrs in tags for name in attrs)
    assert "default-src 'none'" in html.unescape(page.data.decode())


@given(st.text())
def test_any_text_is_shown_whole(text: str) -> None:
    found = read(record(text).html()).text if text else ""
    assert found.replace("\r", "") == tokens.visible(text).replace("\r", "")
    assert tokens.visible(tokens.visible(text)) == tokens.visible(text)


def test_direction_and_unseen_characters_are_shown_by_their_code() -> None:
    assert tokens.visible("a\u202eb\u200bc\x1b") == "a\\u202eb\\u200bc\\x1b"
    assert tokens.visible("line\nنص 👩‍🚀") == "line\nنص 👩‍🚀"


def test_colours_follow_the_values() -> None:
    drawn = read(record("good bad fine", [2.0, -1.0, 0.001]).html())
    spans = [attrs for tag, attrs in drawn.tags if tag == "span"]
    assert [one["title"] for one in spans] == ["+2", "-1"]  # what is next to nothing stays plain
    assert "rgba(240,128,24,0.62)" in spans[0]["style"]
    assert "rgba(46,110,220,0.31)" in spans[1]["style"]
    assert "dotted" in spans[1]["style"]
    assert "dotted" not in spans[0]["style"]


@pytest.mark.parametrize(("ink", "paper"), [("#1a1a1a", "#ffffff"), ("#eeeeee", "#16181c")])
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_the_strongest_word_is_read_on_a_light_and_on_a_dark_page(
    ink: str, paper: str, value: float
) -> None:
    """Its contrast is at least 4.5 (WCAG 2.2, 1.4.3); so is the key's, in the page's ink."""

    def channels(colour: str) -> list[float]:
        return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]

    def luminance(rgb: list[float]) -> float:
        linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    shown = tokens.html("word", [(0, 4)], np.array([value], np.float32))
    *hue, depth = map(float, re.findall(r"rgba\((.*?)\)", shown)[0].split(","))
    mixed = [depth * c + (1 - depth) * p for c, p in zip(hue, channels(paper), strict=True)]
    dark, light = sorted((luminance(mixed), luminance(channels(ink))))
    assert (light + 0.05) / (dark + 0.05) >= 4.5
    page = tokens.page([])
    assert ink.replace("ffffff", "fff").replace("eeeeee", "eee") in page
    assert paper.replace("ffffff", "fff") in page


def test_the_terminal_shows_the_words_and_nothing_that_controls_it() -> None:
    console = Console(width=200, record=True, force_terminal=True, color_system="truecolor")
    console.print(record("good \x1b[31mbad", [1.0, 0.0, 0.0, -1.0]).terminal())
    plain = console.export_text(clear=False)
    assert plain.strip() == "good \\x1b[31mbad"
    styled = console.export_text(styles=True)
    assert not re.search(r"\x1b\[31m", styled)
    assert "48;2;240;128;24" in styled


def test_a_sheet_of_methods() -> None:
    many = [record("good bad", method=name) for name in ("lime()", "chefer()")]
    page = sheet(many, "Two <methods>")
    assert page.index("lime()") < page.index("chefer()")
    assert "<h1>Two &lt;methods&gt;</h1>" in page
    assert "against it" in page
    assert "against it" not in sheet([record("a", [1.0], two_sided=False)])


def test_values_must_fit_their_words() -> None:
    with pytest.raises(ArgumentError, match="a value for each of 2 words, got 1"):
        tokens.html("a b", [(0, 1), (2, 3)], np.ones(1, np.float32))
    with pytest.raises(ArgumentError, match="one after another within 3 characters"):
        tokens.html("a b", [(0, 2), (1, 3)], np.ones(2, np.float32))


def test_a_megabyte_without_a_space_is_drawn() -> None:
    assert len(record("x" * 2**20, [1.0]).html()) < 2**20 + 1000
    strengths = tokens.strengths(np.array([np.nan, np.inf, 1e30, -1e30], np.float32))
    assert strengths.tolist() == [0, 0, 1, -1]
