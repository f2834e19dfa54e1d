"""What the README shows: the commands, a service in Python, one in Node.js, and a front end on another port."""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from server import PASSWORD, ROOT, Server, free_port, started


def block(name):
    """The one block of the README that is marked with this name."""
    found = re.findall(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(found) == 1, (name, found)
    return found[0]


def ask(url, **headers):
    """Status, headers and body of a GET."""
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@contextlib.contextmanager
def service(name, file, words, server, modules=None):
    """The README's service beside this server; gives the URL of what it protects."""
    port = free_port()
    text = block(name)
    for printed, here in [("http://localhost:8000", server.url), (".listen(3000)", f".listen({port}, '127.0.0.1')")]:
        text = text.replace(printed, here)
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, file).write_text(text)
        if modules:
            os.symlink(modules, pathlib.Path(directory, "node_modules"))
        log = open(os.path.join(directory, "log"), "w+")
        process = subprocess.Popen(
            [word.replace("PORT", str(port)) for word in words], cwd=directory, stdout=log, stderr=subprocess.STDOUT
        )
        url = f"http://127.0.0.1:{port}/notes"
        try:
            began = time.time()
            while True:
                assert process.poll() is None and time.time() - began < 60, pathlib.Path(log.name).read_text()
                with contextlib.suppress(OSError):
                    ask(url)
                    break
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(20)
            log.close()


def takes_our_tokens_and_no_others(name, file, words, modules=None):
    elsewhere = {"PALISADE_TOKENS__AUDIENCE": "https://elsewhere.example.com"}
    with started() as server, service(name, file, words, server, modules) as url:
        answer = server.sign_in()
        status, _, body = ask(url, Authorization="Bearer " + answer["access_token"])
        _, me = server.request("GET", "/api/v1/users/me", token=answer["access_token"])
        assert status == 200 and json.loads(body) == {"user": me["id"], "notes": []}, (status, body)
        head, payload, signature = answer["access_token"].split(".")
        bad = {
            "no token": {},
            "no JWT": {"Authorization": "Bearer " + server.sign_in(token_format="paseto")["access_token"]},
            "a refresh token": {"Authorization": "Bearer " + answer["refresh_token"]},
            "another signature": {"Authorization": f"Bearer {head}.{payload}.{signature[::-1]}"},
            "another scheme": {"Authorization": "Basic " + answer["access_token"]},
        }
        for what, headers in bad.items():
            status, said, body = ask(url, **headers)
            assert status == 401 and "Bearer" in said["WWW-Authenticate"], (what, status, body)
        # As the README says: alone, it doesn't know that a session has ended.
        assert server.request("POST", "/api/v1/auth/logout", token=answer["access_token"])[0] == 204
        assert ask(url, Authorization="Bearer " + answer["access_token"])[0] == 200
    with started(elsewhere) as server, service(name, file, words, server, modules) as url:
        token = server.sign_in()["access_token"]
        assert ask(url, Authorization="Bearer " + token)[0] == 401, "a token for another audience"


def test_the_readmes_fastapi_service_takes_our_tokens_and_no_others():
    words = [sys.executable, "-m", "uvicorn", "service:app", "--host", "127.0.0.1", "--port", "PORT"]
    takes_our_tokens_and_no_others("fastapi", "service.py", words)


def test_the_readmes_node_service_takes_our_tokens_and_no_others(node_modules):
    takes_our_tokens_and_no_others("node", "service.mjs", ["node", "service.mjs"], node_modules)


def test_a_front_end_on_another_port_calls_with_the_readmes_setting():
    name, origin = re.match(r"(PALISADE_\w+)=(\S+) ", block("cors")).groups()
    preflight = {
        "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type",
    }

    def allowed(server, origin):
        """What a browser is told before it sends such a request, and with the answer."""
        request = urllib.request.Request(
            server.url + "/api/v1/auth/login", headers={"Origin": origin, **preflight}, method="OPTIONS"
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                before = answer.headers
        except urllib.error.HTTPError as error:
            before = error.headers
        return before, ask(server.url + "/api/v1/users/me", Origin=origin)[1]

    with started({name: origin}) as server:
        before, after = allowed(server, origin)
        assert before["Access-Control-Allow-Origin"] == after["Access-Control-Allow-Origin"] == origin, str(before)
        assert {"authorization", "content-type"} <= set(before["Access-Control-Allow-Headers"].lower().split(","))
        exposed = {word.strip() for word in after["Access-Control-Expose-Headers"].lower().split(",")}
        assert exposed == {"x-request-id", "retry-after", "ratelimit", "ratelimit-policy", "www-authenticate"}, exposed
        # Never cookies.
        assert not before["Access-Control-Allow-Credentials"] and not after["Access-Control-Allow-Credentials"]
        before, after = allowed(server, "http://localhost:5174")
        assert not before["Access-Control-Allow-Origin"] and not after["Access-Control-Allow-Origin"], str(before)


def test_a_development_server_that_forwards_our_api_uses_cookies(server):
    # As a browser sends it to the development server, which sends it on.
    page = {"Host": "localhost:5173", "Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-origin"}

    def post(path, body, **headers):
        data = json.dumps(body).encode() if body is not None else b""
        more = {"Content-Type": "application/json"} if body is not None else {}
        request = urllib.request.Request(server.url + path, data, {**page, **more, **headers}, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers.get_all("Set-Cookie") or []

    body = {"email": "ann@example.com", "password": PASSWORD, "transport": "cookie"}
    cookies = [text.split(";")[0] for text in post("/api/v1/auth/login", body)]
    name = re.compile(r"palisade-[0-9]+=")
    session = next(filter(name.match, cookies))
    refreshed = [text.split(";")[0] for text in post("/api/v1/auth/refresh", None, Cookie=session)]
    assert any(map(name.match, refreshed)), refreshed


def test_the_readme_works_as_printed(tmp_path):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"<!-- run -->\n```sh\n(.*?)```", text, re.S)
    assert blocks, "the README has no block to run"
    with Server(tmp_path) as server:
        script = "set -eu\n" + "".join(blocks)
        # The sign-in without the phone answered tokens.
        script += 'case "$ANSWER" in *access_token*) ;; *) exit 9 ;; esac\n'
        script = script.replace("http://localhost:8000", server.url)
        script = script.replace("PASTE_THE_TOKEN_OF_THE_LINK", server.greeting["setup_link"].split("=")[1])
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "ann@example.com" in done.stdout and done.stdout.rstrip().endswith("401"), done.stdout
