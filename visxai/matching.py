"""Why an image and a text match: a map over the pixels and one over the words.

    y(x, t) = cos( e(x), e(t) )

e(x) and e(t) are the embeddings that an image-and-text model (CLIP, SigLIP and their like) makes of
an image and of a text.

    matcher = Matcher("hf:openai/clip-vit-base-patch32")
    for match in matcher.explain("cat.jpg", ["a cat on a sofa", "a dog"], method="grad_eclip"):
        match.overlay().save(f"{match.prompt}.jpg")
        print(match.describe())

The image runs once for all its prompts, and every prompt once for its words: beside that only the
backward from each similarity down to where the method looks is paid for each.

Source: Radford et al., Learning transferable visual models from natural language supervision, ICML
2021; Zhai et al., Sigmoid loss for language image pre-training, ICCV 2023.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visxai import methods, similarity
from visxai.engine.engine import Engine
from visxai.errors import ArgumentError, require
from visxai.foreign import for_html
from visxai.models import hubs, loading
from visxai.models.blackbox import BlackBox
from visxai.models.interface import Model
from visxai.models.prompts import ImageTower, TextTower
from visxai.models.pytorch.model import TorchModel
from visxai.text.engine import Engine as TextEngine
from visxai.text.loading import of_tower, wrap

if TYPE_CHECKING:
    from PIL.Image import Image

    from visxai.methods.base import Method
    from visxai.record.image import ImageExplanation
    from visxai.record.text import TextExplanation
    from visxai.text.methods.base import TextMethod


@dataclass(frozen=True, eq=False)
class Match:
    """An image and a text, and why they match.

    Attributes:
        prompt: The text.
        image: The map over the pixels, of how the image comes to match the text.
        words: The values of the words, of how the text comes to match the image.
    """

    prompt: str
    image: ImageExplanation
    words: TextExplanation

    @property
    def similarity(self) -> float:
        """The cosine of both embeddings, -1 to 1."""
        return self.image.logit

    def describe(self) -> str:
        """Say in plain sentences how well both match, where and by which words."""
        words = ", ".join(f"“{word}”" for word, value in self.words.top(3) if value > 0)
        return f"{self.image.describe()} {f'The words for it: {words}.' if words else ''}".strip()

    def overlay(self, image: Any = None, **style: Any) -> Image:
        """Draw the map over the original; see `ImageExplanation.overlay`."""
        return self.image.overlay(image, **style)

    def _repr_html_(self) -> str:
        said = f"{for_html(self.prompt)}: {self.similarity:.3f}"
        return f"{self.image._repr_html_()}<p>{said}</p>{self.words.html()}"


class Cosines:
    """An output function from embeddings of images (b, d) to their cosines with texts (b, k)."""

    def __init__(self, texts: Tensor) -> None:
        self.texts = F.normalize(texts.float(), dim=1)
        self.first: list[Tensor] = []  # the first embedding that comes by, (1, d)

    def __str__(self) -> str:
        return "its cosines with texts"

    def __call__(self, output: Any) -> Tensor:
        """Compute the cosines (b, k)."""
        embedded = torch.as_tensor(output)
        if not self.first:
            self.first.append(embedded[:1].detach().clone())
        return F.normalize(embedded.float(), dim=1) @ self.texts.to(embedded.device).T


class Matcher:
    """An image-and-text model whose matches are explained.

    Args:
        model: "hf:" and a folder or a name of Hugging Face; an image-and-text model of transformers
            (CLIP, SigLIP) with its `tokenizer` and its `preprocess`; or with `text` a module or a
            function from pixels (n, 3, h, w) to embeddings (n, d), such as the image tower of
            OpenCLIP.
        text: A function from a list of n texts to embeddings (n, d), where the model is not of
            transformers; its words are explained by methods that need scores alone.
        tokenizer: The tokenizer of a model of transformers.
        preprocess: How an image becomes the input: a `Preprocess`, a transform or an image
            processor.
        device: "auto" or a torch device.
        batch_size: The most rows of one forward.

    Raises:
        ArgumentError: A part is missing or of another kind.
        ModelError: The model can't be loaded.
        MissingExtra: transformers isn't installed.
    """

    def __init__(
        self,
        model: Any,
        *,
        text: Callable[[list[str]], Any] | None = None,
        tokenizer: Any = None,
        preprocess: Any = None,
        device: str | torch.device = "auto",
        batch_size: int | None = None,
    ) -> None:
        name = model if isinstance(model, str) else type(model).__name__
        if isinstance(model, str):
            model, tokenizer, preprocess = _loaded(model)
        rows: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
        if text is not None:
            tower, told = model, wrap(text, **rows)
        elif isinstance(model, nn.Module) and hasattr(model, "get_image_features"):
            if tokenizer is None or preprocess is None:
                raise ArgumentError(
                    f"expected a tokenizer and a preprocess with {name}, got "
                    f"{'no tokenizer' if tokenizer is None else 'no preprocess'}: pass its "
                    "AutoTokenizer as tokenizer= and its AutoImageProcessor as preprocess="
                )
            tower = ImageTower(model).eval()
            told = of_tower(TextTower(model).eval(), tokenizer, name=name, device=device, **rows)
        else:
            raise ArgumentError(
                f"expected an image-and-text model of transformers, got {name}: pass text=, a "
                "function from texts to embeddings, with a model from pixels to embeddings"
            )
        given = {"preprocess": preprocess, "activation": "none"}
        if isinstance(tower, nn.Module):
            given["name"] = name
        found: Model = loading.wrap(tower, device, given)
        if not isinstance(found, (TorchModel, BlackBox)):
            raise ArgumentError(f"expected a module or a function, got {type(found).__name__}")
        self.model = found
        self.texts = TextEngine(told)
        self._given = {"device": device, "batch_size": batch_size}

    def explain(
        self,
        image: Any,
        prompts: str | Sequence[str],
        method: str | Method = "grad_eclip",
        words: str | TextMethod = "leave_one_out",
    ) -> list[Match]:
        """Explain why an image matches each of some texts, or doesn't.

        Args:
            image: A path, bytes, PIL image or array.
            prompts: The texts.
            method: The method for the image, such as "grad_eclip", "chefer", "legrad" or
                "occlusion".
            words: The method for the words, such as "leave_one_out", "chefer" or "grad_eclip".

        Returns:
            A match for each text, in order.

        Raises:
            ImageError: The image can't be read.
            ArgumentError: There is no text, a text is longer than the model reads, or the model
                can't serve a method.
        """
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        output = Cosines(self._embed(asked))
        engine = self._engine(output, asked)
        engine.check(methods.load(method))  # looks into the model where that hasn't been done
        output.first.clear()
        records: Any = engine.explain([image], method, f"top{len(asked)}")
        mapped = {record.class_index: record for record in records}
        (embedded,) = output.first
        logits = torch.tensor([[mapped[place].logit for place in range(len(asked))]])
        if not torch.allclose(output(embedded).cpu(), logits, atol=1e-5):
            embedded = self.model.scores(engine.tensor([engine.prepare(image).pixels]))  # type: ignore[union-attr]
        target = similarity.match(embedded[0], "the image")
        spoken = self.texts.explain(asked, words, target)
        return [
            Match(prompt, mapped[place], told)
            for place, (prompt, told) in enumerate(zip(asked, spoken, strict=True))
        ]

    def similarities(self, images: Any, prompts: str | Sequence[str]) -> Tensor:
        """Compute the cosine of each image with each text, (images, texts).

        Args:
            images: One image or several, as for `explain`.
            prompts: The texts.
        """
        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        engine = self._engine(Cosines(self._embed(asked)), asked)
        return torch.tensor([one.probabilities.tolist() for one in engine.predict(images)])

    def _embed(self, prompts: list[str]) -> Tensor:
        """Embed texts, (n, d)."""
        if not prompts:
            raise ArgumentError("expected at least one text to match, got none")
        encoded = self.texts.model.encode(prompts)
        for prompt, one in zip(prompts, encoded, strict=True):
            if len(one.windows) > 1:
                read = len(one.windows[0])
                raise ArgumentError(
                    f"expected a text that the model reads at once, got {prompt[:40]!r}… of which "
                    f"it reads {read} words: shorten it"
                )
        return self.texts.model.score_windows([one.windows[0] for one in encoded])

    def _engine(self, output: Cosines, prompts: list[str]) -> Engine:
        """Build an engine around the image tower, whose classes are the prompts."""
        model = copy.copy(self.model.with_output(output))
        model.labels = tuple(prompts)
        return Engine(model, precision="fp32", accelerate="off", **self._given)  # type: ignore[arg-type]


def _loaded(name: str) -> tuple[nn.Module, Any, Any]:
    """Load a model of Hugging Face with its tokenizer and its image processor."""
    if not name.startswith("hf:"):
        raise ArgumentError(
            f"expected an image-and-text model as hf:FOLDER or hf:NAME, got {name!r}: pass another "
            "library's as a module, with text="
        )
    transformers = require("transformers", "hf", f"the model {name}")
    place, revision = hubs.pinned(name.removeprefix("hf:"))
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    with hubs.fetching(name, "name a local folder (hf:FOLDER)"):
        hubs.reach(None if os.path.isdir(place) else place)
        module = transformers.AutoModel.from_pretrained(place, **options).eval()
        if not hasattr(module, "get_image_features"):
            raise ArgumentError(
                f"expected an image-and-text model such as CLIP, got {type(module).__name__}: "
                "explain a classifier by visxai.Engine"
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        processor = transformers.AutoImageProcessor.from_pretrained(place, **options)
    return module, tokenizer, processor
