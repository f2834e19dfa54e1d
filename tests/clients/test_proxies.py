"""Real reverse proxies in front of the server: nginx, HAProxy and Caddy, as docs/operations.md configures them."""

import datetime
import ipaddress
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from server import Server, free_port

# Where clients come from. The proxies come from 127.0.0.1, which alone is trusted.
CLIENT, OTHER = "127.0.0.9", "127.0.0.10"
STREAM_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The paths of a certificate for localhost, of its key, and of a file with both."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    )
    chain = built.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths = [folder / name for name in ("chain.pem", "key.pem", "both.pem")]
    for path, content in zip(paths, (chain, private, chain + private), strict=True):
        path.write_bytes(content)
        path.chmod(0o600)
    return paths


class Proxy:
    """A program that runs until the end of the block, once its port accepts connections."""

    def __init__(self, folder, words, port):
        self.folder, self.words, self.port = folder, words, port

    def __enter__(self):
        log = open(self.folder / "proxy.log", "ab")
        home = {name: str(self.folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        self.process = subprocess.Popen(self.words, cwd=self.folder, env=os.environ | home, stdout=log, stderr=log)
        began = time.time()
        while curl(f"http://127.0.0.1:{self.port}/", check=False)[0] == 7:
            assert self.process.poll() is None and time.time() - began < 20, self.log()
            time.sleep(0.05)
        return self

    def log(self):
        return (self.folder / "proxy.log").read_text()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(20)


def haproxy(folder, lines, port):
    path = folder / "haproxy.cfg"
    path.write_text("defaults\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n" + lines)
    return Proxy(folder, ["haproxy", "-db", "-f", str(path)], port)


def nginx(folder, blocks, port):
    load = f"load_module {STREAM_MODULE};\n" if STREAM_MODULE.exists() else ""
    path = folder / "nginx.conf"
    path.write_text(
        f"{load}daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n"
        f"events {{}}\n{blocks}"
    )
    return Proxy(folder, ["nginx", "-p", str(folder), "-c", str(path)], port)


def nginx_http(folder, servers, port):
    paths = " ".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return nginx(folder, f"http {{ access_log off; {paths}\n{servers} }}", port)


def caddy(folder, site, port):
    path = folder / "Caddyfile"
    path.write_text(f"{{\n  admin off\n  auto_https disable_redirects\n  persist_config off\n}}\n{site}")
    program = pathlib.Path(sys.executable).parent / "caddy"
    return Proxy(folder, [str(program), "run", "--config", str(path), "--adapter", "caddyfile"], port)


def curl(url, *words, check=True):
    """Requests a URL as the client. Gives curl's exit code, the status with the place of a redirect, and the body."""
    done = subprocess.run(
        ["curl", "-s", "-m", "10", "--interface", CLIENT, "-w", "\n%{http_code} %{redirect_url}", *words, url],
        capture_output=True, text=True, timeout=30,
    )
    if check:
        assert done.returncode == 0, (url, done)
    body, _, end = done.stdout.rpartition("\n")
    return done.returncode, end.strip(), body


def behind(folder, url, **settings):
    """A server whose users reach it at `url`."""
    settings = {f"PALISADE_SERVER__{name}": value for name, value in settings.items()}
    settings |= {"PALISADE_SERVER__PUBLIC_URL": url, "PALISADE_SERVER__TRUSTED_PROXIES": "127.0.0.1/32"}
    return Server(folder, settings)


def seen(url, certificate, *words):
    """What the server sees of a client that forges its IP address."""
    forged = ["-H", "X-Forwarded-For: 198.51.100.1", "-H", "X-Real-IP: 198.51.100.1"]
    _, status, body = curl(f"{url}/api/v1/whoami", "--cacert", str(certificate[0]), *forged, *words)
    assert status == "200", body
    answer = json.loads(body)
    return answer["ip"], answer["forwarded"], answer["scheme"]


def are_told_apart(url, certificate):
    """Two clients by turns, so that neither gets the other's connection to the server."""
    for client in (CLIENT, OTHER) * 3:
        assert seen(url, certificate, "--interface", client) == (client, True, "https")


RIGHT = (CLIENT, True, "https")


def test_nginx_terminates_tls(tmp_path, certificate):
    port, plain, silent = free_port(), free_port(), free_port()
    url = f"https://localhost:{port}"
    with behind(tmp_path, url) as server:
        lines = (
            f"proxy_pass http://127.0.0.1:{server.port}; proxy_set_header Host $host;"
            " proxy_set_header X-Forwarded-For $remote_addr;"
        )
        scheme = " proxy_set_header X-Forwarded-Proto $scheme;"
        servers = f"""
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};
                location / {{ {lines} {scheme} }}
            }}
            server {{ listen 127.0.0.1:{plain}; location / {{ {lines} {scheme} }} }}
            server {{ listen 127.0.0.1:{silent}; location / {{ {lines} }} }}
        """
        with nginx_http(tmp_path, servers, port):
            assert seen(url, certificate) == RIGHT
            plain, silent = f"http://localhost:{plain}", f"http://localhost:{silent}"
            assert curl(f"{plain}/setup?a=b")[1] == f"308 {url}/setup?a=b"
            _, status, body = curl(f"{plain}/api/v1/whoami")
            assert status == "403" and json.loads(body)["code"] == "http.https_required"
            for path in ("/setup", "/api/v1/whoami"):
                _, status, body = curl(silent + path)
                assert status == "403" and scheme.strip().rstrip(";") in json.loads(body)["detail"], body
            for probe in (["-I", "/"], ["-X", "OPTIONS", "/"], ["/livez"], ["/readyz"]):
                status = curl(silent + probe[-1], *probe[:-1])[1]
                assert status[:3] in ("200", "204", "307"), (probe, status)


def test_haproxy_terminates_tls_and_probes_by_options(tmp_path, certificate):
    port, stats = free_port(), free_port()
    url = f"https://localhost:{port}"
    with behind(tmp_path, url) as server:
        lines = f"""
listen palisade
  mode http
  bind 127.0.0.1:{port} ssl crt {certificate[2]}
  option forwardfor
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  option httpchk
  server one 127.0.0.1:{server.port} check inter 100ms fall 1 rise 1
listen stats
  mode http
  bind 127.0.0.1:{stats}
  stats enable
  stats uri /
"""
        with haproxy(tmp_path, lines, port):
            assert seen(url, certificate) == RIGHT
            began = time.time()
            while ",L7OK," not in (table := curl(f"http://localhost:{stats}/;csv")[2]):
                assert time.time() - began < 10, table
                time.sleep(0.1)
            assert seen(url, certificate) == RIGHT


def test_caddy_terminates_tls(tmp_path, certificate):
    port = free_port()
    url = f"https://localhost:{port}"
    with behind(tmp_path, url) as server:
        site = (
            f"https://localhost:{port} {{\n  bind 127.0.0.1\n  tls {certificate[0]} {certificate[1]}\n"
            f"  reverse_proxy 127.0.0.1:{server.port}\n}}\n"
        )
        with caddy(tmp_path, site, port):
            are_told_apart(url, certificate)


def test_the_proxy_protocol_in_front_of_tls(tmp_path, certificate):
    """Proxies that forward TLS unread. The server terminates it."""
    one, two, stream = free_port(), free_port(), free_port()
    tls = {"TLS__CERTIFICATE": str(certificate[0]), "TLS__KEY": str(certificate[1])}
    with behind(tmp_path, f"https://localhost:{one}", PROXY_PROTOCOL="true", **tls) as server:
        to = f"127.0.0.1:{server.port}"
        check = "option httpchk GET /readyz\n  default-server check check-ssl verify none inter 100ms fall 1 rise 1"
        lines = "".join(
            f"\nlisten {word}\n  mode tcp\n  bind 127.0.0.1:{port}\n  {check}\n  server one {to} {word}\n"
            for word, port in (("send-proxy", one), ("send-proxy-v2", two))
        )
        (tmp_path / "nginx").mkdir()
        block = f"stream {{ server {{ listen 127.0.0.1:{stream}; proxy_pass {to}; proxy_protocol on; }} }}"
        with haproxy(tmp_path, lines, two), nginx(tmp_path / "nginx", block, stream):
            # Long enough for many health checks.
            time.sleep(1)
            for port in (one, two, stream):
                for version in ("--http1.1", "--http2"):
                    assert seen(f"https://localhost:{port}", certificate, version) == RIGHT
        # The proxy without its header, and the header from someone else.
        both = ["--cacert", str(certificate[0])]
        to = f"https://localhost:{server.port}/livez"
        assert curl(to, *both, "--interface", "127.0.0.1", check=False)[0] in (35, 56)
        assert curl(to, *both, "--haproxy-protocol", check=False)[0] != 0
        _, status, body = curl(f"https://localhost:{server.port}/api/v1/whoami", *both)
        assert status == "200" and json.loads(body)["ip"] == CLIENT and not json.loads(body)["forwarded"]


def test_the_proxy_protocol_behind_terminated_tls(tmp_path, certificate):
    """Proxies that terminate TLS and state it, with the PROXY protocol or in a header."""
    tcp, unstated, http, site = free_port(), free_port(), free_port(), free_port()
    with behind(tmp_path, f"https://localhost:{tcp}", PROXY_PROTOCOL="true") as server:
        to = f"127.0.0.1:{server.port}"
        bind = f"ssl crt {certificate[2]}"
        lines = f"""
listen tcp
  mode tcp
  bind 127.0.0.1:{tcp} {bind}
  server one {to} send-proxy-v2-ssl
listen unstated
  mode tcp
  bind 127.0.0.1:{unstated} {bind}
  server one {to} send-proxy-v2
listen http
  mode http
  bind 127.0.0.1:{http} {bind}
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  server one {to} send-proxy
"""
        # Caddy itself is the client that it names.
        blocks = (
            f"https://localhost:{site} {{\n  bind 127.0.0.1\n  tls {certificate[0]} {certificate[1]}\n"
            f"  reverse_proxy {to} {{\n    transport http {{\n      proxy_protocol v2\n    }}\n  }}\n}}\n"
        )
        (tmp_path / "caddy").mkdir()
        with haproxy(tmp_path, lines, tcp), caddy(tmp_path / "caddy", blocks, site):
            for port in (tcp, http, site):
                are_told_apart(f"https://localhost:{port}", certificate)
            url = f"https://localhost:{unstated}/api/v1/whoami"
            _, status, body = curl(url, "--cacert", str(certificate[0]))
            assert status == "403" and json.loads(body)["code"] == "http.https_required", body
