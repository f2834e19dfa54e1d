"""Pairs of changing calls at the same moment, at two processes on one PostgreSQL: some order of the two explains it.

Every pair of the changing routes of /openapi.json is called at the same moment, one at each process, by a user and an
administrator who have everything that the two need (scenes.py). What came of it, the answers, which credentials and
passwords work at both processes, and the rows of that user, must be what came of the two one after the other, in one
order or the other. No answer is a 5xx, and PostgreSQL sees no deadlock. Pairs that write to the same table (not
counting the tables that every change writes to), and pairs in which one call ends a credential, are tried 20 times. All
others are tried twice.
"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import queue
import random
import re
import tempfile
import threading
import time

from scenes import API, PASSWORDS, RECIPES, Call, Client, MailServer, Scene, Sql
from server import postgres

SHARDS = 3
OFTEN, SELDOM = 20, 2
# What every change writes, and the head of the audit log, which follows a moment later.
EVERYWHERE = {"audit_events", "audit_head", "feed", "person_keys", "outbox"}
# What an ending needs to be known at every process (250 ms), and some more for a busy machine.
SETTLED = 0.35
SETTINGS = {
    "PALISADE_LIMITS__ENABLED": "false",
    "PALISADE_PASSWORDS__COST": "custom",
    "PALISADE_PASSWORDS__ARGON2_MEMORY": "7MiB",
    "PALISADE_PASSWORDS__ARGON2_PASSES": "1",
    "PALISADE_PASSWORDS__ARGON2_LANES": "1",
    "PALISADE_MFA__RECOVERY_DELAY": "1h",
    "PALISADE_COMPAT__LOGIN_FORM": "true",
    "PALISADE_REGISTRATION__EMAIL_VERIFICATION": "optional",
    "PALISADE_MAIL__FROM": "palisade@example.com",
}
# Asked for here, a link is made when its email leaves, and replaces the one before it: a third one beside the two calls.
EMAILS = {"POST /auth/password/forgot", "POST /users/{id}/reset-password"}
# What a machine that is busy with other things makes of a request.
STARVED = {"server.feed_unavailable", "server.timeout"}
CHANGING = ("post", "put", "patch", "delete")

# A password is compared before the change waits for the other call's. If that one takes it away, it is refused; whether
# as a wrong guess at this account depends on how far it had come: what was right when it was compared counts as none.
COMPARED = {
    "POST /users/me/password": {(422, "request.invalid")},
    "POST /auth/reauthenticate": {(422, "request.invalid")},
    "POST /auth/login": {(401, "login.denied")},
    "POST /login/access-token": {(401, "login.denied")},
}
# What acts on everyone looks for the accounts that have something to end before it ends the first: whether one whose
# credentials end meanwhile is among them depends on how far it had come.
REVOKED = re.compile(r"audit_events event=sessions\.(revoked|all_revoked),")
GUESSED = re.compile(r"(audit_events event=(passwords\.wrong|login\.denied),|lockout_counts )")

# Differences from every order that are meant, by route: the answers that count as the same, and why.
MEANT = {
    # Who signs out while something else ends the session is signed out; it isn't told that it came too late.
    "POST /auth/logout": {(204, None): "over", (401, "access.invalid_token"): "over"},
    # What is to be revoked is over already: nothing is changed, so the caller's session isn't asked for again.
    "POST /auth/revoke": {(200, None): "over", (401, "access.invalid_token"): "over"},
}


class Worker:
    """Connections to both processes and to the database, and an administrator of its own."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.origin, self.mail = world.origin, world.mail
        self.a, self.b = (Client(port) for port in world.ports)
        # Calls that are under way together have connections that wait for nothing.
        self.firing = [Client(port) for port in world.ports]
        self.sql = Sql(world.url)
        self.random = random.Random(f"{world.options.seed} {number}")
        self.signed_in_at, self.session = 0.0, None

    def admin(self):
        """An administrator whose proof is fresh."""
        if not self.signed_in_at or time.monotonic() - self.signed_in_at > 240:
            body = {"email": f"admin{self.number}@example.com", "password": PASSWORDS[0]}
            status, self.session = self.a.patiently(Call("POST", "/auth/login", body))
            assert status == 200, self.session
            self.signed_in_at = time.monotonic()
        return self.session["access_token"]

    def link(self, email, page, count=1):
        """The newest link to a page that was sent to an email, once so many have come. Two links: the newest first."""
        path = os.path.join(self.mail, f"{email}.{page}")
        end = time.monotonic() + 60
        while True:
            tokens = open(path).read().split() if os.path.exists(path) else []
            if len(tokens) >= count:
                return tokens[::-1] if count > 1 else tokens[-1]
            assert time.monotonic() < end, f"no email with a link to {page} came to {email}"
            time.sleep(0.02)

    def scenes(self, needs, wanted):
        """Makes scenes together, so that their emails are waited for once."""
        made = []
        for how, crossed in wanted:
            made.append(Scene(self, f"s{next(self.world.names)}", how, crossed))
        steps = [scene.build(of) for scene, of in zip(made, needs, strict=True)]
        while steps:
            steps = [step for step in steps if next(step, self) is not self]
        return made


