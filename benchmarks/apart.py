"""Contestants in processes of their own: each as its users would run it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

Work = Callable[[], Any]


class Apart:
    """Contestants in a process each, so that none runs on what another left in the allocator or
    has its threads beside another's; for use with `contest`.

        with Apart({"a": make_a, "b": make_b}) as apart:
            maps = apart.result("a"), apart.result("b")
            seconds = contest(apart.works, device="cpu")

    makers: picklable; each is called in its process and returns the work. setup: called first.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Work]], setup: Work | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: dict[str, Connection] = {}
        self._processes = []
        for name, make in makers.items():
            self._pipes[name], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, setup), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)

    def __enter__(self) -> Apart:
        for name in self._pipes:
            self._answer(name)  # made
        return self

    @property
    def works(self) -> dict[str, Work]:
        return {name: partial(self._ask, name, "run") for name in self._pipes}

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        for process in self._processes:
            process.join()

    def result(self, name: str) -> Any:
        """What the work of `name` returns, a tensor as an array."""
        return self._ask(name, "result")

    def _ask(self, name: str, what: str) -> Any:
        self._pipes[name].send(what)
        return self._answer(name)

    def _answer(self, name: str) -> Any:
        answer = self._pipes[name].recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, make: Callable[[], Work], setup: Work | None) -> None:
    """A contestant's process: make the work, then run it whenever asked."""
    try:
        if setup is not None:
            setup()
        work = make()
        pipe.send(None)
        while True:
            asked = pipe.recv()
            found = work()
            answer = found.numpy(force=True) if isinstance(found, torch.Tensor) else found
            pipe.send(answer if asked == "result" else None)
    except EOFError:
        pass  # the contest is over
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
