"""What others make of our OpenAPI description: schemathesis, a TypeScript and a Python client."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from server import PASSWORD

HERE = pathlib.Path(__file__).resolve().parent
# So many requests and wrong passwords are no person's; and hashing is not what is tested here.
FAST = {"LIMITS__ENABLED": "false", "LOCKOUT__ENABLED": "false", "PASSWORDS__COST": "light"}


def run(words, **more):
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, **more)
    assert done.returncode == 0, (words, done.stdout[-4000:], done.stderr[-4000:])
    return done.stdout


def tool(name):
    """A program of the environment that this script runs in."""
    return str(pathlib.Path(sys.executable).parent / name)


@pytest.mark.settings(**FAST)
@pytest.mark.parametrize("email", ["root@example.com", "ann@example.com"])
def test_schemathesis_finds_nothing(server, tmp_path, email):
    """As an administrator and as a user."""
    server.command("user", "create", "root@example.com", "--role", "admin", stdin=PASSWORD + "\n")
    environment = {
        **os.environ, "TARGET": server.url, "EMAIL": email, "PASSWORD": PASSWORD,
        "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
    }
    shown = run(
        [tool("schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run", f"{server.url}/openapi.json"],
        env=environment, cwd=tmp_path,
    )
    assert "No issues found" in shown, shown
    # It came as far as the routes, and not only to the gate.
    log = pathlib.Path(server.directory, "log").read_text()
    statuses = {json.loads(line).get("status") for line in log.splitlines()}
    assert {200, 202, 204, 401, 404, 422} <= statuses and 500 not in statuses, statuses


def description(server, directory):
    path = directory / "openapi.json"
    path.write_text(server.command("openapi"))
    return path


def test_a_generated_typescript_client_signs_in_reads_and_signs_out(server, tmp_path, node_modules):
    for name in ["client.ts", "tsconfig.json", "package.json"]:
        shutil.copy(HERE / "typescript" / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules)
    path = description(server, tmp_path)
    run(["npx", "--no-install", "openapi-typescript", path, "-o", "schema.d.ts"], cwd=tmp_path)
    run(["npx", "--no-install", "tsc"], cwd=tmp_path)
    # What the description doesn't allow is no TypeScript.
    source = tmp_path / "client.ts"
    good = source.read_text()
    bad = good.replace("{ email, password }", "{ email, password, transport: 'pigeon' }")
    assert bad != good
    source.write_text(bad)
    refused = subprocess.run(["npx", "--no-install", "tsc"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode != 0 and "pigeon" in refused.stdout, refused
    source.write_text(good)
    shown = run(["node", "client.js", server.url, "ann@example.com"], cwd=tmp_path, input=PASSWORD)
    assert json.loads(shown) == {"email": "ann@example.com", "sessions": 1, "after": 401}, shown


def test_a_generated_python_client_signs_in_reads_and_signs_out(server, tmp_path):
    path = description(server, tmp_path)
    config = tmp_path / "config.yml"
    config.write_text("post_hooks: []\npackage_name_override: palisade_client\n")
    run([tool("openapi-python-client"), "generate", "--path", path, "--config", config,
         "--output-path", tmp_path / "made", "--fail-on-warning"])
    script = HERE / "python_client.py"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "made")}
    shown = run([sys.executable, script, server.url, "ann@example.com"], env=environment, input=PASSWORD)
    assert json.loads(shown) == {"email": "ann@example.com", "sessions": 1, "after": 401}, shown
