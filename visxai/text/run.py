"""A run over the texts of tables into a folder of results, which goes on where it was stopped.

The folder is laid out like that of a run over images (`visxai.results.reading`), without pictures:
`visxai report` and `visxai export --to csv` read it, and so does `visxai.results.read`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import IO, Any

from visxai.engine.gate import Gate
from visxai.errors import ArgumentError, TargetError
from visxai.labels import label_of
from visxai.pipeline.batch import gate_counts
from visxai.pipeline.items import Answer, ItemRun
from visxai.pipeline.progress import Outcome, Progress
from visxai.pipeline.request import expected
from visxai.results.inputs import Input
from visxai.results.rows import row_of, schema_of, text
from visxai.results.store import Store
from visxai.target import Target
from visxai.text import judging
from visxai.text import sources as found_in
from visxai.text.batch import ExplainedText
from visxai.text.engine import Engine, Methods
from visxai.text.methods.base import TextMethod

_CHUNK = 64  # texts that are finished together


def explain(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    engine: Engine,
    method: Methods = "integrated_gradients",
    target: Any = "top1",
    *,
    only: str | Gate | None = None,
    check: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    chunk_size: int | None = None,
    fresh: bool = False,
    retry_failures: bool = False,
    command: str = "",
    stream: IO[bytes] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explain the texts of tables into the folder OUT.

    The run continues an earlier run of the same settings in OUT. Texts that can't be explained are
    listed in OUT's failures and don't end the run.

    Args:
        sources: Tables (.csv, .parquet), lines of JSON (.jsonl), and "-" for standard input.
        out: The folder OUT for the results.
        engine: The engine that explains.
        method: One method or several.
        target: A target that can be written as text, such as "top1" or "class=toxic".
        only: A condition on scores; texts that don't meet it have no row. For tables with labels
            also "wrong" or "right".
        check: "faithfulness" keeps in each row's quality whether the order of the words beats
            random orders (`visxai.text.judging`); None doesn't.
        text_column: The column of texts; None finds it by its usual names.
        label_column: The column of labels; None finds it by its usual names, "none" leaves labels
            out.
        chunk_size: Texts that are finished together; None is 64.
        fresh: Delete the results of an earlier run in OUT first.
        retry_failures: Compute again the chunks in which an earlier run had failures.
        command: The command line to keep in OUT's run.json.
        stream: Standard input, for "-"; None is the process's.
        progress: Called at the start and after each chunk.
        stop: Called before each chunk; if it returns True the run ends, and OUT keeps what is
            finished.

    Returns:
        The outcome of the run.

    Raises:
        VisxaiError: An argument is wrong or OUT can't be written; finished texts stay finished.
    """
    loaded = engine.methods(method)
    aimed = Target.of(target, engine.model.labels)
    gate = None if only is None else Gate.of(only, engine.model.labels)
    if aimed.kind in ("index", "callable"):
        raise TargetError(
            f"expected a target that can be written down, got {target!r}: use top1, class=toxic or "
            "above=0.5"
        )
    if check not in (None, judging.CHECK):
        raise ArgumentError(
            expected=f"the check {judging.CHECK} of texts",
            got=repr(check),
            remedy="judge methods by other figures with visxai evaluate",
            field="check",
        )
    if check is not None and aimed.kind in ("any", "diff"):
        raise ArgumentError(
            expected=f"a target of one class a map with the check {check}",
            got=str(aimed),
            remedy="use top1, class=toxic or above=0.5",
            field="target",
        )
    given = found_in.read(
        sources, text_column, label_column, sys.stdin.buffer if stream is None else stream
    )
    listed = list(given.found)
    named = label_column is not None and label_column.casefold() != "none"
    if named or (gate is not None and gate.right is not None):
        listed = expected(listed, engine.model.labels, label_column)
        if all(one.expected is None for one in listed):
            raise ArgumentError(
                f"expected texts with labels to tell what is {gate}, got none: give a table with a "
                "label column"
            )
    settings = settings_of(engine, loaded, aimed, gate, chunk_size or _CHUNK)
    if check is not None:
        settings["check"] = check
    with Store(
        out,
        settings,
        command=command,
        fresh=fresh,
        retry=retry_failures,
        schema=schema_of("text"),
    ) as store:
        _, changed = store.add(listed)
        run = _Run(store, engine, loaded, aimed, gate, given.texts, check is not None)
        return run.tally.ended(run.all(progress, stop), changed)


def settings_of(
    engine: Engine,
    loaded: Sequence[TextMethod],
    target: Target,
    gate: Gate | None,
    chunk: int,
) -> dict[str, Any]:
    """Collect the settings that all runs into one OUT must share."""
    model = engine.model
    named = hashlib.sha256("\n".join(model.labels or ()).encode("utf-8", "backslashreplace"))
    return {
        "kind": "text",
        "model": model.ref.name,
        "weights": model.ref.weights_sha256,
        "preprocess": model.ref.preprocess,
        "activation": str(model.activation),
        "labels": f"{len(model.labels or ())} ({named.hexdigest()[:12]})",
        "methods": [repr(one) for one in loaded],
        "target": str(target),
        "only": None if gate is None else str(gate),
        "device": engine.device.type,
        "precision": "fp32",
        "chunk": chunk,
        "overlays": None,
    }


class _Run(ItemRun):
    """A run over texts."""

    noun = "text"

    def __init__(
        self,
        store: Store,
        engine: Engine,
        loaded: Sequence[TextMethod],
        target: Target,
        gate: Gate | None,
        texts: dict[str, str],
        check: bool,
    ) -> None:
        super().__init__(store)
        self.engine, self.texts, self.check = engine, texts, check
        self.asked = loaded, target, gate

    def holds(self, one: Input) -> bool:
        return one.path in self.texts

    def control(self) -> None:
        loaded, target, _ = self.asked
        self.engine.explain_batch(["a text"], loaded, target, None, ["-"], [None])

    def counts(self, answers: Sequence[Answer]) -> dict[str, int]:
        gated = gate_counts(self.asked[2], [one.scores for one in answers])
        return gated | super().counts(answers)

    def batch(self, inputs: Sequence[Input]) -> list[Answer]:
        model, answers = self.engine.model, []
        for one, result in zip(inputs, self._explained_texts(inputs), strict=True):
            label = right = None
            if one.expected is not None:
                label = label_of(model.labels, one.expected)
                if model.activation != "sigmoid":
                    right = result.best == one.expected
            rows = [row_of(made, None, label) for made in result.explanations]
            answers.append(Answer(rows, replace(result.scores, path=text(one.path)), right))
        return answers

    def _explained_texts(self, inputs: Sequence[Input]) -> list[ExplainedText]:
        """Explain texts, and check the explanations where that is asked for."""
        found = self.engine.explain_batch(
            [self.texts[one.path] for one in inputs],
            *self.asked,
            [one.path for one in inputs],
            [one.expected for one in inputs],
        )
        if not self.check:
            return found
        made = [each for one in found for each in one.explanations]
        checked = iter(
            replace(each, quality={**each.quality, **figures})
            for each, figures in zip(made, judging.check(self.engine.model, made), strict=True)
        )
        return [
            replace(one, explanations=tuple(next(checked) for _ in one.explanations))
            for one in found
        ]