class Watch:
    """A scene while its two calls are made, and what came of them."""

    def __init__(self, worker, scene, pair):
        self.worker, self.scene, self.pair = worker, scene, pair
        self.answers, self.began, self.took = [None, None], None, [0, 0]

    def start(self):
        # Both before either is sent: a sign-in in between would not be what the two at once had.
        self.calls = [recipe.call(self.scene, slot) for slot, recipe in enumerate(self.pair)]
        self.began = self.worker.sql.lines("select clock_timestamp()")[0]

    def one(self, slot):
        """One call alone: the first at the first process, the second at the other."""
        client = (self.worker.a, self.worker.b)[slot]
        began = time.monotonic()
        self.answers[slot] = client.call(self.calls[slot])
        self.took[slot] = time.monotonic() - began
        if self.pair[slot].everybody:
            self.worker.signed_in_at = 0.0

    def both(self, delay):
        """Both at once, the second `delay` seconds after the first (or before it)."""
        calls = [Client.bytes(call) for call in self.calls]
        for client in self.worker.firing:
            client.connect()
        order = (0, 1) if delay >= 0 else (1, 0)
        began = [0, 0]
        for slot in order:
            until = time.monotonic() + (abs(delay) if slot == order[1] else 0)
            while (left := until - time.monotonic()) > 0:
                time.sleep(left - 0.0002 if left > 0.0005 else 0)
            if abs(delay) > 1:
                # A server closes a connection on which no request begins for long.
                self.worker.firing[slot].connect()
            began[slot] = time.monotonic()
            self.worker.firing[slot].socket.sendall(calls[slot])
        for slot in order:
            self.answers[slot] = self.worker.firing[slot].answer(self.pair[slot].route.split(" ")[0])
            self.took[slot] = time.monotonic() - began[slot]
        if any(recipe.everybody for recipe in self.pair):
            self.worker.signed_in_at = 0.0

    def held(self):
        """Every credential that is known, by name: what bears a request, and what is only looked at."""
        bearers, refreshes = {}, {}
        for number, session in enumerate(self.scene.sessions):
            bearers[f"session {number}"] = session["access_token"]
            refreshes[f"refresh {number}"] = session["refresh_token"]
        for name, key in self.scene.keys.items():
            bearers[f"key {name}"] = key["api_key"]
        for slot, answer in enumerate(self.answers):
            body = answer[1] if answer and answer[0] < 300 and isinstance(answer[1], dict) else {}
            if "access_token" in body:
                bearers[f"session of call {slot}"] = body["access_token"]
                refreshes[f"refresh of call {slot}"] = body["refresh_token"]
            if "api_key" in body:
                bearers[f"key of call {slot}"] = body["api_key"]
        return bearers, refreshes

    def credentials(self):
        """What is worth what, at both processes."""
        bearers, refreshes = self.held()
        worth = {}
        both = (self.worker.a, self.worker.b)
        for name, token in bearers.items():
            worth[name] = [client.patiently(Call("GET", "/users/me", token=token))[0] for client in both]
        for name, token in refreshes.items():
            call = Call("POST", "/auth/introspect", token=self.worker.admin(), form={"token": token})
            worth[name] = [client.patiently(call)[1]["active"] for client in both]
        return worth

    def outcome(self, passwords):
        """All that can be seen afterwards, without what is different every time."""
        seen = {"answers": [self.said(slot) for slot in (0, 1)], "credentials": self.credentials()}
        seen["rows"] = self.rows()
        if passwords:
            tries = [Call("POST", "/auth/login", {"email": self.scene.email, "password": p}) for p in PASSWORDS]
            tried = [self.worker.a.patiently(call) for call in tries]
            seen["passwords"] = [(body or {}).get("code", status) for status, body in tried]
        return seen

    def said(self, slot):
        status, body = self.answers[slot]
        said = (status, (body or {}).get("code") if status >= 400 else None)
        same = MEANT.get(self.pair[slot].route, {}).get(said)
        return [same, None] if same else list(said)

    def rows(self):
        scene = self.scene
        array = lambda values: "array[" + ",".join(f"'{value}'" for value in values) + "]::text[]"
        created = [body["id"] for status, body in self.answers if status == 201 and "id" in body]
        ids = [*scene.ids.values(), *created]
        words = {
            "ids": array(ids) + "::uuid[]", "emails": array(scene.emails), "roles": array([scene.role, scene.new_role]),
            "resource": f"'{scene.resource}'", "began": f"'{self.began}'::timestamptz",
        }
        names = {value: f"<{name}>" for name, value in scene.ids.items()}
        names |= {scene.role: "<role>", scene.new_role: "<new role>", scene.resource: "<resource>"}
        names |= {email: f"<email {number}>" for number, email in enumerate(scene.emails)}
        found = collections.Counter()
        for line in self.worker.sql.lines(self.worker.world.snapshot.format(**words)):
            table, row = line.split("|", 1)
            row = json.loads(row)
            if table == "lockout_counts" and not any(isinstance(n, int) and n for n in row.values()):
                # Nothing is counted.
                continue
            if table == "challenges" and (row["used_at"] or self.ended_meanwhile()):
                # Attempts are counted before they are checked, in a commit of their own: what was answered right takes
                # no more, and what was refused because its session ended after that commit stays counted.
                del row["attempts"]
            found[f"{table} {plain(row, names)}"] += 1
        if self.refused_beside_a_change():
            found = {row: count for row, count in found.items() if not GUESSED.match(row)}
        if any(recipe.everybody for recipe in self.pair):
            found = {row: count for row, count in found.items() if not REVOKED.match(row)}
        return dict(sorted(found.items()))

    def ended_meanwhile(self):
        """Whether one of the two was refused because the other ended its session."""
        said = [(status, (body or {}).get("code")) for status, body in self.answers]
        return any(said[slot] == (401, "access.invalid_token") and said[1 - slot][0] < 400 for slot in (0, 1))

    def refused_beside_a_change(self):
        said = [(status, (body or {}).get("code")) for status, body in self.answers]
        refused = [told in COMPARED.get(call.route, ()) for call, told in zip(self.pair, said, strict=True)]
        return any(refused[slot] and said[1 - slot][0] < 400 for slot in (0, 1))


