"""Scores of texts that are longer than what a model reads at once.

A text is cut into windows at ends of words, and each is scored. Where classes exclude each other
(softmax, or plain scores) a text's score is the mean of its windows', and so is its map. Where each
class is decided by itself (sigmoid) the window with the greatest score speaks: one insult in a long
comment makes the comment insulting. Its words have the map, and all others 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visxai.target import Aim, Settled, Target
from visxai.text.methods.base import TextMethod, Values
from visxai.text.model import Encoded, TextModel


@dataclass(frozen=True)
class TextMap:
    """A map of a text and what is known about it.

    Attributes:
        values: A value for each of its words (n,).
        logit: The scalar that the map explains.
        degenerate: Whether it says nothing: it is flat, or was not finite.
        quality: Its figures, by name.
    """

    values: Values
    logit: float
    degenerate: bool
    quality: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Pooled:
    """Texts and their scores.

    Attributes:
        model: The model.
        encoded: The texts.
        windows: (w, k) the scores of all windows, text after text.
        scores: (b, k) the scores of the texts.
    """

    model: TextModel
    encoded: Sequence[Encoded]
    windows: Tensor
    scores: Tensor

    @classmethod
    def of(cls, model: TextModel, encoded: Sequence[Encoded]) -> Pooled:
        """Score texts."""
        every = [window for one in encoded for window in one.windows]
        scores = model.score_windows(every)
        parts = torch.split(scores, [len(one.windows) for one in encoded])
        most = model.activation == "sigmoid"
        pooled = [part.amax(0) if most else part.mean(0) for part in parts]
        return cls(model, encoded, scores, torch.stack(pooled))

    def part(self, rows: Sequence[int]) -> Pooled:
        """Return some of the texts."""
        parts = torch.split(self.windows, [len(one.windows) for one in self.encoded])
        kept = torch.cat([parts[row] for row in rows])
        index = torch.tensor(list(rows), device=self.scores.device)
        return Pooled(self.model, [self.encoded[row] for row in rows], kept, self.scores[index])

    def aim(self, target: Target) -> Aim:
        """Settle a target on the texts."""
        return target.aim(self.scores, self.model.probabilities(self.scores))

    def reported(self, target: Target) -> Tensor:
        """Return what the model reports for each map of a target, (r,)."""
        aim = self.aim(target)
        if aim.classes is None:
            return aim(self.scores[aim.rows])
        told = self.model.probabilities(self.scores)[aim.rows]
        kind = target.kind if not isinstance(target, Settled) else "class"
        if kind == "any":
            members = told[:, list(target.classes)]
            return members.sum(1) if self.model.activation == "softmax" else members.amax(1)
        return told.gather(1, aim.classes.unsqueeze(1)).squeeze(1)

    def explain(self, method: TextMethod, aim: Aim) -> list[TextMap]:
        """Compute a method's map for each map of an aim."""
        jobs = self._jobs(aim)
        asked = [(j, one.windows[w]) for j, (one, pairs, _) in enumerate(jobs) for w, _ in pairs]
        useful = [(j, window) for j, window in asked if len(window)]
        owner = torch.tensor([j for j, _ in useful], device=self.scores.device)
        maps = None
        if useful:
            with torch.inference_mode(False), torch.no_grad():
                maps = method(
                    self.model,
                    [window for _, window in useful],
                    lambda scores, which: aim(scores, owner[which]),
                )
        found = iter(range(len(useful)))
        made = []
        for one, pairs, logit in jobs:
            values = np.zeros(len(one.spans), np.float64)
            figures: dict[str, list[float]] = {}
            for w, weight in pairs:
                window = one.windows[w]
                if not len(window):
                    continue
                at = next(found)
                assert maps is not None
                values[window.words] += weight * maps.values[at].astype(np.float64)
                for name, figure in maps.quality.items():
                    figures.setdefault(name, []).append(float(figure[at]))
            quality: dict[str, Any] = {name: _mean(known) for name, known in figures.items()}
            if len(one.windows) > 1:
                quality["windows"] = len(one.windows)
                if len(pairs) == 1:
                    quality["window"] = pairs[0][0]
            made.append(TextMap(*_tidy(values, logit), quality))
        return made

    def _jobs(self, aim: Aim) -> list[tuple[Encoded, list[tuple[int, float]], float]]:
        """List for each map its text, its windows with their weights, and its scalar."""
        rows = aim.rows.tolist()
        sizes = [len(one.windows) for one in self.encoded]
        starts = np.cumsum([0, *sizes])
        where = [int(starts[row]) + w for row in rows for w in range(sizes[row])]
        which = [j for j, row in enumerate(rows) for _ in range(sizes[row])]
        device = self.scores.device
        told = aim(
            self.windows[torch.tensor(where, device=device, dtype=torch.long)],
            torch.tensor(which, device=device, dtype=torch.long),
        )
        jobs, at = [], 0
        values = told.double().cpu().tolist()
        for row in rows:
            mine = values[at : at + sizes[row]]
            at += sizes[row]
            if self.model.activation == "sigmoid":
                best = int(np.argmax(mine))
                jobs.append((self.encoded[row], [(best, 1.0)], mine[best]))
            else:
                share = 1 / len(mine)
                pairs = [(w, share) for w in range(len(mine))]
                jobs.append((self.encoded[row], pairs, float(np.mean(mine))))
        return jobs


def _mean(figures: Sequence[float]) -> float | None:
    """Average a figure over windows, None where it has no finite value."""
    known = [figure for figure in figures if np.isfinite(figure)]
    return float(np.mean(known)) if known else None


def _tidy(values: Any, logit: float) -> tuple[Values, float, bool]:
    """Make a map finite float32, and tell whether it says nothing."""
    finite = bool(np.isfinite(values).all())
    kept = values if finite else np.zeros_like(values)
    peak = float(np.abs(kept).max(initial=0.0))
    spread = float(np.ptp(kept)) if len(kept) > 1 else peak
    return kept.astype(np.float32), logit, not finite or spread <= 1e-6 * peak
