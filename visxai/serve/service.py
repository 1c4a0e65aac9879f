"""The service without HTTP: what holds the model, the database, the queue and the decoders."""

from __future__ import annotations

import json
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from visxai.errors import Failure
from visxai.ledger import Database, Envelope, Ledger, Signer, audit, explanations
from visxai.ledger.audit import Event
from visxai.ledger.canonical import canonical, sha256, timestamp
from visxai.pipeline.tasks import Setup
from visxai.pipeline.workers import Workers
from visxai.process import keep_memory
from visxai.record.columns import SCHEMA_VERSION
from visxai.serve import reuse
from visxai.serve.batching import Batcher
from visxai.serve.blobs import Blobs
from visxai.serve.config import Config
from visxai.serve.database import prepare
from visxai.serve.errors import Conflict
from visxai.serve.examine import Examined, draw, examine, origin
from visxai.serve.image_with_text import Post
from visxai.serve.jobs import Job
from visxai.serve.keys import Known
from visxai.serve.kinds import Kinds
from visxai.serve.queue import Queue
from visxai.serve.waiting import Ends

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.engine.engine import Engine
    from visxai.images.prepared import Prepared
    from visxai.moderation import Decision
    from visxai.record.image import ImageExplanation

DAY = 86400.0
_RECENT = 384  # decoded items (150 kB each at 224 pixels) that are kept for their explanations

_MANY = 10**6  # images of a service's life, as far as preparing for them goes
_FLIGHTS = 512  # computations whose results stay, until their items are certain to be on record