IDENTIFIER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-]\d\d:\d\d)?")


def plain(row, names):
    """A row with names for what is other in every scene. Digests are left out: emails fill them when they leave."""
    said = []
    for column, value in row.items():
        if column.endswith("digest") or column in ("used_step", "hint", "last_used_at"):
            continue
        if isinstance(value, str):
            for known, name in names.items():
                value = value.replace(known, name)
            value = IDENTIFIER.sub("<id>", value)
            value = TIME.sub("<time>", value)
            value = "<bytes>" if value.startswith("\\x") else value
        if value is not None:
            said.append(f"{column}={value}")
    return ", ".join(said)


def snapshot(sql):
    """One query for every row of a scene, in whatever tables there are: found by the columns that name a user, an
    email, a role or a resource."""
    columns = collections.defaultdict(set)
    for line in sql.lines(
        "select table_name, column_name from information_schema.columns where table_schema = current_schema()"
    ):
        table, column = line.split("|")
        columns[table].add(column)
    parts = []
    for table, has in sorted(columns.items()):
        if table in ("audit_events", "feed", "outbox"):
            continue
        found = []
        if "user_id" in has:
            found.append("user_id in (select id from people)")
        if "email_key" in has:
            found.append("email_key = any({emails})")
        if "role" in has:
            found.append("role = any({roles})")
        if "resource_id" in has:
            found.append("resource_id = {resource}")
        if table == "users":
            found.append("id in (select id from people)")
        if table == "roles":
            found.append("name = any({roles})")
        if "session_id" in has:
            found.append("session_id in (select id from sessions where user_id in (select id from people))")
        if found:
            where = " or ".join(found)
            if table == "recovery_tokens":
                # What emails that leave afterwards add.
                where = f"({where}) and (created_at < {{began}} or used_at is not null)"
            parts.append(f"select '{table}', to_jsonb(t) from {table} t where {where}")
    parts.append(
        "select 'audit_events', to_jsonb(e) from (select event, about_kind, count(*) times from audit_events"
        " where about_id in (select id from people) and at >= {began} and event <> 'recovery.link_made'"
        " group by event, about_kind) e"
    )
    people = (
        "with people as materialized (select unnest({ids}) id"
        " union select id from users where email_key = any({emails}))"
    )
    return f"{people} " + " union all ".join(parts)


