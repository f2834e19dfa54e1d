"""examples/verifier, a verifier of another make: offline with the published keys, and never behind the feed."""

import json
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import jwt
import pytest
from server import PASSWORD, started
from verifier import Refused, Verifier

BOUND = 6.0


def gateway_key(server):
    """The API key of a service account that may follow the feed."""
    server.command("user", "create", "root@example.com", "--role", "admin", stdin=PASSWORD + "\n")
    root = server.sign_in("root@example.com")["access_token"]

    def done(method, path, body=None):
        status, answer = server.request(method, path, body, root)
        assert status in (201, 204), answer
        return answer

    done("POST", "/api/v1/roles", {"name": "verifiers", "permissions": ["tokens:introspect"]})
    account = done("POST", "/api/v1/service-accounts", {"name": "Gateway"})["id"]
    done("PUT", f"/api/v1/users/{account}/roles/verifiers")
    body = {"name": "gateway", "permissions": ["tokens:introspect"]}
    made = done("POST", f"/api/v1/users/{account}/api-keys", body)
    return root, account, made


def verdict(verifier, token):
    try:
        return verifier.verify(token)["sid"]
    except Refused as why:
        return str(why)


def until(wanted, seconds, look):
    """Waits for what `look` answers; says how long it took."""
    began = time.time()
    while True:
        got = look()
        if got == wanted:
            return time.time() - began
        assert time.time() - began < seconds, (wanted, got)
        time.sleep(0.01)


class Withheld:
    """Between a verifier and the server: passes everything on, until it is told to be silent."""

    def __init__(self, port):
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.silent = threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            for pair in [(client, server), (server, client)]:
                threading.Thread(target=self.pump, args=pair, daemon=True).start()

    def pump(self, source, sink):
        try:
            while data := source.recv(65536):
                if self.silent.is_set():
                    continue
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def ended_and_withheld(server):
    root, account, made = gateway_key(server)
    between = Withheld(server.port)
    direct = Verifier(server.url, made["api_key"], bound=BOUND).start()
    url = f"http://localhost:{between.port}"
    far = Verifier(url, made["api_key"], issuer=server.url, bound=BOUND).start()
    for algorithm_or_kind in ["first", "second"]:
        held = server.sign_in()
        token, session = held["access_token"], held["session_id"]
        for verifier in (direct, far):
            until(session, 10, lambda v=verifier: verdict(v, token))
        status, _ = server.request("POST", "/api/v1/auth/logout", token=token)
        assert status == 204, (algorithm_or_kind, status)
        for verifier in (direct, far):
            took = until("the session has ended", 5, lambda v=verifier: verdict(v, token))
            assert took < 1.0, took
    # A session that ends while the feed is withheld: refused all the same, once the head is old.
    held = server.sign_in()
    token, session = held["access_token"], held["session_id"]
    until(session, 10, lambda: verdict(far, token))
    between.silent.set()
    server.request("POST", "/api/v1/auth/logout", token=token)
    took = until("the revocation feed is out of date", BOUND + 2, lambda: verdict(far, token))
    assert took <= BOUND + 1, took
    # When it comes again, what was missed is there.
    between.silent.clear()
    until("the session has ended", 30, lambda: verdict(far, token))
    # A page is no access token, and an access token is no page.
    page = page_of(server, made["api_key"])
    assert verdict(direct, page).startswith("the type is not at+jwt"), verdict(direct, page)
    for text in [page[:-4] + "AAAA", held["access_token"]]:
        try:
            direct._take(text)
        except Refused:
            continue
        raise AssertionError("it took what is no page")
    assert jwt.get_unverified_header(page)["typ"] == "revocations+jwt"
    # Who may no longer follow is late soon.
    status, _ = server.request("DELETE", f"/api/v1/users/{account}/api-keys/{made['id']}", token=root)
    assert status == 204, status
    outdated = "the revocation feed is out of date"
    until(outdated, BOUND + 2, lambda: verdict(direct, server.sign_in()["access_token"]))
    for verifier in (direct, far):
        verifier.stop()


