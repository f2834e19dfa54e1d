"""The files of deploy/ and the compose files: the samples for proxies run as they are shipped, only with other ports and
paths, and the other files name only settings and files that exist. deploy/check runs linters over them."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
import requests
import yaml
from server import PASSWORD, ROOT, free_port
from test_proxies import CLIENT, Proxy, behind, certificate, curl  # noqa: F401

DEPLOY = ROOT / "deploy"
COMPOSE = sorted(ROOT.glob("compose*.yaml"))
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
PLACE = "/etc/palisade-proxy"


class Site:
    """A server behind a proxy that runs a shipped sample."""

    def __init__(self, folder, certificate, settings=None):
        self.folder, self.certificate = folder, certificate
        self.port, self.plain = free_port(), free_port()
        self.url = f"https://localhost:{self.port}"
        self.server = behind(folder, self.url, **(settings or {}))

    def sample(self, name, *changes):
        """The sample with the ports and paths of the test. Each change must find its text."""
        text = (DEPLOY / "proxies" / name).read_text()
        for path, file in zip(("chain.pem", "key.pem", "both.pem"), self.certificate, strict=True):
            text = text.replace(f"{PLACE}/{path}", str(file))
        for old, new in (("127.0.0.1:8000", f"127.0.0.1:{self.server.port}"), *changes):
            assert old in text, (name, old)
            text = text.replace(old, new)
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def caddy(self):
        path = self.sample(
            "Caddyfile", ("# tls", "tls"), ("https://{$SITE:id.example.com}", self.url), ("id.example.com", "localhost"),
            ("http_port 80\n", f"http_port {self.plain}\n"), ("https_port 443\n", f"https_port {self.port}\n"),
        )
        program = pathlib.Path(sys.executable).parent / "caddy"
        return Proxy(self.folder, [str(program), "run", "--config", path, "--adapter", "caddyfile"], self.port)

    def nginx(self):
        path = self.sample(
            "nginx.conf", ("listen 80", f"listen 127.0.0.1:{self.plain}"),
            ("listen 443", f"listen 127.0.0.1:{self.port}"),
            ("https://id.example.com", self.url), ("id.example.com", "localhost"), ("user www-data;\n", ""),
            ("/run/nginx.pid", f"{self.folder}/nginx.pid"), ("/var/log/nginx", str(self.folder)),
        )
        own = [f"{name}_temp_path {self.folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
        text = pathlib.Path(path).read_text().replace("http {\n", "http {\n" + " ".join(own) + "\n", 1)
        pathlib.Path(path).write_text(text)
        words = ["nginx", "-p", str(self.folder), "-c", path, "-g", "daemon off; master_process off;"]
        return Proxy(self.folder, words, self.port)

    def haproxy(self, name="haproxy.cfg"):
        changes = [("bind :443", f"bind 127.0.0.1:{self.port}")]
        if name == "haproxy.cfg":
            changes += [("bind :80", f"bind 127.0.0.1:{self.plain}"), ("https://id.example.com", self.url)]
        path = self.sample(name, *changes, ("id.example.com", "localhost"))
        return Proxy(self.folder, ["haproxy", "-db", "-f", path], self.port)

    def curl(self, path, *words, check=True):
        return curl(self.url + path, "--cacert", str(self.certificate[0]), *words, check=check)


def signs_in_with_tokens_and_cookies(site):
    """With Python's requests: tokens in the body, and a cookie that only travels over HTTPS."""
    body = {"email": "ann@example.com", "password": PASSWORD}
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(site.certificate[0])
        login = session.post(f"{site.url}/api/v1/auth/login", json=body, timeout=10)
        assert login.status_code == 200, login.text
        bearer = {"Authorization": "Bearer " + login.json()["access_token"]}
        me = session.get(f"{site.url}/api/v1/users/me", headers=bearer, timeout=10)
        assert me.status_code == 200 and me.json()["email"] == "ann@example.com", me.text
        login = session.post(
            f"{site.url}/api/v1/auth/login", json=body | {"transport": "cookie"}, headers={"Origin": site.url}, timeout=10
        )
        assert login.status_code == 200, login.text
        cookie = next(cookie for cookie in session.cookies if cookie.name == "__Host-palisade")
        assert cookie.secure and cookie.path == "/"
        assert session.get(f"{site.url}/api/v1/users/me", timeout=10).status_code == 200


