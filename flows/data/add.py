"""Puts the user's own files into data/ and versions them with DVC, all of them or none."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.errors import UserError, disk_full
from components.loader import load_params
from components.ml.models.folders import PICKLES, check_format, refuse_classes, trust_code
from components.validate.formats import EXTENSIONS, column_names, count_rows
from components.validate.reading import shards
from flows.data.hub import is_name, snapshot
from flows.data.suggest import suggest_section
from flows.data.validation import judge
from flows.repo.workspace import Workspace

__all__ = ["add", "suggest_section"]

# Neither read from a base model's folder nor safe to load.
NOT_COPIED = shutil.ignore_patterns(".*", "*.h5", "*.msgpack", "*.onnx", *(f"*{suffix}" for suffix in PICKLES))


def add(
    workspace: Workspace,
    files: list[Path],
    *,
    unlabelled: Path | None = None,
    link: bool = False,
    base_model: str | None = None,
    validate: bool = True,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Copy (or hard-link) files, folders of shards and a model folder into data/ and pin data/ anew.

    A file of the same name is replaced; its old version stays in DVC's cache. A file that already
    is in data/ is versioned as it stands. First the data gate judges data/ as it would be then, unless
    ``validate`` is False; ``report`` is told line by line what it says.

    Returns:
        the paths in data/: the files in order, the unlabelled one, the model.

    Raises:
        UserError: a source is missing, empty, malformed, not UTF-8, of an unknown or mixed format; the gate
            refuses the data; data/ holds other changes; a link isn't possible; the disk is full. Nothing has
            changed then.
    """
    tables = [Path(file) for file in (*files, *([unlabelled] if unlabelled else []))]
    model = _model(base_model) if base_model else None
    sources = [*tables, *([model] if model else [])]
    # A model of a hub lies in a folder that is named by its version; here it gets its own name.
    names = [*(_name(table) for table in tables), *([Path(str(base_model)).absolute().name] if model else [])]
    targets = _targets(workspace, names)
    for table in tables:
        check_table(table)
    if model:
        _check_model(model, workspace)
    _check_place(workspace, {target.name for target in targets})
    placed = dict(zip(targets, sources, strict=True))
    if validate:
        pool = workspace.data / Path(unlabelled).name if unlabelled else None
        for line in judge(workspace, placed, pool):
            report(line)
    _put(workspace, placed, link)
    return targets


def _name(source: Path) -> str:
    """Not resolved: in a hub cache, links have names and what they point to has hashes."""
    return source.absolute().name


def _targets(workspace: Workspace, names: list[str]) -> list[Path]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(
            f"Expected files of different names, got '{twice[0]}' twice.",
            "Files keep their names in data/: rename one of them.",
            kind="data",
        )
    if not names:
        raise UserError("Expected at least one file to add, got none.", "Name it: `stillhouse data add FILE`.", "data")
    return [workspace.data / name for name in names]


def check_table(path: Path) -> None:
    """Read a file or folder of shards to its end and refuse what the pipeline could not read.

    Raises:
        UserError: names the file, and the line where there is one.
    """
    if not path.exists():
        known = ", ".join(EXTENSIONS)
        raise UserError(
            f"{path} does not exist.", f"Name a file ({known}) or a folder of such files that is there.", "data"
        )
    for shard in shards(path):
        column_names(shard)
        if not count_rows(shard):
            raise UserError(f"{shard} is empty: it holds no rows.", "Give a file with rows.", "data")


def _model(name: str) -> Path:
    """The folder of a base model, which may be one of the hub's cache.

    Raises:
        UserError: there is none, and the hub gives none.
    """
    if Path(name).is_dir():
        return Path(name)
    if not is_name(name):
        raise UserError(
            f"Expected a folder with a base model in transformers' format; there is no folder {name}.",
            "Name a folder that is there, or a model of the Hugging Face hub: OWNER/MODEL.",
            kind="data",
        )
    return snapshot(name)


def _check_model(folder: Path, workspace: Workspace) -> None:
    with suppress(UserError):  # a params.yaml that can't be read trusts nobody
        trust_code(load_params(workspace.root / "params.yaml").runtime.trust_remote_code)
    refuse_classes(folder)
    check_format(folder)


def _check_place(workspace: Workspace, names: set[str]) -> None:
    """Refuse to version, along with ``names``, changes that the user hasn't named."""
    if not workspace.data.is_dir():
        if workspace.data_hash() is None:
            return
        raise UserError(
            "data.dvc pins a data folder, but data/ is missing.",
            "Get it first: `stillhouse data pull`. For a project without that data, remove data.dvc.",
            kind="data",
        )
    changes = workspace.data_changes()
    others = [file for file in changes.files if file.split("/")[0] not in names]
    if others or not changes.listed:
        listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise UserError(
            f"data/ holds other changes, which would be versioned too: {listed or 'DVC lacks the list of files'}.",
            "Name these files as well (`stillhouse data add data/FILE`), version all of data/ (`dvc add data`), "
            "or undo the changes (`dvc checkout data.dvc`).",
            kind="data",
        )


def _put(workspace: Workspace, sources: dict[Path, Path], link: bool) -> None:
    """Copy beside data/, rename into it, version; ``sources`` is by target."""
    partial = workspace.root / "data.partial"
    shutil.rmtree(partial, ignore_errors=True)
    new = not workspace.data.exists()
    try:
        for name in ("new", "old"):
            (partial / name).mkdir(parents=True)
        for target, source in sources.items():
            if source.resolve() != target.resolve():
                _copy(source.resolve(), partial / "new" / target.name, link)
        workspace.data.mkdir(exist_ok=True)
        with _swapped(workspace.data, partial / "new", partial / "old"):
            workspace.add_data(relink=not link)
    except OSError as error:
        raise disk_full(error) or error from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if new and not any(workspace.data.glob("*")):
            shutil.rmtree(workspace.data, ignore_errors=True)


@contextmanager
def _swapped(folder: Path, new: Path, old: Path) -> Iterator[None]:
    """Move what is in ``new`` into ``folder``, what it replaces into ``old``; move all back if the block fails."""
    moved: list[str] = []
    try:
        for name in sorted(item.name for item in new.iterdir()):
            if (folder / name).exists():
                (folder / name).rename(old / name)
            (new / name).rename(folder / name)
            moved.append(name)
        yield
    except BaseException:
        for name in moved:
            (folder / name).rename(new / name)
        for item in old.iterdir():
            item.rename(folder / item.name)
        raise


def _copy(source: Path, target: Path, link: bool) -> None:
    if source.is_file():
        _copy_file(source, target, link)
    elif (source / "config.json").exists():
        shutil.copytree(
            source, target, ignore=NOT_COPIED, copy_function=lambda a, b: _copy_file(Path(a), Path(b), link)
        )
    else:
        target.mkdir()
        for shard in shards(source):
            _copy_file(shard, target / shard.name, link)


def _copy_file(source: Path, target: Path, link: bool) -> None:
    if not link:
        shutil.copyfile(source, target)
        return
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        raise UserError(
            f"{source} can't be hard-linked into data/: {error.strerror}.",
            "A hard link needs both on one file system. Leave out --link to copy the file.",
            kind="data",
        ) from None
