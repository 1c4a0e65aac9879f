"""Words of texts in any script, and the words that a model's pieces belong to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visxai.text.words import owners, words


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in words(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \n\t ", []),
        ("You're not stupid!!!", ["You're", "not", "stupid", "!!!"]),
        ("state-of-the-art, really?!", ["state-of-the-art", ",", "really", "?", "!"]),
        ("a 3.5mm jack. Next.", ["a", "3.5mm", "jack", ".", "Next", "."]),
        ("我不笨", ["我", "不", "笨"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("لست غبيا", ["لست", "غبيا"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("hi 👩‍🚀👍🏽 🇩🇪🇫🇷 ❤️", ["hi", "👩‍🚀", "👍🏽", "🇩🇪", "🇫🇷", "❤️"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("a\u202eb", ["a\u202e", "b"]),
        ("\u200bword", ["\u200b", "word"]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert cut(text) == found


@given(st.text())
def test_words_lie_one_after_another_and_leave_out_spaces_alone(text: str) -> None:
    last = 0
    for start, end in words(text):
        assert last <= start < end <= len(text)
        assert not text[last:start].strip()
        last = end
    assert not text[last:].strip()


def test_pieces_belong_to_the_word_they_lie_in() -> None:
    spans = [(0, 12), (13, 15)]  # "unbelievable it"
    assert owners(spans, [(0, 2), (2, 9), (9, 12), (13, 15)]) == (spans, [0, 0, 0, 1])


def test_a_piece_over_several_words_makes_them_one() -> None:
    spans = [(0, 1), (1, 2), (2, 3), (4, 5)]
    assert owners(spans, [(0, 3), (4, 5)]) == ([(0, 3), (4, 5)], [0, 1])


def test_a_piece_may_begin_with_the_space_before_its_word() -> None:
    spans = [(0, 2), (3, 5)]
    assert owners(spans, [(0, 2), (2, 5)]) == (spans, [0, 1])


@given(st.text(max_size=30), st.lists(st.integers(0, 30), max_size=12))
def test_every_piece_has_a_word_whatever_the_pieces(text: str, at: list[int]) -> None:
    cuts = sorted({min(one, len(text)) for one in at})
    spans = words(text)
    pieces = list(itertools.pairwise(cuts))
    if not spans:
        return
    merged, found = owners(spans, pieces)
    assert len(found) == len(pieces)
    assert found == sorted(found)
    assert all(0 <= one < len(merged) for one in found)
    assert merged[0][0] == spans[0][0]
    assert merged[-1][1] == spans[-1][1]
