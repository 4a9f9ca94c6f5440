"""Refuses a result whose inputs were edited while its stage ran: dvc.lock would credit it with the edited ones.

Part of the launcher, in nobody's code dependencies.
"""

from __future__ import annotations

import json
from pathlib import Path

from components import fingerprint, keeping
from components.component import Component, resolve
from components.errors import UserError
from components.fingerprint import Parts
from components.loader import load_params
from components.params.project import Params
from components.runtime import RUNTIME_FILE

Signature = dict[str, tuple[int, int]]


class Watched:
    """What ``component`` reads, as it is now.

    Args:
        found: the parts of the fingerprint now; None if an input is missing, of which the stage will tell.
    """

    def __init__(self, component: Component, params: Params, found: Parts | None) -> None:
        self.component = component
        self.params = params
        self.found = found
        self.signature = self._signature(params)

    def check(self, checkpoints: Path | None = None) -> None:
        """Compare with what is there by now; files are read again only where their size or time tells of a change.

        Checkpoints stay where only parameters and code were edited, which were loaded at the start. Of an input,
        training may have seen either state: what it kept is nobody's.

        Raises:
            UserError: parameters, code, runtime.json or inputs are others than at the start; names them.
        """
        params = load_params()
        if self._values(params) == self._values(self.params) and self._signature(params) == self.signature:
            return
        now = fingerprint.parts(self.component, params)
        if now != self.found:
            kept = checkpoints is not None and self._same_inputs(now)
            if checkpoints is not None and not kept:
                keeping.remove_checkpoints(checkpoints)
            self._refuse(now, kept)

    def _same_inputs(self, now: Parts | None) -> bool:
        return self.found is not None and now is not None and self.found["inputs"] == now["inputs"]

    def _refuse(self, now: Parts | None, kept: bool) -> None:
        if self.found is None or now is None:
            changed, kind = ["an input or code was missing at the start or is now"], "data"
        else:
            changed = fingerprint.other_inputs(self.found, now)
            changed += [f"{name} changed" for name in fingerprint.other_code(self.found, now)]
            kind = "parameters" if self.found["parameters"] != now["parameters"] else "data"
        raise UserError(
            f"Changed while the stage ran: {'; '.join(changed)}. The result was not kept, as it would be credited to "
            "the new state.",
            "Run again." + (" The checkpoints are kept: undo the edit first to go on from them." if kept else ""),
            kind,
        )

    def _values(self, params: Params) -> list[object]:
        return [params.get(key) for key in self.component.parameters.values()]

    def _signature(self, params: Params) -> Signature:
        """Path -> size and time of each file that is read."""
        paths = [RUNTIME_FILE, *map(Path, self.found["code"] if self.found else ())]
        for place in _inputs(self.component, params):
            paths += fingerprint.files_in(place) if place.is_dir() else [place]
        stats = {path.as_posix(): path.stat() for path in paths if path.exists()}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def check_models(component: Component, params: Params, found: Parts | None) -> None:
    """Refuse to read folders of data.models that the stage validate has not seen: dvc.lock knows them by its word.

    Raises:
        UserError: a folder holds something else than ``folders.json`` says, or one of the two is missing.
    """
    models = fingerprint.model_folders(component, params)
    if not models or "folders" not in component.inputs:
        return
    known, inputs = _known(Path(component.inputs["folders"])), found["inputs"] if found else {}
    if other := [name for name, folder in sorted(models.items()) if known.get(name) != inputs.get(folder, "")]:
        named = ", ".join(f"data.models.{name} ({models[name]})" for name in other)
        raise UserError(
            f"Expected the folders of data.models as the stage validate saw them; changed or missing: {named}.",
            "Run validate first: `stillhouse run` does.",
            "data",
        )


def _known(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _inputs(component: Component, params: Params) -> list[Path]:
    paths = [resolve(path, params) for path in component.inputs.values()]
    return list(map(Path, [*paths, *fingerprint.model_folders(component, params).values()]))