def passes_what_it_should(site):
    forged = [
        "-H", "X-Forwarded-For: 198.51.100.1", "-H", "Forwarded: for=198.51.100.1;proto=http",
        "-H", "X-Forwarded-Proto: http", "-H", "X-Request-Id: 01a22fa9-0000-7000-8000-000000000000",
    ]
    for version in ("--http1.1", "--http2"):
        _, status, body = site.curl("/api/v1/whoami", version, *forged, "-D", str(site.folder / "head"))
        answer, head = json.loads(body), (site.folder / "head").read_text().lower()
        assert status == "200" and (answer["ip"], answer["scheme"]) == (CLIENT, "https"), body
        assert head.startswith("http/2" if version == "--http2" else "http/1.1"), head
        assert head.count("x-request-id:") == 1 and head.count("strict-transport-security:") == 1, head
        return_id = re.search(r"x-request-id: (\S+)", head)[1]
        assert return_id != "01a22fa9-0000-7000-8000-000000000000", "the client chooses no id"
        began = time.time()
        # The log is written every 50 ms.
        while return_id not in (site.folder / "log").read_text():
            assert time.time() - began < 10, return_id
            time.sleep(0.02)
    large = site.folder / "large"
    large.write_bytes(b'"' + b"x" * (1 << 21) + b'"')
    json_type = ["-H", "Content-Type: application/json", "--data-binary", f"@{large}"]
    json_type += ["--http1.1"]
    assert site.curl("/api/v1/auth/login", *json_type, check=False)[1].startswith("413")
    chunked = ["-H", "Transfer-Encoding: chunked"]
    assert site.curl("/api/v1/auth/login", *json_type, *chunked, check=False)[1].startswith("413")


def redirects(site):
    status = curl(f"http://localhost:{site.plain}/setup?a=b")[1]
    assert status == f"308 {site.url}/setup?a=b", status
    # The target does not depend on what the client calls the host.
    place = curl(f"http://localhost:{site.plain}/setup", "-H", "Host: evil.example")[1]
    assert "evil.example" not in place, place


@pytest.fixture(scope="module")
def site(tmp_path_factory, certificate):  # noqa: F811
    """One server, in front of which one proxy after another runs."""
    site = Site(tmp_path_factory.mktemp("site"), certificate)
    with site.server as server:
        server.command("user", "create", "ann@example.com", stdin=PASSWORD + "\n")
        yield site


@pytest.mark.parametrize("name", ["caddy", "nginx", "haproxy"])
def test_a_sample_for_a_proxy_works_as_it_is_shipped(site, name):
    with getattr(site, name)():
        signs_in_with_tokens_and_cookies(site)
        passes_what_it_should(site)
        redirects(site)


def test_the_sample_that_forwards_tls_unread_works_as_it_is_shipped(tmp_path, certificate):  # noqa: F811
    tls = {"TLS__CERTIFICATE": str(certificate[0]), "TLS__KEY": str(certificate[1]), "PROXY_PROTOCOL": "true"}
    site = Site(tmp_path, certificate, tls)
    with site.server, site.haproxy("haproxy-passthrough.cfg"):
        for version in ("--http1.1", "--http2"):
            _, status, body = site.curl("/api/v1/whoami", version)
            assert status == "200" and json.loads(body)["ip"] == CLIENT, body


def settings():
    """The variables of all settings."""
    page = (ROOT / "docs/settings.md").read_text()
    return {"PALISADE_" + key.upper().replace(".", "__") for key in re.findall(r"^\| `([a-z0-9_.]+)`", page, re.M)}


def texts():
    files = [*COMPOSE, ROOT / "Containerfile", *(path for path in DEPLOY.rglob("*") if path.is_file())]
    ignored = (DEPLOY / "compose/secrets", DEPLOY / "debian/generated")
    return {path: path.read_text() for path in files if not any(folder in path.parents for folder in ignored)}


def test_every_variable_is_a_setting():
    known = settings()
    assert "PALISADE_SERVER__PUBLIC_URL" in known
    found = {(path.name, name) for path, text in texts().items() for name in re.findall(r"PALISADE_[A-Z0-9_]+", text)}
    assert len(found) > 20
    assert [pair for pair in found if pair[1].removesuffix("_FILE") not in known] == []


