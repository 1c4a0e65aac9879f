"""The study of a sentiment model's negations as a story with pictures, from its stored figures.

    python examples/text/study.py

`sentiment.py` trains the models and writes sentiment.json, which is read here, so this takes a
second. Needs the extra `notebooks` (matplotlib).
"""

# %% [markdown]
# # A shortcut, found and mended
#
# A small encoder (MiniLM) learned from 690 reviews of products whether a review is positive. It
# does well on average. Where does it err, and does more data help? `sentiment.py` trained 25
# models, five ways with five seeds each; their figures are read here.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt

import visxai

ROOT = Path(visxai.__file__).parents[1]
study = json.loads((ROOT / "examples/text/sentiment.json").read_text("utf-8"))
tests, ways = study["tests"], ["base", "plain", "templates", "real", "both"]
for test in ("reviews, all", "snippets, all"):
    low, high = tests[test]["base"]["interval"]
    right = tests[test]["base"]["right"]
    print(f"{test:14} {right:.2f} right ({low:.2f} to {high:.2f}) of {tests[test]['rows']} texts")

# %% [markdown]
# ## What it gets wrong
#
# `visxai debug` compares the errors among texts of a label with and without each word. Errors
# gather behind "not" in positive texts: few of the training rows are positive and negated, so the
# model took a negation for a complaint.

# %%
cues = [cue for cue in study["cues"] if cue["p"] < 0.01]
figure, axes = plt.subplots(figsize=(7, 2.6))
for place, cue in enumerate(cues):
    for shift, part, colour in ((-0.2, "with_word", "#f08018"), (0.2, "without", "#2e6edc")):
        errors, texts = cue[part]["errors"], cue[part]["texts"]
        named = part.replace("_", " the ") if not place else None
        axes.barh(place + shift, errors / texts, 0.36, color=colour, label=named)
        axes.text(errors / texts + 0.01, place + shift, f"{errors} of {texts}", va="center")
axes.set_yticks(range(len(cues)), [f"“{cue['word']}” in {cue['label']}" for cue in cues])
axes.set(xlim=(0, 0.8), xlabel="share that is wrong, reviews of restaurants and films")
axes.invert_yaxis()
axes.legend(loc="lower right")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# A word that is found needn't be the cause. Deleting it tells more: without "not" the score of the
# true label rises in texts that the model gets wrong, and hardly moves in those it gets right.

# %%
cue = study["cues"][0]
print(f"“{cue['word']}” in {cue['label']} texts, when it is deleted:")
print(f"  where the model is wrong {cue['effect_wrong']:+.2f}")
print(f"  where the model is right {cue['effect_right']:+.2f}")

# %% [markdown]
# ## Four ways to mend it
#
# Each way adds 120 rows: `plain` adds sentences from templates without any negation, and is the
# control, since more rows of any kind may help; `templates` negated ones; `real` negated sentences
# of other reviews; `both` half of each. Bars are 95 % intervals over seeds and sentences.

# %%
shown = ["snippets, negated and positive", "snippets, negated and negative", "snippets, all"]
shown += ["their pattern, new words", "new patterns"]
colours = dict(zip(ways, ["#8a8f98", "#444b57", "#d9a400", "#2e6edc", "#f08018"], strict=True))
figure, axes = plt.subplots(figsize=(7, 4.2))
for place, test in enumerate(shown):
    for turn, way in enumerate(ways):
        one, at = tests[test][way], place + 0.14 * (turn - 2)
        axes.plot(one["interval"], [at, at], color=colours[way], lw=2)
        named = way if not place else None
        axes.plot(one["right"], at, "o", color=colours[way], ms=5, label=named)
axes.set_yticks(range(len(shown)), [f"{test} ({tests[test]['rows']})" for test in shown])
axes.set(xlim=(-0.02, 1.02), xlabel="share that is right")
axes.invert_yaxis()
axes.grid(axis="x", alpha=0.3)
axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.3, 1.13), frameon=False)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# ## What is gained over the control

# %%
for way in ways[2:]:
    one = tests["snippets, negated and positive"][way]
    low, high = one["beyond_interval"]
    print(f"{way:10} {one['beyond_plain']:+.2f} ({low:+.2f} to {high:+.2f}) on negated positives")

# %% [markdown]
# Real sentences help, alone or with templates, and cost a little among negated negatives.
# Templates alone mend their own pattern and hardly help real sentences: a test that is made of the
# same templates would have called that a success. New patterns that neither kind holds stay mostly
# wrong. A shortcut is mended where data shows the model that it is one, and only there.
