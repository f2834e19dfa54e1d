"""Faults on purpose, against the real binary: what was acknowledged must outlive them.

Usage: run.py PATH_OF_PALISADE [--weak build|eatmydata] RIG [COUNT]

kill      kill -9 under 64 writers, on SQLite, COUNT times (100)
power     the disk is cut off under 64 writers, COUNT times (20): an ext4 on a loop device, copied while the
          server is stopped, so that what was not synced is lost. With --weak a loss is expected: for a build
          with synchronous=NORMAL (a weakened build), or with fsync taken away (eatmydata). Needs root.
postgres  PostgreSQL is stopped and killed in turn under 64 writers, COUNT times (10)
disk      the disk is full, and then not any more, under 64 writers, COUNT times (3). Needs root.
sync      a sync to disk fails (strace injects EIO) under 64 writers, COUNT times (10)
clock     the clock jumps an hour ahead, four minutes and an hour back, and ten years ahead (libfaketime)
"""

import argparse
import contextlib
import glob
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "clients"))

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("rig", choices=["kill", "power", "postgres", "disk", "sync", "clock"])
parser.add_argument("count", type=int, nargs="?")
parser.add_argument("--weak", choices=["build", "eatmydata"], help="a loss is expected, and its absence a failure")
ARGUMENTS = parser.parse_args()
# The clients' module reads the path of the binary from here.
sys.argv = [sys.argv[0], ARGUMENTS.binary]

from journal import Client, Load, Writer, judge, register, wait_until  # noqa: E402
from server import Server, postgres  # noqa: E402

WRITERS = 64
# Hashing is not what is tested; and so many requests from one address are no person's.
SETTINGS = {"PALISADE_LIMITS__ENABLED": "false", "PALISADE_PASSWORDS__COST": "light"}
# The same faults at the same moments in every run.
RANDOM = random.Random(1)


def log_is_intact(server):
    server.command("audit", "verify")


def kill(count):
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory, SETTINGS)
        server.__enter__()
        writers = [Writer(number) for number in range(WRITERS)]
        register(writers, server.port)
        for number in range(count):
            load = Load(writers, server.port)
            time.sleep(RANDOM.uniform(0.001, 2))
            server.process.kill()
            server.process.wait()
            load.end()
            began = time.monotonic()
            server.__enter__()
            started = time.monotonic() - began
            assert started < 2, f"the start took {started:.1f} s"
            judge(writers, server.port)
            if number % 10 == 9:
                log_is_intact(server)
                print(f"{number + 1} kills, {sum(w.acked for w in writers)} answers kept", flush=True)
        log_is_intact(server)
        server.__exit__()