T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """Where the service keeps things.

    Attributes:
        database: The database's address.
        blobs: The folder or URL of items' bytes.
        key: The file of the key that signs checkpoints.
    """

    database: str
    blobs: str
    key: str

    @classmethod
    def below(
        cls, folder: str | Path, database: str | None = None, blobs: str | None = None
    ) -> Places:
        """Choose places below a folder where none are named; the folder is made."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            database or f"sqlite:///{folder / 'visxai.db'}",
            blobs or str(folder / "items"),
            str(folder / "visxai.key"),
        )


class Service:
    """What the API and the workers share; it may be used from several threads at once.

    Args:
        config: The settings.
        places: Where things are kept.
        engine: The engine; None loads the model that the settings name.

    Raises:
        VisxaiError: The settings don't fit the model, or a place can't be used.
    """

    def __init__(self, config: Config, places: Places, *, engine: Engine | None = None) -> None:
        from visxai.engine.engine import Engine
        from visxai.moderation import Moderator

        self.config, self.places = config, places
        # Decisions and fast explanations take turns in one thread, which loads the model as well:
        # OpenMP keeps threads for each thread that computes, and more than there are cores get
        # into each other's way, so that a second thread's forward takes twice as long.
        keep_memory()  # before the thread has an arena of its own
        self.compute = ThreadPoolExecutor(1, "visxai-compute")
        told = config.model.model_dump()
        self.engine = (
            engine
            or self.compute.submit(
                Engine, told.pop("name"), **told, batch_size=config.limits.batch
            ).result()
        )
        # A service runs long: what is faster is prepared before its first item.
        self.compute.submit(self.engine.plan, config.tiers.fast.method, _MANY).result()
        self.moderator = Moderator(self.engine, config.rules(), config.tiers.fast.method)
        self.kinds = Kinds(config, self.moderator, self.compute)
        self.database = Database(places.database, pool=16)
        prepare(self.database)
        self.ledger = Ledger(
            self.database,
            signer=Signer.open(places.key),
            every=config.retention.checkpoint_every,
        )
        self.blobs = Blobs(places.blobs)
        tiers = config.tiers
        self.queue = Queue(
            self.database,
            config.queue.lease,
            {"fast": tiers.fast.queue, "precise": tiers.precise.queue},
        )
        limits = config.limits
        assert self.engine.model.preprocess is not None
        from visxai.images.decoding import Limits

        self._decoders = Workers(
            Setup(
                self.engine.model.preprocess,
                Limits(max_bytes=limits.max_bytes, max_pixels=limits.max_pixels),
                style=None,
                cache=0,
                timeout=limits.seconds,
            ),
            limits.decoders,
        )
        batching = limits.batch, limits.wait_ms / 1000, self.compute
        self.batcher: Batcher[Prepared, Decision] = Batcher(self.moderator.decide, *batching)
        self._recent: OrderedDict[str, Examined] = OrderedDict()
        self._flights: OrderedDict[str, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()
        # By lane: set when this process put down a job.
        self.wake = {lane: threading.Event() for lane in ("fast", "precise")}
        self.ends = Ends()
        self.known = Known()  # keys that were right a moment ago

    def close(self) -> None:
        """Stop the decoders and close the database."""
        self.compute.shutdown()
        self._decoders.close()
        self.blobs.close()
        self.database.close()

    # ---- bytes ---------------------------------------------------------------------------------

    def examine(
        self, content: str, data: bytes, *, whole: bool = False, kind: str = "image"
    ) -> Examined | Failure:
        """Decode an item in a worker process; see `visxai.serve.examine.examine`.

        Args:
            content: The SHA-256 of its bytes.
            data: Its bytes.
            whole: Whether the upright image is wanted as well.
            kind: "image", or "post" for one with a text.
        """
        if kind == "post":
            return self._examine_post(Post.read(data), whole)
        hashed = self.config.cache.similar and not whole
        task = self._decoders.submit(examine, origin(content, data), whole, hashed)
        found: Examined | Failure = self._decoders.result(task)
        return found

    def _examine_post(self, post: Post, whole: bool) -> Examined | Failure:
        source, preprocess = origin(sha256(post.image), post.image), self.kinds.post().preprocess
        task = self._decoders.submit(examine, source, whole, False, preprocess)
        found: Examined | Failure = self._decoders.result(task)
        if isinstance(found, Failure):
            return found
        # What is the same to the models shares an explanation: equal pixels with equal words.
        both = sha256(canonical([found.pixel_sha256, post.text]))
        return replace(found, pixel_sha256=both, text=post.text)

    def keep(self, content: str, found: Examined) -> None:
        """Keep a decoded item for the explanation that follows."""
        with self._lock:
            self._recent[content] = found
            while len(self._recent) > _RECENT:
                self._recent.popitem(last=False)

    def examined(self, content: str) -> Examined | None:
        """Take an item that this process kept a moment ago, None where it is forgotten."""
        with self._lock:
            return self._recent.pop(content, None)

    def once(self, key: str, run: Callable[[], T]) -> T:
        """Run something for several threads that want the same at the same time.

        Args:
            key: What they want.
            run: Computes it; the first of them does.

        Raises:
            Exception: What the run raised, for all of them.
        """
        with self._lock:
            flight = self._flights.get(key)
            if first := flight is None:
                flight = self._flights[key] = Future()
                while len(self._flights) > _FLIGHTS:  # of those that have ended, the latest stay
                    self._flights.popitem(last=False)
        assert flight is not None
        if first:
            try:
                flight.set_result(run())
            except BaseException as error:
                flight.set_exception(error)
            if flight.exception() is not None or not self.config.cache.exact:
                with self._lock:
                    self._flights.pop(key, None)
        found: T = flight.result()
        return found

    def forget(self) -> None:
        """Forget what this process remembers of items, as one of them is erased."""
        with self._lock:
            self._recent.clear()
            self._flights.clear()

    def draw(
        self, blob: str, explanation: ImageExplanation | None, side: int, kind: str = "image"
    ) -> bytes:
        """Draw an item's image for a page in a worker process.

        Args:
            blob: The name of the item's bytes.
            explanation: The explanation whose map lies over it, None for the photograph alone.
            side: The most pixels of the longer side.
            kind: "image", or "post" for one with a text.

        Raises:
            StoreError: Its bytes are gone.
            Conflict: They can't be drawn.
        """
        data = self.blobs.get(blob)
        if kind == "post":
            data = Post.read(data).image
        task = self._decoders.submit(draw, origin(sha256(data), data), explanation, side)
        found = self._decoders.result(task)
        if isinstance(found, Failure):
            raise Conflict(found.reason)
        return bytes(found)

    # ---- explanations ----------------------------------------------------------------------------

    def job(
        self,
        tenant: str,
        tier: str,
        pixel_sha256: str,
        target: str,
        spec: Mapping[str, Any],
        method: str | None = None,
    ) -> Job:
        """Make the job of an explanation.

        Args:
            tenant: Whose it is.
            tier: "fast" or "precise".
            pixel_sha256: The item's pixels.
            target: What to explain.
            spec: The envelope's fields, and the item's blob.
            method: The method; None is the tier's.
        """
        kind = str(spec.get("kind", "image"))
        method = method or self.kinds.method_of(kind, tier)
        key = self.kinds.key_of(kind)
        what = [key, tier, method, target, SCHEMA_VERSION]
        checks = canonical(self.config.tiers.precise.model_dump()) if tier == "precise" else ""
        return Job(
            "",
            tenant,
            tier,
            key,
            sha256(canonical(what)),
            sha256(canonical([*what, checks, tenant, pixel_sha256])),
            {**spec, "target": target, "method": method},
        )

    def enqueue(
        self, connection: Connection, job: Job, now: float, more: Sequence[Event] = ()
    ) -> Job:
        """Put a job into the queue, or answer it from the cache.

        Args:
            connection: A connection in a writing transaction.
            job: The job.
            now: The present time.
            more: What else happened, for the audit chain.

        Raises:
            Busy: The lane is full.
        """
        job = replace(job, id=job.id or uuid.uuid4().hex)
        reused: list[reuse.Reused] = []

        def known() -> bool:
            found = reuse.find(connection, job, self.config.cache)
            reused.extend([found] if found else [])
            return found is not None

        made = self.queue.submit(connection, job, now, known)
        if made is not None:
            if more:
                audit.extend(connection, timestamp(now), more)
            return made
        envelope = self.envelope(job, now, reused[0].cache, None, reused[0].confidence)
        made = self.queue.put_done(connection, job, now)
        self.record(connection, [(made, reused[0].record, envelope)], now, more)
        if not reused[0].equal:
            reuse.remember(connection, [made], now, computed=False)
        return made

    def envelope(
        self,
        job: Job,
        now: float,
        cache: Mapping[str, Any],
        timings: Mapping[str, float] | None = None,
        confidence: Mapping[str, Any] | None = None,
    ) -> Envelope:
        """Make the envelope of a job's explanation."""
        spec = job.spec
        names = (
            "item_id",
            "decision_id",
            "supersedes",
            "content_sha256",
            "pixel_sha256",
            "policy",
            "threshold",
            "decision",
        )
        return Envelope(
            tenant=job.tenant,
            tier=job.lane,
            cache=cache,
            timings={**spec.get("timings", {}), **(timings or {})},
            confidence=dict(confidence or {}),
            metadata=spec.get("metadata") or {},
            retain_until=timestamp(now + self.config.retention.days * DAY),
            **{name: spec.get(name) for name in names},
        )

    def record(
        self,
        connection: Connection,
        ended: Sequence[tuple[Job, Mapping[str, Any], Envelope]],
        now: float,
        more: Sequence[Event] = (),
    ) -> None:
        """Put jobs' explanations on record, in the transaction that ends the jobs.

        Args:
            connection: A connection in a writing transaction.
            ended: The jobs with their records and envelopes.
            now: The present time.
            more: What else happened, for the audit chain.
        """
        explanations.add_all(
            connection,
            timestamp(now),
            [(record, envelope) for _, record, envelope in ended],
            actor=[str(job.spec.get("actor", "system")) for job, _, _ in ended],
            ids=[job.id for job, _, _ in ended],
            more=more,
        )


def plain(text: str | None) -> Any:
    """Read a column of JSON; None gives an empty object."""
    return json.loads(text) if text else {}
