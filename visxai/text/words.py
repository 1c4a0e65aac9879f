"""Words of a text in any script, and the words that a model's tokens belong to.

    words("Don't panic 👩‍🚀!!")      the places of Don't, panic, 👩‍🚀 and !!

A word is a run of letters, digits and their marks; an apostrophe or hyphen between letters belongs
to it. In scripts that are written without spaces (Chinese, Thai and others) a letter with its marks
is a word. An emoji with all its modifiers is one, and so is a run of one punctuation mark.

A model cuts texts its own way, mostly into smaller pieces. `owners` gives each piece to the word
it lies in, by its place in the text; a piece that covers several words makes them one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

Span = tuple[int, int]

_JOINERS = frozenset("\u200d\ufe0f\ufe0e\u20e3")  # of emoji
_INNER = frozenset("'’-‐_·\u200c")  # inside a word, between letters; the last is Persian's
# The first words of the names of letters that are written without spaces.
_DENSE = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """Name the kind of a character.

    Returns:
        "letter", "dense" (a letter that is written without spaces), "mark", "space", "flag",
        "skin" (an emoji's modifier), "hidden" or "symbol".
    """
    category, code = unicodedata.category(character), ord(character)
    if character.isspace():
        return "space"
    if 0x1F1E6 <= code <= 0x1F1FF:
        return "flag"
    if 0x1F3FB <= code <= 0x1F3FF:
        return "skin"
    if category[0] == "M" or character in _JOINERS:
        return "mark"
    if category[0] in "LN":
        return "dense" if unicodedata.name(character, "").startswith(_DENSE) else "letter"
    return "hidden" if category[0] == "C" else "symbol"


def words(text: str) -> list[Span]:
    """Find the words of a text.

    Returns:
        (start, end) of each, in characters, end exclusive, in order.
    """
    found: list[Span] = []
    at, size = 0, len(text)
    while at < size:
        kind = _kind(text[at])
        if kind == "space":
            at += 1
            continue
        end = _end(text, at, kind)
        if kind in ("hidden", "mark") and found and found[-1][1] == at:
            found[-1] = (found[-1][0], end)  # it belongs to what stands before it
        else:
            found.append((at, end))
        at = end
    return found


def _end(text: str, start: int, kind: str) -> int:
    """Find the end of the word that starts at a character of this kind."""
    at, size = start + 1, len(text)
    if kind == "letter":
        while at < size:
            if _kind(text[at]) not in ("letter", "mark") and not _inside(text, at):
                break
            at += 1
        return at
    if kind == "flag" and at < size and _kind(text[at]) == "flag":
        at += 1
    repeated = kind == "symbol"
    while at < size:
        following = _kind(text[at])
        if following in ("mark", "skin"):
            repeated = False
        elif text[at - 1] == "\u200d" and following == "symbol":
            pass  # joined to the emoji before
        elif not (repeated and text[at] == text[start] and ord(text[start]) < 0x2600):
            break
        at += 1
    return at


def _inside(text: str, at: int) -> bool:
    """Tell whether a sign stands inside a word: in "don't" and in "3.5", not in "end.Next"."""
    after = text[at + 1 : at + 2]
    if text[at] in ".,":
        return text[at - 1].isdigit() and after.isdigit()
    return text[at] in _INNER and bool(after) and _kind(after) == "letter"


def owners(spans: Sequence[Span], pieces: Sequence[Span]) -> tuple[list[Span], list[int]]:
    """Give each piece of a model to the word it lies in.

    Args:
        spans: The words of a text, in order.
        pieces: (start, end) of each piece in the text; empty pieces are given to the word before.

    Returns:
        The words, those merged that one piece covers together, and the word's index of each piece.
    """
    joined = list(range(len(spans)))  # the first of the words that each is merged with
    first: list[int] = []
    at = 0
    for start, end in pieces:
        while at and spans[at][0] > start:
            at -= 1
        while at < len(spans) - 1 and spans[at][1] <= start:
            at += 1
        first.append(at)
        over = at + 1
        while over < len(spans) and spans[over][0] < end:
            joined[over] = joined[at]
            over += 1
    merged: list[Span] = []
    place: list[int] = []
    for index, (start, end) in enumerate(spans):
        if joined[index] == index:
            merged.append((start, end))
        else:
            merged[-1] = (merged[-1][0], end)
        place.append(len(merged) - 1)
    return merged, [place[index] for index in first]
