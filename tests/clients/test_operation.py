"""What an operator does: psql, the command line beside a running server, settings, keys, the log."""

import json
import os
import pathlib
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import urllib.request

import pytest
from server import BINARY, PASSWORD, Server, free_port


@pytest.mark.databases("postgres")
def test_psql_reads_our_tables(server, database):
    url = database["PALISADE_DATABASE__URL"]
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


def test_the_command_line_reaches_a_running_server_on_sqlite(server):
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


class AuditLog:
    """The audit log of a server on SQLite, with its table open."""

    def __init__(self, server):
        self.server = server
        path = pathlib.Path(server.directory, "palisade-data", "palisade.db")
        self.database = sqlite3.connect(path, timeout=10)

    def verify(self, code):
        return json.loads(self.server.command("--json", "audit", "verify", code=code))

    def reseal(self):
        return json.loads(self.server.command("--json", "audit", "reseal"))["resealed"]

    def one(self, sql):
        return self.database.execute(sql).fetchone()[0]

    def change(self, sql):
        with self.database:
            self.database.execute(sql)

    def chained(self):
        """Waits until every record is in the chain."""
        began = time.time()
        while self.one("select count(*) from audit_events where position is null"):
            assert time.time() - began < 10
            time.sleep(0.05)


def test_a_tampered_audit_log_is_found(server):
    server.sign_in()
    log = AuditLog(server)
    log.chained()
    last = log.one("select position from audit_head")
    assert log.verify(0) == {"intact": True, "records": last, "first_bad": None}
    # The newest record leaves the chain, and the server chains it again: not where it was.
    log.change(
        "update audit_events set position = null, chain = null"
        " where position = (select max(position) from audit_events)"
    )
    log.chained()
    bad = log.verify(1)["first_bad"]
    assert bad["index"] == last and bad["kind"] in ("cut", "deleted"), bad
    assert "tampered" in server.command("audit", "verify", code=1)


def test_a_cut_audit_log_goes_on_after_the_operators_word(server):
    server.sign_in()
    log = AuditLog(server)
    log.chained()
    log.change("delete from audit_head")
    assert log.verify(1)["first_bad"]["kind"] == "cut"
    assert log.reseal() is True
    log.chained()
    assert log.verify(0)["intact"] is True
    assert log.reseal() is False


def test_the_link_is_printed_until_there_is_an_administrator(tmp_path):
    with Server(tmp_path) as server:
        link = server.greeting["setup_link"]
        assert link.startswith(server.url + "/setup#token=")
        body = {"token": link.split("=")[1], "email": "root@example.com", "password": PASSWORD}
        assert server.request("POST", "/api/v1/setup", body)[0] == 201
        assert server.request("POST", "/api/v1/setup", body)[0] == 410
        settings = {"PALISADE_SERVER__PUBLIC_URL": server.url}
    with Server(tmp_path, settings) as server:
        assert server.greeting["setup_link"] is None
        assert server.sign_in("root@example.com")["token_type"] == "Bearer"
    server.command("setup-link", code=1)


def test_a_lost_or_foreign_root_key_stops_the_start_and_makes_no_new_one(tmp_path):
    with Server(tmp_path) as server:
        pass
    key = tmp_path / "palisade-data" / "root.key"
    text = key.read_text()
    key.unlink()
    server.command("serve", code=1)
    assert not key.exists()
    other = tmp_path / "other"
    other.mkdir()
    bare = {"PATH": os.environ["PATH"]}
    subprocess.run([BINARY, "init"], cwd=other, env=bare, check=True, capture_output=True)
    shutil.copy(other / "palisade-data" / "root.key", key)
    server.command("user", "list", code=1)
    key.write_text(text)
    key.chmod(0o644)
    server.command("serve", code=1)
    key.chmod(0o600)
    server.command("user", "list")


def test_wrong_usage_is_told_from_failure(tmp_path):
    server = Server(tmp_path)
    server.command("user", "show", "nobody@example.com", code=1)
    server.command("nonsense", code=2)
    server.command("--set", "sessions.idle_timout=1d", "config", "check", code=2)
    bare = {"PATH": os.environ["PATH"]}
    for words, code in [
        (["--config", "made.toml", "init", "--production"], 0),
        (["--config", "made.toml", "init"], 1),
        # The example that stands for the public URL has to be replaced.
        (["--config", "made.toml", "config", "check"], 2),
        (["--config", "made.toml", "--set", "server.public_url=https://mine.test", "config", "check"], 0),
        (["--config", "missing.toml", "config", "check"], 2),
    ]:
        done = subprocess.run(
            [BINARY, *words], cwd=tmp_path, env=bare, capture_output=True, text=True
        )
        assert done.returncode == code, (words, done)
    shown = json.loads(server.command("--json", "config", "show"))
    assert any(s["key"] == "server.listen" and "environment" in s["origin"] for s in shown["settings"])


