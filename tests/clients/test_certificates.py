"""The server's own TLS: its profile, a certificate that is renewed while it serves, and plain HTTP in front of it."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from certificates import Authority
from secure import Secure
from server import free_port


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def secure(tmp_path, authority):
    with Secure(tmp_path, authority) as server:
        yield server


def answers(connection):
    connection.request("GET", "/livez")
    answer = connection.getresponse()
    answer.read()
    return answer.status == 200


def within(seconds, holds):
    latest = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < latest
        time.sleep(0.05)


def test_a_renewed_certificate_is_used_without_a_restart(secure):
    kept = secure.connect()
    assert answers(kept) and secure.seen() == secure.served
    renewed = secure.renew()
    within(5, lambda: secure.seen() == renewed)
    assert answers(kept), "a connection from before lives on"
    # On request it takes no time.
    renewed = secure.renew()
    secure.process.send_signal(signal.SIGHUP)
    within(1, lambda: secure.seen() == renewed)
    assert answers(kept)
    # One that clients would refuse isn't used.
    secure.renew(days=-1)
    secure.process.send_signal(signal.SIGHUP)
    within(5, lambda: "stays in use" in secure.log())
    assert secure.seen() == renewed and answers(kept)
    assert [line for line in secure.log().splitlines() if '"level":"ERROR"' in line and "expired at" in line]


def exchange(port, request):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(request.encode())
        answer = http.client.HTTPResponse(plain)
        answer.begin()
        return answer.status, answer.headers, answer.read()


def test_plain_http_is_redirected(tmp_path, authority):
    port = free_port()
    with Secure(tmp_path, authority, {"PALISADE_SERVER__TLS__REDIRECT_FROM": f"127.0.0.1:{port}"}) as server:
        status, headers, _ = exchange(port, "GET /sign-in?a=b HTTP/1.1\r\nHost: evil.example.net\r\n\r\n")
        assert (status, headers["location"]) == (308, f"{server.url_seen}/sign-in?a=b")
        body = "POST /api/v1/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
        status, _, body = exchange(port, body)
        assert (status, json.loads(body)["code"]) == (403, "http.https_required")
        followed = subprocess.run(
            ["curl", "-sSL", "-o", "/dev/null", "-w", "%{http_code} %{num_redirects}", "--noproxy", "*",
             "--cacert", str(authority.path), f"http://localhost:{port}/livez"],
            capture_output=True, text=True, timeout=20,
        )
        assert followed.stdout == "200 1", followed
        # It has limits and stops with the rest: a silent connection holds nothing up.
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_the_tls_profile_is_mozillas_intermediate_one(secure, kind):
    serial = secure.renew(kind=kind)
    within(5, lambda: secure.seen() == serial)
    scan = subprocess.run(
        [sys.executable, "-m", "sslyze", f"--certinfo_ca_file={secure.authority.path}", "--mozilla_config=intermediate",
         f"localhost:{secure.port}"],
        capture_output=True, text=True, timeout=60,
    )
    _, _, judged = scan.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")
    findings = [line.split()[1] for line in judged.splitlines() if line.strip().startswith("* ")]
    # No one but this test trusts the authority.
    assert findings == ["certificate_path_validation:"], scan.stdout + scan.stderr
    assert "Compression disabled" in scan.stdout and "Not vulnerable to Heartbleed" in scan.stdout, scan.stdout


@pytest.mark.parametrize("option, accepted", [
    ("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True),
])
def test_only_current_versions_of_tls_are_spoken(secure, option, accepted):
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{secure.port}", "-CAfile", str(secure.authority.path),
         "-verify_return_error", "-cipher", "ALL:@SECLEVEL=0", "-alpn", "h2,http/1.1", option],
        input="", capture_output=True, text=True, timeout=20,
    )
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == accepted, said
    if accepted:
        assert "ALPN protocol: h2" in said and "Compression: NONE" in said and "Verify return code: 0" in said, said
