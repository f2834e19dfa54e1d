"""The options of the rigs, and what they share."""

import os
import pathlib
import random
import subprocess
import tempfile
import time

import pytest
from server import ROOT, Server

pytest.register_assert_rewrite("journal", "scenes", "pairs")


def pytest_addoption(parser):
    group = parser.getgroup("rigs")
    group.addoption("--count", type=int, help="how often a fault is caused, instead of the rig's own number")
    group.addoption("--seconds", type=float, default=20, help="how long an account is guessed at (20)")
    group.addoption("--rounds", type=int, help="rounds of each pair or question, instead of the rig's own number")
    group.addoption(
        "--shard", metavar="K/N", help="the K-th of N parts of all pairs; without it a part that the seed chooses",
    )
    group.addoption("--seed", type=int, default=int(time.time()), help="what chance makes of the pairs")
    group.addoption(
        "--pair", nargs=2, action="append", metavar="ROUTE",
        help='two routes instead of a part of all pairs, such as "POST /auth/refresh"; again for more',
    )
    group.addoption("--workers", type=int, default=6, help="how many pairs are tried at the same time (6)")
    group.addoption("--keep", metavar="PATH", help="a file for what failed, one line of JSON each")


def pytest_collection_modifyitems(items):
    here = pathlib.Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("rig")


@pytest.fixture
def option(request):
    """An option by its name, or what the rig does without it."""
    def option(name, usual):
        given = request.config.getoption(name)
        return usual if given is None else given

    return option


@pytest.fixture
def chance():
    """The same faults at the same moments in every run."""
    return random.Random(1)


@pytest.fixture
def serve():
    """Makes servers, of which none outlives the test."""
    made = []

    def serve(directory, settings, port=None, kind=Server):
        made.append(kind(directory, settings, port))
        return made[-1]

    yield serve
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def unsynced_binary():
    """A build of these sources that doesn't wait for the disk."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "palisade")
    target = cache / "unsynced-target"
    with tempfile.TemporaryDirectory() as copy:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True,
        )
        words = ["xargs", "-0", "cp", "--parents", "-t", copy]
        subprocess.run(words, cwd=ROOT, check=True, input=listed.stdout)
        subprocess.run([ROOT / "tests/weakened/run", "--apply", copy, "synchronous"], cwd=ROOT, check=True)
        words = ["cargo", "build", "--quiet", "--locked", "-p", "palisade-server"]
        subprocess.run(words, cwd=copy, check=True, env={**os.environ, "CARGO_TARGET_DIR": str(target)})
        yield target / "debug" / "palisade"
