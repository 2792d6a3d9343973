from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """Of a model this small, several threads spend their time waiting for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
