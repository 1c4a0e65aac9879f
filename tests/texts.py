"""Small text classifiers of every kind, random weights: what the tests of texts run over."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from visxai.text import loading
from visxai.text.model import TextModel

CLASSES = ("bad", "fine", "good")
WORDS = (
    *("the", "camera", "is", "not", "good", "bad", "at", "all", "i", "love", "this", "phone"),
    *("very", "broken", "after", "two", "days", "never", "again", "great", "sound"),
)
TEXTS = [
    "The camera is not good at all!",
    "i love this phone",
    "great",
    "broken after two days, never again; unbelievable: the sound is very very bad",
]


@cache
def tokenizer():
    """A WordPiece tokenizer with pieces of words, as BERT's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(97, 123)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"!,;:."]
    pieces += [one for one in letters if one not in pieces] + [f"##{one}" for one in letters]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a seeded draw that keeps signals alive."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        norm = parameter.ndim == 1 and name.endswith("weight")
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data = (1.0 if norm else 0.0) + scale * draw
    return module.eval()


@cache
def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        num_labels=3,
        id2label=dict(enumerate(CLASSES)),
    )
    return randomise(BertForSequenceClassification(config))


class Bag(nn.Module):
    """A module of one's own: the mean of word embeddings through a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(tokenizer()), 16)
        self.hidden = nn.Linear(16, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weight = attention_mask.unsqueeze(2).float()
        mean = (self.words(input_ids) * weight).sum(1) / weight.sum(1)
        return self.head(torch.tanh(self.hidden(mean)))


def counts(texts: list[str]) -> np.ndarray:
    """A function: how often some words stand in a text, and in which pairs."""
    rows = []
    for text in texts:
        found = text.lower().replace("!", "").split()
        negated = any(a == "not" and b == "good" for a, b in itertools.pairwise(found))
        rows.append(
            [found.count("bad") + 2 * negated, 0.5, found.count("good") + found.count("love")]
        )
    return np.array(rows, float)


@cache
def model(kind: str) -> TextModel:
    if kind == "bert":
        return loading.of_module(bert(), tokenizer(), name="tiny")
    if kind == "bag":
        return loading.wrap(randomise(Bag(), 1), tokenizer=tokenizer(), labels=CLASSES)
    if kind == "function":
        return loading.wrap(counts, labels=CLASSES)
    return loading.load(kind, device="cpu")


KINDS = ("toxicity", "bert", "bag", "function")
