"""The nearest training examples: what the model has seen that it takes for most alike.

    s(x, z) = cos( f(x), f(z) ),    f = mean over positions of a layer's activations

A map says where the evidence lies; the images whose features in the model's own layer are nearest
show what the model compares it with, and often why it is wrong: mislabelled examples, doubles, a
background that many of them share. An `Index` holds the features of a set of images, in memory or
in a file, and belongs to one model's weights.

    index = visxai.nearest.index(engine, "train/")
    index.write("train.npz")
    found = index.nearest(engine, "cat.jpg", count=5)
    visxai.nearest.sheet(engine.explain("cat.jpg"), found).save("nearest.jpg")

An image isn't its own neighbour: equal bytes are left out.

Cost: one forward an image, once for the index; a neighbour is a product of features.
Source: Jeyakumar et al., How can I explain this to you? An empirical study of deep neural network
explanation methods, NeurIPS 2020 (examples beside maps).
"""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from visxai import files
from visxai.engine.engine import Engine
from visxai.engine.given import in_batches, list_images
from visxai.errors import ArgumentError, Failure, StoreError
from visxai.images.prepared import Prepared
from visxai.labels import label_of
from visxai.target import Target

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Index", "Neighbour", "index", "sheet"]

_KIND = "visxai nearest 1"  # what a file of an index begins with


class Neighbour(NamedTuple):
    """An image of an index that is near another.

    Attributes:
        path: Its address, "" for an image in memory.
        similarity: The cosine of both features, -1 to 1.
        label: The class that the model sees in it.
        score: The score of that class.
        folder: The name of the folder it lies in, which for training data often is its class.
        place: Its place in the index.
    """

    path: str
    similarity: float
    label: str
    score: float
    folder: str
    place: int


@dataclass(frozen=True, eq=False, repr=False)
class Index:
    """The features of a set of images, for one model.

    Attributes:
        model: The model's name.
        weights_sha256: The hash of its weights.
        layer: The layer whose activations the features are.
        features: (n, channels) float32, each of length 1.
        paths: The images' addresses, "" for those in memory.
        sources_sha256: The hashes of their bytes.
        labels: The classes that the model sees in them.
        scores: The scores of those classes (n,).
        failures: Images that couldn't be read; a file doesn't keep them.
    """

    model: str
    weights_sha256: str
    layer: str
    features: NDArray[np.float32]
    paths: tuple[str, ...]
    sources_sha256: tuple[str, ...]
    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    failures: tuple[Failure, ...] = ()

    def __repr__(self) -> str:
        return f"<Index of {len(self)} images by {self.model} at {self.layer}>"

    def __len__(self) -> int:
        return len(self.features)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the index as one .npz file of NumPy arrays, atomically.

        Raises:
            StoreError: The file can't be written.
        """
        into = Path(path)
        with (
            files.one_sentence(f"to write {into}", "choose a folder that exists and has room"),
            files.replacing(into) as partial,
            partial.open("wb") as file,
        ):
            np.savez(
                file,
                about=np.array([_KIND, self.model, self.weights_sha256, self.layer]),
                features=self.features,
                scores=self.scores,
                paths=np.array(self.paths, dtype=np.str_),
                sources_sha256=np.array(self.sources_sha256, dtype=np.str_),
                labels=np.array(self.labels, dtype=np.str_),
            )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Index:
        """Read an index; nothing in the file is run.

        Raises:
            StoreError: There is no such file, or it holds no index.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
                known = {name: held[name] for name in held.files}
            kind, model, weights, layer = known["about"].tolist()
            features = np.ascontiguousarray(known["features"], np.float32)
            words = [tuple(known[name].tolist()) for name in ("paths", "sources_sha256", "labels")]
            scores = np.ascontiguousarray(known["scores"], np.float32)
            whole = features.ndim == 2 and {len(one) for one in (*words, scores)} == {len(features)}
            if kind != _KIND or not whole or not np.isfinite(features).all():
                raise ValueError(f"of another kind or shape ({kind})")
        except FileNotFoundError:
            raise StoreError(
                f"expected an index at {path}, got no such file: write one by visxai.nearest.index"
            ) from None
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise StoreError(
                f"expected an index that visxai.nearest wrote, got {path}, which can't be read as "
                f"one ({str(error)[:120]}): make it anew"
            ) from error
        paths, hashes, labels = words
        return cls(model, weights, layer, features, paths, hashes, labels, scores)

    def nearest(self, model: Any, images: Any, count: int = 5) -> list[list[Neighbour]]:
        """Find the images of the index that are nearest to others.

        Args:
            model: The `Engine`, or what one takes as its model, that made the index.
            images: As for `Engine.explain`.
            count: The number of neighbours of each image.

        Returns:
            The neighbours of each image, nearest first.

        Raises:
            ArgumentError: Another model made the index, or `count` is below 1.
            ImageError: An image can't be read.
        """
        if count < 1:
            raise ArgumentError(f"expected at least 1 neighbour, got count={count}: try count=5")
        engine = model if isinstance(model, Engine) else Engine(model)
        if engine.model.ref.weights_sha256 != self.weights_sha256:
            raise ArgumentError(
                f"expected the model that made the index, {self.model}, got "
                f"{engine.model.ref.name} with other weights: make an index with it"
            )
        asked = index(engine, images, layer=self.layer)
        found = []
        for feature, sha256 in zip(asked.features, asked.sources_sha256, strict=True):
            near = self.features @ feature
            order = np.argsort(-near, kind="stable")
            others = (at for at in order.tolist() if self.sources_sha256[at] != sha256)
            found.append([self._neighbour(at, near[at]) for at in itertools.islice(others, count)])
        return found

    def _neighbour(self, at: int, similarity: float) -> Neighbour:
        path = self.paths[at]
        return Neighbour(
            path,
            float(similarity),
            self.labels[at],
            float(self.scores[at]),
            Path(path).parent.name if path else "",
            at,
        )


