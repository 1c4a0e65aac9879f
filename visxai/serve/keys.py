"""API keys, roles and sessions; the database holds nothing that opens a door by itself."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from visxai.errors import ArgumentError
from visxai.ledger.canonical import sha256
from visxai.serve.tables import keys, sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection

ROLES = ("submit", "review", "audit", "admin")
SESSION = 8 * 3600.0  # seconds that a session of the pages lasts
_PREFIX = "vx"


@dataclass(frozen=True)
class Principal:
    """Who makes a request.

    Attributes:
        key_id: The id of the API key.
        tenant: Whose items it may see.
        role: "submit", "review", "audit" or "admin"; an admin may do all that the others may.
        name: The key's name, as people call it.
    """

    key_id: str
    tenant: str
    role: str
    name: str

    def may(self, *roles: str) -> bool:
        """Tell whether the key has one of some roles."""
        return self.role == "admin" or self.role in roles


def make(connection: Connection, now: float, tenant: str, role: str, name: str = "") -> str:
    """Make an API key.

    Args:
        connection: A connection in a writing transaction.
        now: The present time.
        tenant: Whose items it may see.
        role: One of ROLES.
        name: What people call it.

    Returns:
        The key, `vx_ID_SECRET`; it can't be read again.

    Raises:
        ArgumentError: There is no such role.
    """
    if role not in ROLES:
        raise ArgumentError(
            expected=f"a role of {', '.join(ROLES)}",
            got=repr(role)[:80],
            remedy="use one of these",
            field="role",
        )
    id, secret, salt = secrets.token_hex(8), secrets.token_hex(24), secrets.token_bytes(16)
    connection.execute(
        insert(keys).values(
            id=id,
            tenant=tenant,
            role=role,
            name=name[:200],
            salt=salt,
            hash=_scrypt(secret, salt),
            created=now,
        )
    )
    return f"{_PREFIX}_{id}_{secret}"


def check(connection: Connection, key: str) -> Principal | None:
    """Return who an API key belongs to, None for no valid key."""
    prefix, _, rest = key.partition("_")
    id, _, secret = rest.partition("_")
    if prefix != _PREFIX or not secret or len(key) > 200 or not key.isascii():
        return None
    row = connection.execute(
        select(keys).where(keys.c.id == id, keys.c.revoked.is_(None))
    ).one_or_none()
    if row is None or not _opens(secret, row.salt, row.hash):
        return None
    return Principal(row.id, row.tenant, row.role, row.name)


def revoke(connection: Connection, now: float, id: str, tenant: str) -> bool:
    """Revoke a tenant's key and end its sessions; return whether it was valid."""
    done = connection.execute(
        update(keys)
        .where(keys.c.id == id, keys.c.tenant == tenant, keys.c.revoked.is_(None))
        .values(revoked=now)
        .returning(keys.c.id)
    )
    connection.execute(delete(sessions).where(sessions.c.key_id == id))
    return done.first() is not None


def count(connection: Connection, tenant: str) -> int:
    """Return how many valid keys a tenant has."""
    query = select(func.count()).where(keys.c.tenant == tenant, keys.c.revoked.is_(None))
    return int(connection.execute(query).scalar_one())


def begin_session(connection: Connection, now: float, principal: Principal) -> str:
    """Begin a session of the pages; return the token for the cookie."""
    token = secrets.token_urlsafe(32)
    connection.execute(delete(sessions).where(sessions.c.expires < now))
    connection.execute(
        insert(sessions).values(hash=sha256(token), key_id=principal.key_id, expires=now + SESSION)
    )
    return token


def end_session(connection: Connection, token: str) -> None:
    """End a session of the pages."""
    connection.execute(delete(sessions).where(sessions.c.hash == sha256(token)))


def in_session(connection: Connection, now: float, token: str) -> Principal | None:
    """Return whose session a cookie's token belongs to, None for no valid session."""
    row = connection.execute(
        select(keys)
        .join(sessions, sessions.c.key_id == keys.c.id)
        .where(sessions.c.hash == sha256(token), sessions.c.expires > now, keys.c.revoked.is_(None))
    ).one_or_none()
    return None if row is None else Principal(row.id, row.tenant, row.role, row.name)


class Known:
    """Keys that were right a moment ago, so that not each request asks the database.

    A key that another process revoked opens this one for no longer than `seconds` more.

    Args:
        seconds: How long a key is remembered.

    Attributes:
        forgotten: How often all keys were forgotten.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._found: dict[bytes, tuple[float, Principal]] = {}
        self.forgotten = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Principal | None:
        """Return whose key it is, None for one that isn't remembered."""
        until, who = self._found.get(_mark(key), (0.0, None))
        return who if time.monotonic() < until else None

    def put(self, key: str, who: Principal, forgotten: int) -> None:
        """Remember a key that was checked.

        Args:
            key: The key.
            who: Whose it is.
            forgotten: How often keys had been forgotten before it was checked: one that was checked
                before another thread revoked it isn't remembered.
        """
        with self._lock:
            if forgotten != self.forgotten:
                return
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[_mark(key)] = time.monotonic() + self._seconds, who

    def forget(self) -> None:
        """Forget all keys, as one was revoked."""
        with self._lock:
            self.forgotten += 1
            self._found.clear()


def _mark(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8")).digest()


_opened: OrderedDict[bytes, bytes] = OrderedDict()
_REMEMBERED = 1024  # keys of which this process remembers that they are right


def _opens(secret: str, salt: bytes, hash: bytes) -> bool:
    """Tell whether a secret has a hash; what was right once costs a SHA-256 from then on."""
    mark = hashlib.sha256(salt + secret.encode("ascii")).digest()
    if _opened.get(mark) == hash:
        return True
    if not hmac.compare_digest(_scrypt(secret, salt), hash):
        return False
    _opened[mark] = hash
    while len(_opened) > _REMEMBERED:
        _opened.popitem(last=False)
    return True


def _scrypt(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode("ascii"), salt=salt, n=2**14, r=8, p=1, dklen=32)
