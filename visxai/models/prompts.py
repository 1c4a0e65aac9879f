"""Image-and-text models (CLIP, SigLIP) as classifiers whose classes are prompts.

    scores(x)_k = s cos(e(x), t_k) + c

e is the image's embedding, t_k the text embedding of prompt k, s and c the model's own scale and
bias. The prompts are embedded once, after which the text tower is deleted. A map for class k shows
where the image agrees with prompt k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visxai.errors import ArgumentError, ModelError

_AGREEMENT = 1e-3


def embedding(output: Any) -> Tensor:
    """Return the embedding (b, d) in what `get_image_features` or `get_text_features` returns."""
    # Until its version 5 the library returned the embedding itself.
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found


class ImageTower(nn.Module):
    """A module from pixels (b, 3, h, w) to an image-and-text model's embeddings (b, d)."""

    def __init__(self, model: Any) -> None:
        """Build the tower of a model with `get_image_features`."""
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Embed pixels x (b, 3, h, w)."""
        return embedding(self.model.get_image_features(pixel_values=x))


class TextTower(nn.Module):
    """A module from pieces of texts (b, T) to an image-and-text model's embeddings (b, d)."""

    def __init__(self, model: Any) -> None:
        """Build the tower of a model with `get_text_features`."""
        super().__init__()
        self.model = model
        self.config = model.config.text_config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, output_attentions: bool = False
    ) -> Any:
        """Embed pieces, (b, d), as "logits" beside "attentions" where they are asked for."""
        more = {"output_attentions": True} if output_attentions else {}
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        found = self.model.get_text_features(**given, **more)
        if not output_attentions:
            return embedding(found)
        return Attending(embedding(found), found.attentions)

    def get_input_embeddings(self) -> Any:
        """Return the module that embeds pieces."""
        return self.model.text_model.get_input_embeddings()

    def set_attn_implementation(self, name: str) -> None:
        """Choose how attention is computed: "eager" returns it."""
        self.model.set_attn_implementation(name)


@dataclass(frozen=True)
class Attending:
    """The output of a text tower that keeps its attention.

    Attributes:
        logits: (b, d) the embeddings.
        attentions: (b, heads, T, T) of each layer.
    """

    logits: Tensor
    attentions: tuple[Tensor, ...]


class PromptClassifier(nn.Module):
    """A module from pixels (b, 3, h, w) to the model's `logits_per_image` (b, prompts)."""

    text: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, model: nn.Module, text: Tensor, scale: Tensor, bias: Tensor) -> None:
        """Build the classifier of some prompts.

        Args:
            model: an image-and-text model with `get_image_features`.
            text: the prompts' embeddings, unit vectors (prompts, d).
            scale: the factor of the cosine, a scalar.
            bias: what is added to it, a scalar.
        """
        super().__init__()
        self.model = model
        self.register_buffer("text", text)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores (b, prompts) of pixels x (b, 3, h, w)."""
        image = embedding(self.model.get_image_features(pixel_values=x))  # type: ignore[operator]
        # The cosine is multiplied by a hundred or so: half precision would step by tenths there.
        image = image.to(self.text.dtype)
        if not torch.is_autocast_enabled(x.device.type):
            return self._compared(image)
        with torch.autocast(x.device.type, enabled=False):
            return self._compared(image)

    def _compared(self, image: Tensor) -> Tensor:
        """Compute the scores (b, prompts) of image embeddings (b, d)."""
        scores: Tensor = F.normalize(image, dim=-1) @ self.text.T * self.scale + self.bias
        return scores


def embed(model: nn.Module, tokenizer: Any, prompts: Sequence[str], name: str) -> PromptClassifier:
    """Build the classifier of some prompts, and check it against the model's own joint forward.

    Args:
        model: an image-and-text model, whose text tower is deleted afterwards.
        tokenizer: the model's tokenizer.
        prompts: the texts, a class each.
        name: the model's name for error messages.

    Returns:
        A module from pixels (b, 3, h, w) to scores (b, prompts).

    Raises:
        ArgumentError: there are no prompts.
        ModelError: the model doesn't score by the cosine of its embeddings.
    """
    if not prompts:
        raise ArgumentError(
            f"expected labels=[...] for {name}, which compares images with texts: pass the "
            "prompts, such as labels=['a photo of a cat', 'a photo of a dog']"
        )
    config: Any = model.config
    most = config.text_config.max_position_embeddings
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=most, truncation=True, return_tensors="pt"
    )
    text = {key: tokens[key] for key in ("input_ids", "attention_mask") if key in tokens}
    if config.model_type.startswith("siglip"):  # trained without a mask
        text.pop("attention_mask", None)
    side = config.vision_config.image_size
    picture = torch.linspace(-1, 1, 3 * side * side).mul(313).sin().reshape(1, 3, side, side)
    with torch.inference_mode(False), torch.no_grad():
        joint: Any = model.eval()(pixel_values=picture, **text)
        embedded = F.normalize(joint.text_embeds.float(), dim=-1)
        scale = model.logit_scale.exp() if hasattr(model, "logit_scale") else torch.ones(())  # type: ignore[operator]
        bias = getattr(model, "logit_bias", None)
        bias = torch.zeros(()) if bias is None else bias
        scale, bias = (value.detach().clone().reshape(()) for value in (scale, bias))
        classifier = PromptClassifier(model, embedded, scale, bias).eval()
        expected, got = joint.logits_per_image, classifier(picture)
    if got.shape != expected.shape or not torch.allclose(got, expected, rtol=_AGREEMENT, atol=1e-3):
        raise ModelError(
            f"expected {name} to score by the cosine of image and text embeddings, but it doesn't: "
            "pass the model as a module whose forward takes pixels and returns scores"
        )
    if hasattr(model, "text_model"):
        del model.text_model
    return classifier
