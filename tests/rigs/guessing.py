"""Whether a lock holds in a flood, and is no weapon: guessing.py PATH_OF_PALISADE sqlite|postgres [SECONDS]

500 clients guess at one account at the same moment and go on, from 1,000 IPv4 addresses and as many IPv6
networks, named by a trusted proxy. Meanwhile the owner signs in from a known device, again and again, and reads.
Exits with 1 if more guesses were judged than the budget allows, a right password was let in from a stranger, or the
owner waited for more than 2 s.
"""

import http.client
import json
import multiprocessing
import pathlib
import random
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "clients"))

from server import PASSWORD, postgres, started  # noqa: E402

CLIENTS, BUDGET, PATIENCE = 500, 5, 2.0
EMAIL = "ann@example.com"


def address():
    if random.random() < 0.5:
        return f"203.0.{random.randrange(4)}.{random.randrange(250)}"
    return f"2001:db8:{random.randrange(1000):x}:1::{random.randrange(65535):x}"


def login(port, password, device=None, source=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"email": EMAIL, "password": password}
    if device:
        body["device_token"] = device
    headers = {"Content-Type": "application/json", "X-Forwarded-For": source or address()}
    connection.request("POST", "/api/v1/auth/login", json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else {}


def guess(port, until, statuses, ready, seconds):
    ready.wait()
    while time.time() < until[0]:
        # All wrong at first, at the same moment. Then the right one too: the account must be locked by now.
        late = time.time() > until[0] - seconds / 2
        password = PASSWORD if late and random.random() < 0.4 else "not the right one at all"
        try:
            status, _ = login(port, password)
        except (OSError, http.client.HTTPException, ValueError):
            continue
        statuses.append((time.time(), status, password == PASSWORD))


def strangers(port, seconds, told):
    """All who guess, in a process of their own: what the owner waits for is measured in another."""
    statuses, until, ready = [], [time.time() + seconds], threading.Event()
    guessing = [
        threading.Thread(target=guess, args=(port, until, statuses, ready, seconds), daemon=True)
        for _ in range(CLIENTS)
    ]
    for thread in guessing:
        thread.start()
    ready.set()
    for thread in guessing:
        thread.join(seconds + 60)
    told.send([(status, right) for _, status, right in statuses])


def run(settings, seconds):
    settings = {**settings, "PALISADE_SERVER__TRUSTED_PROXIES": "127.0.0.1/32", "PALISADE_LIMITS__ENABLED": "false"}
    with started(settings) as server:
        status, known = login(server.port, PASSWORD, source="198.51.100.1")
        assert status == 200, known
        device = known["device_token"]
        heard, told = multiprocessing.Pipe(duplex=False)
        guessing = multiprocessing.Process(target=strangers, args=(server.port, seconds, told))
        guessing.start()
        waits, until = [], time.time() + seconds
        while time.time() < until:
            began = time.time()
            status, session = login(server.port, PASSWORD, device=device, source="198.51.100.1")
            waits.append(time.time() - began)
            assert status == 200, (status, session)
            assert server.request("GET", "/api/v1/users/me", token=session["access_token"])[0] == 200
            time.sleep(0.2)
        statuses = heard.recv()
        guessing.join()
        judged = events(server, session["access_token"])
    assert len(statuses) > 10 * CLIENTS and any(right for _, right in statuses), len(statuses)
    let_in = sum(1 for status, _ in statuses if status == 200)
    by_status = {status: sum(1 for s, _ in statuses if s == status) for status in {s for s, _ in statuses}}
    print(f"guesses by status: {by_status}; judged wrong: {judged} of a budget of {BUDGET}; let in: {let_in}")
    print(f"the owner signed in {len(waits)} times: median {statistics.median(waits):.2f} s, slowest {max(waits):.2f} s")
    return let_in or judged != BUDGET or max(waits) > PATIENCE


def events(server, token):
    """How many refusals say that a password was compared and wrong."""
    server.command("user", "grant-role", EMAIL, "admin")
    time.sleep(0.5)
    judged, cursor = 0, ""
    while True:
        status, page = server.request("GET", f"/api/v1/audit?action=login.denied&limit=200{cursor}", token=token)
        assert status == 200, page
        judged += sum(1 for event in page["items"] if event["details"]["reason"] == "wrong_password")
        if not page["next_cursor"]:
            return judged
        cursor = "&cursor=" + page["next_cursor"]


def main():
    on, seconds = sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 20
    if on == "postgres":
        with postgres() as cluster:
            sys.exit(1 if run({"PALISADE_DATABASE__URL": cluster.url}, seconds) else 0)
    sys.exit(1 if run({}, seconds) else 0)


if __name__ == "__main__":
    main()
