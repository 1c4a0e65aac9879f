"""The moderation service: items in, decisions and explanations out, on record, people in charge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visxai._lazy import hand_on

if TYPE_CHECKING:
    from visxai.serve.client import AsyncClient, Client, ServiceError
    from visxai.serve.config import Config
    from visxai.serve.jobs import Job
    from visxai.serve.queue import Queue
    from visxai.serve.service import Service

__all__ = ["AsyncClient", "Client", "Config", "Job", "Queue", "Service", "ServiceError"]

__getattr__, __dir__ = hand_on(
    __name__,
    {
        "AsyncClient": "client",
        "Client": "client",
        "Config": "config",
        "Job": "jobs",
        "Queue": "queue",
        "Service": "service",
        "ServiceError": "client",
    },
)
