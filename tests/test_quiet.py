"""Warnings silenced in one thread and nowhere else."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import visxai
from visxai.quiet import warnings_of


def test_only_what_is_meant_is_silenced() -> None:
    with pytest.warns(UserWarning, match="outside"):
        warnings.warn("outside", stacklevel=1)
    with warnings_of():
        warnings.warn("inside", stacklevel=1)
    with warnings_of(r"PIL\b"), pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    with warnings_of(action="error"), pytest.raises(UserWarning, match="raised"):
        warnings.warn("raised", stacklevel=1)


def test_other_threads_are_still_warned() -> None:
    inside, over = threading.Event(), threading.Event()

    def silent() -> None:
        with warnings_of():
            inside.set()
            over.wait(60)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(silent)
        assert inside.wait(60)
        with pytest.warns(UserWarning, match="heard"):
            warnings.warn("heard", stacklevel=1)
        over.set()
        waiting.result()


def test_blocks_that_overlap_leave_nothing() -> None:
    before = list(warnings.filters)
    first, second = warnings_of(), warnings_of(action="error")
    first.__enter__()
    with warnings.catch_warnings():  # somebody else's, which puts a copy in the list's place
        second.__enter__()
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert warnings.filters == before


def test_threads_of_ours_leave_the_filters_as_they_were(tmp_path, engine: visxai.Engine) -> None:
    before = list(warnings.filters)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.tif")

    def decode(_: int) -> None:
        for _ in range(50):
            visxai.images.decoding.decode(tmp_path / "a.tif")

    def attribute(_: int) -> None:
        engine.explain(tmp_path / "a.tif", method="captum:Saliency")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: (decode, attribute)[index % 2](index), range(8)))
    assert warnings.filters == before
