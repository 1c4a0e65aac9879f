"""Make the notebooks of examples/ anew: each is a script's cells, executed, with its pictures.

    python scripts/notebooks.py [SCRIPT ...]          (needs the extra notebooks)

A script is divided at its lines `# %%`; text stands in cells that begin with `# %% [markdown]`. Its
docstring, which says how it is run, stays in the script.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def scripts() -> list[Path]:
    """The scripts that have a notebook: those with cells."""
    found = (ROOT / "examples").glob("*/*.py")
    return sorted(path for path in found if "\n# %%" in path.read_text("utf-8"))


def cells(text: str) -> list[tuple[str, str]]:
    """The cells of a script as (kind, source)."""
    found = []
    for part in re.split(r"^# %%", text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            found.append(("markdown", "\n".join(lines)))
        else:
            found.append(("code", body.strip().replace("  # noqa: E402", "")))
    return found


def notebook(path: Path) -> Any:
    """A script as a notebook that wasn't executed yet."""
    import nbformat

    made = nbformat.v4.new_notebook()
    for number, (kind, source) in enumerate(cells(path.read_text("utf-8"))):
        new = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        made.cells.append(new(source, id=f"cell-{number}"))
    made.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    return made


def main(paths: list[Path]) -> None:
    import nbformat
    from nbclient import NotebookClient

    for path in paths:
        made = notebook(path)
        with tempfile.TemporaryDirectory() as folder:
            NotebookClient(made, timeout=600, resources={"metadata": {"path": folder}}).execute()
        for cell in made.cells:
            cell.metadata.clear()  # when each cell ran
            cell.pop("execution_count", None)
            if cell.cell_type == "code":
                cell.execution_count = None
                cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        text = nbformat.writes(made).replace(str(ROOT), "visxai")
        path.with_suffix(".ipynb").write_text(text + "\n", "utf-8")
        print(f"{path.with_suffix('.ipynb').relative_to(ROOT)}: {len(text) // 1024} KiB")


if __name__ == "__main__":
    main([Path(one).resolve() for one in sys.argv[1:]] or scripts())
