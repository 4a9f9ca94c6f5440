"""The README keeps its promises: its links lead somewhere, and its tree names every source file."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")), ids=lambda path: path.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_tree_names_every_source_file_once() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "components", "flows", "mlflow"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    expected = {path for path in listed.stdout.split() if not path.endswith("__init__.py") and (ROOT / path).exists()}
    tree = TEXT.split("## What is where")[1].split("```")[1]
    named, folder = [], ""
    for line in tree.splitlines():
        name = line.split()[0] if line.split() else ""
        depth = (len(line) - len(line.lstrip())) // 2
        if name.endswith("/"):
            folder = "/".join([*folder.split("/")[:depth], name.rstrip("/")]).lstrip("/")
        elif name and depth:
            named.append("/".join([*folder.split("/")[:depth], name]))
    sources = [path for path in named if path.split("/")[0] in ("components", "flows", "mlflow")]
    assert sorted(sources) == sorted(expected)
