"""Why was this comment flagged? Seven comments, the words behind each decision, and a page.

    python -m pip install visxai
    python examples/text/toxic_comment.py [FOLDER]

Writes FOLDER/why.html, a page without scripts, and FOLDER/why.json with the records, in a few
seconds on one core.
"""

# %% [markdown]
# # Why was this comment flagged?
#
# A model that comes with visxai scores comments for toxicity. Two of the comments below are
# harmless and flagged all the same, a negation and a quotation; one that is contemptuous without a
# bad word passes.

# %%
import json
import sys
from pathlib import Path

import visxai
from visxai.record.text import sheet

given = [one for one in sys.argv[1:] if "ipykernel" not in sys.argv[0]]
folder = Path(given[0] if given else "why-out")
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
engine = visxai.text.Engine("toxicity")
found = engine.explain(list(COMMENTS.values()), "integrated_gradients", TARGET)

# %% [markdown]
# ## Is it really that word?
#
# The words' values say which word a flag hangs on. Taking away the strongest one checks it: where
# the score falls, the flag hung on that word and not on what was said.

# %%
for name, one in zip(COMMENTS, found, strict=True):
    ((word, weight),) = one.top(1)
    start, end = one.input.spans[one.words.index(word)]
    (after,) = engine.score(one.text[:start] + one.text[end:], TARGET)
    flagged = "flagged" if one.score > 0.5 else "not flagged"
    print(
        f"{name:28} {one.score:.2f} {flagged:12} strongest word {word!r} ({weight:+.2f}), "
        f"without it {after:.2f}"
    )

# %% [markdown]
# ## The words of a negation
#
# Orange words speak for the label, blue ones with dots below against it. "stupid" carries the
# score and "not" takes little of it away: this model has no idea of negation.

# %%
found[1]

# %% [markdown]
# ## Other methods agree
#
# Leaving words out and LIME ask the model itself, and need no gradients.

# %%
several = "integrated_gradients,leave_one_out,lime"
for one in engine.explain(COMMENTS["its negation"], several, TARGET):
    told = ", ".join(f"{word} {value:+.2f}" for word, value in one.top(3))
    print(f"{one.method.partition('(')[0]:21} {told}")

# %% [markdown]
# ## A page for others
#
# All seven comments with their words, on a page that runs no script, and the records beside it.

# %%
folder.mkdir(parents=True, exist_ok=True)
(folder / "why.html").write_text(sheet(found, "Why was this comment flagged?"), "utf-8")
(folder / "why.json").write_text(json.dumps([one.to_dict() for one in found]), "utf-8")
print(f"page: {folder / 'why.html'}")
