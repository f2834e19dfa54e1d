"""A running Palisade for a test: the real binary on free loopback ports, ended when the test is over."""

import contextlib
import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Set by conftest.py.
BINARY = None
PASSWORD = "a long phrase that nobody knows"


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
        self.binary, self.process = BINARY, None

    def __enter__(self):
        self.process = subprocess.Popen(
            [self.binary, "--json", "serve"], cwd=self.directory, env=self.environment,
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
        try:
            code = self.process.wait(20)
        finally:
            self.kill()
        assert code == 0, "SIGTERM ends it with exit code 0"

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def command(self, *words, stdin="", code=0):
        done = subprocess.run(
            [self.binary, *words], cwd=self.directory, env=self.environment, input=stdin, text=True,
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
    """A PostgreSQL cluster that no one else uses, over a socket and loopback."""

    def __init__(self, directory, fsync, more=()):
        self.tools = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.directory, self.port, self.fsync, self.more = directory, free_port(), fsync, more
        self.data, self.databases = os.path.join(directory, "data"), 0
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

    def create_database(self):
        """An empty database; gives its URL."""
        self.databases += 1
        name = f"test_{self.databases}"
        subprocess.run(["psql", self.url, "-qc", f"create database {name}"], check=True, timeout=60)
        return self.url.removesuffix("postgres") + name

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
