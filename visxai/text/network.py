"""Text classifiers that are PyTorch modules: scores, gradients at the word embedding, attention.

Rows of different lengths share a forward only after they are padded, and padding is masked, so the
scores of a text don't depend on its batch. Rows are sorted by length first: little is padded, and
equal rows run once.

Gradients are taken at the output of the word embedding alone. Positions and token types have
embeddings too; a path through those would leave the sequences that the model knows.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from visxai.errors import ArgumentError, ModelError, OutOfMemory
from visxai.models.budget import is_out_of_memory
from visxai.models.interface import Activation
from visxai.models.pytorch.modules import Weights, adapt, private_copy, structural_copy
from visxai.models.pytorch.sdpa import Call, record_attention
from visxai.references import ModelRef
from visxai.text.model import (
    Encoded,
    Keep,
    Need,
    Numbers,
    Replacement,
    Scalar,
    TextModel,
    Window,
    distinct,
    windows,
)
from visxai.text.rows import Block, Format, Tokenizer
from visxai.text.words import owners, words

T = TypeVar("T")
_LENGTH = 128  # pieces of a usual row: a block of long rows has fewer of them
_CACHED = 1024  # pieces of a block on a CPU: what an encoder makes of more falls out of its cache


class TorchText(TextModel):
    """A PyTorch text classifier.

    It runs a private copy of the module over the same weights, so nothing of the caller's changes.

    Args:
        module: The network: pieces `input_ids` (n, T) and, where it takes one, an `attention_mask`
            (n, T) to scores (n, k).
        tokenizer: Cuts texts into pieces: for each text their numbers and places.
        form: How the model wants its rows.
        name: The model's name.
        labels: Names of the classes.
        activation: What turns scores into probabilities.
        prepared: The preparation in words, for records.
        embedding: The word embedding's dotted name; None finds it.
        device: Where it runs.
        batch_size: The most rows of a forward of usual length.
        sha256: The weights' sha256, where it is known.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Tokenizer,
        form: Format,
        *,
        name: str,
        labels: Sequence[str] | None,
        activation: Activation,
        prepared: str,
        embedding: str | None = None,
        device: torch.device | None = None,
        batch_size: int = 64,
        sha256: str | None = None,
    ) -> None:
        self._module = private_copy(module, device)
        first = next(self._module.parameters())
        self.device = first.device
        self.form = form
        self.labels = labels
        self.activation = activation
        self.batch_size = batch_size
        self._cells = batch_size * _LENGTH  # pieces of a block, fewer once memory ran out
        self._tokenizer = tokenizer
        self._cutting = threading.Lock()  # tokenizers keep state while they cut
        self._name, self._prepared = name, prepared
        self._weights = Weights(self._module, sha256)
        self._swapped = threading.local()
        self._embedding = _embedding(self._module, embedding)
        named = {id(part): known for known, part in self._module.named_modules()}
        self.layer = named.get(id(self._embedding))
        self._embedding.register_forward_hook(_swap(self._swapped))
        # A network that is read from its embeddings on, and knows how to save steps there.
        self._from_embeddings = getattr(self._module, "from_embeddings", None)
        if self.device.type == "cpu" and self._from_embeddings is None:
            self._cells = min(self._cells, _CACHED)
        self._masked = "attention_mask" in inspect.signature(module.forward).parameters
        # A copy over the same weights that keeps its attention, which fused kernels don't.
        self._eager: nn.Module | None = None
        attends = hasattr(module, "set_attn_implementation") and hasattr(module, "config")
        if attends:
            copied: Any = structural_copy(self._module)
            copied.set_attn_implementation("eager")
            self._eager = copied
        self.offers = Need.SCORES | Need.GRADIENT | (Need.ATTENTION if attends else Need(0))

    @property
    def ref(self) -> ModelRef:  # type: ignore[override]
        """The model's identity, of the weights as they are now."""
        return ModelRef(self._name, self._weights.sha256(), self._prepared)

    # ---- texts to rows ------------------------------------------------------------------------

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Cut texts into pieces, words and windows."""
        with self._cutting:
            cut = self._tokenizer(texts)
        made = []
        for text, (ids, places) in zip(texts, cut, strict=True):
            spans, owner = owners(words(text), places)
            parts = windows(
                text,
                spans,
                np.asarray(ids, np.int64),
                np.asarray(owner, np.int64),
                self.form.limit,
            )
            made.append(Encoded(text, tuple(spans), parts))
        return made

    def altered(self, window: Window, keep: Keep, how: Replacement) -> list[Numbers]:
        """Drop or mask the pieces of hidden words."""
        shown = keep[:, window.owner]
        if how == "mask":
            return list(np.where(shown, window.ids, self.form.mask))
        return [window.ids[row] for row in shown]

    def blocks(self, rows: Sequence[Numbers]) -> Iterator[Block]:
        """Yield rows padded in blocks of similar length; each block fits in memory."""
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        while order:
            count = len(order)
            while count > 1 and count * self._length(len(rows[order[count - 1]])) > self._cells:
                # The longest row decides; guesses shrink fast and stop just below the limit.
                fits = self._cells // self._length(len(rows[order[count - 1]]))
                count = max(1, min(count - 1, fits))
            yield self._block(order[:count], rows)
            order = order[count:]

    def _length(self, pieces: int) -> int:
        """Return the pieces of a row with its marks and, where it is fixed, its padding."""
        if self.form.fixed and self.form.length is not None:
            # A network that runs from embeddings shares much of the padding among rows.
            shared = self._from_embeddings is not None and self.device.type == "cpu"
            return max(pieces, self.form.length // 6) if shared else self.form.length
        return max(1, pieces + len(self.form.prefix) + len(self.form.suffix))

    def _block(self, taken: Sequence[int], rows: Sequence[Numbers]) -> Block:
        form = self.form
        lengths = np.array([len(rows[index]) for index in taken], np.int64)
        width = max(self._length(int(size)) for size in lengths)
        if form.fixed and form.length is not None:
            width = form.length
        lead = 0
        if self._from_embeddings is not None and form.front:
            # It needs none of the padding that all rows share.
            lead = max(0, width - max(1, int(lengths.max())))
            width -= lead
        ids = np.full((len(taken), width), form.pad, np.int64)
        mask = np.zeros((len(taken), width), bool)
        start = np.full(len(taken), len(form.prefix), np.int64)
        for i, index in enumerate(taken):
            row = rows[index]
            if form.prefix or form.suffix:
                row = np.concatenate([form.prefix, row, form.suffix]).astype(np.int64)
            at = width - len(row) if form.fixed and form.front else 0
            start[i] += at
            ids[i, at : at + len(row)] = row
            mask[i, at : at + len(row)] = True
            mask[i, :1] |= not len(row)  # a row of nothing still has a piece
        mask |= form.fixed
        held = torch.from_numpy(ids).to(self.device)
        ends = {"first": np.zeros_like(start), "last": np.full_like(start, width - 1)}
        read = ends.get(form.read, start + lengths)
        kept = torch.from_numpy(mask).to(self.device)
        return Block(tuple(taken), held, kept, start, lengths, read, lead)

    # ---- forwards -----------------------------------------------------------------------------

    def score(self, rows: Sequence[Numbers]) -> Tensor:
        """Score rows, equal ones once: (m, k) float32, without a graph."""
        kept, index = distinct(rows)
        found: dict[int, Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            run = self._each(kept, lambda block: self._scored(block).float())
            for block, scores in run:
                found.update(zip(block.rows, scores, strict=True))
            ordered = torch.stack([found[place] for place in range(len(kept))])
            return ordered[torch.tensor(index, device=ordered.device)]

    def _each(
        self, rows: Sequence[Numbers], run: Callable[[Block], T]
    ) -> Iterator[tuple[Block, T]]:
        """Run rows block by block; a block that memory runs out on is halved and run again."""
        waiting = list(self.blocks(rows))[::-1]
        while waiting:
            block = waiting.pop()
            try:
                done = run(block)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                yield block, done
                continue
            # Outside the `except`: inside, the traceback would keep the tensors alive.
            half = len(block.rows) // 2
            if not half:
                raise OutOfMemory(
                    f"expected one row of {block.ids.shape[1]} pieces to fit in memory, but it "
                    "did not: free the device's memory, or use a smaller model"
                )
            self._cells = max(1, half * block.ids.shape[1])
            waiting += [block.part(half, len(block.rows)), block.part(0, half)]

    def _scored(self, block: Block, embedded: Tensor | None = None) -> Tensor:
        """Score a block, from other embeddings than its own where there are some."""
        if self._from_embeddings is not None:
            given = self._embedding(block.ids) if embedded is None else embedded
            found: Tensor = self._from_embeddings(given, block.lead)
            return found
        if embedded is None:
            return cast(Tensor, self._forward(self._module, block))
        with self._swapping(embedded):
            return cast(Tensor, self._forward(self._module, block))

    def _forward(self, module: nn.Module, block: Block, **more: Any) -> Any:
        if self._masked:
            more["attention_mask"] = block.mask.long()
        output = module(block.ids, **more)
        return output if "output_attentions" in more else adapt(output)

    def embedded(
        self,
        found: Sequence[Window],
        turns: int,
        place: Callable[[int], float],
        aim: Scalar,
        baseline: str,
        reduce: Callable[[Tensor, Tensor], Tensor] | None,
    ) -> Iterator[tuple[int, int, float, Any]]:
        """Differentiate a scalar at the word embeddings; see `TextModel.embedded`."""
        rows = [window.ids for window in found for _ in range(turns)]
        start = {"pad": self.form.pad, "mask": self.form.mask, "zero": None}[baseline]

        def run(block: Block) -> list[tuple[float, Any]]:
            which = torch.tensor([row // turns for row in block.rows], device=self.device)
            points = [place(row % turns) for row in block.rows]
            with torch.no_grad():
                whole = self._embedding(block.ids)
                origin = torch.zeros_like(whole)
                if start is not None:
                    origin = self._embedding(torch.full_like(block.ids[:1, :1], start))
                line = torch.where(
                    block.inside().unsqueeze(2), whole - origin, torch.zeros_like(whole)
                )
                way = torch.tensor(points, device=whole.device, dtype=whole.dtype)
                at = whole - (1 - way)[:, None, None] * line
            if reduce is None:
                alone = aim(self._scored(block, at).float(), which)
                return [(value, None) for value in alone.cpu().tolist()]
            leaf = at.detach().requires_grad_()
            with torch.enable_grad(), _recurrent(self.device):
                values = aim(self._scored(block, leaf).float(), which)
                (slope,) = torch.autograd.grad(values.sum(), leaf)
            numbers = values.detach().cpu().tolist()
            return list(zip(numbers, block.content(reduce(slope, line)), strict=True))

        with torch.inference_mode(False):
            for block, parts in self._each(rows, run):
                for row, (value, reduced) in zip(block.rows, parts, strict=True):
                    yield row // turns, row % turns, value, reduced

    def attended(
        self, found: Sequence[Window], aim: Scalar | None
    ) -> Iterator[tuple[Block, list[Tensor], list[Tensor]]]:
        """Run windows and yield their attention; see `TextModel.attended`."""
        if Need.ATTENTION not in self.offers:
            raise self.lacking(Need.ATTENTION)
        with torch.inference_mode(False):
            run = self._each([one.ids for one in found], lambda block: self._looked(block, aim))
            for block, (layers, slopes) in run:
                yield block, layers, slopes

    def _looked(self, block: Block, aim: Scalar | None) -> tuple[list[Tensor], list[Tensor]]:
        """Return a block's attention by layer, and the gradients there if there is an aim."""
        assert self._eager is not None
        with torch.no_grad():
            whole = self._embedding(block.ids)
        leaf = whole.detach().requires_grad_(aim is not None)
        with torch.set_grad_enabled(aim is not None), self._swapping(leaf):
            output = self._forward(self._eager, block, output_attentions=True)
            layers = list(output.attentions or ())
            if not layers:
                raise self.lacking(Need.ATTENTION)
            slopes: list[Tensor] = []
            if aim is not None:
                which = torch.tensor(block.rows, device=self.device)
                slopes = list(torch.autograd.grad(aim(adapt(output).float(), which).sum(), layers))
        return [layer.detach() for layer in layers], slopes

    def last_attention(self, found: Sequence[Window], aim: Scalar) -> Iterator[tuple[Block, Call]]:
        """Run windows and yield their last attention; see `TextModel.last_attention`."""
        with torch.inference_mode(False):
            yield from self._each(
                [one.ids for one in found], lambda block: self._last_attention(block, aim)
            )

    def _last_attention(self, block: Block, aim: Scalar) -> Call:
        with record_attention(self._module, leaves=(0,)) as calls:
            scores = self._scored(block).float()
            if not calls:
                raise self.lacking(Need.ATTENTION)
            which = torch.tensor(block.rows, device=self.device)
            (slope,) = torch.autograd.grad(aim(scores, which).sum(), calls[-1].output)
        return calls[-1].of(slice(None), slope)

    @contextlib.contextmanager
    def _swapping(self, value: Tensor) -> Iterator[None]:
        """Let the word embedding return `value` in this thread."""
        self._swapped.value = value
        try:
            yield
        finally:
            self._swapped.value = None


