"""Explains one batch of images: the step that local runs and cluster runs share.

deduplicate -> explain, image by image where the batch fails -> one result an image
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from visxai.errors import Failure, VisxaiError
from visxai.pipeline.request import Asked
from visxai.pipeline.tasks import Decoded
from visxai.record.image import ImageExplanation
from visxai.record.scores import Scores
from visxai.results.inputs import Input

if TYPE_CHECKING:
    from visxai.engine.batch import Prepared
    from visxai.engine.engine import Engine

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Result:
    """What came of one image of a batch: a failure, another image that stands for it, or its own
    explanations and scores.

    Attributes:
        sha256: Of the image's bytes, None for a failure.
        failure: Why it can't be explained.
        copy_of: The place in the batch of the image with the same bytes, if it is another.
        known: Whether the caller knows an image with the same bytes already.
        explanations: Its explanations, method by method; none where a gate left it out.
        scores: What the model scored it.
        right: Whether its label has the greatest score, None without a label.
    """

    sha256: str | None = None
    failure: Failure | None = None
    copy_of: int | None = None
    known: bool = False
    explanations: tuple[ImageExplanation, ...] = ()
    scores: Scores | None = None
    right: bool | None = None


def explain_batch(
    engine: Engine,
    asked: Asked,
    inputs: Sequence[Input],
    decoded: Sequence[Decoded],
    known: Callable[[str], bool] = lambda _: False,
) -> list[Result]:
    """Explains the images of a batch, those with the same bytes once.

    An image with a label is no copy of another, which may have another label. Where the batch
    fails, its images are explained one by one, and those that fail alone are failures.

    Args:
        engine: What explains.
        asked: What is asked of the run.
        inputs: The images.
        decoded: What decoding each of them gave.
        known: Tells of a sha256 whether the caller needs no more of such an image.

    Returns:
        One result an image, in order.
    """
    from visxai.engine.batch import Prepared

    results: dict[int, Result] = {}
    fresh: dict[int, Prepared] = {}
    first: dict[str, int] = {}
    for place, (one, image) in enumerate(zip(inputs, decoded, strict=True)):
        where = image.input
        if isinstance(where, Failure):
            results[place] = Result(failure=where)
            continue
        digest = where.source_sha256
        if one.expected is None:
            stands = first.setdefault(digest, place)
            if stands != place:
                results[place] = Result(digest, copy_of=stands)
                continue
            if known(digest):
                results[place] = Result(digest, known=True)
                continue
        fresh[place] = Prepared(image.pixels, where, None, one.expected)
    results.update(zip(fresh, _explained(engine, asked, list(fresh.values())), strict=True))
    return [_settled(place, results, inputs) for place in range(len(inputs))]


def _explained(engine: Engine, asked: Asked, fresh: Sequence[Prepared]) -> list[Result]:
    def run(batch: Sequence[Prepared]) -> list[Any]:
        given = asked.methods, asked.target, asked.gate, asked.check
        return engine.explain_prepared(batch, *given)

    def control() -> None:
        given = asked.methods, asked.target, None, asked.check
        engine.explain_prepared([noise(fresh[0])], *given)

    results = []
    for one, found in zip(fresh, one_by_one(fresh, run, control), strict=True):
        if isinstance(found, Exception):
            results.append(Result(failure=failure_of(one.input.path, found)))
            continue
        right = None if one.expected is None else found.best == one.expected
        digest = one.input.source_sha256
        told = found.explanations, found.scores
        results.append(Result(digest, None, None, False, *told, right=right))
    return results


def _settled(place: int, results: dict[int, Result], inputs: Sequence[Input]) -> Result:
    """Returns the result of an image; a copy of an image that failed or is known is so too."""
    result = results[place]
    if result.copy_of is None:
        return result
    first = results[result.copy_of]
    if first.failure is not None:
        return Result(failure=replace(first.failure, path=inputs[place].path))
    return Result(result.sha256, known=True) if first.known else result


def one_by_one(
    items: Sequence[T], run: Callable[[Sequence[T]], Sequence[R]], control: Callable[[], object]
) -> list[R | Exception]:
    """Runs a batch, and where it fails each of its items alone.

    Args:
        items: The items of the batch.
        run: Returns one result an item.
        control: Does the same with an item made for the purpose. It is run only where every item
            failed alone: if it fails as well, it isn't the items' fault.

    Returns:
        The result of each item, or the error that it raises alone.

    Raises:
        Exception: What the batch raised, where the control fails too; at once where memory ran
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
    """Tells whether memory ran out, which is no image's fault."""
    from visxai.models.budget import is_out_of_memory

    return isinstance(error, MemoryError) or is_out_of_memory(error)


def noise(like: Prepared) -> Prepared:
    """Returns an image of noise with the form of another's pixels."""
    rng = np.random.default_rng(0)
    shape = like.pixels.shape
    if like.pixels.dtype == np.uint8:
        return replace(like, pixels=rng.integers(0, 256, shape, dtype=np.uint8))
    return replace(like, pixels=rng.standard_normal(shape, dtype=np.float32))


def failure_of(path: str | None, error: Exception) -> Failure:
    """Returns the failure of an image that alone raises an error."""
    said = str(error).strip().partition("\n")[0][:300].rstrip(".")
    if not isinstance(error, VisxaiError):
        said = (
            f"expected an image that can be explained, got {type(error).__name__}: {said}; leave "
            "it out, or choose another method"
        )
    return Failure(path, said, type(error).__name__)


def gate_counts(only: object, scores: Sequence[Scores]) -> dict[str, int]:
    """Returns how many images were scored and how many of them explained, of a run with a gate."""
    if only is None:
        return {}
    return {"scored": len(scores), "explained": sum(one.explained for one in scores)}
