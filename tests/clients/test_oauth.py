"""OAuth clients that are in wide use: openid-client, Authlib, requests-oauthlib."""

import json
import pathlib
import subprocess

import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session as Authlib
from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session
from server import PASSWORD

HERE = pathlib.Path(__file__).resolve().parent
FORM = {"COMPAT__LOGIN_FORM": "true", "PASSWORDS__COST": "light"}
INTROSPECT, REVOKE = "/api/v1/auth/introspect", "/api/v1/auth/revoke"
TOKEN = "/api/v1/login/access-token"


@pytest.fixture
def insecure(monkeypatch):
    """These libraries refuse plain HTTP, even on loopback."""
    for name in ["AUTHLIB_INSECURE_TRANSPORT", "OAUTHLIB_INSECURE_TRANSPORT"]:
        monkeypatch.setenv(name, "1")


def made(server):
    """The id of a service account, and a key of it that may introspect."""
    server.command("user", "create", "root@example.com", "--role", "admin", stdin=PASSWORD + "\n")
    root = server.sign_in("root@example.com")["access_token"]

    def done(method, path, body=None):
        status, answer = server.request(method, path, body, root)
        assert status in (201, 204), answer
        return answer

    permissions = ["tokens:introspect"]
    done("POST", "/api/v1/roles", {"name": "gateways", "permissions": permissions})
    account = done("POST", "/api/v1/service-accounts", {"name": "Gateway"})["id"]
    done("PUT", f"/api/v1/users/{account}/roles/gateways")
    key = done("POST", f"/api/v1/users/{account}/api-keys", {"name": "k", "permissions": permissions})
    return account, key["id"], key["api_key"]


@pytest.mark.settings(**FORM)
def test_openid_client_discovers_introspects_revokes_and_refreshes(server, node_modules, tmp_path):
    account, _, secret = made(server)
    held = server.sign_in()
    given = {"secret": secret, "token": held["access_token"], "refresh": held["refresh_token"]}
    script = tmp_path / "oauth.mjs"
    script.write_text((HERE / "typescript" / "oauth.mjs").read_text())
    (tmp_path / "node_modules").symlink_to(node_modules)
    done = subprocess.run(
        ["node", script, server.url, account], input=json.dumps(given), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "issuer": server.url, "basic": True, "post": True, "wrong": "basic",
        "renewed": True, "revoked": False, "ended": "invalid_grant",
    }


@pytest.mark.settings(**FORM)
@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_introspects_revokes_and_refreshes(server, insecure, method):
    _, key, secret = made(server)
    held = server.sign_in()
    client = Authlib(key, secret, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method)
    told = client.introspect_token(server.url + INTROSPECT, token=held["access_token"]).json()
    assert told["active"] and told["sid"] == held["session_id"], told
    person = Authlib(token={**held, "expires_in": 0})
    renewed = person.refresh_token(server.url + TOKEN, refresh_token=held["refresh_token"])
    assert renewed["session_id"] == held["session_id"]
    assert client.revoke_token(server.url + REVOKE, token=renewed["refresh_token"]).status_code == 200
    told = client.introspect_token(server.url + INTROSPECT, token=renewed["access_token"]).json()
    assert told == {"active": False}
    with pytest.raises(OAuthError, match="invalid_grant"):
        person.refresh_token(server.url + TOKEN, refresh_token=renewed["refresh_token"])
    wrong = Authlib(key, "pal_ak_wrong", token_endpoint_auth_method=method)
    refused = wrong.introspect_token(server.url + INTROSPECT, token=held["access_token"])
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


@pytest.mark.settings(**FORM)
def test_requests_oauthlib_signs_in_and_refreshes(server, insecure):
    server.sign_in()
    session = OAuth2Session(client=LegacyApplicationClient(client_id="app"))
    token = session.fetch_token(server.url + TOKEN, username="ann@example.com", password=PASSWORD)
    assert session.get(server.url + "/api/v1/users/me").status_code == 200
    renewed = session.refresh_token(server.url + TOKEN)
    assert renewed["refresh_token"] != token["refresh_token"]
    assert session.get(server.url + "/api/v1/users/me").status_code == 200
    assert server.request("POST", "/api/v1/auth/logout", {"refresh_token": renewed["refresh_token"]})[0] == 204
    with pytest.raises(InvalidGrantError):
        session.refresh_token(server.url + TOKEN)
