"""Which revision made a result: a commit with its dvc.lock and params.yaml under refs/stillhouse/, on no branch."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from flows.repo import git
from flows.repo.workspace import Workspace

REFS = "refs/stillhouse/"
MADE_OF = ("dvc.lock", "params.yaml", "data.dvc")
RECORDED = ("dvc.lock", "params.yaml")
"""What `stillhouse commit` puts on the branch."""
_PUSH_SECONDS = 60.0
_SHORTEST = 6


@dataclass(frozen=True)
class Revision:
    """A recorded revision: its commit, the ref that keeps it, and the git remote that has it too, if any."""

    commit: str
    ref: str
    remote: str | None = None

    @property
    def run(self) -> str:
        """The run that it was recorded for."""
        return self.ref.removeprefix(REFS)


def record(workspace: Workspace, run: str, message: str) -> Revision | None:
    """Store the workspace's tracked files as they are under ``refs/stillhouse/RUN``; None without git.

    With them go dvc.lock, params.yaml, data.dvc and the code that stages read, tracked or not. The branch, the
    index and the files stay as they are; hooks don't run. The ref is pushed if a git remote is set, no branch is.

    Raises:
        UserError: the push failed (``network``); the ref is there and the next call pushes it.
    """
    parent = git.commit_of(workspace.root)
    if parent is None:
        return None
    ref = f"{REFS}{run}"
    commit, tree = git.commit_of(workspace.root, ref), _tree(workspace)
    same = git.attempt(workspace.root, "rev-parse", f"{commit}^{{tree}}", f"{commit}^").stdout.split()
    if commit is None or same != [tree, parent]:
        commit = _commit(workspace, tree, parent, message)
        git.git(workspace.root, "update-ref", ref, commit)
    return Revision(commit, ref, _push(workspace, commit, ref))


def list_recorded(workspace: Workspace) -> list[Revision]:
    """The recorded revisions that are here, the newest first."""
    listed = git.attempt(
        workspace.root, "for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", REFS
    )
    return [Revision(*line.split(" ", 1)) for line in listed.stdout.splitlines()]


def find_recorded(workspace: Workspace, run: str | None = None) -> Revision:
    """The revision of a run, given by its id or the beginning of it; None: of the newest.

    Raises:
        UserError: there is none, or several runs begin so.
    """
    known = list_recorded(workspace)
    if run is not None and len(run) < _SHORTEST:
        raise UserError(f"Expected a run's id or at least its first {_SHORTEST} characters, got '{run}'.")
    found = [each for each in known if run is None or each.run.startswith(run)]
    exact = [each for each in found if each.run == run]
    if not found:
        which = "No run" if run is None else f"No run '{run}'"
        listed = f"; the newest: {', '.join(each.run for each in known[:5])}" if known else ""
        raise UserError(
            f"{which} is recorded in this repository{listed}.",
            f"Runs are recorded as they are published; those of others come with `git fetch origin '{REFS}*:{REFS}*'`.",
        )
    if run is not None and len(found) > 1 and not exact:
        raise UserError(f"Several runs begin with '{run}': {', '.join(each.run for each in found)}.", "Write one out.")
    return (exact or found)[0]


def commit_lock(workspace: Workspace, run: str | None = None) -> str | None:
    """Commit on the branch the dvc.lock and params.yaml of a recorded run (the last one).

    Returns:
        The commit; None when the branch has them already.

    Raises:
        UserError: there is no such run, no branch is checked out, git refuses (a hook, no name or address),
            or the branch's files have other changes that would be lost.
    """
    root = workspace.root
    revision = find_recorded(workspace, run)
    if git.attempt(root, "symbolic-ref", "--quiet", "HEAD").returncode:
        raise UserError("No branch is checked out here, so there is none to commit on.", "Go to one: `git switch`.")
    wanted = {name: content for name in RECORDED if (content := _content(root, revision.commit, name)) is not None}
    changed = {name: content for name, content in wanted.items() if _content(root, "HEAD", name) != content}
    if not changed:
        return None
    _refuse_other_edits(root, changed, revision)
    _commit_files(root, changed, f"Results of run {revision.run}\n\nRecorded as {revision.ref}.")
    return git.git(root, "rev-parse", "HEAD")


def left_out(workspace: Workspace, revision: Revision) -> list[str]:
    """The other files of the project in which the branch differs from what the run was made with."""
    listed = git.git(workspace.root, "diff", "--name-only", "-z", "--relative", "HEAD", revision.commit, "--", ".")
    return [name for name in listed.split("\0") if name and name not in RECORDED]


def _tree(workspace: Workspace) -> str:
    """HEAD, with what decides results as it is on disk. Other edits are nobody's business: the ref is pushed."""
    folder, prefix = git.top(workspace.root)
    with git.scratch_index(folder) as index:
        git.git(folder, "read-tree", "HEAD", env=index)
        listed = git.git(folder, "ls-files", "-z", env=index).split("\0")
        known = {*filter(None, listed), *git.untracked(folder, prefix, index)}
        read = [
            f"{prefix}{dep}" for stage in workspace.stages().values() for dep in stage.deps if not dep.is_absolute()
        ]
        code = [name for name in known if any(name == path or name.startswith(f"{path}/") for path in read)]
        # Git may be told to ignore params.yaml; an ignored .dvc/config may hold a remote's secrets.
        made_of = [name for name in git.always(prefix) if name in known or name.removeprefix(prefix) in MADE_OF]
        return git.tree_with(folder, index, sorted({*code, *made_of}))


