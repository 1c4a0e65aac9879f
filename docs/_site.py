"""Pages of the site that are made from the code: one section for each method and each metric."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are written nowhere else."""
    made = {
        "reference/methods.md": _listed("methods", "Each method"),
        "reference/metrics.md": _listed("metrics", "Each metric"),
        "record.md": _record(),
        "changelog.md": _page("CHANGELOG.md"),
        "security.md": _page("SECURITY.md"),
    }
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.svg")):
        place = f"results/{picture.name}"
        files.append(File.generated(config, place, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave diagrams out: drawing them would fetch a script. The table below each says the same."""
    markdown = markdown.replace("](../SECURITY.md", "](security.md")
    markdown = markdown.replace("](../benchmarks/results/", "](results/")
    return re.sub(r"^```mermaid\n.*?^```\n", "", markdown, flags=re.M | re.S)


def on_page_content(html: str, **_: Any) -> str:
    """Let names of code in tables be broken behind a bracket or an underscore, and only there."""

    def breakable(cell: re.Match[str]) -> str:
        return re.sub(
            r"(?<=<code>)[^<]+", lambda code: re.sub(r"([(_])(?=\w)", r"\1<wbr>", code[0]), cell[0]
        )

    return re.sub(r"<td.*?</td>", breakable, html, flags=re.S)


def _listed(folder: str, title: str) -> str:
    """A page with the docstring of every public file of a folder, under its name."""
    parts = [f"# {title}\n"]
    for path in sorted((ROOT / "visxai" / folder).glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        page = ast.get_docstring(tree)
        concrete = any(
            isinstance(node, ast.ClassDef)
            and node.name == "".join(word.capitalize() for word in path.stem.split("_"))
            for node in tree.body
        )
        if path.stem.startswith("_") or page is None or not concrete:
            continue
        for word in ("Cost", "Source"):
            page = page.replace(f"\n{word}:", f"\n\n**{word}:**")
        parts.append(f"## {path.stem}\n\n{page}\n\n{_options(tree, path.stem)}")
    return "\n".join(parts)


def _options(tree: ast.Module, name: str) -> str:
    """A table of a method's options and their defaults."""
    wanted = "".join(word.capitalize() for word in name.split("_"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == wanted:
            rows = [
                f"| `{item.target.id}` | `{ast.unparse(item.annotation)}`".replace("|", "|")
                + f" | `{ast.unparse(item.value) if item.value else 'required'}` |"
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            ]
            rows = [row.replace(" | None`", " or None`") for row in rows]
            if rows:
                return "| option | type | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    return ""


def _record() -> str:
    """The page of the record, from the newest published schema."""
    newest = max((ROOT / "schemas").glob("explanation-*.json"), key=lambda path: path.stem)
    schema = json.loads(newest.read_text("utf-8"))
    rows = "\n".join(
        f"| `{name}` | {_type(about)} | {about['description']} |"
        for name, about in schema["properties"].items()
    )
    number = newest.stem.rpartition("-")[2]
    table = json.loads((ROOT / "schemas" / f"table-explanation-{number}.json").read_text("utf-8"))
    own = "\n".join(
        f"| `{name}` | {_type(about)} | {about['description']} |"
        for name, about in table["properties"].items()
        if about != schema["properties"].get(name)
    )
    return (
        f"# The record\n\nEvery explanation is a record: `Explanation.to_dict()` gives it as "
        f"JSON, a row of a results folder holds the same columns. This is schema version {number}"
        f", published as `schemas/{newest.name}` and by `visxai.record.schema()`.\n\n"
        f"| field | type | meaning |\n|---|---|---|\n{rows}\n\n"
        "## Rows of tables\n\nA record of the kind `table` has these fields in place of an "
        f'image\'s (`schemas/table-explanation-{number}.json`, `visxai.record.schema("table")`).'
        f"\n\n| field | type | meaning |\n|---|---|---|\n{own}\n\n"
        "Records of earlier versions are read as well; [what is stable](api-stability.md) says "
        "how the schema changes.\n"
    )


def _page(name: str) -> str:
    """A page beside the README, its links as they are from the site; others become plain text."""
    text = (ROOT / name).read_text("utf-8").replace("](docs/", "](")
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)(?![\w/-]+\.md)[^)]*\)", r"\1", text)


def _type(about: dict[str, Any]) -> str:
    kind = about.get("type")
    if kind is None:
        return "`" + json.dumps(about.get("const", about.get("enum"))) + "`"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
