"""Whether time tells who has an account.

Everything that takes an email is asked `--rounds` times in turn, in random order, about emails of six kinds:
known, unknown, disabled, locked, registered but not verified, and known with a second factor. A sign-in with a passkey begins
without an email; it is given one all the same. Status, body and headers must be the same; of the times, each pair of
kinds is compared by the rank-sum test (Mann and Whitney, normal approximation, Bonferroni over all pairs), and the
medians may differ by 5 %.
"""

import base64
import hmac
import http.client
import itertools
import json
import math
import random
import statistics
import struct
import time

import pytest
from server import PASSWORD, started

KINDS = ["known", "unknown", "disabled", "locked", "unverified", "factor"]
# So many accounts of each kind take turns, so that no guess locks one that shall not be locked.
EACH = 140
ALPHA, SLACK = 0.05, 0.05
LOCKS_AFTER = 12
OFF = {
    "PALISADE_LIMITS__ENABLED": "false", "PALISADE_PASSWORDS__COST": "light",
    "PALISADE_LOCKOUT__THRESHOLD": str(LOCKS_AFTER),
}


class Client:
    """One kept connection; answers are compared and timed."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port)

    def post(self, path, body, token=None, form=False, unread=False):
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        headers = {"Content-Type": kind, "Host": "localhost"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = body if form else json.dumps(body)
        began = time.perf_counter()
        self.connection.request("POST", path, data, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - began
        names = {name.lower() for name, _ in answer.getheaders()}
        if unread:
            # The connection ends where the answer comes before the body, whoever is asked about.
            names.discard("connection")
        try:
            shown = json.loads(text)
            for changing in ["request_id", "challenge"]:
                shown.pop(changing, None)
        except ValueError:
            shown = text
        return took, (answer.status, json.dumps(shown), sorted(names))


def emails(kind):
    return [f"{kind}{number}@example.com" for number in range(EACH)]


def fill(server):
    client = Client(server)
    server.command("user", "create", "root@example.com", "--role", "admin", stdin=PASSWORD + "\n")
    for kind in ["known", "disabled", "locked", "factor"]:
        for email in emails(kind):
            client.post("/api/v1/auth/register", {"email": email, "password": PASSWORD})
    for email in emails("factor"):
        enrol(server, server.sign_in(email)["access_token"])
    token = server.sign_in("root@example.com")["access_token"]
    cursor = ""
    while True:
        _, page = server.request("GET", f"/api/v1/users?limit=200{cursor}", token=token)
        for user in page["items"]:
            if user["email"].startswith("disabled"):
                status, _ = server.request("POST", f"/api/v1/users/{user['id']}/disable", token=token)
                assert status == 204, status
        if not page["next_cursor"]:
            break
        cursor = "&cursor=" + page["next_cursor"]
    for email in emails("locked"):
        for _ in range(LOCKS_AFTER):
            client.post("/api/v1/auth/login", {"email": email, "password": "not the right one"})


def enrol(server, token):
    """Sets up one-time codes (RFC 6238)."""
    status, made = server.request("POST", "/api/v1/users/me/totp", token=token)
    assert status == 200, made
    secret = base64.b32decode(made["secret"] + "=" * (-len(made["secret"]) % 8))
    # At the end of a step its code may come too late; then that of the next doesn't.
    for _ in range(2):
        mac = hmac.new(secret, struct.pack(">Q", int(time.time()) // 30), "sha1").digest()
        at = mac[-1] & 15
        code = (int.from_bytes(mac[at : at + 4], "big") & 0x7FFFFFFF) % 10**6
        status, answer = server.request("POST", "/api/v1/users/me/totp/confirm", {"code": f"{code:06}"}, token)
        if status == 200:
            return
    raise AssertionError(answer)


def asks(server, client):
    """What is asked, by name: each a function of an email."""
    wrong = "not the right one at all"
    token = server.sign_in("root@example.com")["access_token"]
    return {
        "login": lambda email: client.post("/api/v1/auth/login", {"email": email, "password": wrong}),
        "login form": lambda email: client.post(
            "/api/v1/login/access-token", f"username={email}&password=not+it", form=True
        ),
        "passkey": lambda email: client.post("/api/v1/auth/login/passkey/begin", {"email": email}, unread=True),
        "register": lambda email: client.post("/api/v1/auth/register", {"email": email, "password": PASSWORD}),
        "forgot": lambda email: client.post("/api/v1/auth/password/forgot", {"email": email}),
        "resend": lambda email: client.post("/api/v1/auth/verify-email/resend", {"email": email}),
        "change of email address": lambda email: client.post("/api/v1/users/me/email", {"email": email}, token),
    }


def rank_sum(one, other):
    """Two-sided p of the rank-sum test."""
    both = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks, ties, at = [0.0, 0.0], 0.0, 0
    while at < len(both):
        end = at
        while end < len(both) and both[end][0] == both[at][0]:
            end += 1
        for _, side in both[at:end]:
            ranks[side] += (at + 1 + end) / 2
        ties += (end - at) ** 3 - (end - at)
        at = end
    n, m = len(one), len(other)
    u = ranks[0] - n * (n + 1) / 2
    total = n + m
    deviation = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    return math.erfc(abs(u - n * m / 2) / deviation / math.sqrt(2))


def measure(ask, rounds):
    times = {kind: [] for kind in KINDS}
    shown = {kind: set() for kind in KINDS}
    pool = {kind: emails(kind) for kind in KINDS}
    for number in range(rounds + 5):
        for kind in random.sample(KINDS, len(KINDS)):
            took, answer = ask(pool[kind][number % EACH])
            shown[kind].add((answer[0], answer[1], tuple(answer[2])))
            if number >= 5:
                times[kind].append(took)
    return times, shown


def run(server, rounds):
    client = Client(server)
    for email in emails("unverified"):
        client.post("/api/v1/auth/register", {"email": email, "password": PASSWORD})
    asked = asks(server, client)
    pairs = list(itertools.combinations(KINDS, 2))
    alpha = ALPHA / (len(pairs) * len(asked))
    print(f"{rounds} rounds; a pair tells below p = {alpha:.5f} or above {100 * SLACK:.0f} %\n")
    tells = 0
    print("| asked | median ms | largest difference of medians | smallest p | answers |")
    print("|---|---|---|---|---|")
    for name, ask in asked.items():
        times, shown = measure(ask, rounds)
        medians = {kind: statistics.median(values) for kind, values in times.items()}
        apart = max(medians.values()) / min(medians.values()) - 1
        smallest, pair = min((rank_sum(times[a], times[b]), (a, b)) for a, b in pairs)
        same = len({frozenset(answers) for answers in shown.values()}) == 1
        bad = apart > SLACK or smallest < alpha or not same
        tells += bad
        print(
            f"| {name} | {1000 * min(medians.values()):.2f} | {100 * apart:.1f}% | "
            f"{smallest:.4f} ({pair[0]}, {pair[1]}) | {'alike' if same else shown} |{' TELLS' if bad else ''}",
            flush=True,
        )
    return tells


@pytest.mark.databases("sqlite", "postgres")
def test_time_tells_nobody_who_has_an_account(database, option):
    rounds = option("rounds", 500)
    # Two of what is asked are sign-ins.
    assert 2 * (rounds + 5) / EACH < LOCKS_AFTER, "so many rounds would lock accounts that shall not be locked"
    settings = {**database, **OFF, "PALISADE_COMPAT__LOGIN_FORM": "true"}
    # Sooner or later a pending email is work of its own; the mailbox of development takes them all.
    required = {**settings, "PALISADE_REGISTRATION__EMAIL_VERIFICATION": "required"}
    with started({**settings, "PALISADE_REGISTRATION__EMAIL_VERIFICATION": "off"}, person=False) as server:
        fill(server)
        server.__exit__()
        server.environment.update(required)
        server.__enter__()
        assert run(server, rounds) == 0, "something tells"