@pytest.mark.settings(TOKENS__CLAIMS="roles,scope,name")
def test_a_verifier_refuses_tokens_whose_claims_have_changed(server):
    root, _, made = gateway_key(server)
    verifier = Verifier(server.url, made["api_key"], bound=BOUND).start()
    held = server.sign_in()
    user = jwt.decode(held["access_token"], options={"verify_signature": False})["sub"]
    status, answer = server.request("POST", "/api/v1/roles", {"name": "readers", "permissions": ["users:read"]}, root)
    assert status == 201, answer
    bystander = server.sign_in("root@example.com")
    for method, path, body in [
        ("PATCH", f"/api/v1/users/{user}", {"name": "Ann"}),
        ("PUT", f"/api/v1/users/{user}/roles/readers", None),
        ("PATCH", "/api/v1/roles/readers", {"permissions": []}),
        ("PATCH", "/api/v1/roles/readers", {"permissions": ["users:read"]}),
        ("DELETE", f"/api/v1/users/{user}/roles/readers", None),
    ]:
        token = held["access_token"]
        until(held["session_id"], 10, lambda: verdict(verifier, token))
        status, answer = server.request(method, path, body, root_token(server))
        assert status in (200, 204), answer
        took = until("the token is outdated", 5, lambda: verdict(verifier, token))
        assert took < 1.0, took
        assert server.request("GET", "/api/v1/users/me", token=token)[0] == 401
        _, held = server.request("POST", "/api/v1/auth/refresh", {"refresh_token": held["refresh_token"]})
        until(held["session_id"], 10, lambda: verdict(verifier, held["access_token"]))
    claims = verifier.verify(held["access_token"])
    assert (claims["roles"], claims["scope"], claims["name"]) == (["user"], "", "Ann"), claims
    assert verdict(verifier, bystander["access_token"]) == bystander["session_id"]
    verifier.stop()


def root_token(server):
    return server.sign_in("root@example.com")["access_token"]


def page_of(server, key):
    headers = {"Authorization": "Bearer " + key}
    request = urllib.request.Request(server.url + "/api/v1/auth/revocations", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "application/jose"
        return answer.read().decode()


def test_a_verifier_refuses_ended_sessions_and_a_withheld_feed(server):
    ended_and_withheld(server)


@pytest.mark.databases("postgres")
def test_a_verifier_follows_a_server_with_other_signatures_on_postgresql(database):
    # Under the name that hosting services use.
    settings = {"DATABASE_URL": database["PALISADE_DATABASE__URL"], "PALISADE_TOKENS__ALGORITHM": "ES256"}
    with started(settings) as server:
        ended_and_withheld(server)


def test_an_open_stream_does_not_hold_the_server_up(server):
    _, _, made = gateway_key(server)
    headers = {"Authorization": "Bearer " + made["api_key"], "Accept": "text/event-stream"}
    request = urllib.request.Request(server.url + "/api/v1/auth/revocations", headers=headers)
    answer = urllib.request.urlopen(request, timeout=10)
    assert answer.readline().startswith(b"id: ")
    began = time.time()
    server.process.terminate()
    while answer.readline():
        pass
    assert server.process.wait(20) == 0
    # What is in flight may take ten seconds.
    assert time.time() - began < 9, "the stream held the server up"


def test_introspection_and_revocation_speak_forms(server):
    _, _, made = gateway_key(server)
    held = server.sign_in()

    def ask(path, token):
        data = urllib.parse.urlencode({"token": token, "token_type_hint": "access_token"}).encode()
        headers = {"Authorization": "Bearer " + made["api_key"]}
        request = urllib.request.Request(server.url + path, data, headers, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    message = ask("/api/v1/auth/introspect", held["access_token"])
    claims = jwt.decode(held["access_token"], options={"verify_signature": False})
    # The generation is for those who verify tokens themselves.
    del claims["gen"]
    about = {"scope": "", "roles": ["user"]}
    assert message == {"active": True, "token_type": "Bearer", **claims, **about}, message
    assert ask("/api/v1/auth/revoke", held["refresh_token"]) is None
    for token in [held["access_token"], held["refresh_token"]]:
        assert ask("/api/v1/auth/introspect", token) == {"active": False}
