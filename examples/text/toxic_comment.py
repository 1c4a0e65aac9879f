"""Why was this comment flagged? Seven comments, the words behind each decision, and a page.

    python -m pip install visxai
    python examples/text/toxic_comment.py [FOLDER]

Two of the comments are harmless and flagged all the same, a negation and a quotation; one that is
contemptuous without a bad word passes. The highlighted words say why, and taking away the strongest
word checks it: the score falls, so the flag hung on that word and not on what was said.

Writes FOLDER/why.html, a page without scripts, and FOLDER/why.json with the records, in a few
seconds on one core.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import visxai
from visxai.record.text import sheet

COMMENTS = {
    "an insult": "You are an idiot and everybody here knows it.",
    "its negation": "You are not stupid at all.",
    "a quotation": "He called me an idiot in front of the whole class, and nobody helped.",
    "a word of two meanings": "The plot is bloody good and the ending made me cry.",
    "criticism without insult": "This article has no sources and half of its dates are wrong.",
    "contempt without a bad word": "People like you should not be allowed to edit anything.",
    "thanks": "Thank you for the quick help, the page looks much better now.",
}
TARGET = "class=toxic"


def main(folder: Path) -> None:
    """Explain the comments, check each by its strongest word, and write the page."""
    engine = visxai.text.Engine("toxicity")
    found = engine.explain(list(COMMENTS.values()), "integrated_gradients", TARGET)
    for name, one in zip(COMMENTS, found, strict=True):
        ((word, weight),) = one.top(1)
        start, end = one.input.spans[one.words.index(word)]
        (after,) = engine.score(one.text[:start] + one.text[end:], TARGET)
        flagged = "flagged" if one.score > 0.5 else "not flagged"
        print(
            f"{name:28} {one.score:.2f} {flagged:12} strongest word {word!r} ({weight:+.2f}), "
            f"without it {after:.2f}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "why.html").write_text(sheet(found, "Why was this comment flagged?"), "utf-8")
    (folder / "why.json").write_text(json.dumps([one.to_dict() for one in found]), "utf-8")
    print(f"page: {folder / 'why.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("why-out"))
