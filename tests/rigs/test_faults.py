"""Faults on purpose, against the real binary under 64 writers: what was acknowledged must outlive them.

`--count` says how often each fault is caused. Power cuts and full disks need root: they use an ext4 file system on a
loop device.
"""

import contextlib
import filecmp
import glob
import os
import shutil
import signal
import subprocess
import time

from journal import Client, Load, Writer, judge, register, wait_until
from server import Server, postgres

WRITERS = 64
# Hashing is not what is tested; and so many requests from one IP address are no person's.
SETTINGS = {"PALISADE_LIMITS__ENABLED": "false", "PALISADE_PASSWORDS__COST": "light"}

def log_is_intact(server):
    server.command("audit", "verify")


def test_acknowledged_changes_outlive_kill_9(serve, chance, option, tmp_path):
    server = serve(tmp_path, SETTINGS)
    server.__enter__()
    writers = [Writer(number) for number in range(WRITERS)]
    register(writers, server.port)
    for number in range(option("count", 100)):
        load = Load(writers, server.port)
        time.sleep(chance.uniform(0.001, 2))
        server.kill()
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


def copy_of_one_moment(image, copy):
    """Copies a disk as it is at one moment.

    The file system goes on writing while its disk is copied: parts of the copy could then be older than others, which no
    cut leaves behind. A copy that still equals the disk when it is complete has no such parts.
    """
    for _ in range(20):
        shutil.copy(image, copy)
        if filecmp.cmp(image, copy, shallow=False):
            return
    raise AssertionError("the file system never stopped writing")


def lost_by_cuts(serve, chance, directory, count, first=Server, then=Server):
    """How many of so many cuts lost something that the first server acknowledged and the second must still have.

    What a disk holds at the moment of the cut is what was written through to the loop device's file: it is copied while
    the server is stopped.
    """
    assert os.geteuid() == 0, "mounting needs root"
    lost = 0
    image, mount, cut = directory / "disk", directory / "mount", directory / "cut"
    mount.mkdir()
    for number in range(count):
        with open(image, "wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        writers = [Writer(at) for at in range(WRITERS)]
        with mounted(image, mount):
            server = serve(mount, SETTINGS, kind=first)
            try:
                server.__enter__()
                register(writers, server.port)
                load = Load(writers, server.port)
                time.sleep(chance.uniform(0.5, 4))
                server.process.send_signal(signal.SIGSTOP)
                # Stopped, it acknowledges nothing more while the disk is looked at.
                copy_of_one_moment(image, cut)
            finally:
                server.kill()
            load.end()
        os.replace(cut, image)
        with mounted(image, mount):
            # The journal of the file system is replayed by mounting; then the server starts as ever.
            server = serve(mount, SETTINGS, server.port, kind=then)
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
            finally:
                server.kill()
    return lost


def test_acknowledged_changes_outlive_a_power_cut(serve, chance, option, tmp_path):
    assert lost_by_cuts(serve, chance, tmp_path, option("count", 20)) == 0


def test_the_rig_sees_that_syncs_do_nothing(serve, chance, option, tmp_path):
    """The rig has teeth: without fsync a cut loses something."""
    assert lost_by_cuts(serve, chance, tmp_path, option("count", 3), Eaten)


def test_the_rig_sees_that_a_build_does_not_sync(serve, chance, option, tmp_path, unsynced_binary):
    """The rig has teeth: with synchronous=NORMAL a cut loses something."""

    class Unsynced(Server):
        def __init__(self, *given):
            super().__init__(*given)
            self.binary = unsynced_binary

    assert lost_by_cuts(serve, chance, tmp_path, option("count", 6), Unsynced, Unsynced)


def test_an_outage_of_postgresql_is_survived(chance, option, tmp_path):
    """Stopped and killed in turn: refused within a second meanwhile, and back soon, in the same process."""
    with postgres(fsync="on") as cluster:
        settings = {**SETTINGS, "PALISADE_DATABASE__URL": cluster.url}
        with Server(tmp_path, settings) as server:
            writers = [Writer(number) for number in range(WRITERS)]
            register(writers, server.port)
            for number in range(option("count", 10)):
                load = Load(writers, server.port)
                time.sleep(chance.uniform(0.2, 2))
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


def test_a_full_disk_refuses_changes_until_there_is_room(serve, chance, option, tmp_path):
    """Reads go on, changes are refused with 503, and what was acknowledged stays; then all is as before."""
    assert os.geteuid() == 0, "mounting needs root"
    image, mount, filler = tmp_path / "disk", tmp_path / "mount", tmp_path / "mount" / "filler"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    with mounted(image, mount):
        server = serve(mount, SETTINGS)
        try:
            server.__enter__()
            writers = [Writer(number) for number in range(WRITERS)]
            register(writers, server.port)
            for number in range(option("count", 3)):
                load = Load(writers, server.port)
                time.sleep(chance.uniform(0.2, 1))
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
                filler.unlink()
                took = wait_until("writing again", 5, lambda: not refused())
                load.end()
                judge(writers, server.port)
                print(f"full disk {number + 1}: writing again after {took:.2f} s", flush=True)
            log_is_intact(server)
        finally:
            server.kill()


def test_what_a_failed_sync_may_have_lost_was_never_acknowledged(serve, chance, option, tmp_path):
    """strace injects EIO."""
    server = serve(tmp_path, SETTINGS)
    server.__enter__()
    writers = [Writer(number) for number in range(WRITERS)]
    register(writers, server.port)
    for _ in range(option("count", 10)):
        nth = chance.randint(1, 20)
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
        server.kill()
        server.__enter__()
        judge(writers, server.port)
        print(f"{injected} syncs failed from the {nth}th on: nothing acknowledged was lost", flush=True)
    log_is_intact(server)
    server.__exit__()


def test_a_jump_of_the_clock_gives_life_to_nothing_that_is_over(serve, tmp_path):
    """Nor does a small step back end what lives: four minutes back, an hour back and ahead, ten years ahead."""
    library = next(iter(sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))))
    offset = tmp_path / "offset"
    offset.write_text("+0")
    server = serve(tmp_path, SETTINGS)
    server.environment.update(
        LD_PRELOAD=library, FAKETIME_TIMESTAMP_FILE=str(offset), FAKETIME_NO_CACHE="1",
        # The monotonic clock doesn't jump when someone sets the time.
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
