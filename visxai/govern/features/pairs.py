"""Features of a post's explanation: which part decides, and where in each the evidence lies.

With a and b the Shapley values of the image and of the text:

    image_adds, text_adds   a and b                                                     -1 to 1
    image_share             |a| / (|a| + |b|), the image's share of what both add       0 to 1
    interaction             what both add together beyond what each adds alone          -1 to 1
    miss                    |base value + a + b - score|                                0 or more

The map within the image has the features of images, under their names. The map within the text has
those of texts: under their names where images have none like them (third_k, negation, symbols,
capitals), else as text_NAME.

A post whose parts add nothing has no `image_share`.

Cost: no model call.
"""

from __future__ import annotations

import math

from visxai.govern.features import images, texts
from visxai.govern.features.feature import Feature
from visxai.record.base import Explanation
from visxai.record.pair import PairExplanation

_SHARED = {one.name for one in images.FEATURES}


def _name(feature: str) -> str:
    """Name a feature of the text so that it isn't the image's."""
    return f"text_{feature}" if feature in _SHARED else feature


FEATURES = (
    Feature("image_adds", -1, 1, "what the image adds to the score"),
    Feature("text_adds", -1, 1, "what the text adds to the score"),
    Feature("image_share", 0, 1, "the image's share of what both add"),
    Feature("interaction", -1, 1, "what both add together beyond what each adds alone"),
    Feature("miss", 0, math.inf, "how far base value and both parts miss the score"),
    *images.FEATURES,
    *(Feature(_name(one.name), one.low, one.high, one.meaning) for one in texts.FEATURES),
)


def measure(explanation: Explanation) -> dict[str, float]:
    """Measure a post's explanation; NaN where a feature isn't defined."""
    assert isinstance(explanation, PairExplanation)
    image, text = explanation.values.tolist()
    both = abs(image) + abs(text)
    return {
        "image_adds": image,
        "text_adds": text,
        "image_share": abs(image) / both if both > 0 else math.nan,
        "interaction": explanation.interaction,
        "miss": abs(explanation.total - explanation.score),
        **images.measure(explanation.image),
        **{_name(name): value for name, value in texts.measure(explanation.text).items()},
    }
