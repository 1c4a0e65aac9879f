"""Logs the explanation of each prediction, for any predict function.

    with govern.logged(engine, "sqlite:///visxai.db", share=0.1) as log:

        @log
        def predict(image): ...             its answers are handed on as they are

        predict("cat.jpg")                  an input, or a list of inputs
        log.explain(["dog.jpg"], metadata=[{"site": "north"}])

Anything with `explain(inputs, …)` that returns explanations serves as the engine: images, texts and
tables alike. Of the calls, a share chosen at random is explained; all are counted, so that a log
says how much of what a model judged it covers.
"""

from __future__ import annotations

import functools
import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from visxai.errors import ArgumentError, VisxaiError
from visxai.govern.log import Item, Log
from visxai.govern.observations import measured_input
from visxai.ledger.database import Database
from visxai.ledger.envelope import Envelope
from visxai.ledger.ledger import Ledger
from visxai.record.base import Explanation

_LOGGER = logging.getLogger("visxai.govern")
P = ParamSpec("P")
R = TypeVar("R")


class Explains(Protocol):
    """What explains inputs: an engine of any kind."""

    def explain(self, inputs: Any, /, *args: Any, **options: Any) -> Sequence[Any]:
        """Explain inputs, in their order."""


class Logged:
    """A log that explains what it is given; see the module's docstring.

    Attributes:
        log: The log underneath.
        share: The share of calls that are explained.
    """

    def __init__(
        self,
        engine: Explains,
        log: Log,
        share: float,
        seed: int | None,
        tenant: str,
        options: Mapping[str, Any],
    ) -> None:
        if not 0 < share <= 1:
            raise ArgumentError(
                expected="a share above 0, at most 1",
                got=str(share),
                remedy="share=0.1 explains one call in ten",
                field="share",
            )
        self.log, self.share = log, share
        self._engine, self._tenant, self._options = engine, tenant, dict(options)
        self._random = random.Random(seed)
        self._skipped = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Count what wasn't explained since, and close the database if it was opened here."""
        if self._skipped and (known := self.log.models(self._tenant)):
            self.log.count_unexplained(known[0].id, self._skipped, self._tenant)
            self._skipped = 0
        self.log.close()

    def __call__(self, predict: Callable[P, R]) -> Callable[P, R]:
        """Wrap a predict function whose first argument is an input, or a list of inputs.

        Its answers stay as they are, and come too where an explanation fails: that is told in the
        process's log, and the log counts the inputs as not explained.

        Args:
            predict: The function.
        """

        @functools.wraps(predict)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            answer = predict(*args, **kwargs)
            given = args[0] if args else next(iter(kwargs.values()))
            inputs = given if isinstance(given, list) else [given]
            try:
                self.explain(inputs)
            except VisxaiError as error:
                _LOGGER.error("a prediction could not be explained: %s", error)
            return answer

        return wrapped

    def explain(
        self,
        inputs: Sequence[Any],
        *,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        truth: Sequence[str | None] | None = None,
    ) -> list[Explanation]:
        """Explain the sampled share of inputs and put the explanations on record.

        Args:
            inputs: The inputs.
            metadata: What is known of each, such as groups.
            truth: The class of each that is known to be right.

        Returns:
            The explanations of the inputs that were sampled.

        Raises:
            ArgumentError: There aren't as many metadata or classes as inputs.
            VisxaiError: What the engine raises.
        """
        for name, column in (("metadata", metadata), ("truth", truth)):
            if column is not None and len(column) != len(inputs):
                raise ArgumentError(
                    expected=f"{len(inputs)} in {name}",
                    got=str(len(column)),
                    remedy="pass one an input",
                    field=name,
                )
        chosen = [at for at in range(len(inputs)) if self._random.random() < self.share]
        self._skipped += len(inputs) - len(chosen)
        if not chosen:
            return []
        self._skipped += len(chosen)  # until they are explained
        found = list(self._engine.explain([inputs[at] for at in chosen], **self._options))
        if len(found) != len(chosen) or not all(isinstance(one, Explanation) for one in found):
            raise ArgumentError(
                expected=f"an explanation for each of {len(chosen)} inputs",
                got=f"{len(found)} results",
                remedy="ask for one method and one class",
                field="engine",
            )
        items = []
        for at, explanation in zip(chosen, found, strict=True):
            told = dict(metadata[at]) if metadata is not None else {}
            if self.share < 1:
                told["sampled_share"] = self.share
            envelope = Envelope(
                tenant=self._tenant,
                content_sha256=explanation.input.source_sha256,
                metadata=told,
                truth=None if truth is None else truth[at],
            )
            items.append(Item(explanation, envelope, measured_input(explanation)))
        self.log.add(items, seen=self._skipped, actor="govern.logged")
        self._skipped = 0
        return found


def logged(
    engine: Explains,
    store: Log | Ledger | Database | str | os.PathLike[str],
    *,
    share: float = 1.0,
    seed: int | None = None,
    tenant: str = "default",
    **options: Any,
) -> Logged:
    """Log the explanation of each prediction, or of a share of them.

    Args:
        engine: What explains: `visxai.Engine`, `visxai.text.Engine` and the like.
        store: A log, a ledger, or a database's address.
        share: The share of calls that are explained, above 0, at most 1; it is recorded.
        seed: The seed of the sampling; None takes another each time.
        tenant: Whose items they are.
        **options: For the engine's `explain`, such as `method` and `target`.

    Returns:
        A context, a decorator, and an object with `explain`.

    Raises:
        ArgumentError: The share is out of range.
        StoreError: The database can't be reached.
    """
    log = store if isinstance(store, Log) else Log(store)
    return Logged(engine, log, share, seed, tenant, options)
