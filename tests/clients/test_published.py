"""Responses of real authenticators, as other implementations of WebAuthn publish them in their tests, verified by the
program that an application would write: py_webauthn's sources and those of webauthn-rs-core. What they say is read a
second time by python-fido2."""

import base64
import hashlib
import json
import os
import pathlib
import re
import subprocess
from urllib.parse import urlsplit

import pytest
import server as servers
from fido2 import cbor
from fido2.webauthn import AttestationObject

OFFERED = {-8, -7, -257}
FORMATS = {"none", "packed", "fido-u2f", "tpm", "android-key", "android-safetynet", "apple"}

# A function, or a member whose value is base64 or, in Rust, base64 that is decoded there or a list of numbers.
PARTS = re.compile(
    r"(?:fn|def) (?P<function>test_\w+)"
    r'|"?(?P<member>attestation_?[oO]bject|clientDataJSON|client_data_json)"?\s*:\s*(?:Base64UrlSafeData::from\(\s*)?'
    r'(?:vec!\[(?P<numbers>[\d,\s]+)\]|(?:STANDARD\s*\.decode\(\s*)?"(?P<text>[\w+/-]+=*)")'
)


def encode(value):
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def decode(text):
    text = text.rstrip("=").replace("+", "-").replace("/", "_")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def registrations(path):
    """The pairs of client data and attestation object in a file, each named by the test that it stands in."""
    function, parts = None, {}
    for found in PARTS.finditer(path.read_text()):
        if found["function"]:
            function, parts = found["function"], {}
            continue
        try:
            numbers = found["numbers"]
            value = bytes(map(int, re.findall(r"\d+", numbers))) if numbers else decode(found["text"])
        except ValueError:
            continue
        parts["object" if "ttestation" in found["member"] else "client"] = value
        if len(parts) == 2:
            client, name = parts["client"], f"{path.name}::{function}"
            if b'"webauthn.create"' in client:
                yield name, client, parts["object"]
            parts = {}


def published():
    folder = pathlib.Path(os.environ["TEST_PUBLISHED"])
    paths = [*folder.glob("webauthn-*/tests/test_verify_registration_response*.py"), *folder.glob("webauthn-rs-core/*.rs")]
    for path in sorted(paths):
        yield from registrations(path)


def read(attestation_object):
    """What python-fido2 reads, or None where it can't."""
    try:
        return AttestationObject(attestation_object)
    except (ValueError, KeyError):
        return None


def rp_id_of(host, attested):
    """The RP ID: the host or a domain above it, whichever the authenticator signed."""
    labels = host.split(".")
    names = [".".join(labels[index:]) for index in range(len(labels))]
    fits = lambda name: hashlib.sha256(name.encode()).digest() == attested.auth_data.rp_id_hash
    return next(filter(fits, names), host) if attested else host


def request(client, attestation_object, **instead):
    data, attested = json.loads(client), read(attestation_object)
    own = attested.auth_data.credential_data.credential_id if attested else bytes(32)
    credential = {
        "id": encode(own), "rawId": encode(own), "type": "public-key", "clientExtensionResults": {},
        "response": {"clientDataJSON": encode(client), "attestationObject": encode(attestation_object)},
    }
    rp_id = rp_id_of(urlsplit(data["origin"]).hostname, attested)
    whole = {"rp_id": rp_id, "origin": data["origin"], "challenge": data["challenge"], "credential": credential}
    return {**whole, **instead}


def verdicts(requests):
    """What the example program of palisade-crypto, built beside the server, answers."""
    program = servers.BINARY.parent / "examples" / "register"
    lines = "".join(json.dumps(one) + "\n" for one in requests)
    done = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=60, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(requests), done.stderr
    return answers


@pytest.fixture(scope="module")
def responses():
    found = list(published())
    assert len(found) >= 50, found
    return found


def test_published_registrations_of_the_offered_algorithms_are_accepted(responses):
    answers = verdicts([request(client, attested) for _, client, attested in responses])
    algorithms, formats = [], set()
    for (name, _, attestation_object), answer in zip(responses, answers, strict=True):
        attested = read(attestation_object)
        # Those that python-fido2 can't read either were published because they are malformed.
        if attested is None:
            assert "refused" in answer, name
            continue
        key = attested.auth_data.credential_data.public_key
        if key[3] not in OFFERED:
            assert answer == {"refused": "the key's algorithm isn't supported"}, name
            continue
        assert "refused" not in answer, (name, answer)
        assert decode(answer["id"]) == attested.auth_data.credential_data.credential_id, name
        assert (answer["algorithm"], answer["attestation"]) == (key[3], attested.fmt), name
        assert cbor.decode(decode(answer["public_key"])) == dict(key), name
        algorithms.append(key[3])
        formats.add(attested.fmt)
    assert len(algorithms) >= 40 and set(algorithms) == OFFERED and formats == FORMATS, (algorithms, formats)


@pytest.mark.parametrize(
    "instead, why",
    [
        ({"challenge": encode(b"a challenge that none of them has")}, "the challenge isn't the expected one"),
        ({"origin": "https://example.com"}, "the origin isn't allowed"),
        ({"rp_id": "example.com"}, "the authenticator data is for another relying party"),
    ],
)
def test_published_registrations_are_refused_elsewhere(responses, instead, why):
    good = [(client, attested) for _, client, attested in responses if read(attested)]
    answers = verdicts([request(client, attested, **instead) for client, attested in good])
    assert len(answers) >= 40 and all(answer == {"refused": why} for answer in answers), answers
