"""The README keeps its promises: its links lead somewhere, and its tree names every source file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")]


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_tree_names_every_source_file_once() -> None:
    folders = ("components", "flows", "mlflow")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = [path for path in files if "__pycache__" not in path.parts and path.name != "__init__.py"]
    expected = sorted(path.relative_to(ROOT).as_posix() for path in sources)
    tree = TEXT.split("## What is where")[1].split("```")[1]
    named, folder = [], ""
    for line in tree.splitlines():
        name = line.split()[0] if line.split() else ""
        depth = (len(line) - len(line.lstrip())) // 2
        if name.endswith("/"):
            folder = "/".join([*folder.split("/")[:depth], name.rstrip("/")]).lstrip("/")
        elif name and depth:
            named.append("/".join([*folder.split("/")[:depth], name]))
    assert sorted(path for path in named if path.split("/")[0] in folders) == expected
