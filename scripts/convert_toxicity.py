"""Convert the toxicity classifier of a package into models/text/toxicity.safetensors and .json.

    pip download --no-deps --dest wheel toxic-comment-classifier==0.3.0
    pip install h5py
    python scripts/convert_toxicity.py wheel/toxic_comment_classifier-0.3.0-py3-none-any.whl

The package is never installed, since it requires TensorFlow. Its weights are an HDF5 file and its
tokenizer is a pickle, which is read once, here, by an unpickler that knows three classes and makes
plain dictionaries of them. Weights are stored as float16; the script prints the sha256 of what it
wrote, which the card states, and how far the scores of some comments move by the rounding.
"""

from __future__ import annotations

import collections
import hashlib
import io
import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import torch
from safetensors.torch import save_file

from visxai.text.bilstm import BiLSTM, KerasTokenizer

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models" / "text"
FILES = {
    "toxic_classifier/model/model.weights.h5": (
        "03ed4c3f52be909821a8c3263de2dcd65b95908bfae6f569c9a9cec90538a4b3"
    ),
    "toxic_classifier/model/tokenizer.pickle": (
        "d8e998211d68c5264b84c6eb6753f08897194038e0345e91a592f97cd38c125c"
    ),
}
# What the package's README states for its example, in the order of the six labels.
EXAMPLE = "You are so dumb and stupid!"
STATED = (
    *(0.9889402985572815, 0.07256772369146347, 0.620429277420044),
    *(0.01934845559298992, 0.8664075136184692, 0.04072948172688484),
)
OTHERS = (
    "I hate you so much!",
    "This is wonderful news.",
    "You're the worst person ever!",
    "Thanks for fixing the references on that page, it reads much better now.",
    "go away and never come back, you idiot",
)


class Plain:
    """What stands for an object of the pickle: its attributes, and nothing that runs."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Restricted(pickle.Unpickler):
    """An unpickler that makes three known classes and refuses all others."""

    known: ClassVar = {
        ("keras.src.legacy.preprocessing.text", "Tokenizer"): Plain,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("builtins", "int"): int,  # the default of the dictionary above
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"{module}.{name} isn't allowed")
        return self.known[module, name]


def members(wheel: Path) -> dict[str, bytes]:
    """The two files of the wheel, checked by their hashes."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in FILES}
    for name, data in found.items():
        if hashlib.sha256(data).hexdigest() != FILES[name]:
            raise SystemExit(f"{name} isn't the file of version 0.3.0")
    return found


def vocabulary(data: bytes) -> dict[str, Any]:
    """The words in the order of their numbers, 1 first, and what separates them."""
    tokenizer = Restricted(io.BytesIO(data)).load()
    limit = tokenizer.num_words
    ordered = sorted(tokenizer.word_index, key=tokenizer.word_index.get)
    assert [tokenizer.word_index[word] for word in ordered] == list(range(1, len(ordered) + 1))
    assert tokenizer.lower
    assert tokenizer.split == " "
    assert tokenizer.oov_token is None
    assert not tokenizer.char_level
    return {"words": ordered[: limit - 1], "separators": tokenizer.filters + " "}


def tensors(data: bytes) -> dict[str, torch.Tensor]:
    """The weights under our names; both libraries order gates input, forget, cell."""
    with h5py.File(io.BytesIO(data)) as file:
        layers = file["layers"]
        found = {"embedding.weight": layers["embedding/vars/0"][:]}
        for ours, theirs in (("", "forward_layer"), ("_reverse", "backward_layer")):
            cell = layers[f"bidirectional/{theirs}/cell/vars"]
            found[f"lstm.weight_ih_l0{ours}"] = cell["0"][:].T
            found[f"lstm.weight_hh_l0{ours}"] = cell["1"][:].T
            found[f"lstm.bias_ih_l0{ours}"] = cell["2"][:]
            found[f"lstm.bias_hh_l0{ours}"] = np.zeros_like(cell["2"][:])
        for ours, theirs in (("hidden", "dense"), ("head", "dense_1")):
            found[f"{ours}.weight"] = layers[f"{theirs}/vars/0"][:].T
            found[f"{ours}.bias"] = layers[f"{theirs}/vars/1"][:]
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def scores(
    weights: dict[str, torch.Tensor], words: dict[str, Any], texts: tuple[str, ...]
) -> np.ndarray[Any, Any]:
    """The probabilities of the six labels, (texts, 6)."""
    network = BiLSTM.like(weights).eval()
    network.load_state_dict(weights)
    tokenizer = KerasTokenizer(tuple(words["words"]), words["separators"])
    rows = torch.zeros(len(texts), 100, dtype=torch.long)
    for row, text in enumerate(texts):
        ids = [number for number, _, _ in tokenizer(text)][-100:]
        rows[row, 100 - len(ids) :] = torch.tensor(ids)
    with torch.no_grad():
        return network(rows).sigmoid().numpy()


def main() -> None:
    data = members(Path(sys.argv[1]))
    words = vocabulary(data["toxic_classifier/model/tokenizer.pickle"])
    weights = tensors(data["toxic_classifier/model/model.weights.h5"])
    half = {name: value.half() for name, value in weights.items()}
    rounded = {name: value.float() for name, value in half.items()}
    texts = (EXAMPLE, *OTHERS)
    exact = scores(weights, words, texts)
    print(f"from the stated scores: {abs(exact[0] - STATED).max():.1e}")
    print(f"by rounding to float16: {abs(scores(rounded, words, texts) - exact).max():.1e}")
    save_file(half, MODELS / "toxicity.safetensors")
    text = json.dumps(words, ensure_ascii=False, separators=(",", ":"))
    (MODELS / "toxicity.json").write_text(text + "\n", "utf-8")
    for name in ("toxicity.safetensors", "toxicity.json"):
        made = (MODELS / name).read_bytes()
        print(name, len(made), hashlib.sha256(made).hexdigest())


if __name__ == "__main__":
    main()
