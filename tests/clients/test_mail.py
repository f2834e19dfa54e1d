"""Accounts by mail, with a real SMTP server (aiosmtpd): only HTTP and what arrives in the mailbox, and at the end the
command line."""

import time

import pytest
from inbox import token
from server import PASSWORD, started

OTHER = "mossy lantern drifts inland"


def bearer(server, post, email, password):
    status, session = post("login", email=email, password=password)
    assert status == 200, session
    return lambda method, path, body=None: server.request(
        method, "/api/v1/users" + path, body, token=session["access_token"]
    )


def moved(server, inbox, post):
    """Another email, and back again from the old one."""
    ann = bearer(server, post, "ann@example.com", OTHER)
    assert ann("POST", "/me/email", {"email": "ann@new.example"})[0] == 202
    to, mail = inbox.next()
    assert to == ["ann@new.example"], to
    link = token(mail, "email", server.url)
    assert post("email/confirm", token=link, password=PASSWORD)[0] == 422
    assert post("email/confirm", token=link, password=OTHER) == (204, None)
    assert ann("GET", "/me")[1]["email"] == "ann@new.example"
    to, mail = inbox.next()
    assert to == ["ann@example.com"], to
    link = token(mail, "undo", server.url)
    assert post("email/undo", token=link, password=PASSWORD) == (204, None)
    assert ann("GET", "/me")[0] == 401
    assert "was changed" in inbox.next()[1]["Subject"]
    ann = bearer(server, post, "ann@example.com", PASSWORD)
    assert ann("GET", "/me")[1]["email"] == "ann@example.com"


def invited(server, inbox, post, root):
    """By an administrator; and gone again, at one's own wish and at an administrator's."""
    status, bob = root("POST", "", {"email": "bob@example.com", "name": "Bob"})
    assert status == 201, bob
    to, mail = inbox.next()
    assert to == ["bob@example.com"], to
    link = token(mail, "invite", server.url)
    assert post("password/reset", token=link, password=OTHER) == (204, None)
    bob = bearer(server, post, "bob@example.com", OTHER)
    status, export = bob("GET", "/me/export")
    assert status == 200 and export["user"]["name"] == "Bob", export
    assert bob("DELETE", "/me") == (204, None)
    assert "will be deleted" in inbox.next()[1]["Subject"]
    assert bob("GET", "/me")[0] == 401
    bob = bearer(server, post, "bob@example.com", OTHER)
    me = bob("GET", "/me")[1]
    assert me["delete_at"] is None, me
    assert root("DELETE", f"/{me['id']}") == (204, None)
    assert "was deleted" in inbox.next()[1]["Subject"]
    assert bob("GET", "/me")[0] == 401
    assert post("login", email="bob@example.com", password=OTHER)[0] == 401


def by_command(server, inbox, post):
    """The same from the command line; the link is never shown, only sent."""
    shown = server.command("--json", "user", "create", "eve@example.com", "--invite", "--role", "admin")
    link = token(inbox.next()[1], "invite", server.url)
    assert link not in shown
    assert post("password/reset", token=link, password=OTHER) == (204, None)
    server.command("user", "revoke-role", "eve@example.com", "admin")
    server.command("user", "grant-role", "eve@example.com", "nothing", code=2)
    server.command("user", "grant-role", "eve@example.com", "admin")
    eve = bearer(server, post, "eve@example.com", OTHER)
    assert eve("GET", "?query=eve")[1]["items"][0]["roles"] == ["admin", "user"]
    server.command("user", "reset-password", "eve@example.com", "--invite")
    link = token(inbox.next()[1], "invite", server.url)
    assert post("password/reset", token=link, password=PASSWORD) == (204, None)
    assert "was changed" in inbox.next()[1]["Subject"]
    assert eve("GET", "/me")[0] == 401
    server.command("user", "delete", "eve@example.com")
    assert "was deleted" in inbox.next()[1]["Subject"]
    assert post("login", email="eve@example.com", password=PASSWORD)[0] == 401


@pytest.mark.databases("sqlite", "postgres")
def test_an_account_lives_its_whole_life_by_mail(inbox, database):
    settings = {
        **database,
        # Under the name that hosting services use.
        "SMTP_URL": f"smtp://127.0.0.1:{inbox.port}",
        "PALISADE_MAIL__FROM": "Example <no-reply@example.com>",
    }
    with started(settings, person=False) as server:
        post = lambda path, **body: server.request("POST", "/api/v1/auth/" + path, body)
        ann = {"email": "ann@example.com"}
        # The administrator, with the link that the operator was shown.
        link = server.greeting["setup_link"].split("#token=")[1]
        setup = {"token": link, "email": "root@example.com", "password": PASSWORD}
        assert server.request("POST", "/api/v1/setup", setup)[0] == 201
        root = bearer(server, post, "root@example.com", PASSWORD)
        # With a mail server verification is required.
        assert post("register", **ann, password=PASSWORD) == (202, {"status": "accepted"})
        assert post("login", **ann, password=PASSWORD)[0] == 401
        to, mail = inbox.next()
        assert to == ["ann@example.com"] and mail["From"] == "Example <no-reply@example.com>", mail
        assert mail["Auto-Submitted"] == "auto-generated" and mail["Message-ID"], mail
        link = token(mail, "verify", server.url)
        assert post("verify-email", token=link, password=OTHER)[0] == 422
        assert post("verify-email", token=link, password=PASSWORD) == (204, None)
        status, session = post("login", **ann, password=PASSWORD)
        assert status == 200, session

        # Forgotten while the mail server refuses: the email waits, the request doesn't.
        inbox.refuse = "451 try again later"
        began = time.time()
        assert post("password/forgot", **ann)[0] == 202
        assert post("password/forgot", email="nobody@example.com")[0] == 202
        assert time.time() - began < 1
        time.sleep(2)
        inbox.refuse = None
        assert not inbox.mails
        assert post("password/forgot", **ann)[0] == 202
        link = token(inbox.next()[1], "reset", server.url)
        assert post("password/reset", token=link, password=OTHER) == (204, None)
        assert post("password/reset", token=link, password=OTHER)[0] == 422
        assert "was changed" in inbox.next()[1]["Subject"]
        assert server.request("GET", "/api/v1/users/me", token=session["access_token"])[0] == 401
        assert post("login", **ann, password=PASSWORD)[0] == 401
        status, session = post("login", **ann, password=OTHER)
        assert status == 200, session
        device = session["device_token"]

        # Locked by someone, let in by a known device, unlocked by an administrator.
        for _ in range(5):
            assert post("login", **ann, password="not the right one at all")[0] == 401
        assert "paused" in inbox.next()[1]["Subject"]
        assert post("login", **ann, password=OTHER)[0] == 401
        assert post("login", **ann, password=OTHER, device_token=device)[0] == 200
        user = root("GET", "?query=ann")[1]["items"][0]
        assert user["locked_until"], user
        assert root("POST", f"/{user['id']}/unlock") == (204, None)
        assert post("login", **ann, password=OTHER)[0] == 200

        # Who registers the email again tells its owner, and learns nothing.
        assert post("register", **ann, password=PASSWORD) == (202, {"status": "accepted"})
        assert "You have an account" in inbox.next()[1]["Subject"]
        moved(server, inbox, post)
        invited(server, inbox, post, root)
        by_command(server, inbox, post)
