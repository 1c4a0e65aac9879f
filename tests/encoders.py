"""Small image-and-text models with random weights, and their tokenizer of whole words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import zoo


def saved(module: Any, folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    zoo.randomise(module).save_pretrained(folder)
    size = {"height": zoo.SIZE, "width": zoo.SIZE}
    transformers.ViTImageProcessor(size=size).save_pretrained(folder)
    return f"hf:{folder}"


PROMPTS = ("a cat", "a dog", "a red fox")


def tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, its end token where CLIP looks for it."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["<start>", "<end>", "<pad>", "<unk>", *" ".join(PROMPTS).split()]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    ).save_pretrained(folder)


def image_and_text(kind: str) -> Any:
    transformers = pytest.importorskip("transformers")
    tower = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
    }
    vision = {**tower, "image_size": zoo.SIZE, "patch_size": 16}
    text = {**tower, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 1}
    if kind == "siglip":
        return transformers.SiglipModel(
            transformers.SiglipConfig(text_config=text, vision_config=vision)
        )
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    )
