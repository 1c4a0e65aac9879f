"""A moderation pipeline in one process: score, decide, explain, store, review.

    python examples/moderation/pipeline.py [FOLDER] [OUT]

`visxai serve` does the same over HTTP, with tenants, keys, a queue and appeals; the objects are the
same ones. FOLDER holds images, by default the photograph that comes with visxai and some noise.
Needs the extra `serve`, for the ledger.
"""

# %% [markdown]
# # A moderation pipeline
#
# Every picture is scored; only what a rule flags is explained, kept on record and looked at by
# people. The embedded model knows no bad pictures, so here cups and coffee are what isn't
# allowed.

# %%
import sys
from pathlib import Path

import numpy as np

import visxai
from visxai.errors import Failure
from visxai.images.example import PHOTOGRAPH
from visxai.moderation import Moderator, Policy, Rule

given = dict(enumerate([one for one in sys.argv[1:] if "ipykernel" not in sys.argv[0]]))
out = Path(given.get(1, "moderation_out"))
out.mkdir(parents=True, exist_ok=True)
noise = [np.random.default_rng(n).integers(0, 255, (96, 96, 3), dtype=np.uint8) for n in range(3)]
images = sorted(Path(given[0]).iterdir()) if 0 in given else [PHOTOGRAPH, *noise, b"no image"]

# %% [markdown]
# ## The policy
#
# A rule compares a class's score, or that of a set of classes with a name, with a threshold. The
# name of the policy goes on record with every decision.

# %%
policy = Policy(
    "drinks-1",
    (
        Rule("coffee", "coffee=any:967,968>0.5", severity=2, ground="section 4 of the terms"),
        Rule("red wine", "class=red wine>0.5", severity=1),
    ),
)
moderator = Moderator(visxai.Engine(), policy, method="grad_cam")
outcomes = moderator.moderate(images)
for outcome in outcomes:
    if isinstance(outcome, Failure):
        print(f"can't be read: {outcome.reason[:60]}")
    else:
        print(f"{outcome.decision:5} {outcome.category:8} {outcome.score:.3f}")

# %% [markdown]
# ## What a reviewer sees
#
# The overlay, a sentence, and what happens to the score when the evidence is hidden.

# %%
flagged = [one for one in outcomes if not isinstance(one, Failure) and one.explanation]
for number, outcome in enumerate(flagged):
    print(outcome.explanation.describe())
    print(moderator.engine.redact(outcome.explanation))
    outcome.explanation.panel().save(out / f"case-{number}.jpg")
flagged[0].explanation

# %% [markdown]
# ## On record
#
# Records go into a database with an audit chain: each entry holds the hash of the one before, so
# a row that is changed or taken out later is found. An auditor verifies it without the service.

# %%
from visxai.ledger import Ledger  # noqa: E402

(out / "ledger.db").unlink(missing_ok=True)
with Ledger(out / "ledger.db") as ledger:
    stored = [
        ledger.add(one.explanation, one.envelope(tenant="example", item_id=f"item-{number}"))
        for number, one in enumerate(flagged)
    ]
    ledger.append("decision.upheld", stored[0], actor="reviewer-1", body={"reason": "it is coffee"})
    kept = ledger.get(stored[0])
    print(
        f"on record: {kept.explanation.label}, {kept.envelope.decision} by {kept.envelope.policy}"
    )
    print([entry.event for entry in ledger.history(stored[0])])
    print(ledger.verify())
