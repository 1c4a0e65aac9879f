"""A bidirectional LSTM over word embeddings, and the tokenizer that its family uses.

    e = embedding of the words, h = both directions of an LSTM, p = max over positions of h
    scores = head(relu(hidden(p)))

A text is padded in front to a fixed length by the word number 0, which the network reads like any
other word: padding is a part of the input here and isn't masked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from visxai.text.recurrent import pooled


class BiLSTM(nn.Module):
    """The network; see the module's docstring.

    Args:
        words: Number of words, the padding 0 included.
        width: Size of a word's embedding.
        state: Size of an LSTM's state, for each direction.
        hidden: Size of the hidden layer.
        classes: Number of classes.
    """

    def __init__(self, words: int, width: int, state: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, state, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(2 * state, hidden)
        self.head = nn.Linear(hidden, classes)

    @classmethod
    def like(cls, weights: Mapping[str, Tensor]) -> BiLSTM:
        """Make a network whose sizes are those of a state dict."""
        words, width = weights["embedding.weight"].shape
        state = weights["lstm.weight_hh_l0"].shape[1]
        hidden, classes = weights["hidden.weight"].shape[0], weights["head.weight"].shape[0]
        return cls(words, width, state, hidden, classes)

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embedding, as models of Hugging Face do."""
        return self.embedding

    def forward(self, input_ids: Tensor) -> Tensor:
        """Compute the scores before the sigmoid.

        Args:
            input_ids: Word numbers (b, t), padded in front by 0.

        Returns:
            (b, classes).
        """
        states = self.lstm(self.embedding(input_ids))[0]
        return self._decide(states.amax(1))

    def from_embeddings(self, embedded: Tensor, lead: int) -> Tensor:
        """Compute the scores from embeddings, on a CPU without the steps that rows share.

        Args:
            embedded: (b, t, d) embeddings behind the padding that all rows share, at least one.
            lead: The positions of that padding, in front.

        Returns:
            (b, classes), differentiable in the embeddings.
        """
        pad = self.embedding.weight[0].detach()
        if embedded.device.type != "cpu":
            front = pad.expand(len(embedded), lead, -1)
            return self._decide(self.lstm(torch.cat([front, embedded], 1))[0].amax(1))
        return self._decide(pooled(embedded, lead, self.lstm, pad))

    def _decide(self, states: Tensor) -> Tensor:
        found: Tensor = self.head(torch.relu(self.hidden(states)))
        return found


class KerasTokenizer:
    """Keras' tokenizer of whole words, with the place of each word in the text.

    Words are what stands between separators, in lower case. A word that isn't known is left out,
    as Keras does without a word for the unknown.

    Args:
        words: The known words; the first has the number 1.
        separators: The characters that separate words.
    """

    def __init__(self, words: Sequence[str], separators: str) -> None:
        self.words = tuple(words)
        self.separators = separators

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, 1)}

    @cached_property
    def _word(self) -> re.Pattern[str]:
        return re.compile(f"[^{re.escape(self.separators)}]+")

    def __call__(self, text: str) -> list[tuple[int, int, int]]:
        """Find the known words of a text.

        Returns:
            (number, start, end) of each, in characters of the text, end exclusive.
        """
        found = []
        for match in self._word.finditer(text):
            number = self._numbers.get(match[0].lower())
            if number is not None:
                found.append((number, match.start(), match.end()))
        return found
