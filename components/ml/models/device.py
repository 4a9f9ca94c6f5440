"""Where and how a stage computes: device, threads, determinism."""

from __future__ import annotations

import os

import torch

from components.errors import UserError


def use_device(device: str, threads: int) -> torch.device:
    """Set the threads, ask for deterministic kernels and return the device.

    Raises:
        UserError: the device isn't there.
    """
    check_device(device)
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(device)


def check_device(device: str) -> None:
    """Refuse a device that this machine lacks.

    Raises:
        UserError: what was asked for, and what there is.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device]:
        raise UserError(
            f"runtime.device: {device} was asked for, but this machine's PyTorch finds none.",
            f"Choose one of: {', '.join(name for name, found in there.items() if found)}.",
            "parameters",
        )