def _swap(swapped: threading.local) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
    """Make the hook of the word embedding: a function, so that copies of the module share it."""

    def swap(module: nn.Module, given: Any, output: Tensor) -> Tensor | None:
        value: Tensor | None = getattr(swapped, "value", None)
        return value

    return swap


def _embedding(module: nn.Module, name: str | None) -> nn.Module:
    """Find the word embedding.

    Raises:
        ArgumentError: There is no module of this name, or no embedding at all.
    """
    parts: dict[str, nn.Module] = dict(module.named_modules())
    if name is not None:
        if name not in parts:
            raise ArgumentError(
                expected="the name of the model's word embedding",
                got=repr(name),
                remedy="look among module.named_modules()",
                field="embedding",
            )
        return parts[name]
    ask: Any = getattr(module, "get_input_embeddings", None)
    found = ask() if ask is not None else None
    if isinstance(found, nn.Module):
        return found
    first = next((part for part in parts.values() if isinstance(part, nn.Embedding)), None)
    if first is None:
        raise ModelError(
            expected="a network with a word embedding",
            got=f"{type(module).__name__} without any",
            remedy="pass embedding=, the name of the module that embeds words",
            field="embedding",
        )
    return first


@contextlib.contextmanager
def _recurrent(device: torch.device) -> Iterator[None]:
    """Let recurrent layers in eval mode be differentiated, which cuDNN refuses."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=False):
        yield