def index(
    model: Any,
    images: Any,
    *,
    layer: str | None = None,
    on_error: Literal["raise", "record"] = "raise",
) -> Index:
    """Read the features of images.

    Args:
        model: An `Engine`, or what one takes as its model.
        images: As for `Engine.explain`; a folder stands for the images below it.
        layer: The layer whose activations are averaged over positions; None is the model's choice.
        on_error: "raise", or "record" to leave out images that can't be read and list them in
            `failures`.

    Returns:
        The index, in the order of the images.

    Raises:
        ArgumentError: There is no image, or several layers are named.
        ImageError: An image can't be read and on_error is "raise".
        ModelError: The model offers no activations of layers.
    """
    engine = model if isinstance(model, Engine) else Engine(model)
    features, scores, labels, inputs = [], [], [], []
    failures: list[Failure] = []
    name = layer
    for batch in in_batches(list_images(images), engine.batch_size):
        prepared = [engine.prepare(one, on_error) for one in batch]
        failures += [one for one in prepared if isinstance(one, Failure)]
        read = [one for one in prepared if isinstance(one, Prepared)]
        if not read:
            continue
        x = engine.tensor([one.pixels for one in read])
        name = name or engine.model.layer(x[:1])
        if "+" in name:
            raise ArgumentError(f"expected one layer for features, got {name!r}: name one of them")
        seen = engine.model.activations(x, Target.of("top1"), (name,))
        features.append(F.normalize(seen.layers[0].float().mean((2, 3)), dim=1).cpu().numpy())
        best = engine.model.probabilities(seen.scores).max(1)
        scores.append(best.values.float().cpu().numpy())
        labels += [label_of(engine.model.labels, at) for at in best.indices.tolist()]
        inputs += [one.input for one in read]
    if not inputs:
        raise ArgumentError(
            f"expected at least one image that can be read, got {len(failures)} that can't and no "
            "other: name a folder of images"
        )
    return Index(
        engine.model.ref.name,
        engine.model.ref.weights_sha256,
        name or "",
        np.concatenate(features),
        tuple(one.path or "" for one in inputs),
        tuple(one.source_sha256 for one in inputs),
        tuple(labels),
        np.concatenate(scores),
        tuple(failures),
    )


def sheet(
    explanations: Sequence[Any],
    neighbours: Sequence[Sequence[Neighbour]],
    side: int = 200,
) -> Image:
    """Draw each photograph and its map beside its neighbours, a row for each.

    Args:
        explanations: One `ImageExplanation` of each image.
        neighbours: Those of each image, as `Index.nearest` gives them; their files are opened.
        side: The longest side of a picture, in pixels.

    Raises:
        ArgumentError: There isn't one list of neighbours for each explanation.
        ImageError: A picture can't be read.
    """
    from visxai.drawing import colours, sheets
    from visxai.images import decoding

    if len(explanations) != len(neighbours) or not explanations:
        raise ArgumentError(
            f"expected neighbours for each of {len(explanations)} explanations, got "
            f"{len(neighbours)}: explain and look up the same images, one map each"
        )
    most = max(map(len, neighbours))
    rows = []
    for one, near in zip(explanations, neighbours, strict=True):
        said = f"{one.label} {one.score:.2f}"
        cells = [
            sheets.captioned(one.original(), said, side),
            sheets.captioned(one.overlay(), one.method.partition("(")[0], side),
        ]
        for other in near:
            if not other.path:
                raise ArgumentError(
                    "expected neighbours with files, got one in memory: index images by path"
                )
            image = decoding.decode(other.path).image
            cells.append(sheets.captioned(image, f"{other.similarity:.2f} {other.label}", side))
        blank = sheets.captioned(one.original().resize((1, 1)), "", side)
        rows.append(cells + [blank] * (most - len(near)))
    heads = ["photograph", "map", *[f"neighbour {at + 1}" for at in range(most)]]
    scales = [colours.scale_of(one.placed) for one in explanations]
    return sheets.sheet(rows, heads, [""] * len(rows), cell=side + 24, scales=scales)
