"""Connections to Ray: to a cluster that requires a token, or to a private Ray on this machine.

A Ray that visxai starts listens on loopback addresses only, requires a token of its own, and
contacts nothing outside the machine.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from visxai.errors import ArgumentError, VisxaiError, require
from visxai.foreign import shown


@contextlib.contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[Any]:
    """Connect to Ray while the context lasts; an earlier connection of this process stays.

    Args:
        address: The address of a running cluster, "auto" or HOST:PORT, whose token is configured;
            None is the cluster that this process is connected to, or else a new Ray on this
            machine until the context is left.
        cpus: The cores of such a local Ray, None for all.

    Yields:
        The module `ray`.

    Raises:
        ArgumentError: If the address is malformed, its token is missing, or this process is
            already connected.
        VisxaiError: If Ray doesn't start or answer.
    """
    if address is not None:
        _check_address(address)
    ray: Any = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        if address is not None:
            raise ArgumentError(
                f"expected no address in a process that is connected to a Ray cluster, got "
                f"{address!r}: leave it out, or call ray.shutdown() before"
            )
        yield _quiet(ray)
    elif address is None:
        with _local(cpus) as ray:
            yield _quiet(ray)
    else:
        with _environment({"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}):
            ray = _begun(address=address)
            try:
                yield _quiet(ray)
            finally:
                ray.shutdown()


@contextlib.contextmanager
def _local(cpus: int | None) -> Iterator[Any]:
    """Start a Ray that is cut off from the network, and stop it when the context is left."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory(
        prefix="visxai-ray-", dir=_scratch(), ignore_cleanup_errors=True
    ) as scratch:
        # Ray's dashboard process queries the metadata addresses of cloud providers, unless a
        # cluster configuration lies in its home folder.
        Path(scratch, "ray_bootstrap_config.yaml").write_text("{}")
        private = {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: loopback addresses only
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",  # other users of this machine can't send it code
            "RAY_AUTH_TOKEN": _token(),
        }
        with _environment(private):
            try:
                yield _begun(
                    home=scratch,
                    address="local",
                    num_cpus=max(2, cpus or cores or 2),
                    # Its workers find weights and settings in the user's home.
                    runtime_env={"env_vars": {"HOME": str(Path.home())}},
                    include_dashboard=False,
                    _temp_dir=scratch,
                )
            finally:
                if "ray" in sys.modules:
                    sys.modules["ray"].shutdown()


def _scratch() -> str:
    """Return the folder for Ray's files: the temporary one, or /tmp where that has a long name.

    Ray's sockets lie up to 86 characters below it, and the name of a socket has at most 103 bytes
    on macOS, whose temporary folders have 49 alone, and 107 on Linux.
    """
    usual = tempfile.gettempdir()
    short = "/tmp"
    too_long = sys.platform != "win32" and len(os.fsencode(usual)) > 103 - 86
    return short if too_long and os.access(short, os.W_OK) else usual


@cache
def _token() -> str:
    """Make the token of every Ray that this process starts; Ray reads it once."""
    return secrets.token_hex(32)


def _begun(home: str | None = None, **options: Any) -> Any:
    """Start or join a Ray without output on the console.

    Args:
        home: The home folder of the processes of a local Ray; None joins a cluster.
        **options: The arguments of `ray.init`.

    Returns:
        The module `ray`.

    Raises:
        ArgumentError: If Ray was imported with settings that don't allow a local Ray.
        VisxaiError: If Ray doesn't start or answer.
    """
    environment = {} if home is None else {"HOME": home}
    # Retries of a batch are expected, and Ray has logged before what died: leave this line out.
    environment["RAY_DEDUP_LOGS_SKIP_REGEX"] = os.environ.get(
        "RAY_DEDUP_LOGS_SKIP_REGEX", "There are infinite retries remaining"
    )
    quiet = "RAY_BACKEND_LOG_LEVEL" not in os.environ
    if quiet:
        environment["RAY_BACKEND_LOG_LEVEL"] = "fatal"  # other errors are raised in Python too
    # Ray reads these variables when it is imported and when it starts.
    with _environment(environment), _signals():
        ray = require("ray", "ray", "a run on Ray")
        require("ray.data", "ray", "a run on Ray")
        constants = importlib.import_module("ray._private.ray_constants")
        if home is not None and constants.ENABLE_RAY_CLUSTER:
            raise ArgumentError(
                "expected Ray not to be imported before visxai starts one for this machine only, "
                "but it is: call ray.init() yourself, or don't import ray"
            )
        try:
            with _silent() if quiet else contextlib.nullcontext():
                ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except Exception as error:  # of many types: no cluster, another version, a wrong token
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            where, remedy = "to start on this machine", "try again when it has less to do"
            if home is None:
                where = f"to answer at {options['address']}"
                remedy = "check the address, the token, and that both have the same Ray"
            raise VisxaiError(f"expected Ray {where}, got: {reason}; {remedy}") from error
    return ray


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silence the process's standard error, where native code announces its log level."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_address(address: str) -> None:
    """Raise ArgumentError unless an address is well formed and its token is configured."""
    if address != "auto" and (":" not in address or "://" in address):
        raise ArgumentError(
            f"expected auto or HOST:PORT as the address of a Ray cluster, got {address!r}: run "
            "visxai on a node of the cluster, where auto finds it"
        )
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise ArgumentError(
            "expected a Ray cluster with tokens, got RAY_AUTH_MODE="
            f"{os.environ['RAY_AUTH_MODE']}, with which anybody in reach runs code on it: start "
            "its nodes and visxai with RAY_AUTH_MODE=token"
        )
    if not os.environ.get("RAY_AUTH_TOKEN") and not kept.is_file():
        raise ArgumentError(
            f"expected the token of the Ray cluster at {address}, got none: put it into "
            "RAY_AUTH_TOKEN, or into ~/.ray/auth_token as `ray get-auth-token --generate` does"
        )


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore the former ones when the context is left."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Restore the caller's signal handlers when the context is left, since Ray sets its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler)


def _quiet(ray: Any) -> Any:
    """Keep Ray Data's plans and progress off the console, where visxai shows its own line."""
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)  # errors are raised as well
    return ray


@contextlib.contextmanager
def one_sentence(ray: Any) -> Iterator[None]:
    """Turn an error of another process into a VisxaiError with its traceback's last line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise VisxaiError(
            f"expected Ray's processes to end their work, got: {shown(lines[-1])}; run it again "
            "with --debug to see where, or without Ray"
        ) from error
