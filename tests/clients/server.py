"""A running Palisade for a check: the real binary on free loopback ports, ended when the check is over."""

import contextlib
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.path.abspath(sys.argv[1])
PASSWORD = "a long phrase that nobody knows"
CHECKS = []


def check(function):
    """Marks a function as a check that run.py runs."""
    CHECKS.append(function)
    return function


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running `palisade serve` in a directory of its own."""

    def __init__(self, directory, settings=None, port=None):
        self.directory = str(directory)
        self.port = port or free_port()
        self.url = f"http://localhost:{self.port}"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PALISADE_")
        }
        self.environment.update(
            PALISADE_SERVER__LISTEN=f"127.0.0.1:{self.port}",
            PALISADE_SERVER__ADMIN_LISTEN=f"127.0.0.1:{free_port()}",
            PALISADE_SERVER__PUBLIC_URL=self.url,
        )
        self.environment.update(settings or {})
        self.process = None

    def __enter__(self):
        self.process = subprocess.Popen(
            [BINARY, "--json", "serve"], cwd=self.directory, env=self.environment,
            stdout=subprocess.PIPE, stderr=open(os.path.join(self.directory, "log"), "ab"), text=True,
        )
        text = ""
        while not text.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, open(os.path.join(self.directory, "log")).read()
            text += line
        self.greeting = json.loads(text)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, "SIGTERM ends it with exit code 0"

    def command(self, *words, stdin="", code=0):
        done = subprocess.run(
            [BINARY, *words], cwd=self.directory, env=self.environment, input=stdin, text=True,
            capture_output=True, timeout=60,
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def request(self, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def sign_in(self, email="ann@example.com", **more):
        status, answer = self.request(
            "POST", "/api/v1/auth/login", {"email": email, "password": PASSWORD, **more}
        )
        assert status == 200, answer
        return answer


class Cluster:
    """A PostgreSQL cluster that nobody else uses, over a socket and loopback."""

    def __init__(self, directory, fsync, more=()):
        self.tools = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.directory, self.port, self.fsync, self.more = directory, free_port(), fsync, more
        self.data = os.path.join(directory, "data")
        self.url = f"postgres://palisade@127.0.0.1:{self.port}/postgres"
        self.as_user = []
        if os.geteuid() == 0:
            shutil.chown(directory, "postgres")
            self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        words = [f"{self.tools}/initdb", "-D", self.data, "-A", "trust", "-U", "palisade", "--locale=C", "-E", "UTF8"]
        subprocess.run([*self.as_user, *words], check=True, capture_output=True, cwd=directory, timeout=120)
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [*self.as_user, f"{self.tools}/postgres", "-D", self.data, "-p", str(self.port), "-k", self.directory,
             "-c", "listen_addresses=127.0.0.1", "-c", f"fsync={self.fsync}",
             *(word for setting in self.more for word in ("-c", setting))],
            cwd=self.directory, stdout=subprocess.DEVNULL, stderr=open(os.path.join(self.directory, "log"), "ab"),
        )
        for _ in range(400):
            if subprocess.run(["psql", self.url, "-c", "select 1"], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        raise AssertionError("PostgreSQL doesn't start")

    def stop(self, how=signal.SIGINT):
        """SIGINT: fast shutdown. SIGQUIT: immediate, as a crash."""
        self.process.send_signal(how)
        self.process.wait(30)


@contextlib.contextmanager
def postgres(fsync="off", more=()):
    """`more` are settings of PostgreSQL; its log is the file `log` in its directory."""
    directory = tempfile.mkdtemp(prefix="palisade-clients-")
    cluster = Cluster(directory, fsync, more)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def started(settings=None, person=True):
    with tempfile.TemporaryDirectory() as directory, Server(directory, settings) as server:
        if person:
            server.command("user", "create", "ann@example.com", stdin=PASSWORD + "\n")
        yield server
