"""What all tests share: no network, one thread a process, repeatable property tests, the shared data where present."""

from __future__ import annotations

import os
from pathlib import Path

# Read when torch, NumPy and huggingface_hub are first imported, hence before everything else
os.environ["HF_HUB_OFFLINE"] = "1"
# Two pytest processes with two threads each would wait for each other on two cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parents[1]

# No deadline: the first example of a test may import torch. derandomize: a failure is one for everybody
settings.register_profile(
    "subarch", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("subarch")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora and tasks beside the repository; it is not part of it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    return folder
