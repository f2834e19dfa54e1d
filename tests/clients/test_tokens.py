"""PyJWT and pyseto verify our tokens from the published keys."""

import json
import time

import jwt
import pyseto
import pytest

from jwts import verified_jwt
from server import started


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


def test_keys_rotate_without_a_pause(server):
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
