"""Checkpoints: signatures of Ed25519 over the state of the audit chain.

A chain alone shows every change but one: somebody who may write to the database can compute it
anew from the first altered entry on. A checkpoint says which hash entry N had, signed with a key
that the database doesn't hold, so entries up to N can't be written anew unseen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError, StoreError, require
from visxai.files import one_sentence
from visxai.ledger.canonical import canonical, sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement about the chain.

    Attributes:
        sequence: The number of the last entry that it covers.
        hash: That entry's hash.
        at: When it was signed, ISO 8601 in UTC.
        key_id: The first 16 hexadecimal digits of the SHA-256 of the public key.
        signature: The Ed25519 signature of `message()`, in hexadecimal.
    """

    sequence: int
    hash: str
    at: str
    key_id: str
    signature: str

    def message(self) -> bytes:
        """Return the bytes that are signed."""
        content = {"sequence": self.sequence, "hash": self.hash, "at": self.at}
        return canonical({"visxai": "checkpoint", **content}).encode("utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Checkpoint:
        """Read what `to_dict` returned.

        Raises:
            ArgumentError: A field is missing or of another type.
        """
        try:
            texts = {name: data[name] for name in ("hash", "at", "key_id", "signature")}
            if type(data["sequence"]) is int and all(type(v) is str for v in texts.values()):
                return cls(data["sequence"], **texts)
        except (KeyError, TypeError):
            pass
        raise ArgumentError(
            expected="a checkpoint with sequence, hash, at, key_id and signature",
            got=f"{type(data).__name__} without them",
            remedy="pass what `visxai audit checkpoint` wrote",
        )


class Signer:
    """A signing key, kept in a file that only its owner can read.

    Args:
        private: The Ed25519 key.

    Attributes:
        public: The public key, 32 bytes.
        key_id: The first 16 hexadecimal digits of the SHA-256 of the public key.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.key_id = key_id(self.public)

    @classmethod
    def open(cls, path: str | Path) -> Signer:
        """Read a key from its file; make both where there is no file.

        Args:
            path: The file: the key's 32 bytes in hexadecimal.

        Raises:
            StoreError: The file can't be read or written, or doesn't hold a key.
            MissingExtra: The extra `serve` isn't installed.
        """
        path = Path(path)
        with one_sentence(f"to read or make the key {path}", "choose another file"):
            try:
                # Made by whoever comes first; its permissions are right from the beginning.
                made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(made, "w") as file:
                    key = _ed25519().Ed25519PrivateKey.generate()
                    file.write(key.private_bytes_raw().hex())
                    file.flush()
                    os.fsync(file.fileno())
        return cls.read(path)

    @classmethod
    def read(cls, path: str | Path) -> Signer:
        """Read a key from its file.

        Args:
            path: The file: the key's 32 bytes in hexadecimal.

        Raises:
            StoreError: The file can't be read, or doesn't hold a key.
            MissingExtra: The extra `serve` isn't installed.
        """
        with one_sentence(f"to read the key {path}", "choose another file"):
            text = Path(path).read_text("ascii", errors="replace").strip()
        try:
            return cls(_ed25519().Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text)))
        except ValueError as error:
            raise StoreError(
                expected=f"a key of 64 hexadecimal digits in {path}",
                got=f"{len(text)} other characters",
                remedy="restore the file from a backup, or choose another file for a new key",
            ) from error

    def sign(self, sequence: int, hash: str, at: str) -> Checkpoint:
        """Sign the state of a chain.

        Args:
            sequence: The number of the last entry.
            hash: Its hash.
            at: The time, as `canonical.timestamp` writes it.
        """
        open_ = Checkpoint(sequence, hash, at, self.key_id, "")
        signature = self._private.sign(open_.message()).hex()
        return Checkpoint(sequence, hash, at, self.key_id, signature)


def key_id(public: bytes) -> str:
    """Return the short name of a public key: 16 hexadecimal digits of its SHA-256."""
    return sha256(public)[:16]


def is_signed(checkpoint: Checkpoint, public: bytes) -> bool:
    """Tell whether a checkpoint was signed with the private half of a public key of 32 bytes.

    Raises:
        ArgumentError: That isn't a public key.
        MissingExtra: The extra `serve` isn't installed.
    """
    exceptions = require("cryptography.exceptions", "serve", "checking signatures")
    try:
        key = _ed25519().Ed25519PublicKey.from_public_bytes(public)
    except ValueError as error:
        raise ArgumentError(
            expected="a public key of 32 bytes",
            got=f"{len(public)} bytes",
            remedy="pass the key that `visxai audit checkpoint` prints",
        ) from error
    try:
        key.verify(bytes.fromhex(checkpoint.signature), checkpoint.message())
    except (exceptions.InvalidSignature, ValueError):
        return False
    return True


def _ed25519() -> Any:
    return require(
        "cryptography.hazmat.primitives.asymmetric.ed25519", "serve", "signing checkpoints"
    )