def refusal(directory, settings, *words):
    """What the binary says when these settings stop it; it must not start."""
    environment = {"PATH": os.environ["PATH"], **settings}
    done = subprocess.run(
        [BINARY, *(words or ["serve"])], cwd=directory, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode in (1, 2) and not done.stdout, (settings, done)
    return done.stderr


def test_production_refuses_what_is_unsafe_and_names_setting_and_fix(tmp_path):
    bare = {"PATH": os.environ["PATH"]}
    run = lambda *words: subprocess.run(
        [BINARY, *words], cwd=tmp_path, env=bare, check=True, capture_output=True, text=True
    )
    made = run("init", "--production").stdout
    steps = re.findall(r"(?m)^\d\. .*: palisade (.+)$", made)
    assert steps == ["config check", "migrate up", "serve", "setup-link"], made
    assert "PALISADE_SERVER__ENVIRONMENT=production" in (tmp_path / ".env.example").read_text()
    # The first step is to replace the example.
    message = refusal(tmp_path, {}, "config", "check")
    assert "https://app.example.com is an example" in message and "no mail server" in message
    config = tmp_path / "palisade.toml"
    config.write_text(config.read_text().replace("https://app.example.com", "https://app.mine.test"))
    assert "warning: mail.smtp_url" in run("config", "check").stdout
    # The schema is the operator's to change there.
    assert "migrate up" in refusal(tmp_path, {})
    run("migrate", "up")
    placeholder = tmp_path / "placeholder"
    placeholder.write_text("changeme")
    placeholder.chmod(0o600)
    unsafe = [
        ({"SERVER__TRUSTED_PROXIES": "0.0.0.0/0"}, "server.trusted_proxies", "10.0.0.0/8"),
        ({"SERVER__PUBLIC_URL": "http://localhost:8000"}, "server.public_url", "https://"),
        ({"SERVER__PUBLIC_URL": "http://app.example.com"}, "server.public_url", "https://"),
        ({"SERVER__ADMIN_LISTEN": "0.0.0.0:9000"}, "server.admin_listen", "127.0.0.1"),
        ({"CORS__ORIGINS": "*"}, "cors.origins", "https://app.example.com"),
        ({"REGISTRATION__MODE": "open"}, "registration.mode", "closed"),
        ({"LIMITS__ENABLED": "false"}, "limits.enabled", "limits.rules.NAME.burst"),
        ({"LOCKOUT__ENABLED": "false"}, "lockout.enabled", "lockout.threshold"),
        ({"LIMITS__RULES__LOGIN_IP__ENABLED": "false"}, "limits.rules.login_ip", "burst"),
        ({"KEYS__ROOT_KEY_FILE": str(placeholder)}, "keys.root_key", "a root key file"),
        ({"KEYS__ROOT_KEY": "secret"}, "keys.root_key", "a root key file"),
        ({"DATABASE__URL": "postgres://palisade@db.example.com/app?sslmode=disable"},
         "database.url", "sslmode=verify-full"),
        ({"DATABASE__URL": "postgres://palisade@db.example.com/app?sslmode=require"},
         "database.url", "sslmode=verify-full"),
    ]
    for settings, key, fix in unsafe:
        named = {f"PALISADE_{name}": value for name, value in settings.items()}
        message = refusal(tmp_path, named)
        assert key in message and fix in message, (settings, message)
        # The same before anything is started.
        message = refusal(tmp_path, named, "config", "check")
        assert key in message and fix in message, (settings, message)
    text = config.read_text()
    without = re.sub("(?m)^trusted_proxies", "# trusted_proxies", text)
    assert without != text
    (tmp_path / "without.toml").write_text(without)
    message = refusal(tmp_path, {}, "--config", "without.toml", "serve")
    assert "server.trusted_proxies" in message and "Set server.tls.certificate" in message, message
    key = tmp_path / "palisade-data" / "root.key"
    key.chmod(0o644)
    message = refusal(tmp_path, {})
    assert str(key.name) in message and "chmod 600" in message, message
    key.chmod(0o600)
    # With none of it wrong, the very same directory serves.
    ports = [free_port(), free_port()]
    server = subprocess.Popen(
        [BINARY, "--set", f"server.listen=127.0.0.1:{ports[0]}", "--set",
         f"server.admin_listen=127.0.0.1:{ports[1]}", "--json", "serve"],
        cwd=tmp_path, env=bare, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    assert "https://app.mine.test" in "".join(iter(server.stdout.readline, "}\n"))
    with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/readyz", timeout=5) as answer:
        assert answer.status == 200
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0


def test_the_link_is_not_printed_in_production(tmp_path):
    bare = {"PATH": os.environ["PATH"]}
    for words in (["init", "--production"], ["migrate", "up"]):
        subprocess.run([BINARY, *words], cwd=tmp_path, env=bare, check=True, capture_output=True)
    ports = [free_port(), free_port()]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [BINARY, "--set", f"server.listen=127.0.0.1:{ports[0]}", "--set",
             f"server.admin_listen=127.0.0.1:{ports[1]}", "serve"],
            cwd=tmp_path, env=bare, stdout=subprocess.PIPE, stderr=log, text=True,
        )
    printed = "".join(iter(server.stdout.readline, "Stop with Ctrl-C.\n"))
    made = subprocess.run(
        [BINARY, "setup-link"], cwd=tmp_path, env=bare, check=True, capture_output=True, text=True
    )
    assert "/setup#token=pal_su_" in made.stdout, made
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    for text in (printed, (tmp_path / "log").read_text()):
        assert "palisade setup-link" in text and "token=" not in text, text


def eventually(true, seconds=10):
    began = time.time()
    while not true():
        assert time.time() - began < seconds, "never came about"
        time.sleep(0.05)


@pytest.mark.databases("postgres")
def test_a_restored_database_is_noticed_by_running_servers(server, database, tmp_path):
    url = database["PALISADE_DATABASE__URL"]
    key = pathlib.Path(server.directory, "palisade-data", "root.key").read_text().strip()
    same = {"PALISADE_KEYS__ROOT_KEY": key, "PALISADE_SERVER__PUBLIC_URL": server.url}
    with Server(tmp_path, {**database, **same}) as there:
        sees = lambda at, token: at.request("GET", "/api/v1/users/me", token=token)[0]
        server.sign_in()
        dump = tmp_path / "dump"
        subprocess.run(["pg_dump", "-Fc", "-f", dump, url], check=True)
        lost = server.sign_in()["access_token"]
        assert sees(server, lost) == sees(there, lost) == 200
        for _ in range(8):
            token = server.sign_in()["access_token"]
            server.request("POST", "/api/v1/auth/logout", token=token)
        restore = ["pg_restore", "--clean", "--if-exists", "--single-transaction"]
        subprocess.run([*restore, "-d", url, dump], check=True)
        # The dump doesn't know that session, nor do the servers any more.
        for at in (server, there):
            eventually(lambda at=at: sees(at, lost) == 401)
        token = server.sign_in()["access_token"]
        eventually(lambda: sees(there, token) == 200)
        server.request("POST", "/api/v1/auth/logout", token=token)
        eventually(lambda: sees(there, token) == 401, 2)
        with urllib.request.urlopen(there.url + "/readyz", timeout=5) as answer:
            assert answer.status == 200


def test_the_log_is_json_and_holds_no_secret(server):
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


def test_a_terminal_that_closes_does_not_end_the_server(tmp_path):
    server = Server(tmp_path)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execve(BINARY, [BINARY, "serve"], server.environment)
    try:
        shown = b""
        while b"Stop with Ctrl-C" not in shown:
            shown += os.read(terminal, 4096)
        os.close(terminal)
        # SIGHUP has been sent, and nothing can be printed any more.
        for _ in range(20):
            with urllib.request.urlopen(server.url + "/livez", timeout=10) as answer:
                assert answer.status == 200
            time.sleep(0.05)
        os.kill(process, signal.SIGTERM)
        ended = os.waitpid(process, 0)[1]
        assert os.waitstatus_to_exitcode(ended) == 0
    except BaseException:
        os.kill(process, signal.SIGKILL)
        raise
