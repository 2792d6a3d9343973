"""A real llama.cpp server with the default embedded model."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from llm_blender.llms.models import DEFAULT_MODEL, resolve

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def llama_cpp_url() -> Iterator[str]:
    """Address of the server, up to and including ``/v1``; skips where the model is not on this machine."""
    path = resolve(DEFAULT_MODEL)
    if path is None:
        pytest.skip(f"{DEFAULT_MODEL} is not downloaded: blend models pull {DEFAULT_MODEL}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOMP_SPINCOUNT", "1000")  # read on import; else two threads on busy cores take minutes
        import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = 2
    params.n_ctx = 2 * 2048
    params.verbosity = -1
    params.warmup = False
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server
