"""Mail servers that people run, Postfix and OpenSMTPD: what they take arrives, and what they refuse is told. The sign-in
is with aiosmtpd."""

import sqlite3
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from inbox import Inbox
from mail_servers import opensmtpd, postfix
from server import free_port, started


def sending(place, login="", **more):
    return started(
        {
            "PALISADE_MAIL__SMTP_URL": f"smtp://{login}{place}",
            "PALISADE_MAIL__FROM": "Example <no-reply@example.com>",
            **{f"PALISADE_MAIL__{name}": value for name, value in more.items()},
        },
        person=False,
    )


def invited(server, email):
    """Whether the email was sent, whether it was given up, and what the operator reads about it."""
    server.command("user", "create", email, "--invite")
    began = time.time()
    while True:
        with sqlite3.connect(f"{server.directory}/palisade-data/palisade.db") as database:
            row = database.execute(
                "select sent_at is not null, failed_at is not null, coalesce(problem, '') from outbox order by id desc"
            ).fetchone()
        if row[0] or row[2]:
            return row
        assert time.time() - began < 30, row
        time.sleep(0.05)


def test_postfix_takes_and_refuses_email(inbox, mail_servers):
    with postfix(mail_servers, inbox.port) as place:
        # Its certificate is self-signed, and its TLS required.
        with sending(place, HELO_NAME="app.example.com") as server:
            assert invited(server, "ann@example.com") == (1, 0, "")
            to, mail = inbox.next(30)
            assert to == ["ann@example.com"] and mail["Auto-Submitted"] == "auto-generated", mail
            refused = "the mail server refuses the recipient (550 5.1.1)"
            assert invited(server, "bob@example.com") == (0, 1, refused)
            # It relays to no other domain.
            sent, given_up, problem = invited(server, "ann@example.org")
            assert (sent, given_up) == (0, 0) and "the recipient (554 5.7.1); this may be due" in problem, problem
        # It refuses the sender, but says so in its reply to the recipient.
        with sending(place, HELO_NAME="app.example.com", FROM="stranger@example.com") as server:
            sent, given_up, problem = invited(server, "ann@example.com")
            assert (sent, given_up) == (0, 0) and "554 5.7.1" in problem and "check mail.from" in problem, problem
        # `localhost`, the host of the public URL, is no full host name.
        with sending(place) as server:
            sent, given_up, problem = invited(server, "ann@example.com")
            assert (sent, given_up) == (0, 0) and "504 5.5.2" in problem and "mail.helo_name" in problem, problem
        with sending(place, login="palisade:secret@", HELO_NAME="app.example.com") as server:
            sent, given_up, problem = invited(server, "ann@example.com")
            assert (sent, given_up) == (0, 0) and "offers no sign-in (AUTH)" in problem, problem


def test_opensmtpd_takes_and_refuses_email(inbox, mail_servers):
    with opensmtpd(mail_servers, inbox.port) as place, sending(place) as server:
        assert invited(server, "ann@example.com") == (1, 0, "")
        assert inbox.next(30)[0] == ["ann@example.com"]
        refused = "the mail server refuses the recipient (550)"
        assert invited(server, "bob@example.com") == (0, 1, refused)
        sent, given_up, problem = invited(server, "bücher@example.com")
        assert (sent, given_up) == (0, 1) and "SMTPUTF8" in problem, problem


def test_a_sign_in_is_told_if_it_fails():
    def right(server, session, envelope, mechanism, login):
        known = (login.login, login.password) == (b"palisade", b"pillar of salt")
        return AuthResult(success=known, handled=False)

    inbox = Inbox(free_port())
    smtp = Controller(
        inbox, hostname="127.0.0.1", port=inbox.port, authenticator=right, auth_required=True,
        auth_require_tls=False,
    )
    smtp.start()
    place = f"127.0.0.1:{inbox.port}"
    try:
        with sending(place, login="palisade:pillar%20of%20salt@") as server:
            assert invited(server, "ann@example.com") == (1, 0, "")
            assert inbox.next()[0] == ["ann@example.com"]
            # It has SMTPUTF8.
            assert invited(server, "bücher@example.com") == (1, 0, "")
            assert inbox.next()[0] == ["bücher@example.com"]
        with sending(place, login="palisade:wrong@") as server:
            sent, given_up, problem = invited(server, "ann@example.com")
            assert (sent, given_up) == (0, 0) and "the sign-in (535 5.7.8)" in problem, problem
        with sending(place) as server:
            sent, given_up, problem = invited(server, "ann@example.com")
            assert (sent, given_up) == (0, 0) and "without a sign-in" in problem, problem
    finally:
        smtp.stop()
