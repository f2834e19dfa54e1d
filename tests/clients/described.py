"""What others make of our OpenAPI description: schemathesis, a TypeScript and a Python client."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from server import PASSWORD, check, started

HERE = pathlib.Path(__file__).resolve().parent
# So many requests and wrong passwords are no person's; and hashing is not what is tested here.
FAST = {"PALISADE_LIMITS__ENABLED": "false", "PALISADE_LOCKOUT__ENABLED": "false", "PALISADE_PASSWORDS__COST": "light"}


def run(words, **more):
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, **more)
    assert done.returncode == 0, (words, done.stdout[-4000:], done.stderr[-4000:])
    return done.stdout


def tool(name):
    """A program of the environment that this script runs in."""
    return str(pathlib.Path(sys.executable).parent / name)


@check
def schemathesis_finds_nothing_as_administrator_and_as_user():
    for email in ["root@example.com", "ann@example.com"]:
        with started(FAST) as server:
            server.command("user", "create", "root@example.com", "--role", "admin", stdin=PASSWORD + "\n")
            environment = {
                **os.environ, "TARGET": server.url, "EMAIL": email, "PASSWORD": PASSWORD,
                "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            }
            with tempfile.TemporaryDirectory() as directory:
                shown = run(
                    [tool("schemathesis"), "--config-file", str(HERE / "schemathesis.toml"), "run",
                     f"{server.url}/openapi.json"],
                    env=environment, cwd=directory,
                )
            assert "No issues found" in shown, shown
            # It came as far as the routes, and not only to the gate.
            log = pathlib.Path(server.directory, "log").read_text()
            statuses = {json.loads(line).get("status") for line in log.splitlines()}
            assert {200, 202, 204, 401, 404, 422} <= statuses and 500 not in statuses, statuses


def description(server, directory):
    path = pathlib.Path(directory, "openapi.json")
    path.write_text(server.command("openapi"))
    return path


@check
def a_generated_typescript_client_signs_in_reads_and_signs_out():
    # Where ./test has installed the packages that package-lock.json names.
    modules = pathlib.Path(os.environ["TEST_NODE_MODULES"])
    with started() as server, tempfile.TemporaryDirectory() as directory:
        for name in ["client.ts", "tsconfig.json", "package.json"]:
            shutil.copy(HERE / "typescript" / name, directory)
        os.symlink(modules, pathlib.Path(directory, "node_modules"))
        path = description(server, directory)
        run(["npx", "--no-install", "openapi-typescript", path, "-o", "schema.d.ts"], cwd=directory)
        run(["npx", "--no-install", "tsc"], cwd=directory)
        # What the description doesn't allow is no TypeScript.
        source = pathlib.Path(directory, "client.ts")
        good = source.read_text()
        bad = good.replace("{ email, password }", "{ email, password, transport: 'pigeon' }")
        assert bad != good
        source.write_text(bad)
        refused = subprocess.run(["npx", "--no-install", "tsc"], cwd=directory, capture_output=True, text=True)
        assert refused.returncode != 0 and "pigeon" in refused.stdout, refused
        source.write_text(good)
        shown = run(["node", "client.js", server.url, "ann@example.com"], cwd=directory, input=PASSWORD)
        assert json.loads(shown) == {"email": "ann@example.com", "sessions": 1, "after": 401}, shown


@check
def a_generated_python_client_signs_in_reads_and_signs_out():
    with started() as server, tempfile.TemporaryDirectory() as directory:
        path = description(server, directory)
        config = pathlib.Path(directory, "config.yml")
        config.write_text("post_hooks: []\npackage_name_override: palisade_client\n")
        run([tool("openapi-python-client"), "generate", "--path", path, "--config", config,
             "--output-path", pathlib.Path(directory, "made"), "--fail-on-warning"])
        script = HERE / "python_client.py"
        environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(directory, "made"))}
        shown = run([sys.executable, script, server.url, "ann@example.com"], env=environment, input=PASSWORD)
        assert json.loads(shown) == {"email": "ann@example.com", "sessions": 1, "after": 401}, shown
