"""Targets: what is explained. A target turns scores (batch, classes) into one scalar per map.

A target is written before any image is seen ("top3", "class=tabby"). `Target.aim` settles it on
the scores of a batch; methods differentiate or probe the resulting `Aim`. An image can have several
maps ("top3", "above=0.5"), so an aim holds the image of each map.

    aim.rows      (r,)  the image of each map
    aim(s, which) (n,)  the scalar of n rows of scores, row i belonging to map which[i]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from visxai.errors import TargetError, UnknownName
from visxai.labels import class_of, label_of, near_labels
from visxai.target_form import FORMS, TargetForm, two_classes

Kind = Literal["top", "class", "any", "diff", "above", "index", "callable"]
_LISTED = 4  # classes that the label of an unnamed set lists


@dataclass(frozen=True)
class Aim:
    """A target settled on the scores of a batch of b images: r maps.

    Attributes:
        rows: (r,) long, the image of each map in the batch, ascending.
        classes: (r,) long, the class that each map reports, None for a callable target.
        function: Takes scores (n, k) and the map of each row (n,); returns scalars (n,) float32.
        first: (r,) long, the image of each map in the batch that the target was settled on, where
            it isn't `rows`.
        each_has: How many maps each image of the batch has, where all have as many: map m is then
            of image m // each_has, which is known without reading `rows` off the device.
    """

    rows: Tensor
    classes: Tensor | None
    function: Callable[[Tensor, Tensor], Tensor]
    first: Tensor | None = None
    each_has: int | None = None

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def __call__(self, scores: Tensor, which: Tensor | None = None) -> Tensor:
        """Compute the scalar of each row of scores.

        Args:
            scores: (n, k).
            which: (n,) long, the map that each row belongs to; by default row i belongs to map i.

        Returns:
            (n,) float32.
        """
        if which is None:
            which = torch.arange(len(self), device=scores.device)
        return self.function(scores, which)

    @cached_property
    def passes(self) -> list[Tensor]:
        """The maps in as few groups as possible, each image at most once in a group.

        Images are independent in eval mode, so one backward pass serves a whole group.
        """
        if self.each_has is not None:
            first = torch.arange(0, len(self), self.each_has, device=self.rows.device)
            return [first + turn for turn in range(self.each_has if len(self) else 0)]
        seen: dict[int, int] = {}
        groups: list[list[int]] = []
        for index, row in enumerate(self.rows.tolist()):
            turn = seen.get(row, 0)
            seen[row] = turn + 1
            if turn == len(groups):
                groups.append([])
            groups[turn].append(index)
        return [torch.tensor(group, device=self.rows.device) for group in groups]

    @cached_property
    def images_seen(self) -> int:
        """One more than the last image that has a map."""
        return int(self.rows[-1]) + 1 if len(self) else 0

    def each(self, keep: Tensor | None = None) -> Aim:
        """Return the aim of some maps for a batch that repeats each map's image.

        Args:
            keep: (n,) long, the maps; all by default.
        """
        if keep is None:
            keep = torch.arange(len(self), device=self.rows.device)
        return self.at(keep, torch.arange(len(keep), device=self.rows.device), 1)

    def part(self, start: int, stop: int) -> Aim:
        """Return the aim of images start to stop (exclusive), for a batch of only these images."""
        if self.each_has is not None:
            low, high = start * self.each_has, stop * self.each_has
            keep = torch.arange(len(self), device=self.rows.device)[low:high]
        else:
            keep = ((self.rows >= start) & (self.rows < stop)).nonzero().squeeze(1)
        return self.at(keep, self.rows[keep] - start, self.each_has)

    def images(self, keep: Tensor) -> Aim:
        """Return the aim of images `keep` (n,), ascending, for a batch of only these images."""
        maps = torch.isin(self.rows, keep).nonzero().squeeze(1)
        return self.at(maps, torch.searchsorted(keep, self.rows[maps]), self.each_has)

    @property
    def origin(self) -> Tensor:
        """The image of each map, (r,), in the batch that the target was settled on."""
        return self.rows if self.first is None else self.first

    def at(self, keep: Tensor, rows: Tensor, each_has: int | None = None) -> Aim:
        """Return the aim of some maps for another batch.

        Args:
            keep: (n,) long, the maps.
            rows: (n,) long, the image of each of them in the other batch, ascending.
            each_has: How many of them each image of the other batch has, where all have as many.
        """
        classes = None if self.classes is None else self.classes[keep]
        function = self.function
        return Aim(
            rows,
            classes,
            lambda scores, which: function(scores, keep[which]),
            self.origin[keep],
            each_has,
        )

    def on(self, transform: Callable[[Tensor], Tensor]) -> Aim:
        """Return the same aim at transformed scores, for example at probabilities."""
        function = self.function
        return replace(self, function=lambda scores, which: function(transform(scores), which))


@dataclass(frozen=True)
class Target:
    """A target that isn't settled on scores yet; `Target.of` parses every accepted form.

    Attributes:
        kind: The form of the target.
        text: The target as text, as the record keeps it.
        classes: The classes that the target names; of kind "index" the class of each image.
        value: The count of "top" or the limit of "above".
        function: The callable of kind "callable": scores (b, k) to scalars (b,).
        name: The name of a set of classes, "" without a name.
    """

    kind: Kind
    text: str
    classes: tuple[int, ...] = ()
    value: float = 0.0
    function: Callable[[Tensor], Tensor] | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, target: Any, labels: Sequence[str] | None = None) -> Target:
        """Parse a target.

        Args:
            target: A Target, a text such as "top3" or "class=tabby", a class's index, a class for
                each image, or a callable that turns scores (b, k) into scalars (b,).
            labels: The model's labels, which let the target name classes.

        Raises:
            TargetError: The target has none of these forms.
            UnknownName: A label that the model doesn't have.
        """
        if isinstance(target, Target):
            return target
        if isinstance(target, bool) or target is None:
            raise TargetError(f"expected a target, got {target!r}: use {FORMS}")
        if isinstance(target, int):
            return cls("class", f"class={target}", (target,))
        if isinstance(target, str):
            return cls._of_text(target, labels)
        if callable(target) and not isinstance(target, Tensor):
            name = getattr(target, "__name__", type(target).__name__)
            return cls("callable", f"callable:{name}", function=target)
        return cls._per_image(target, labels)

    @classmethod
    def _per_image(cls, target: Any, labels: Sequence[str] | None) -> Target:
        values = target.tolist() if hasattr(target, "tolist") else target
        if labels and isinstance(values, (list, tuple)):
            values = [class_of(v, labels) if isinstance(v, str) else v for v in values]
        if isinstance(values, int) and not isinstance(values, bool):
            return cls("class", f"class={values}", (values,))
        if not isinstance(values, Sequence) or not all(
            isinstance(v, int) and not isinstance(v, bool) for v in values
        ):
            raise TargetError(
                f"expected one integer per image, or one label, got {target!r}: use {FORMS}"
            )
        return cls("index", "index", tuple(values))

    @classmethod
    def _of_text(cls, text: str, labels: Sequence[str] | None) -> Target:
        try:
            return cls.resolve(TargetForm.parse(text), labels)
        except TargetError:
            name = text.strip()
            if "=" in name or not labels or (found := _named(name, labels)) is None:
                raise
            return cls("class", f"class={name}", (found,))

    @classmethod
    def resolve(cls, form: TargetForm, labels: Sequence[str] | None) -> Target:
        """Find the classes that a target's form names among a model's labels.

        Raises:
            UnknownName: A label that the model doesn't have.
            TargetError: The model has no labels, or a difference of a class from itself.
        """
        members = tuple(class_of(member, labels) for member in form.members)
        if form.kind == "diff" and members[0] == members[1]:
            raise two_classes(form.text)
        if form.kind == "any":
            members = tuple(sorted(set(members)))
        return cls(form.kind, form.text, members, form.value, name=form.name)

    def part(self, start: int, stop: int) -> Target:
        """Return the target of images start to stop of a longer run."""
        if self.kind != "index":
            return self
        return replace(self, classes=self.classes[start:stop])

    def one_class(self, images: int) -> tuple[int, ...] | None:
        """Return the class of each of `images` images, -1 for its strongest.

        Returns:
            None where the target isn't the score of one class of each image.
        """
        if self.kind == "index":
            return self.classes
        if self.kind == "class":
            return self.classes * images
        return (-1,) * images if self.kind == "top" and self.value == 1 else None

    def check(self, images: int) -> None:
        """Raise TargetError unless the target fits a run of `images` images."""
        if self.kind == "index" and len(self.classes) != images:
            raise TargetError(
                f"expected one target per image, got {len(self.classes)} targets for {images} "
                "images: pass as many as there are images, or a single int for all"
            )

    def aim(self, scores: Tensor, probabilities: Tensor) -> Aim:
        """Settle the target on the scores of a batch.

        Args:
            scores: (b, k), as the methods explain them.
            probabilities: (b, k), which a target "above" compares.

        Returns:
            The aim of the batch's maps.

        Raises:
            TargetError: A class doesn't exist, or the number of targets isn't b.
        """
        batch, count = scores.shape
        device = scores.device
        outside = [c for c in self.classes if not -1 < c < count]
        if outside:
            raise TargetError(
                f"expected a class from 0 to {count - 1}, got {outside[0]}: "
                f"the model has {count} classes"
            )
        rows = torch.arange(batch, device=device)
        if self.kind == "index":
            self.check(batch)
            members = torch.tensor(self.classes, device=device)
            return Aim(rows, members, _pick(members, device), each_has=1)
        if self.kind == "top":
            k = min(int(self.value), count)  # a model of two classes has no top3
            classes = scores.topk(k, dim=1).indices.flatten()
            return Aim(rows.repeat_interleave(k), classes, _pick(classes, device), each_has=k)
        if self.kind == "above":
            rows, classes = (probabilities > self.value).nonzero(as_tuple=True)
            return Aim(rows, classes, _pick(classes, device))
        if self.kind == "callable":
            return Aim(rows, None, self._checked, each_has=1)
        members = torch.tensor(self.classes, device=device)
        if self.kind == "diff":
            first, second = self.classes
            return Aim(
                rows,
                members[:1].expand(batch),
                lambda s, _: (s[:, first] - s[:, second]).float(),
                each_has=1,
            )
        if self.kind == "any":
            strongest = members[scores[:, members].argmax(1)]
            return Aim(rows, strongest, lambda s, _: s[:, members].float().logsumexp(1), each_has=1)
        one = self.classes[0]
        return Aim(rows, members.expand(batch), lambda s, _: s[:, one].float(), each_has=1)

    def _checked(self, scores: Tensor, which: Tensor) -> Tensor:
        assert self.function is not None
        values = self.function(scores)
        expected = (scores.shape[0],)
        if not isinstance(values, Tensor) or tuple(values.shape) != expected:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise TargetError(
                f"expected the target callable to return a tensor of shape {expected}, got {got}: "
                "return one scalar per row of scores"
            )
        return values.float()


@dataclass(frozen=True, eq=False)
class Settled(Target):
    """A target with a fixed aim, so that altered copies of a batch are explained for its classes.

    >>> Settled.on_aim(target, aim).aim(other_scores, other_probabilities) is aim
    True
    """

    settled: Aim | None = None

    @classmethod
    def on_aim(cls, target: Target, aim: Aim) -> Settled:
        """Return a copy of `target` whose aim is always `aim`, whatever the scores."""
        given = target.kind, target.text, target.classes, target.value, target.function
        return cls(*given, target.name, aim)

    def part(self, start: int, stop: int) -> Settled:
        """Return the settled target of images start to stop of the batch."""
        assert self.settled is not None
        return replace(self, settled=self.settled.part(start, stop))

    def one_class(self, images: int) -> tuple[int, ...] | None:
        """Return the class of each image that the target was settled on; see `Target.one_class`."""
        aim = self.settled
        if self.kind not in ("index", "class", "top") or aim is None or aim.classes is None:
            return None
        return tuple(aim.classes.tolist()) if aim.each_has == 1 else None

    def aim(self, scores: Tensor, probabilities: Tensor) -> Aim:
        """Return the fixed aim; the scores play no part."""
        assert self.settled is not None
        return self.settled


def _pick(classes: Any, device: Any) -> Callable[[Tensor, Tensor], Tensor]:
    index = torch.as_tensor(classes, dtype=torch.long, device=device)
    return lambda scores, which: scores.gather(1, index[which].unsqueeze(1)).squeeze(1).float()


def set_label(labels: Sequence[str] | None, classes: Sequence[int]) -> str:
    """Name a set of classes without a name: "any of tiger cat, lynx and 3 more".

    Args:
        labels: The model's labels, of which each class's first name is used.
        classes: The classes of the set, ascending.
    """
    names = [label_of(labels, index).partition(",")[0] for index in classes]
    rest = len(names) - _LISTED
    return f"any of {', '.join(names[:_LISTED])}" + (f" and {rest} more" if rest > 0 else "")


def _named(text: str, labels: Sequence[str]) -> int | None:
    """Find the class of a bare label; return None where it is no label."""
    if text.isdecimal():
        return None
    try:
        return class_of(text, labels)
    except UnknownName as error:
        if not near_labels(text, labels):
            return None
        raise TargetError(
            f"expected a target or a label, got {text!r}: {str(error).partition(': ')[2]}"
        ) from None