class World:
    """Two processes on one PostgreSQL, and a mail server."""

    def __init__(self, directory, cluster, serve, options):
        self.options = options
        self.url, self.log = cluster.url, pathlib.Path(cluster.directory, "log")
        self.mail = os.path.join(directory, "mail")
        os.mkdir(self.mail)
        settings = {
            **SETTINGS, "PALISADE_DATABASE__URL": cluster.url,
            "PALISADE_MAIL__SMTP_URL": f"smtp://127.0.0.1:{MailServer(self.mail).server_address[1]}",
        }
        self.names = itertools.count()
        self.one = serve(directory, settings)
        self.origin = self.one.url
        shared = {
            "PALISADE_SERVER__PUBLIC_URL": self.origin,
            "PALISADE_KEYS__ROOT_KEY_FILE": f"{directory}/palisade-data/root.key",
        }
        self.one.__enter__()
        self.two = serve(directory, {**settings, **shared})
        self.two.__enter__()
        self.ports = [self.one.port, self.two.port]
        self.set_up()
        for number in range(options.workers + 1):
            words = ["user", "create", f"admin{number}@example.com", "--role", "admin"]
            self.one.command(*words, stdin=PASSWORDS[0] + "\n")
        sql = Sql(self.url)
        self.snapshot = snapshot(sql)
        sql.close()

    def set_up(self):
        """The race of two set-ups, which a server has once."""
        printed = self.one.command("setup-link")
        token = re.search(r"#token=([\w-]+)", printed)[1]
        clients = [Client(port) for port in self.ports]
        for number, client in enumerate(clients):
            client.connect()
            body = {"token": token, "email": f"first{number}@example.com", "password": PASSWORDS[0]}
            client.socket.sendall(Client.bytes(Call("POST", "/setup", body)))
        statuses = sorted(client.answer("POST")[0] for client in clients)
        assert statuses in ([201, 410], [201, 422]), f"two set-ups with one link: {statuses}"

    def stop(self):
        for server in (self.one, self.two):
            server.__exit__()

    def routes(self):
        _, described = Client(self.ports[0]).call(Call("GET", "/openapi.json"))
        for path, methods in described["paths"].items():
            for method in methods:
                if method in CHANGING:
                    assert path.startswith(API), f"a changing route beside the API: {path}"
                    yield f"{method.upper()} {path.removeprefix(API)}"


def measure(world):
    """Calls every route once, alone: which tables it writes, and whether it ends a credential."""
    worker, touched, ends = Worker(world, world.options.workers), {}, set()
    worker.sql.lines("create table rig_touched (name text)")
    worker.sql.lines(
        "create function rig_touch() returns trigger language plpgsql as"
        " $$ begin insert into rig_touched values (tg_table_name); return null; end $$"
    )
    tables = worker.sql.lines(
        "select table_name from information_schema.tables where table_schema = current_schema()"
        " and table_name <> 'rig_touched'"
    )
    for table in tables:
        worker.sql.lines(
            f"create trigger rig_touch after insert or update or delete on {table}"
            " for each row execute function rig_touch()"
        )
    # What acts on everyone comes last: it ends the scenes of the others.
    recipes = sorted(RECIPES.values(), key=lambda recipe: (recipe.everybody, recipe.route))
    scenes = worker.scenes([recipe.needs for recipe in recipes], [("two", None)] * len(recipes))
    for recipe, scene in zip(recipes, scenes, strict=True):
        watch = Watch(worker, scene, [recipe, recipe])
        before = watch.credentials()
        watch.start()
        # Emails write too; they are none of the call's own.
        while worker.sql.lines("select count(*) from outbox where sent_at is null")[0] != "0":
            time.sleep(0.05)
        worker.sql.lines("delete from rig_touched")
        watch.one(0)
        touched[recipe.route] = set(worker.sql.lines("select distinct name from rig_touched"))
        time.sleep(SETTLED)
        status, body = watch.answers[0]
        watch.answers[0] = (500, None)
        after = watch.credentials()
        if any(after[name] != worth for name, worth in before.items()):
            ends.add(recipe.route)
        good = status < 300 or recipe.route == "POST /setup"
        assert good, f"a recipe doesn't do: {recipe.route} alone is answered {status} {body}"
    for table in tables:
        worker.sql.lines(f"drop trigger rig_touch on {table}")
    worker.sql.lines("drop function rig_touch; drop table rig_touched")
    return touched, ends


