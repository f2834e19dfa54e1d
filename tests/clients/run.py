"""Clients that nobody here wrote, against the real binary: curl, psql, PyJWT, pyseto.

Usage: run.py PATH_OF_PALISADE. Starts servers on free loopback ports, SQLite and PostgreSQL, and ends them.
"""

import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

import jwt
import pyseto

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.path.abspath(sys.argv[1])
PASSWORD = "a long phrase that nobody knows"
CHECKS = []


def check(function):
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


@contextlib.contextmanager
def postgres():
    """A PostgreSQL cluster that nobody else uses, over a socket and loopback."""
    tools = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
    directory = tempfile.mkdtemp(prefix="palisade-clients-")
    as_user = []
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data, port = os.path.join(directory, "data"), free_port()
    run = lambda *words: subprocess.run(
        [*as_user, *words], check=True, capture_output=True, cwd=directory, timeout=120
    )
    run(f"{tools}/initdb", "-D", data, "-A", "trust", "-U", "palisade", "--locale=C", "-E", "UTF8")
    server = subprocess.Popen(
        [*as_user, f"{tools}/postgres", "-D", data, "-p", str(port), "-k", directory,
         "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
        cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    url = f"postgres://palisade@127.0.0.1:{port}/postgres"
    try:
        for _ in range(200):
            if subprocess.run(["psql", url, "-c", "select 1"], capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def started(settings=None):
    with tempfile.TemporaryDirectory() as directory, Server(directory, settings) as server:
        server.command("user", "create", "ann@example.com", stdin=PASSWORD + "\n")
        yield server


def verified_jwt(server, token, **more):
    keys = jwt.PyJWKClient(server.url + "/.well-known/jwks.json")
    key = keys.get_signing_key_from_jwt(token)
    options = {"require": ["exp", "iat", "iss", "aud", "sub", "sid", "jti", "auth_time"]}
    arguments = {"audience": server.url, "issuer": server.url, **more}
    return jwt.decode(token, key, algorithms=["EdDSA", "ES256"], options=options, **arguments)


@check
def pyjwt_verifies_both_algorithms_and_refuses_another_audience():
    for algorithm in ["EdDSA", "ES256"]:
        with started({"PALISADE_TOKENS__ALGORITHM": algorithm}) as server:
            answer = server.sign_in()
            token = answer["access_token"]
            header = jwt.get_unverified_header(token)
            assert header["alg"] == algorithm and header["typ"] == "at+jwt", header
            claims = verified_jwt(server, token)
            assert claims["sid"] == answer["session_id"] and claims["amr"] == ["pwd"], claims
            try:
                verified_jwt(server, token, audience="https://elsewhere.example.com")
            except jwt.InvalidAudienceError:
                continue
            raise AssertionError("another audience was accepted")


@check
def pyseto_verifies_our_paseto():
    with started() as server:
        answer = server.sign_in(token_format="paseto")
        _, published = server.request("GET", "/.well-known/paseto-keys.json")
        keys = {entry["kid"]: pyseto.Key.from_paserk(entry["key"]) for entry in published["keys"]}
        token = answer["access_token"]
        decoded = [
            pyseto.decode(key, token, deserializer=json)
            for kid, key in keys.items()
            if key.to_paserk_id() == kid
        ]
        assert len(decoded) == 1 and decoded[0].payload["sid"] == answer["session_id"], decoded
        footer = decoded[0].footer
        assert footer["kid"] in keys, footer


@check
def keys_rotate_without_a_pause():
    with started() as server:
        before = server.sign_in()["access_token"]
        server.command("key", "rotate")
        deadline = time.time() + 2
        while True:
            after = server.sign_in()["access_token"]
            kids = [jwt.get_unverified_header(token)["kid"] for token in (before, after)]
            if kids[0] != kids[1] or time.time() > deadline:
                break
        assert kids[0] != kids[1]
        for token in (before, after):
            assert server.request("GET", "/api/v1/users/me", token=token)[0] == 200
            verified_jwt(server, token)


@check
def psql_reads_our_tables():
    with postgres() as url, started({"PALISADE_DATABASE__URL": url}) as server:
        answer = server.sign_in()
        read = lambda sql: subprocess.run(
            ["psql", url, "-At", "-c", sql], check=True, capture_output=True, text=True
        ).stdout.strip()
        assert read("select email from users") == "ann@example.com"
        row = read("select id, created_at > now() - interval '1 hour', ended_at from sessions")
        assert row == f"{answer['session_id']}|t|", row
        assert read("select pg_typeof(id), pg_typeof(at) from audit_events limit 1") == "id|instant"
        event = json.loads(read("select record from audit_events where event = 'login.signed_in'"))
        assert event["details"]["session"] == answer["session_id"], event
        # Ended by the command line: another process on the same database.
        server.command("user", "revoke-sessions", "ann@example.com")
        began = time.time()
        while server.request("GET", "/api/v1/users/me", token=answer["access_token"])[0] == 200:
            assert time.time() - began < 0.25
        assert read("select ended_because from sessions") == "revoked"


@check
def the_command_line_reaches_a_running_server_on_sqlite():
    with started() as server:
        token = server.sign_in()["access_token"]
        assert server.request("GET", "/api/v1/users/me", token=token)[0] == 200
        server.command("user", "disable", "ann@example.com")
        began = time.time()
        while server.request("GET", "/api/v1/users/me", token=token)[0] == 200:
            assert time.time() - began < 0.25
        second = subprocess.run(
            [BINARY, "serve"], cwd=server.directory, capture_output=True, text=True,
            env={**server.environment, "PALISADE_SERVER__LISTEN": f"127.0.0.1:{free_port()}"},
            timeout=30,
        )
        assert second.returncode == 1 and str(server.process.pid) in second.stderr, second
        data = pathlib.Path(server.directory, "palisade-data")
        assert data.stat().st_mode & 0o777 == 0o700
        for file in data.iterdir():
            assert file.stat().st_mode & 0o777 == 0o600, file


@check
def the_link_is_printed_until_there_is_an_administrator():
    with tempfile.TemporaryDirectory() as directory:
        with Server(directory) as server:
            link = server.greeting["setup_link"]
            assert link.startswith(server.url + "/setup#token=")
            body = {"token": link.split("=")[1], "email": "root@example.com", "password": PASSWORD}
            assert server.request("POST", "/api/v1/setup", body)[0] == 201
            assert server.request("POST", "/api/v1/setup", body)[0] == 410
            settings = {"PALISADE_SERVER__PUBLIC_URL": server.url}
        with Server(directory, settings) as server:
            assert server.greeting["setup_link"] is None
            assert server.sign_in("root@example.com")["token_type"] == "Bearer"
        server.command("setup-link", code=1)


@check
def a_lost_or_foreign_root_key_stops_the_start_and_makes_no_new_one():
    with tempfile.TemporaryDirectory() as directory:
        with Server(directory) as server:
            pass
        key = pathlib.Path(directory, "palisade-data", "root.key")
        text = key.read_text()
        key.unlink()
        server.command("serve", code=1)
        assert not key.exists()
        other = tempfile.mkdtemp()
        bare = {"PATH": os.environ["PATH"]}
        subprocess.run([BINARY, "init"], cwd=other, env=bare, check=True, capture_output=True)
        shutil.copy(pathlib.Path(other, "palisade-data", "root.key"), key)
        server.command("user", "list", code=1)
        key.write_text(text)
        key.chmod(0o644)
        server.command("serve", code=1)
        key.chmod(0o600)
        server.command("user", "list")
        shutil.rmtree(other)


@check
def wrong_usage_is_told_from_failure():
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        server.command("user", "show", "nobody@example.com", code=1)
        server.command("nonsense", code=2)
        server.command("--set", "sessions.idle_timout=1d", "config", "check", code=2)
        bare = {"PATH": os.environ["PATH"]}
        for words, code in [
            (["--config", "made.toml", "init", "--production"], 0),
            (["--config", "made.toml", "init"], 1),
            (["--config", "made.toml", "config", "check"], 0),
            (["--config", "missing.toml", "config", "check"], 2),
        ]:
            done = subprocess.run(
                [BINARY, *words], cwd=directory, env=bare, capture_output=True, text=True
            )
            assert done.returncode == code, (words, done)
        shown = json.loads(server.command("--json", "config", "show"))
        assert any(s["key"] == "server.listen" and "environment" in s["origin"] for s in shown["settings"])


@check
def the_log_is_json_and_holds_no_secret():
    with started() as server:
        answer = server.sign_in()
        server.request("GET", "/api/v1/users/me?x=%0a%1b[31m", token=answer["access_token"])
        server.request("POST", "/api/v1/auth/refresh", {"refresh_token": answer["refresh_token"]})
        time.sleep(0.2)
        log = pathlib.Path(server.directory, "log").read_text()
        lines = [json.loads(line) for line in log.splitlines()]
        requests = [line for line in lines if line["target"] == "palisade::request"]
        assert len(requests) == 3 and all(line["status"] for line in requests), requests
        for secret in (PASSWORD, answer["access_token"], answer["refresh_token"]):
            assert secret not in log


@check
def the_readme_works_as_printed():
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.S)
    assert blocks, "the README has no block to run"
    with tempfile.TemporaryDirectory() as directory, Server(directory) as server:
        script = "set -eu\n" + "".join(blocks)
        script = script.replace("http://localhost:8000", server.url)
        script = script.replace("PASTE_THE_TOKEN_OF_THE_LINK", server.greeting["setup_link"].split("=")[1])
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "ann@example.com" in done.stdout and done.stdout.rstrip().endswith("401"), done.stdout


def main():
    failed = 0
    for function in CHECKS:
        try:
            function()
            print(f"ok      {function.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {function.__name__}\n{traceback.format_exc()}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
