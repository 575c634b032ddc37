import pytest

from .running import Running, write_tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def one_server(checkpoint):
    with Running(checkpoint) as running:
        yield running


@pytest.fixture
def server(one_server):
    """The running server; idle before and after a test, with its memory whole."""
    one_server.idle()
    yield one_server
    one_server.gate.allow(float("inf"))
    one_server.idle()


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client