def ways(pair):
    """How the two calls of a pair stand to each other."""
    who = [recipe.who for recipe in pair]
    if who.count("subject") == 2:
        return [("two", None), ("one", None)]
    if "admin" in who:
        return [("two", None), ("crossed", who.index("admin"))]
    return [("two", None)]


def delay(worker, took):
    """Somewhere in the other call, or so that both end together: there they write."""
    one, other = took
    if worker.random.random() < 0.5:
        return worker.random.uniform(-0.8 * other, 0.8 * one)
    return one - other + worker.random.uniform(-0.5, 0.5) * min(one, other)


class Starved(Exception):
    """The machine is too busy for the processes to hear of each other within a second."""


class Trial:
    """A pair with its rounds."""

    def __init__(self, worker, routes, rounds, passwords):
        self.worker, self.routes, self.passwords = worker, routes, passwords
        self.pair = [RECIPES[route] for route in routes]
        self.needs = frozenset().union(*(recipe.needs for recipe in self.pair))
        self.rounds = rounds
        self.everybody = any(recipe.everybody for recipe in self.pair)
        self.mails = "reset" in self.needs and not EMAILS.isdisjoint(routes)
        self.slow, self.scenes = 0, []

    def run(self):
        """Answers what no order explains."""
        failed = []
        ways_of_it = ways(self.pair)
        if self.rounds < len(ways_of_it) * 2:
            ways_of_it = [self.worker.random.choice(ways_of_it)]
        for number, way in enumerate(ways_of_it):
            rounds = self.rounds // len(ways_of_it) + (number < self.rounds % len(ways_of_it))
            failed += self.in_one_way(way, rounds)
            self.tidy()
        return failed

    def tidy(self):
        """Roles are deleted: there can't be more than a thousand."""
        for scene in self.scenes:
            roles = [scene.role] if "role" in self.needs else []
            roles += [scene.new_role] if "POST /roles" in self.routes else []
            for role in roles:
                scene.ask("DELETE", f"/roles/{role}", token=self.worker.admin(), good=(204, 404))
        self.scenes = []

    def settle(self):
        """Until both processes know what has ended, and links that were asked for are made."""
        time.sleep(SETTLED)
        if not self.mails:
            return
        moment, end = self.worker.sql.lines("select clock_timestamp()")[0], time.monotonic() + 60
        waiting = f"select count(*) from outbox where sent_at is null and failed_at is null and created_at < '{moment}'"
        while self.worker.sql.lines(waiting)[0] != "0":
            assert time.monotonic() < end, "emails don't leave"
            time.sleep(0.02)

    def watches(self, way, count):
        scenes = self.worker.scenes([self.needs] * count, [way] * count)
        self.scenes += scenes
        for scene in scenes:
            scene.alike = self.routes[0] == self.routes[1]
        return [Watch(self.worker, scene, self.pair) for scene in scenes]

    def orders(self, way):
        """What comes of one order, and of the other; and how long each call takes when it comes first."""
        explained, took = [], []
        for firsts in [(0,), (1,)] if self.everybody else [(0, 1)]:
            watches = self.watches(way, len(firsts))
            for watch in watches:
                watch.start()
            for turn in (0, 1):
                for first, watch in zip(firsts, watches, strict=True):
                    watch.one((first + turn) % 2)
                self.settle()
            explained += [watch.outcome(self.passwords) for watch in watches]
            took += [watch.took[first] for first, watch in zip(firsts, watches, strict=True)]
        return explained, took

    def between(self, way):
        """What comes of the other call between two accounts of one that acts on everyone. That one goes from account
        to account, people before service accounts and its caller last, and keeps what it has done: here an
        administrator has ended the first ones, and the rest is its own, unless the other call ended its caller."""
        explained = []
        for slot in [slot for slot in (0, 1) if self.pair[slot].everybody]:
            for count in itertools.count(1):
                watch, = self.watches(way, 1)
                accounts = watch.scene.accounts(slot)
                if count > len(accounts):
                    break
                watch.start()
                for account in accounts[:count]:
                    watch.scene.admin("POST", f"/users/{account}/revoke-sessions")
                self.settle()
                for turn in (1 - slot, slot):
                    watch.one(turn)
                    self.settle()
                explained.append(watch.outcome(self.passwords))
        return explained

    def at_once(self, way, count, took):
        """What comes of both at the same moment, `count` times."""
        watches = self.watches(way, count)
        for watch in watches:
            watch.start()
            watch.both(delay(self.worker, took))
        self.settle()
        self.slow += sum(max(watch.took) > 0.1 + max(took) for watch in watches)
        return [watch.outcome(self.passwords) for watch in watches]

    def in_one_way(self, way, rounds):
        explained, took = self.orders(way)
        # What acts on everyone would end the scenes of the next round too.
        parts = [1] * rounds if self.everybody else [rounds]
        outcomes = [outcome for part in parts for outcome in self.at_once(way, part, took)]
        if any(code in STARVED for outcome in outcomes for _, code in outcome["answers"]):
            raise Starved(f"{way[0]}: the processes can't keep up")
        failed = []
        for outcome in outcomes:
            broken = any(isinstance(status, int) and status >= 500 for status, _ in outcome["answers"])
            if not broken and outcome not in explained:
                # An order may have more than one end (a second may pass in between).
                if len(explained) < 8:
                    explained += self.orders(way)[0] + self.between(way)
            if broken or outcome not in explained:
                failed.append({"way": way[0], "seen": outcome, "explained": explained})
        return failed