def hardened(service):
    return (
        service.get("read_only") is True and service.get("cap_drop") == ["ALL"]
        and "no-new-privileges:true" in service.get("security_opt", []) and "privileged" not in service
    )


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_a_compose_file_is_hardened_and_names_what_exists(path):
    document = yaml.safe_load(path.read_text())
    for name, service in document["services"].items():
        assert hardened(service), (path.name, name)
        for secret in service.get("secrets", []):
            assert secret in document["secrets"], (name, secret)
        for other, how in service.get("depends_on", {}).items():
            assert other in document["services"] and how["condition"] != "service_started", (name, other)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in document["volumes"], (name, source)
        # Only a proxy is reached from other machines.
        for port in service.get("ports", []):
            assert name == "caddy" or str(port).startswith("127.0.0.1:"), (name, port)
        # A value of a secret is in a file.
        for variable, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|ROOT_KEY|_URL$", variable) or variable.endswith(("_FILE", "PUBLIC_URL")), variable
            assert not variable.endswith("_FILE") or value.removeprefix("/run/secrets/") in service["secrets"], variable


def environment(path, service, secrets, **more):
    """The variables of a service, with the secrets in this directory."""
    found = yaml.safe_load(path.read_text())["services"][service]["environment"]
    found = {name: re.sub(r"\$\{SITE:\?[^}]*\}", "id.site.internal", value) for name, value in found.items()}
    return {name: value.replace("/run/secrets", str(secrets)) for name, value in found.items()} | more


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_the_server_accepts_the_settings_of_a_compose_file(tmp_path, path):
    """With the secrets that create-secrets creates. It keeps them when it runs again."""
    shutil.copy(DEPLOY / "compose/create-secrets", tmp_path)
    script = [str(tmp_path / "create-secrets")]
    secrets = tmp_path / "secrets"
    contents = []
    for _ in range(2):
        subprocess.run(script, check=True, capture_output=True, timeout=20)
        contents.append({file.name: file.read_text() for file in secrets.iterdir()})
    assert contents[0] == contents[1]
    assert secrets.stat().st_mode & 0o777 == 0o700
    server = behind(tmp_path, "http://localhost:8000")
    listen = re.search(r"PALISADE_SERVER__LISTEN=(\S+)", (ROOT / "Containerfile").read_text())[1]
    bare = {name: value for name, value in server.environment.items() if not name.startswith("PALISADE_")}
    for service in {"palisade", "migrate"} & yaml.safe_load(path.read_text())["services"].keys():
        server.environment = bare | environment(
            path, service, secrets, PALISADE_SERVER__LISTEN=listen, PALISADE_DATA__DIRECTORY=str(tmp_path / "data")
        )
        server.command("config", "check")


def test_the_server_accepts_the_settings_for_kubernetes(tmp_path):
    documents = [document for path in KUBERNETES for document in yaml.safe_load_all(path.read_text())]
    configuration = next(document["data"] for document in documents if document["kind"] == "ConfigMap")
    for document in documents:
        if document["kind"] not in ("Deployment", "StatefulSet", "Job"):
            continue
        pod = document["spec"]["template"]["spec"]
        container = pod["containers"][0]
        variables = {one["name"]: one.get("value", "10.244.0.7") for one in container["env"]}
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert {"/run/secrets/palisade", "/var/lib/palisade", "/tmp"} == set(mounts)
        for name, value in variables.items():
            value = value.replace("$(POD_IP)", variables.get("POD_IP", ""))
            if name.endswith("_FILE"):
                file = tmp_path / pathlib.Path(value).name
                file.write_text(SECRETS[file.name])
                value = str(file)
            variables[name] = value
        server = behind(tmp_path, "http://localhost:8000")
        server.environment = {name: value for name, value in server.environment.items() if "PALISADE" not in name}
        server.environment |= configuration | variables | {"PALISADE_DATA__DIRECTORY": str(tmp_path / "data")}
        # The check objects to the domain of the examples.
        url = configuration["PALISADE_SERVER__PUBLIC_URL"].replace("example.com", "site.internal")
        server.command("config", "check", code=2)
        server.environment["PALISADE_SERVER__PUBLIC_URL"] = url
        server.command("config", "check")


SECRETS = {
    "root-key": "palisade-root-key-v1." + "A" * 43, "smtp-url": "smtps://user:secret@mail.example.com",
    "database-url": "postgres://palisade:secret@db.example.com/palisade",
    "migrate-url": "postgres://palisade_owner:secret@db.example.com/palisade",
}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_the_unit_is_valid_and_exposes_little(tmp_path):
    text = (DEPLOY / "systemd/palisade.service").read_text()
    unit = tmp_path / "palisade.service"
    # It looks for the program.
    unit.write_text(text.replace("ExecStart=/usr/bin/palisade", "ExecStart=/bin/true"))
    shutil.copytree(DEPLOY / "systemd/palisade.service.d", tmp_path / "palisade.service.d")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and not done.stderr, done
    words = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout
