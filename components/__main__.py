"""Runs one component: ``python -m components distill``; the command of every stage in dvc.yaml."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import traceback

from components import errors, fingerprint, runtime
from components.component import COMPONENTS, Component
from components.errors import UserError
from components.keeping import checkpoint_folder
from components.loader import load_params
from components.ml.models.folders import trust_code
from components.watching import Watched, check_models

# No network, no telemetry, and none of the libraries' own progress bars and advice.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def main(arguments: list[str]) -> int:
    """Run the named component; 0 done, 1 internal error, 2 the user's mistake or a failed gate."""
    if len(arguments) != 1 or arguments[0] not in COMPONENTS:
        print(f"expected one of: {', '.join(COMPONENTS)}; got: {' '.join(arguments) or 'nothing'}", file=sys.stderr)
        return 2
    (name,) = arguments
    errors.forget(name)
    try:
        _run(name)
    except UserError as error:
        return _report(name, error)
    except Exception as error:
        full = errors.disk_full(error)
        if full is None:
            traceback.print_exc()
            return 1
        return _report(name, full)
    finally:
        gc.unfreeze()  # DuckDB's bindings take frozen objects for leaks, and print pages about them in the end
    return 0


def _run(name: str) -> None:
    params = load_params()
    runtime.check()
    runtime.collect_rarely()
    runtime.limit_threads(params.runtime.threads)
    trust_code(params.runtime.trust_remote_code)
    _settle_environment()
    component = COMPONENTS[name]
    found = fingerprint.parts(component, params)
    watched = Watched(component, params, found)
    check_models(component, params, found)
    _import(component)  # not before its code is fingerprinted: an edit in between would be credited with the result
    with checkpoint_folder(component, params, found) as checkpoints:
        component.run(params, checkpoints, functools.partial(watched.check, checkpoints))


def _import(component: Component) -> None:
    """Import what the stage needs. Modules live on: looking for garbage among them would take a fifth of the time."""
    gc.disable()
    try:
        component.function()
    finally:
        gc.freeze()
        gc.enable()


def _settle_environment() -> None:
    """Nothing that the surroundings say may change a result: accelerate takes number format and device from there."""
    if os.environ.get("WORLD_SIZE", "1") in ("", "0", "1"):  # `accelerate launch` tells its processes that way
        for variable in [variable for variable in os.environ if variable.startswith("ACCELERATE_")]:
            del os.environ[variable]
    os.environ.update(ENVIRONMENT)


def _report(name: str, error: UserError) -> int:
    print(f"{name}: {error}", file=sys.stderr)
    with contextlib.suppress(OSError):  # a full disk; the message is on standard error too
        errors.record(name, error)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