def short(row):
    """Without what every row has."""
    return re.sub(r"\w+=(<id>|<time>|<bytes>|127.0.0.1|)(, |$)", lambda m: m[0] if "_at=" in m[0] and ENDING.search(m[0]) else "", row)


ENDING = re.compile(r"^(ended|revoked|used|disabled|delete|confirmed|undone)_")


def difference(failure):
    """What was seen beside the order that comes nearest."""
    seen = failure["seen"]

    def apart(other):
        parts = []
        for part in seen:
            mine, theirs = seen[part], other[part]
            if mine == theirs:
                continue
            if not isinstance(mine, dict):
                parts.append(f"{part} {mine} for {theirs}")
                continue
            for key in sorted({*mine, *theirs}):
                if mine.get(key) != theirs.get(key):
                    parts.append(f"{part}: {short(key)}: {mine.get(key)} for {theirs.get(key)}")
        return parts

    answers = seen["answers"]
    orders = failure["explained"]
    same = [order for order in orders if order["answers"] == answers]
    nearest = min((apart(order) for order in same or orders), key=len)
    return answers, nearest


def work(worker, jobs, told):
    while True:
        try:
            job = jobs.get_nowait()
        except queue.Empty:
            return
        routes, rounds, passwords = job
        began = time.time()
        trial = Trial(worker, routes, rounds, passwords)
        try:
            try:
                failed = trial.run()
            except Starved:
                time.sleep(5)
                failed = trial.run()
        except Exception as error:  # a scene that can't be made, an answer that never came
            failed = [{"error": f"{type(error).__name__}: {error}"}]
            for client in (worker.a, worker.b, *worker.firing):
                client.close()
        told.put((routes, rounds, failed, trial.slow, began, time.time()))


def plan(world):
    """The pairs of this run, each with its rounds."""
    options, there = world.options, set(world.routes())
    missing, gone = there - set(RECIPES), set(RECIPES) - there
    assert not missing, f"changing routes without a recipe in tests/rigs/scenes.py: {sorted(missing)}"
    for route in sorted(gone):
        print(f"a recipe of a route that isn't there: {route}")
        del RECIPES[route]
    began = time.monotonic()
    touched, ends = measure(world)
    print(f"{len(there)} changing routes, {len(ends)} of them end something ({time.monotonic() - began:.0f} s)", flush=True)
    for route in sorted(there):
        print(f"  {route}: {' '.join(sorted(touched[route] - EVERYWHERE)) or '-'}{', ends' if route in ends else ''}")
    routes, pairs = sorted(there), []
    for number, route in enumerate(routes):
        for other in routes[number:]:
            common = (touched[route] & touched[other]) - EVERYWHERE
            often = common or route in ends or other in ends
            passwords = "passwords" in touched[route] | touched[other]
            pairs.append(([route, other], options.rounds or (OFTEN if often else SELDOM), passwords))
    if options.pair:
        wanted = {tuple(sorted(pair)) for pair in options.pair}
        pairs = [pair for pair in pairs if tuple(sorted(pair[0])) in wanted]
        assert len(pairs) == len(wanted), f"there is no such pair among {sorted(wanted)}"
        return pairs
    # The same parts whatever the seed is.
    random.Random(0).shuffle(pairs)
    part, parts = map(int, (options.shard or f"{options.seed % SHARDS + 1}/{SHARDS}").split("/"))
    assert 1 <= part <= parts, "--shard is K/N, with K from 1 to N"
    print(f"part {part}/{parts}, seed {options.seed}")
    pairs = pairs[part - 1 :: parts]
    random.Random(options.seed).shuffle(pairs)
    return pairs