def _commit(workspace: Workspace, tree: str, parent: str, message: str) -> str:
    """A commit on no branch; whoever has told git no name still gets one."""
    env = {
        f"GIT_{role}_{field}": default
        for field, default in (("NAME", "Stillhouse"), ("EMAIL", "stillhouse@localhost"))
        for role in ("AUTHOR", "COMMITTER")
        if not os.environ.get(f"GIT_{role}_{field}")
        and git.attempt(workspace.root, "config", f"user.{field.lower()}").returncode
    }
    arguments = ("commit-tree", tree, "-p", parent, "--no-gpg-sign", "-F", "-")
    return git.git(workspace.root, *arguments, stdin=message, env=env)


def clone_from(workspace: Workspace) -> str | None:
    """What others clone the project's repository from: the git remote that has its revisions, else its folder.

    Passwords and tokens are left out; None without git or before the first commit.
    """
    root = workspace.owner.root
    if git.commit_of(root) is None:
        return None
    top, _ = git.top(root)
    remote = _remote(workspace)
    address = git.attempt(root, "remote", "get-url", remote).stdout.strip() if remote else ""
    if ":" not in address:
        return str((top / address).resolve())  # a remote may be a folder beside ours
    address = re.sub(r"^(https?://)[^/@]*@", r"\1", address)
    return re.sub(r"^(\w+://[^/@:]*):[^/@]*@", r"\1@", address)  # ssh needs the name


def _remote(workspace: Workspace) -> str | None:
    """The git remote to share with: that of the checkout's branch, else origin."""
    root = workspace.owner.root
    branch = git.attempt(root, "symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip()
    upstream = git.attempt(root, "config", f"branch.{branch}.remote").stdout.strip() if branch else ""
    known = git.attempt(root, "remote").stdout.split()
    return next((name for name in (upstream, "origin") if name in known), None)


def _push(workspace: Workspace, commit: str, ref: str) -> str | None:
    remote = _remote(workspace)
    if remote is None:
        return None
    settings = ("-c", "push.followTags=false", "-c", "push.gpgSign=false", "-c", "push.recurseSubmodules=no")
    arguments = (*settings, "push", "--quiet", "--no-verify", remote, f"+{commit}:{ref}")
    try:
        done = git.attempt(workspace.root, *arguments, timeout=_PUSH_SECONDS, env=_unasked(workspace.root))
        problem = done.stderr.strip() if done.returncode else None
    except subprocess.TimeoutExpired:
        problem = f"no end within {_PUSH_SECONDS:.0f} s"
    if problem is not None:
        problem = re.sub(r"//[^/@\s]+@", "//", problem)  # no passwords in logs
        raise UserError(
            f"The revision {ref} is recorded here, but could not be pushed to the git remote '{remote}': {problem}",
            f"The next run tries again; or push it yourself: `git push {remote} {ref}`.",
            kind="network",
        )
    return remote


def _unasked(root: Path) -> dict[str, str]:
    """Settings by which ssh and helpers fail where they would ask a person."""
    env = {"SSH_ASKPASS_REQUIRE": "never", "GCM_INTERACTIVE": "never"}
    if "GIT_SSH" in os.environ:
        return env
    configured = git.attempt(root, "config", "core.sshCommand").stdout.strip()
    ssh = os.environ.get("GIT_SSH_COMMAND") or configured or "ssh"
    return env | {"GIT_SSH_COMMAND": f"{ssh} -o BatchMode=yes -o ConnectTimeout=15"}


def _content(root: Path, revision: str, name: str) -> str | None:
    """A file's content in a commit, or in the index if ``revision`` is empty; None if it has no such file."""
    found = git.attempt(root, "cat-file", "blob", f"{revision}:./{name}")
    return found.stdout if found.returncode == 0 else None


def _read(path: Path) -> str | None:
    """A file as git would give it: ends of lines and odd bytes as they are."""
    return git.decoded(path.read_bytes()) if path.exists() else None


def _refuse_other_edits(root: Path, wanted: dict[str, str], revision: Revision) -> None:
    for name, content in wanted.items():
        committed = _content(root, "HEAD", name)
        for place, found in (("", _read(root / name)), (" in git's index", _content(root, "", name))):
            if found not in (content, committed, None):
                raise UserError(
                    f"{name}{place} has other changes than those of run {revision.run}; they would be lost.",
                    f"See them with `git diff {revision.ref} -- {name}`; commit them yourself, or undo them "
                    f"(`git checkout HEAD -- {name}`), then run the command again.",
                )


def _commit_files(root: Path, contents: dict[str, str], message: str) -> None:
    """Commit these files alone; nothing is changed if that fails."""
    before = {name: _read(root / name) for name in contents}
    new = [name for name in contents if _content(root, "", name) is None]
    try:
        for name, content in contents.items():
            (root / name).write_bytes(git.encoded(content))
        if new:
            git.git(root, "add", "--force", "--intent-to-add", "--", *new)
        done = git.attempt(root, "commit", "--quiet", "--only", "-F", "-", "--", *contents, stdin=message, hooks=True)
        if done.returncode:
            raise UserError(f"git refused the commit: {(done.stderr or done.stdout).strip()}", "Do as it says.")
    except BaseException:
        for name, old in before.items():
            (root / name).write_bytes(git.encoded(old or ""))
            if old is None:
                (root / name).unlink()
        if new:
            git.attempt(root, "reset", "--quiet", "--", *new)
        raise
