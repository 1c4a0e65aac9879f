"""Metrics over grids of confidently classified images, judged once all images are known.

Grids are drawn from the images' own bytes and a seed, so they are the same for every method and
for any order of the images. Results are stored in OUT/grids.json, method by method.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from visxai.errors import ArgumentError, ModelError
from visxai.files import one_sentence, write
from visxai.images.prepared import Prepared
from visxai.methods.base import Method
from visxai.metrics.base import Case, Metric
from visxai.pipeline.tasks import decode
from visxai.pipeline.workers import Workers
from visxai.results.reading import tables
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.engine.engine import Engine

_MOST = 400  # the most images that grids are drawn from


class Grids:
    """Figures of metrics over grids.

    Attributes:
        found: For each metric and method, by their specs, a list with a figure for each grid, or a
            sentence that says why there are none.
    """

    def __init__(
        self, engine: Engine, methods: Sequence[Method], metrics: Sequence[Metric], pool: Workers
    ) -> None:
        self.engine, self.methods, self.metrics = engine, methods, metrics
        self.workers = pool
        self.found: dict[str, dict[str, list[float] | str]] = {}

    def judge(
        self, out: Path, settings: Mapping[str, Any], stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Compute the figures that OUT doesn't hold yet, and store them there.

        Args:
            out: The folder of the evaluation.
            settings: The settings of the run; figures of other settings are computed anew.
            stop: A function that is called before each method; True ends the run.

        Returns:
            False when stopped before the end.
        """
        pool, digests = self.pool(out)
        key = hashlib.sha256(json.dumps([digests, settings]).encode()).hexdigest()
        kept = self._kept(out, key)
        for metric in self.metrics:
            known = self.found.setdefault(repr(metric), {})
            for method in self.methods:
                earlier = kept.get(repr(metric), {}).get(repr(method))
                if earlier is None and stop():
                    return False
                known[repr(method)] = earlier or self.figures(metric, method, pool)
                told = json.dumps({"pool": key, "images": len(digests), "found": self.found})
                with one_sentence(f"to write below {out}", "make room there"):
                    write(out / "grids.json", told)
        return True

    def figures(
        self, metric: Metric, method: Method, pool: torch.Tensor | None
    ) -> list[float] | str:
        """Compute a figure for each grid, or return a sentence that says why there are none."""
        if pool is None:
            return "expected images that the model is sure of, got none"
        try:
            case = Case(self.engine.model, pool, Target.of("top1"), method=method)
            return [round(value, 6) for value in metric(case).values.tolist()]
        except (ArgumentError, ModelError) as error:
            return str(error)

    def pool(self, out: Path) -> tuple[torch.Tensor | None, list[str]]:
        """Collect the images that grids are drawn from, in the order of their sha256.

        Args:
            out: The folder of the evaluation, whose rows name the images.

        Returns:
            At most 400 images (b, 3, h, w) that the model is sure enough of for some metric, or
            None without any, and the sha256 of each.
        """
        paths: dict[str, str] = {}
        for table in tables(out, ["source_sha256", "path"]):
            paths.update({row["source_sha256"]: row["path"] for row in table.to_pylist()})
        sure = min(getattr(metric, "sure", 0.0) for metric in self.metrics)
        kept: list[torch.Tensor] = []
        digests: list[str] = []
        names = sorted(paths)
        for start in range(0, len(names), self.engine.batch_size):
            batch = names[start : start + self.engine.batch_size]
            tasks = [self.workers.submit(decode, paths[name]) for name in batch]
            decoded = [self.workers.result(task) for task in tasks]
            # An image that is gone or has changed is left out.
            there = [
                (name, one)
                for name, one in zip(batch, decoded, strict=True)
                if isinstance(one, Prepared) and one.input.source_sha256 == name
            ]
            if not there:
                continue
            x = self.engine.tensor([one.pixels for _, one in there])
            model = self.engine.model
            certainty = model.probabilities(model.scores(x)).amax(1)
            for index in (certainty >= sure).nonzero().flatten().tolist():
                kept.append(x[index])
                digests.append(there[index][0])
            if len(kept) >= _MOST:
                break
        return (torch.stack(kept[:_MOST]) if kept else None), digests[:_MOST]

    def _kept(self, out: Path, key: str) -> dict[str, dict[str, Any]]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told = json.loads((out / "grids.json").read_text("utf-8"))
            if told["pool"] == key:
                return dict(told["found"])
        return {}
