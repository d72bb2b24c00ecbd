"""Modules whose every test needs a CUDA device: skipped as a whole, since skipping thousands one by one takes long."""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # kernels run on the CPU, for tests


def needs_cuda() -> None:
    """Skip the module that calls this where there is no CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device", allow_module_level=True)


def needs_kernels() -> None:
    """Skip the module that calls this where kernels run neither on a CUDA device nor interpreted."""
    if not INTERPRETED:
        needs_cuda()
