"""Raw attention: how much the piece that is classified looks at each word.

    L_w = sum_{i in w}  mean_h  A^l_h[0, i]

A^l_h is the attention of head h in layer l, row 0 that of the piece whose state the classifier
reads ([CLS] in encoders of BERT's kind). `layer` counts from 0; -1 is the last.

    engine.explain("not bad at all", method="attention")

It says where the model looked, not what it made of it: it belongs to no class, and on errors it
often looks the same as on right answers. Read it beside a method that moves the score.

Cost: one forward.
Source: Bahdanau et al., Neural machine translation by jointly learning to align and translate, ICLR
2015; on its limits Jain & Wallace, Attention is not explanation, NAACL 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visxai.text.methods._attention import Attending, words_of
from visxai.text.methods.base import Maps, Values
from visxai.text.model import Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class Attention(Attending):
    """The attention of one layer; see the module's docstring.

    Attributes:
        layer: The layer, from 0; -1 is the last.
    """

    layer: int = -1

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        found: dict[int, Values] = {}
        for block, layers, _ in model.attended(windows, None):
            inside = -len(layers) <= self.layer < len(layers)
            self._require(inside, f"a layer of the model's {len(layers)}", self.layer)
            words_of(found, windows, block, block.of_read(layers[self.layer].mean(1)))
        return Maps([found[index] for index in range(len(windows))])
