"""What clients and rigs share: the binary that is tested, a server with its settings on a database."""

import os
import pathlib
import signal

import pytest

pytest.register_assert_rewrite("server", "browsing", "inbox", "jwts")

import server as servers  # noqa: E402


def pytest_addoption(parser):
    parser.addoption(
        "--palisade", metavar="PATH", default=os.environ.get("TEST_PALISADE"),
        help="the binary that is tested; without it the one that TEST_PALISADE names",
    )


def pytest_configure(config):
    path = config.getoption("--palisade")
    if path:
        servers.BINARY = pathlib.Path(path).resolve()
    elif not config.getoption("--collect-only"):
        raise pytest.UsageError("name the binary to test with --palisade PATH or in TEST_PALISADE")
    # What was started is stopped, however this ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_generate_tests(metafunc):
    mark = metafunc.definition.get_closest_marker("databases")
    if mark:
        kinds = [pytest.param(kind, marks=pytest.mark.postgres if kind == "postgres" else ()) for kind in mark.args]
        metafunc.parametrize("database", kinds, indirect=True)


@pytest.fixture(scope="session")
def cluster():
    """A PostgreSQL, in which every test has a database of its own."""
    with servers.postgres() as cluster:
        yield cluster


@pytest.fixture
def database(request):
    """The settings that lead to a fresh database; SQLite needs none."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return {}
    return {"PALISADE_DATABASE__URL": request.getfixturevalue("cluster").create_database()}


@pytest.fixture
def settings(request):
    """What the mark `settings` says, as the environment has it."""
    mark = request.node.get_closest_marker("settings")
    return {f"PALISADE_{name}": value for name, value in mark.kwargs.items()} if mark else {}


@pytest.fixture
def server(settings, database):
    """A running server with the user ann@example.com."""
    with servers.started({**settings, **database}) as server:
        yield server
