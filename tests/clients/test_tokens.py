"""PyJWT and pyseto verify our tokens from the published keys."""

import contextlib
import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jwt
import pyseto
import pytest

from jwts import verified_jwt
from server import started

HERE = pathlib.Path(__file__).resolve().parent


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_pyjwt_verifies_our_tokens_and_refuses_another_audience(algorithm):
    with started({"PALISADE_TOKENS__ALGORITHM": algorithm}) as server:
        answer = server.sign_in()
        token = answer["access_token"]
        header = jwt.get_unverified_header(token)
        assert header["alg"] == algorithm and header["typ"] == "at+jwt", header
        claims = verified_jwt(server, token)
        assert claims["sid"] == answer["session_id"] and claims["amr"] == ["pwd"], claims
        with pytest.raises(jwt.InvalidAudienceError):
            verified_jwt(server, token, audience="https://elsewhere.example.com")


def test_pyseto_verifies_our_paseto(server):
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


@contextlib.contextmanager
def verifying(words, environment):
    """A program that verifies a token a line; gives the function that asks it."""
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:

        def ask(token):
            program.stdin.write(token + "\n")
            program.stdin.flush()
            return program.stdout.readline().strip()

        yield ask
        program.stdin.close()


@pytest.fixture
def verifiers(node_modules, tmp_path):
    """The commands of verifiers with the caches that their libraries have by default."""
    shutil.copy(HERE / "rotation" / "verify.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules)
    return {
        "PyJWT": [sys.executable, str(HERE / "rotation" / "verify.py")],
        "jose": ["node", str(tmp_path / "verify.mjs")],
    }


def test_verifiers_refuse_no_token_while_the_keys_rotate(verifiers, tmp_path):
    """Minute by minute, on clocks that are moved ahead together."""
    library = next(iter(sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))))
    offset = tmp_path / "offset"
    offset.write_text("+0")
    moved = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1"}
    # PyJWT's cache is as old as the monotonic clock says. The others do without its jumps.
    steady = {**moved, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    settings = {"PALISADE_LIMITS__ENABLED": "false", "PALISADE_PASSWORDS__COST": "light", **steady}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(started(settings))
        asks = {}
        for name, words in verifiers.items():
            environment = {**os.environ, **(moved if name == "PyJWT" else steady)}
            asks[name] = stack.enter_context(verifying([*words, server.url], environment))

        def kid_of_a_new_token(minute):
            token = server.sign_in()["access_token"]
            told = {name: ask(token) for name, ask in asks.items()}
            assert set(told.values()) == {"ok"}, (minute, told)
            assert server.request("GET", "/api/v1/users/me", token=token)[0] == 200
            return jwt.get_unverified_header(token)["kid"]

        old = kid_of_a_new_token("before")
        made = json.loads(server.command("key", "rotate", "--json"))["keys"]
        assert len(made) == 2 and all(set(key) == {"kid", "signs_from"} for key in made), made
        assert json.loads(server.command("key", "rotate", "signing", "--json"))["keys"] == made
        signing = {}
        for minute in range(32):
            offset.write_text(f"+{minute}m")
            signing[minute] = kid_of_a_new_token(minute)
        assert {signing[minute] for minute in range(15)} == {old}, signing
        assert {signing[minute] for minute in range(16, 32)} == {made[0]["kid"]}, signing


def test_dropped_keys_are_refused_by_a_running_server(server):
    before = server.sign_in()
    token = before["access_token"]
    assert server.request("GET", "/api/v1/users/me", token=token)[0] == 200
    made = json.loads(server.command("key", "rotate", "--now", "--json"))["keys"]
    deadline = time.time() + 0.5
    while server.request("GET", "/api/v1/users/me", token=token)[0] != 401:
        assert time.time() < deadline, "a token of a dropped key is accepted"
    status, after = server.request("POST", "/api/v1/auth/refresh", {"refresh_token": before["refresh_token"]})
    assert status == 200, after
    assert jwt.get_unverified_header(after["access_token"])["kid"] == made[0]["kid"]
    verified_jwt(server, after["access_token"])
    states = {key["kid"]: key["state"] for key in json.loads(server.command("key", "list", "--json"))["items"]}
    assert states[jwt.get_unverified_header(token)["kid"]] == "dropped", states
    assert states[made[0]["kid"]] == "in_use", states