BAD = re.compile(r"deadlock detected|could not serialize|PANIC|FATAL")


def report(routes, failed, often):
    said = collections.Counter()
    for failure in failed:
        if "error" in failure:
            said[failure["error"]] += 1
        else:
            answers, parts = difference(failure)
            words = "; ".join(parts[:6]) or "a 5xx"
            said[f"[{failure['way']}] answers {answers}: {words}"] += 1
    print(f"FAILED {' | '.join(routes)}: {len(failed)} of {often}", flush=True)
    for words, times in said.most_common(4):
        print(f"    {times} × {words}")


@contextlib.contextmanager
def world(serve, options):
    with tempfile.TemporaryDirectory() as directory, postgres(
        more=["deadlock_timeout=100ms", "log_lock_waits=on", "log_line_prefix=%m [%p] ", "synchronous_commit=off",
              "max_connections=200"]
    ) as cluster:
        made = World(directory, cluster, serve, options)
        try:
            yield made
        finally:
            made.stop()


def begin(world, pairs, workers, told):
    jobs = queue.Queue()
    for pair in pairs:
        jobs.put(pair)
    for worker in [Worker(world, number) for number in range(workers)]:
        threading.Thread(target=work, args=(worker, jobs, told), daemon=True).start()


def run(shared, alone):
    """Tells how many pairs failed, and how often PostgreSQL complained."""
    options, pairs = shared.options, plan(shared)
    print(f"{len(pairs)} pairs, {sum(rounds for _, rounds, _ in pairs)} rounds", flush=True)
    began, worlds = time.monotonic(), [shared, alone]
    quiet = [world.log.stat().st_size for world in worlds]
    # What acts on everyone would end the scenes of others: one pair at a time, in a world of its own.
    apart = [pair for pair in pairs if any(RECIPES[route].everybody for route in pair[0])]
    told = queue.Queue()
    begin(shared, [pair for pair in pairs if pair not in apart], options.workers, told)
    begin(alone, apart, 1, told)
    spans, failures, slow = [], 0, 0
    for _ in pairs:
        routes, rounds, failed, late, *span = told.get()
        slow += late
        spans.append((span, routes))
        if failed:
            failures += 1
            report(routes, failed, rounds)
            if options.keep:
                with open(options.keep, "a") as file:
                    file.write(json.dumps({"pair": routes, "failed": failed}) + "\n")
        if len(spans) % 20 == 0:
            print(f"{len(spans)} pairs, {failures} failed, {time.monotonic() - began:.0f} s", flush=True)
    bad = sum(logged(world, since, spans) for world, since in zip(worlds, quiet, strict=True))
    print(
        f"{len(pairs)} pairs, {failures} failed, {bad} complaints of PostgreSQL, {slow} calls that waited long,"
        f" {time.monotonic() - began:.0f} s, seed {options.seed}"
    )
    if failures or bad:
        print('repeat one with --pair "ROUTE" "ROUTE" --rounds 50')
    return failures, bad


def logged(world, since, spans):
    """Deadlocks in PostgreSQL's log, with the pairs that were under way then."""
    with open(world.log, errors="replace") as file:
        file.seek(since)
        lines = file.read().splitlines()
    found = 0
    for number, line in enumerate(lines):
        if not BAD.search(line):
            continue
        found += 1
        print("PostgreSQL:", "\n    ".join(lines[number : number + 6]))
        at = time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S"))
        print("    meanwhile:", "; ".join(" | ".join(routes) for (a, b), routes in spans if a - 1 <= at <= b + 1))
    return found
