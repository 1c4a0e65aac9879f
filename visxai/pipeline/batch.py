"""The explanation of one batch of images, a step that local runs and cluster runs share.

deduplicate -> explain, image by image if the batch fails -> one result an image
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from visxai.engine.explained import Explained
from visxai.errors import Failure, VisxaiError
from visxai.images.prepared import Prepared
from visxai.pipeline.request import Request
from visxai.record.scores import Scores
from visxai.results.inputs import Input

if TYPE_CHECKING:
    from visxai.engine.engine import Engine

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Duplicate:
    """An image with the same bytes as another one, which is explained in its stead.

    Attributes:
        sha256: The SHA-256 of its bytes in hexadecimal.
        of: The place in the batch of the first image with these bytes; None where the caller
            already has results for such an image.
    """

    sha256: str
    of: int | None


Result = Explained | Duplicate | Failure


def explain_batch(
    engine: Engine,
    request: Request,
    inputs: Sequence[Input],
    decoded: Sequence[Prepared | Failure],
    known: Callable[[str], bool] = lambda _: False,
) -> list[Result]:
    """Explain the images of a batch, those with the same bytes once; see `begin_batch`.

    Returns:
        One result an image, in order.
    """
    return begin_batch(engine, request, inputs, decoded, known)()


def begin_batch(
    engine: Engine,
    request: Request,
    inputs: Sequence[Input],
    decoded: Sequence[Prepared | Failure],
    known: Callable[[str], bool] = lambda _: False,
) -> Callable[[], list[Result]]:
    """Begin to explain the images of a batch, those with the same bytes once.

    An image with a label never counts as a duplicate, since the other image may have another
    label. If the batch fails, its images are explained one by one, and those that fail alone
    become failures.

    Args:
        engine: The engine that explains.
        request: The request of the run.
        inputs: The images.
        decoded: Each image, decoded and cut, or its failure.
        known: Tells for the SHA-256 of an image's bytes whether the caller already has results
            for such an image.

    Returns:
        A function that returns one result an image, in order (see `Engine.begin_prepared`).
    """
    results: dict[int, Result] = {}
    fresh: dict[int, Prepared] = {}
    first: dict[str, int] = {}
    for place, (one, image) in enumerate(zip(inputs, decoded, strict=True)):
        if isinstance(image, Failure):
            results[place] = image
            continue
        digest = image.input.source_sha256
        if one.expected is None and first.setdefault(digest, place) != place:
            results[place] = Duplicate(digest, first[digest])
        elif one.expected is None and known(digest):
            results[place] = Duplicate(digest, None)
        else:
            fresh[place] = replace(image, expected=one.expected, id=one.id)
    begun = _begun(engine, request, list(fresh.values()))

    def finish() -> list[Result]:
        results.update(zip(fresh, begun(), strict=True))
        return [_settled(place, results, inputs) for place in range(len(inputs))]

    return finish


def _begun(
    engine: Engine, request: Request, fresh: Sequence[Prepared]
) -> Callable[[], list[Result]]:
    """Begin to explain images with different bytes; where that fails, explain them one by one."""
    given = request.methods, request.target, request.gate, request.check

    def run(batch: Sequence[Prepared]) -> list[Explained | Failure]:
        return engine.explain_prepared(batch, *given)

    def control() -> None:
        run_one = request.methods, request.target, None, request.check
        engine.explain_prepared([noise(fresh[0])], *run_one)

    def alone() -> list[Result]:
        return [
            failure_of(one.input.path, found) if isinstance(found, Exception) else found
            for one, found in zip(fresh, one_by_one(fresh, run, control), strict=True)
        ]

    if not engine.ahead or not fresh:
        done = alone()
        return lambda: done
    try:
        begun = engine.begin_prepared(fresh, *given)
    except Exception as error:
        if _is_memory(error):
            raise
        return alone

    def finish() -> list[Result]:
        try:
            return [*begun()]
        except Exception as error:  # what failed on a GPU may show only here
            if _is_memory(error):
                raise
        return alone()

    return finish


def _settled(place: int, results: dict[int, Result], inputs: Sequence[Input]) -> Result:
    """Return an image's result; a duplicate of a failed or known image is failed or known too."""
    result = results[place]
    if not isinstance(result, Duplicate) or result.of is None:
        return result
    first = results[result.of]
    if isinstance(first, Failure):
        return replace(first, path=inputs[place].path)
    return first if isinstance(first, Duplicate) else result


def one_by_one(
    items: Sequence[T], run: Callable[[Sequence[T]], Sequence[R]], control: Callable[[], object]
) -> list[R | Exception]:
    """Run a batch; if it fails, run each of its items alone.

    Args:
        items: The items of the batch.
        run: Returns one result an item.
        control: Runs an artificial item. It is called only if every item failed alone: if it
            fails as well, the cause isn't the items.

    Returns:
        The result of each item, or the error that it raises alone.

    Raises:
        Exception: The batch's error, if the control fails too; any error at once if memory ran
            out.
    """
    if not items:
        return []
    try:
        return list(run(items))
    except Exception as error:
        if _is_memory(error):
            raise
        first = error
    found: list[R | Exception] = []
    for item in items if len(items) > 1 else ():
        try:
            found += run([item])
        except Exception as error:
            if _is_memory(error):
                raise
            found.append(error)
    found = found or [first]
    if all(isinstance(one, Exception) for one in found):
        try:
            control()
        except Exception:
            raise first from None
    return found


def _is_memory(error: Exception) -> bool:
    """Tell whether memory ran out, which no single image causes."""
    from visxai.models.budget import is_out_of_memory

    return isinstance(error, MemoryError) or is_out_of_memory(error)


def noise(like: Prepared) -> Prepared:
    """Make a noise image with the shape and dtype of another image's pixels."""
    rng = np.random.default_rng(0)
    shape = like.pixels.shape
    if like.pixels.dtype == np.uint8:
        return replace(like, pixels=rng.integers(0, 256, shape, dtype=np.uint8))
    return replace(like, pixels=rng.standard_normal(shape, dtype=np.float32))


def failure_of(path: str | None, error: Exception, what: str = "an image") -> Failure:
    """Make the failure of an item that raises an error even when it is explained alone."""
    said = str(error).strip().partition("\n")[0][:300].rstrip(".")
    if not isinstance(error, VisxaiError):
        said = (
            f"expected {what} that can be explained, got {type(error).__name__}: {said}; leave "
            "it out, or choose another method"
        )
    return Failure(path, said, type(error).__name__)


def gate_counts(only: object, scores: Sequence[Scores]) -> dict[str, int]:
    """Count the scored images and the explained ones among them; return {} without a gate."""
    if only is None:
        return {}
    return {"scored": len(scores), "explained": sum(one.explained for one in scores)}
