"""A run over tables of images with texts into a folder of results, which goes on where it stopped.

posts.csv, posts.parquet     a column of paths of images, relative to the table, and one of texts

The folder is laid out like that of a run over images (`visxai.results.reading`), without pictures:
`visxai report`, `visxai export --to csv` and `visxai.results.read` read it. A pair's address is its
table and its row from 1, "/data/posts.csv#row=12".
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from visxai.errors import ArgumentError, ImageError
from visxai.foreign import shown
from visxai.fused.engine import METHOD, Engine
from visxai.images import tables
from visxai.images.address import Origin, local, remote
from visxai.images.sources import Found
from visxai.pipeline.items import Answer, ItemRun
from visxai.pipeline.progress import Outcome, Progress
from visxai.record.scores import Scores
from visxai.results.inputs import Input
from visxai.results.rows import row_of, schema_of, text
from visxai.results.store import Store

_CHUNK = 16  # pairs that are finished together
_MOST = 2**31  # bytes of a table


def explain(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    engine: Engine,
    *,
    path_column: str | None = None,
    text_column: str | None = None,
    chunk_size: int | None = None,
    fresh: bool = False,
    retry_failures: bool = False,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explain the images and texts of tables into the folder OUT.

    The run continues an earlier run of the same settings in OUT. Pairs that can't be explained,
    such as rows without an image, are listed in OUT's failures and don't end the run.

    Args:
        sources: Tables (.csv, .parquet).
        out: The folder OUT for the results.
        engine: The engine that explains.
        path_column: The column of the images' paths; None finds it by its usual names.
        text_column: The column of texts; None finds it by its usual names.
        chunk_size: Pairs that are finished together; None is 16.
        fresh: Delete the results of an earlier run in OUT first.
        retry_failures: Compute again the chunks in which an earlier run had failures.
        command: The command line to keep in OUT's run.json.
        progress: Called at the start and after each chunk.
        stop: Called before each chunk; if it returns True the run ends, and OUT keeps what is
            finished.

    Returns:
        The outcome of the run.

    Raises:
        VisxaiError: An argument is wrong or OUT can't be written; finished pairs stay finished.
    """
    held: dict[str, tuple[str, str]] = {}
    listed: list[Found] = []
    for source in sources:
        for found, pair in _pairs(os.path.abspath(source), path_column, text_column):
            if found.path not in held:
                listed.append(found)
                held[found.path] = pair
    if not listed:
        names = ", ".join(shown(os.fspath(one)) for one in sources)[:200]
        raise ArgumentError(f"expected rows in {names}, got none: check the tables")
    with Store(
        out,
        _settings(engine, chunk_size or _CHUNK),
        command=command,
        fresh=fresh,
        retry=retry_failures,
        schema=schema_of("pair"),
    ) as store:
        _, changed = store.add(listed)
        run = _Run(store, engine, held)
        return run.tally.ended(run.all(progress, stop), changed)


def _pairs(
    path: str, path_column: str | None, text_column: str | None
) -> list[tuple[Found, tuple[str, str]]]:
    """Read a table's rows: each as the store lists it, with its image's address and its text."""
    if not path.lower().endswith(tables.ENDINGS):
        raise ArgumentError(
            f"expected a table of images and texts ({', '.join(tables.ENDINGS)}), got "
            f"{shown(path)}: write a row a pair"
        )
    table = tables.read(path, Origin(path, path).read(_MOST))
    images, root = table.paths(path_column), os.path.dirname(path)
    words = table.texts(text_column)
    made = []
    for row, (image, said) in enumerate(zip(images, words, strict=True), 1):
        if image and not remote(image):
            image = os.path.abspath(os.path.join(root, local(image)))
        # In place of a file's size and time: a pair that has changed is noticed.
        data = f"{image}\n{said}".encode("utf-8", "surrogatepass")
        stamp = (len(data), zlib.crc32(data))
        made.append((Found(f"{path}#row={row}", root, stamp=stamp), (image, said)))
    return made


def _settings(engine: Engine, chunk: int) -> dict[str, Any]:
    """Collect the settings that all runs into one OUT must share."""
    ref, card = engine.ref, engine.card
    return {
        "kind": "pair",
        "model": ref.name,
        "weights": ref.weights_sha256,
        "preprocess": ref.preprocess,
        "methods": [METHOD, card.image.method, card.text.method],
        "target": f"{card.image.target} {card.rule} {card.text.target}",
        "label": card.label,
        "device": engine.image.device.type,
        "precision": engine.image.precision,
        "chunk": chunk,
        "overlays": None,
    }


class _Run(ItemRun):
    """A run over pairs."""

    noun = "pair"

    def __init__(self, store: Store, engine: Engine, held: dict[str, tuple[str, str]]) -> None:
        super().__init__(store)
        self.engine, self.held = engine, held

    def holds(self, one: Input) -> bool:
        return one.path in self.held

    def batch(self, inputs: Sequence[Input]) -> list[Answer]:
        pairs = [self.held[one.path] for one in inputs]
        for image, _ in pairs:
            if os.path.isdir(image):
                raise ImageError(f"expected an image, got the folder {shown(image)}: name a file")
            if not image:
                raise ArgumentError(
                    "expected an image and a text, got a row without an image: explain texts "
                    "alone by the text model"
                )
        made = self.engine.explain(pairs, paths=[one.path for one in inputs])
        return [
            Answer(
                [row_of(found, None)],
                Scores(text(one.path), (0,), (found.label,), (found.score,)),
            )
            for one, found in zip(inputs, made, strict=True)
        ]
