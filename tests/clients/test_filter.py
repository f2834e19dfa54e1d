"""A filter of system calls, as a service manager or a container sets it: the server runs without what is forbidden."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading

import filtering
import pytest
import server as servers
from server import Server

NOBODY = 65534
TRIED = {"sched_setaffinity", "sched_setscheduler", "setpriority"}

pytestmark = pytest.mark.skipif(not filtering.CALLS, reason="no numbers of system calls for this architecture")


@pytest.fixture
def place():
    """A directory with the binary, for a user without rights: root's SQLite gives its files to another owner."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="palisade-filter-"))
    shutil.copy(servers.BINARY, folder / "palisade")
    shutil.copy(filtering.__file__, folder)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


class Filtered(Server):
    """A server under a filter; without one if `action` is None."""

    def __init__(self, folder, action):
        super().__init__(folder, {"PALISADE_TELEMETRY__LOG_FORMAT": "json"})
        launcher = folder / "launcher"
        as_other = [shutil.which("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        words = as_other if os.geteuid() == 0 else []
        if action:
            words = [*words, shutil.which("python3", path="/usr/bin"), str(folder / "filtering.py"), action]
        command = " ".join(f"'{word}'" for word in [*words, str(folder / "palisade")])
        launcher.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        launcher.chmod(0o755)
        self.binary = launcher

    def left_out(self):
        lines = (pathlib.Path(self.directory) / "log").read_text().splitlines()
        found = [line for line in map(json.loads, lines) if "calls" in line.get("fields", line)]
        return [set(line.get("fields", line)["calls"].split(", ")) for line in found]


def use(server):
    """Sign-ins at the same time: passwords are hashed by threads that should yield."""
    server.command("user", "create", "ann@example.com", stdin=servers.PASSWORD + "\n")
    threads = [threading.Thread(target=server.sign_in) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    token = server.sign_in()["access_token"]
    assert server.request("GET", "/api/v1/users/me", token=token)[0] == 200
    assert server.process.poll() is None


@pytest.mark.parametrize("action", ["kill-process", "kill-thread", "refuse"])
def test_a_filter_of_system_calls_stops_nothing(place, action):
    with Filtered(place, action) as server:
        use(server)
    assert server.left_out() == [TRIED], "it is logged once"


def test_without_a_filter_every_call_is_made(place):
    with Filtered(place, None) as server:
        use(server)
        status = pathlib.Path(f"/proc/{server.process.pid}/task").glob("*/stat")
        # The policy is the 41st field, the 39th after the name (proc(5)).
        policies = [int(path.read_text().rpartition(")")[2].split()[38]) for path in status]
        idle = os.SCHED_IDLE in policies
    assert server.left_out() == [] or "Seccomp:\t0" not in pathlib.Path("/proc/self/status").read_text()
    assert idle or server.left_out()


def test_only_what_is_forbidden_is_left_out(place):
    # A filter that forbids nothing that the server does.
    script = place / "filtering.py"
    script.write_text(script.read_text().replace("numbers = list(CALLS.values())", "numbers = [CALLS['bpf']]"))
    with Filtered(place, "kill-process") as server:
        use(server)
    assert server.left_out() == []


def test_other_commands_run_under_a_filter(place):
    with Filtered(place, "kill-process") as server:
        version = json.loads(server.command("version", "--json"))
        assert version["version"]
        assert subprocess.run([server.binary, "config", "check"], cwd=place, env=server.environment).returncode == 0
