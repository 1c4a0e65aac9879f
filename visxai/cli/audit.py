"""The commands `visxai audit …`, which verify, sign and export the audit chain of a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visxai.cli.base import Debug
from visxai.errors import ArgumentError

if TYPE_CHECKING:
    from visxai.ledger.signing import Checkpoint

audit_app = typer.Typer(
    help="Verify, sign and export the record of what a moderation service did.",
    no_args_is_help=True,
)

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database", "-d", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/NAME."
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="The service's signing key. [dim]\\[default: none][/dim]",
        show_default=False,
    ),
]
_SHOWN = 20  # flaws that are printed


@audit_app.command()
def verify(
    database: DatabaseUrl = "sqlite:///visxai.db",
    export: Annotated[
        str | None,
        typer.Option(
            "--export",
            metavar="FILE",
            help="Verify what `visxai audit export` wrote instead of a database.",
            show_default=False,
        ),
    ] = None,
    key: Key = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option(
            "--public-key",
            metavar="HEX",
            help="A public key whose checkpoints count, as `visxai audit checkpoint` prints it.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="A checkpoint that was kept elsewhere.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Say whether entries were edited, deleted, inserted or reordered, and which.

    The exit code is 0 for an intact chain and 1 for any other.

    [bold]Examples[/bold]

    visxai audit verify --database sqlite:///visxai.db --key visxai.key

    visxai audit verify --export audit.jsonl --public-key 3b6a27…
    """
    from visxai import files
    from visxai.ledger.exported import verify_export
    from visxai.ledger.ledger import Ledger
    from visxai.ledger.signing import Signer

    keys, kept = _keys(public_key or ()), [_checkpoint(name) for name in checkpoint or ()]
    signer = None if key is None else Signer.read(key)
    if export is not None:
        if signer is not None:
            keys.append(signer.public)
        with (
            files.one_sentence(f"to read {export}", "name the file of an export"),
            open(export, encoding="utf-8", errors="replace") as lines,
        ):
            verdict = verify_export(lines, keys=keys, checkpoints=kept)
    else:
        with Ledger(existing(database), signer=signer) as ledger:
            verdict = ledger.verify(keys=keys, checkpoints=kept)
    for flaw in verdict.flaws[:_SHOWN]:
        typer.echo(flaw.sentence)
    if len(verdict.flaws) > _SHOWN:
        typer.echo(f"and {len(verdict.flaws) - _SHOWN} more")
    state = "intact" if verdict else "NOT intact"
    signed = f"signed up to entry {verdict.covered}" if verdict.covered else "no signature checked"
    typer.echo(f"{verdict.entries} entries, {signed}: {state}")
    return 0 if verdict else 1


@audit_app.command()
def checkpoint(
    key: Annotated[
        str, typer.Option("--key", metavar="FILE", help="The signing key; made if missing.")
    ] = "visxai.key",
    database: DatabaseUrl = "sqlite:///visxai.db",
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the checkpoint goes.", show_default=False
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    """Sign the present state of the chain; keep the result where the service can't write.

    [bold]Example[/bold]

    visxai audit checkpoint --key visxai.key --out checkpoint.json
    """
    from visxai import files
    from visxai.ledger.canonical import canonical
    from visxai.ledger.ledger import Ledger
    from visxai.ledger.signing import Signer

    signer = Signer.open(key)
    with Ledger(existing(database), signer=signer) as ledger:
        made = ledger.checkpoint()
    if made is None:
        typer.echo("The chain has no entry yet.")
        return 1
    text = canonical(made.to_dict())
    if out is None:
        typer.echo(text)
    else:
        with files.one_sentence(f"to write {out}", "choose another file"):
            files.write(Path(out), text + "\n")
    typer.echo(f"signed up to entry {made.sequence}; public key {signer.public.hex()}", err=True)
    return 0


@audit_app.command()
def export(
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="Where it goes.")],
    database: DatabaseUrl = "sqlite:///visxai.db",
    debug: Debug = False,
) -> int:
    """Write all entries and checkpoints as lines of JSON, which verify without the database.

    [bold]Example[/bold]

    visxai audit export --out audit.jsonl
    """
    from visxai import files
    from visxai.ledger.ledger import Ledger

    with (
        Ledger(existing(database)) as ledger,
        files.one_sentence(f"to write {out}", "choose another file"),
        files.replacing(Path(out)) as partial,
        open(partial, "w", encoding="utf-8", newline="\n") as file,
    ):
        count = ledger.export(file)
    typer.echo(f"{count} entries in {out}")
    return 0


def existing(database: str) -> str:
    """Return the address, unless it is that of an SQLite file that isn't there."""
    path = database.removeprefix("sqlite:///")
    if "://" not in path and not Path(path).is_file():
        raise ArgumentError(
            expected="a database that is there",
            got=path,
            remedy="name it with --database",
            field="database",
        )
    return database


def _keys(texts: list[str] | tuple[str, ...]) -> list[bytes]:
    try:
        return [bytes.fromhex(text) for text in texts]
    except ValueError:
        raise ArgumentError(
            expected="a public key of 64 hexadecimal digits",
            got="other characters",
            remedy="pass what `visxai audit checkpoint` prints",
            field="public_key",
        ) from None


def _checkpoint(name: str) -> Checkpoint:
    import json

    from visxai import files
    from visxai.ledger.signing import Checkpoint

    with files.one_sentence(f"to read {name}", "name the file of a checkpoint"):
        text = Path(name).read_text("utf-8", errors="replace")
    try:
        return Checkpoint.from_dict(json.loads(text))
    except ValueError as error:
        raise ArgumentError(
            expected=f"a checkpoint in {name}",
            got="something else",
            remedy="pass what `visxai audit checkpoint` wrote",
            field="checkpoint",
        ) from error