@contextlib.contextmanager
def mounted(image, directory):
    subprocess.run(["mount", "-o", "loop", image, directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


class Eaten(Server):
    """A server whose syncs to disk do nothing."""

    def __enter__(self):
        self.environment["LD_PRELOAD"] = "libeatmydata.so"
        entered = super().__enter__()
        del self.environment["LD_PRELOAD"]
        return entered


def power(count):
    """What a disk holds at the moment of the cut is what was written through to the loop device's file."""
    assert os.geteuid() == 0, "mounting needs root"
    kind = Eaten if ARGUMENTS.weak == "eatmydata" else Server
    lost = 0
    with tempfile.TemporaryDirectory() as directory:
        image, mount = os.path.join(directory, "disk"), os.path.join(directory, "mount")
        os.mkdir(mount)
        for number in range(count):
            with open(image, "wb") as file:
                file.truncate(256 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
            writers = [Writer(at) for at in range(WRITERS)]
            with mounted(image, mount):
                server = kind(mount, SETTINGS)
                server.__enter__()
                try:
                    register(writers, server.port)
                    load = Load(writers, server.port)
                    time.sleep(RANDOM.uniform(0.5, 4))
                    server.process.send_signal(signal.SIGSTOP)
                    # Stopped, it acknowledges nothing more while the disk is looked at.
                    shutil.copy(image, image + ".cut")
                finally:
                    server.process.kill()
                    server.process.wait()
                load.end()
            os.replace(image + ".cut", image)
            with mounted(image, mount):
                # The journal of the file system is replayed by mounting; then the server starts as ever.
                server = Server(mount, SETTINGS, server.port)
                try:
                    server.__enter__()
                    judge(writers, server.port)
                    log_is_intact(server)
                except Exception as error:  # not even starting is a loss too
                    lost += 1
                    print(f"cut {number + 1}: LOST: {str(error).strip()[:200]}", flush=True)
                else:
                    kept = sum(writer.acked for writer in writers)
                    print(f"cut {number + 1}: {kept} answers kept", flush=True)
                server.process.kill()
                server.process.wait()
    if ARGUMENTS.weak:
        assert lost, "the rig has no teeth: a build that doesn't sync lost nothing"
        print(f"as expected, {lost} of {count} cuts lost something")
    else:
        assert not lost, f"{lost} of {count} cuts lost something"


def outage(count):
    with postgres(fsync="on") as cluster, tempfile.TemporaryDirectory() as directory:
        settings = {**SETTINGS, "PALISADE_DATABASE__URL": cluster.url}
        with Server(directory, settings) as server:
            writers = [Writer(number) for number in range(WRITERS)]
            register(writers, server.port)
            for number in range(count):
                load = Load(writers, server.port)
                time.sleep(RANDOM.uniform(0.2, 2))
                cluster.stop(signal.SIGINT if number % 2 else signal.SIGQUIT)
                load.end()
                tokens = [writer.session["access_token"] for writer in writers if writer.session]
                time.sleep(1.2)
                client = Client(server.port)
                for token in tokens[:8]:
                    began = time.monotonic()
                    status, _ = client.call("GET", "/users/me", token=token)
                    assert status == 503, f"without its database the server answered {status}"
                    assert time.monotonic() - began < 1, "the refusal took more than a second"
                cluster.start()
                ready = lambda: client.call("GET", "/users/me", token=tokens[0])[0] in (200, 401)
                took = wait_until("coming back", 5, ready)
                judge(writers, server.port)
                log_is_intact(server)
                print(f"outage {number + 1}: back after {took:.2f} s", flush=True)
            # It is the same process that was there all along.
            assert server.process.poll() is None


def disk(count):
    """Reads go on, changes are refused with 503, and what was acknowledged stays; then all is as before."""
    with tempfile.TemporaryDirectory() as directory:
        image, mount = os.path.join(directory, "disk"), os.path.join(directory, "mount")
        os.mkdir(mount)
        with open(image, "wb") as file:
            file.truncate(48 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        with mounted(image, mount):
            server = Server(mount, SETTINGS)
            server.__enter__()
            try:
                writers = [Writer(number) for number in range(WRITERS)]
                register(writers, server.port)
                for number in range(count):
                    load = Load(writers, server.port)
                    time.sleep(RANDOM.uniform(0.2, 1))
                    filler = os.path.join(mount, "filler")
                    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                        while True:
                            file.write(bytes(1 << 16))
                    client = Client(server.port)
                    body = {"email": "late@example.com", "password": "another long phrase of words"}
                    refused = lambda: client.call("POST", "/auth/register", body)[0] == 503
                    wait_until("a full disk", 10, refused)
                    living = [writer.session for writer in writers if writer.session]
                    for session in living[:8]:
                        status, _ = client.call("GET", "/users/me", token=session["access_token"])
                        assert status in (200, 401), f"on a full disk a read was answered {status}"
                    os.remove(filler)
                    took = wait_until("writing again", 5, lambda: not refused())
                    load.end()
                    judge(writers, server.port)
                    print(f"full disk {number + 1}: writing again after {took:.2f} s", flush=True)
                log_is_intact(server)
            finally:
                server.process.kill()
                server.process.wait()


def sync(count):
    """What a failed sync may have lost was never acknowledged."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory, SETTINGS)
        server.__enter__()
        writers = [Writer(number) for number in range(WRITERS)]
        register(writers, server.port)
        for number in range(count):
            nth = RANDOM.randint(1, 20)
            inject = f"inject=fsync,fdatasync:error=EIO:when={nth}..{nth + 2}"
            tracer = subprocess.Popen(
                ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", inject, "-p", str(server.process.pid)],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            time.sleep(0.3)
            load = Load(writers, server.port)
            # Traced, the server syncs a few times a second at worst.
            time.sleep(5)
            tracer.send_signal(signal.SIGINT)
            told = tracer.communicate(timeout=20)[1]
            injected = told.count("(INJECTED)")
            load.end()
            assert injected, f"no sync was made to fail at the {nth}th: {told[-500:]}"
            judge(writers, server.port)
            server.process.kill()
            server.process.wait()
            server.__enter__()
            judge(writers, server.port)
            print(f"{injected} syncs failed from the {nth}th on: nothing acknowledged was lost", flush=True)
        log_is_intact(server)
        server.__exit__()


def clock(_):
    """No jump of the clock gives life to what is over, and a small step back takes none."""
    library = next(iter(sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))))
    with tempfile.TemporaryDirectory() as directory:
        offset = pathlib.Path(directory, "offset")
        offset.write_text("+0")
        server = Server(directory, SETTINGS)
        server.environment.update(
            LD_PRELOAD=library, FAKETIME_TIMESTAMP_FILE=str(offset), FAKETIME_NO_CACHE="1",
            # The monotonic clock doesn't jump when somebody sets the time.
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )
        server.__enter__()
        client = Client(server.port)
        writers = [Writer(number) for number in range(2)]
        register(writers, server.port)
        alive, over = (writer.sign_in(client) for writer in writers)
        status = lambda session: client.call("GET", "/users/me", token=session["access_token"])[0]
        refresh = lambda session: client.call("POST", "/auth/refresh", {"refresh_token": session["refresh_token"]})
        assert status(alive) == 200 and status(over) == 200
        assert client.call("POST", "/auth/logout", token=over["access_token"])[0] == 204

        def jump(to):
            offset.write_text(to)
            time.sleep(1.5)
            assert status(over) == 401 and refresh(over)[0] == 401, f"{to}: what was over lives"
            print(f"{to}: what was over stays over", flush=True)

        jump("-4m")
        assert status(alive) == 200, "a small step back ended a session"
        again, alive = refresh(alive)
        assert again == 200 and status(alive) == 200
        jump("+0")
        assert status(alive) == 200
        jump("-1h")
        jump("+0")
        jump("+1h")
        assert status(alive) == 401, "an expired access token is good"
        again, alive = refresh(alive)
        assert again == 200 and status(alive) == 200
        jump("+0")
        jump("+3650d")
        assert status(alive) == 401 and refresh(alive)[0] == 401, "a session outlived its end"
        jump("+0")
        assert client.call("GET", "/whoami")[0] == 200
        server.process.kill()
        server.process.wait()


RIGS = {"disk": (disk, 3), "sync": (sync, 10), "clock": (clock, 1), "kill": (kill, 100), "power": (power, 20), "postgres": (outage, 10)}
rig, usual = RIGS[ARGUMENTS.rig]
rig(ARGUMENTS.count or usual)
print("ok")
