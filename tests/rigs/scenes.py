"""What the rig for pairs acts on: a scene is a user with everything that the two calls of a pair need, made through
the API; a recipe is how a route is called in a scene. Every changing route of /openapi.json has one."""

import base64
import contextlib
import email
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import socketserver
import struct
import subprocess
import threading
import time

API = "/api/v1"
PASSWORDS = ["a long phrase that nobody knows", "eleven brown boxes of tea", "thirty quiet owls at noon"]
KIND = "document"


class Client:
    """One kept connection. `send` and `answer` apart, so that two calls can be under way at once."""

    def __init__(self, port):
        self.port, self.socket = port, None

    def connect(self):
        self.close()
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        if self.socket:
            self.socket.close()
            self.socket = None

    @staticmethod
    def bytes(call):
        lines = [f"{call.method} {call.path} HTTP/1.1", "Host: localhost"]
        if call.token:
            lines.append(f"Authorization: Bearer {call.token}")
        body = b""
        if call.form is not None:
            body = "&".join(f"{name}={value}" for name, value in call.form.items()).encode()
            lines.append("Content-Type: application/x-www-form-urlencoded")
        elif call.body is not None:
            body = json.dumps(call.body).encode()
            lines.append("Content-Type: application/json")
        if call.method != "GET":
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body

    def answer(self, method):
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        text = response.read()
        if response.will_close:
            self.close()
        try:
            return response.status, json.loads(text) if text else None
        except ValueError:
            return response.status, None

    def call(self, call):
        for last in (False, True):
            if self.socket is None:
                self.connect()
            try:
                self.socket.sendall(self.bytes(call))
                return self.answer(call.method)
            except (OSError, http.client.HTTPException):
                # The server closed a connection that no one had used for long.
                self.close()
                if last:
                    raise

    def patiently(self, call):
        """For what is no race: again while the machine is too busy."""
        for pause in (0.2, 1, 2, 5, 10):
            status, answer = self.call(call)
            if status != 503:
                return status, answer
            time.sleep(pause)
        return self.call(call)


class Call:
    """A request."""

    def __init__(self, method, path, body=None, token=None, form=None):
        self.method, self.path = method, path if path.startswith("/openapi") else API + path
        self.body, self.token, self.form = body, token, form


class Mail(socketserver.BaseRequestHandler):
    """A mail server that writes down the token of each link: DIRECTORY/EMAIL.PAGE, the newest in the last line."""

    def handle(self):
        # A connection that ends while nothing is said is no news.
        with contextlib.suppress(ConnectionError):
            self.talk()

    def talk(self):
        file = self.request.makefile("rwb", buffering=0)

        def say(line):
            file.write(line.encode() + b"\r\n")

        say("220 localhost ESMTP")
        to = []
        while line := file.readline():
            word = line.strip().upper()
            if word.startswith(b"DATA"):
                say("354 go on")
                mail = bytearray()
                while (part := file.readline()) not in (b".\r\n", b""):
                    mail += part[1:] if part.startswith(b"..") else part
                self.keep(to, bytes(mail))
                to = []
                say("250 kept")
            elif word.startswith(b"QUIT"):
                say("221 bye")
                return
            else:
                if word.startswith(b"RCPT TO:"):
                    to.append(re.search(rb"<(.*)>", line)[1].decode())
                say("250 localhost")

    def keep(self, to, mail):
        message = email.message_from_bytes(mail)
        for part in message.walk():
            if part.get_content_type() != "text/plain":
                continue
            text = part.get_payload(decode=True).decode()
            for page, token in re.findall(r"/account/(\w+)#token=(\S+)", text):
                for recipient in to:
                    with open(os.path.join(self.server.directory, f"{recipient}.{page}"), "a") as file:
                        file.write(token + "\n")


class MailServer(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 128

    def __init__(self, directory):
        super().__init__(("127.0.0.1", 0), Mail)
        self.directory = directory
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Sql:
    """A psql that is kept."""

    def __init__(self, url):
        self.process = subprocess.Popen(
            ["psql", "-qAtX", "-v", "ON_ERROR_STOP=0", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )

    def lines(self, statement):
        self.process.stdin.write(statement + ";\n\\echo :done:\n")
        self.process.stdin.flush()
        found = []
        while (line := self.process.stdout.readline().rstrip("\n")) != ":done:":
            assert self.process.poll() is None, found
            found.append(line)
        assert not any(line.startswith("ERROR") for line in found), (statement[:300], found[:5])
        return found

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def totp(secret):
    mac = hmac.digest(base64.b32decode(secret), struct.pack(">Q", int(time.time()) // 30), "sha1")
    at = mac[-1] & 15
    return f"{(struct.unpack('>I', mac[at:at + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Passkey:
    """An authenticator whose private key is 1 and whose nonce is 1: its public key is the curve's generator, and a
    signature is one multiplication. It proves nothing to anyone and costs nothing."""

    ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    X = 0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296
    Y = 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5

    def __init__(self, origin):
        self.origin, self.id, self.user = origin, os.urandom(16), None

    def data(self, flags):
        return hashlib.sha256(b"localhost").digest() + bytes([flags]) + bytes(4)

    def client(self, kind, options):
        words = {"type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": False}
        return json.dumps(words).encode()

    def credential(self, **response):
        own = text(self.id)
        response = {name: value if isinstance(value, list) else text(value) for name, value in response.items()}
        return {"id": own, "rawId": own, "type": "public-key", "clientExtensionResults": {}, "response": response}

    def create(self, options):
        self.user = base64.urlsafe_b64decode(options["user"]["id"] + "==")
        # CBOR by hand: {1: 2, 3: -7, -1: 1, -2: x, -3: y}, and {"fmt": "none", "attStmt": {}, "authData": …}.
        key = b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + self.X.to_bytes(32, "big")
        key += b"\x22\x58\x20" + self.Y.to_bytes(32, "big")
        data = self.data(0x45) + bytes(16) + len(self.id).to_bytes(2, "big") + self.id + key
        held = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58" + bytes([len(data)]) + data
        client = self.client("webauthn.create", options)
        return self.credential(clientDataJSON=client, attestationObject=held, transports=["internal"])

    def get(self, options):
        data, client = self.data(5), self.client("webauthn.get", options)
        digest = hashlib.sha256(data + hashlib.sha256(client).digest()).digest()
        number = lambda n: (lambda b: bytes([2, len(b)]) + b)(n.to_bytes(n.bit_length() // 8 + 1, "big"))
        both = number(self.X % self.ORDER) + number((int.from_bytes(digest, "big") + self.X) % self.ORDER)
        signature = b"\x30" + bytes([len(both)]) + both
        return self.credential(
            clientDataJSON=client, authenticatorData=data, signature=signature, userHandle=self.user
        )


class Scene:
    """A user and what two calls need of it.

    How its calls stand to each other: `two` sessions of the user, `one` session, or `crossed`: the user is an
    administrator too, and does with a third user what the other call doesn't."""

    def __init__(self, worker, name, how, crossed=None):
        self.worker, self.how, self.crossed = worker, how, crossed
        self.name = name
        self.email, self.other_email = f"{name}@example.com", f"{name}-other@example.com"
        self.emails = [self.email, self.other_email, *(f"{name}-{word}@example.com" for word in ("next", "new", "moved"))]
        self.role, self.new_role, self.resource = f"r{name}", f"n{name}", f"d{name}"
        self.password = PASSWORDS[0]
        self.sessions, self.codes, self.secret = [], [], None
        self.ids, self.keys = {}, {}
        self.passkey, self.made, self.options, self.links = None, None, {}, {}
        # Whether both calls are of the same route.
        self.alike = False

    def ask(self, method, path, body=None, token=None, form=None, good=(200, 201, 202, 204)):
        status, answer = self.worker.a.patiently(Call(method, path, body, token, form))
        assert status in good, f"while making a scene, {method} {path}: {status} {answer}"
        return answer

    def admin(self, method, path, body=None):
        return self.ask(method, path, body, self.worker.admin())

    def build(self, needs):
        """In steps: what takes an email's time is done for many scenes at once."""
        if self.how == "crossed":
            needs = needs | {"other", "admin"}
        self.ask("POST", "/auth/register", {"email": self.email, "password": self.password})
        first = self.sign_in()
        self.ids["subject"] = self.ask("GET", "/users/me", token=first["access_token"])["id"]
        if "undo" in needs:
            yield from self.move(first["access_token"])
        self.rights(needs)
        self.sessions.append(first)
        self.factors(needs, first["access_token"])
        self.sessions.append(self.sign_in())
        for session in self.sessions:
            if "passkey_begun" in needs:
                options = self.ask("POST", "/users/me/passkeys/begin", token=session["access_token"])
                session["new_passkey"] = Passkey(self.worker.origin).create(options)
        if "key" in needs:
            body = {"name": "own", "permissions": []}
            made = self.ask("POST", "/users/me/api-keys", body, first["access_token"])
            self.keys["own"] = made
        yield from self.mails(needs, first["access_token"])
        if "mfa" in needs:
            self.challenges = [self.challenge() for _ in range(2)]
        if "passwordless" in needs:
            self.options["passwordless"] = [self.ask("POST", "/auth/login/passkey/begin") for _ in range(2)]

    def sign_in(self):
        body = {"email": self.email, "password": self.password}
        if self.sessions:
            body["device_token"] = self.sessions[0]["device_token"]
        answer = self.ask("POST", "/auth/login", body, good=(200, 401))
        if answer.get("code") == "login.mfa_required":
            body = {"mfa_token": answer["mfa_token"], "method": "recovery_code", "code": self.codes.pop()}
            answer = self.ask("POST", "/auth/login/mfa", body)
        assert "access_token" in answer, answer
        return answer

    def challenge(self):
        body = {"email": self.email, "password": self.password, "device_token": self.sessions[0]["device_token"]}
        return self.ask("POST", "/auth/login", body, good=(401,))["mfa_token"]

    def move(self, token):
        """The email was changed, and the old one can have it back."""
        self.ask("POST", "/users/me/email", {"email": self.emails[4]}, token)
        yield
        body = {"token": self.worker.link(self.emails[4], "email"), "password": self.password}
        self.ask("POST", "/auth/email/confirm", body)
        yield
        self.links["undo"] = self.worker.link(self.email, "undo")
        self.email = self.emails[4]

    def rights(self, needs):
        subject = self.ids["subject"]
        if "other" in needs or "grant" in needs:
            self.ask("POST", "/auth/register", {"email": self.other_email, "password": self.password})
            body = {"email": self.other_email, "password": self.password}
            other = self.ask("POST", "/auth/login", body)
            self.ids["other"] = self.ask("GET", "/users/me", token=other["access_token"])["id"]
        if "admin" in needs:
            self.admin("PUT", f"/users/{subject}/roles/admin")
        if "role" in needs:
            self.admin("POST", "/roles", {"name": self.role, "permissions": ["users:read"]})
            self.admin("PUT", f"/users/{subject}/roles/{self.role}")
            if "other" in self.ids:
                self.admin("PUT", f"/users/{self.ids['other']}/roles/{self.role}")
        if "grant" in needs:
            path = f"/resources/{KIND}/{self.resource}/grants/user:"
            self.admin("PUT", path + subject, {"actions": ["read", "write", "share"]})
            self.admin("PUT", path + self.ids["other"], {"actions": ["write"]})
        if "service" in needs:
            service = self.admin("POST", "/service-accounts", {"name": "program"})["id"]
            self.ids["service"] = service
            body = {"name": "key", "permissions": []}
            self.keys["service"] = self.admin("POST", f"/users/{service}/api-keys", body)

    def factors(self, needs, token):
        if "totp" in needs:
            self.secret = self.ask("POST", "/users/me/totp", token=token)["secret"]
            # Again if the moment of the code went by on the way.
            for good in ((200, 422), (200,)):
                body = {"code": totp(self.secret)}
                confirmed = self.ask("POST", "/users/me/totp/confirm", body, token, good=good)
                if "recovery_codes" in confirmed:
                    break
            self.codes = confirmed["recovery_codes"]
        if "passkey" in needs:
            self.passkey = Passkey(self.worker.origin)
            options = self.ask("POST", "/users/me/passkeys/begin", token=token)
            body = {"credential": self.passkey.create(options), "name": "Phone"}
            self.made = self.ask("POST", "/users/me/passkeys/finish", body, token)
            self.codes = self.codes or self.made["recovery_codes"]
        if "totp_begun" in needs:
            self.secret = self.ask("POST", "/users/me/totp", token=token)["secret"]

    def mails(self, needs, token):
        wanted = needs & {"email", "reset", "lost", "verify"}
        if not wanted:
            return
        if "email" in needs:
            self.ask("POST", "/users/me/email", {"email": self.emails[2]}, token)
        if "reset" in needs:
            # One after the other: a newer one may replace the older.
            self.ask("POST", "/auth/password/forgot", {"email": self.email})
            yield
            self.worker.link(self.email, "reset")
            self.ask("POST", "/auth/password/forgot", {"email": self.email})
        if "lost" in needs:
            self.ask("POST", "/auth/login/mfa/lost", {"mfa_token": self.challenge()})
        yield
        if "email" in needs:
            self.links["email"] = [self.worker.link(self.emails[2], "email")]
        if "reset" in needs:
            self.links["reset"] = self.worker.link(self.email, "reset", 2)
        if "verify" in needs:
            self.links["verify"] = [self.worker.link(self.emails[0], "verify")]
        if "lost" in needs:
            self.links["factors"] = [self.worker.link(self.email, "factors")]
            # Time passes: no one waits for an hour here.
            self.worker.sql.lines(
                "update factor_recoveries set ready_at = created_at"
                f" where user_id = '{self.ids['subject']}'"
            )

    # What a recipe asks for; `slot` is 0 for the first call of a pair and 1 for the second.

    def session(self, slot):
        return self.sessions[0 if self.how == "one" else slot]

    def token(self, slot):
        return self.session(slot)["access_token"]

    def own(self, slot, things):
        """One thing for both calls, or one each."""
        return things[0 if self.how == "one" or len(things) == 1 else slot]

    def actor(self, slot):
        """Who administers, and whom."""
        if self.crossed == slot:
            return self.token(slot), self.ids["other"]
        return self.worker.admin(), self.ids["subject"]

    def accounts(self, slot):
        """What a call that acts on everyone reaches of the scene before its caller, in its order."""
        others = [(name == "service", id) for name, id in self.ids.items() if (self.crossed, name) != (slot, "subject")]
        return [id for _, id in sorted(others)]

    def proof(self, slot):
        return {"code": self.codes[slot]} if self.codes else {"password": self.password}


RECIPES = {}


class Recipe:
    """How a route is called. One that acts on `everyone` is called where no other pair is under way."""

    def __init__(self, route, make, needs, who, everybody):
        self.route, self.make, self.needs, self.who = route, make, frozenset(needs), who
        self.everybody = everybody

    def call(self, scene, slot):
        method, path = self.route.split(" ")
        return self.make(scene, slot, method, path)


def recipe(route, *needs, who="anyone", everybody=False):
    def keep(make):
        RECIPES[route] = Recipe(route, make, needs, who, everybody)
        return make

    return keep


def mine(route, *needs, body=None, **parts):
    """A call of the user within a session. `parts` fill the path's braces."""

    @recipe(route, *needs, who="subject")
    def make(scene, slot, method, path):
        filled = path.format(**{name: part(scene, slot) for name, part in parts.items()})
        return Call(method, filled, body(scene, slot) if body else None, scene.token(slot))


def open_to_all(route, *needs, body=None, form=None, who="anyone"):
    @recipe(route, *needs, who=who)
    def make(scene, slot, method, path):
        return Call(method, path, body and body(scene, slot), None, form and form(scene, slot))


def administered(route, *needs, body=None, form=None, everybody=False, **parts):
    """A call of an administrator about the user."""

    @recipe(route, *needs, who="admin", everybody=everybody)
    def make(scene, slot, method, path):
        token, target = scene.actor(slot)
        filled = path.format(**{"id": target, **{name: part(scene, slot) for name, part in parts.items()}})
        return Call(method, filled, body and body(scene, slot), token, form and form(scene, slot))


def credentials(scene, _=None):
    return {"email": scene.email, "password": scene.password}


def link(page):
    return lambda scene, slot: {"token": scene.own(slot, scene.links[page]), "password": scene.password}


mine("PATCH /users/me", body=lambda scene, slot: {"name": f"name {slot}"})
mine("DELETE /users/me")
mine(
    "POST /users/me/password",
    body=lambda scene, slot: {"current_password": scene.password, "new_password": PASSWORDS[1 + slot]},
)
mine("POST /users/me/email", body=lambda scene, slot: {"email": scene.emails[2]})
mine("DELETE /users/me/sessions")
mine(
    "DELETE /users/me/sessions/{id}",
    id=lambda scene, slot: scene.sessions[1 if scene.session(slot) is scene.sessions[0] else 0]["session_id"],
)
mine("POST /users/me/totp")
mine("POST /users/me/totp/confirm", "totp_begun", body=lambda scene, slot: {"code": totp(scene.secret)})
mine("DELETE /users/me/totp", "totp")
mine("POST /users/me/recovery-codes", "totp")
mine("POST /users/me/passkeys/begin")
mine(
    "POST /users/me/passkeys/finish", "passkey_begun",
    body=lambda scene, slot: {"credential": scene.session(slot)["new_passkey"], "name": "Key"},
)
mine(
    "PATCH /users/me/passkeys/{id}", "passkey", id=lambda scene, slot: scene.made["id"],
    body=lambda scene, slot: {"name": f"Phone {slot}"},
)
mine("DELETE /users/me/passkeys/{id}", "passkey", id=lambda scene, slot: scene.made["id"])
mine("POST /users/me/api-keys", body=lambda scene, slot: {"name": "new", "permissions": []})
mine("DELETE /users/me/api-keys/{id}", "key", id=lambda scene, slot: scene.keys["own"]["id"])
mine("POST /auth/reauthenticate", body=lambda scene, slot: scene.proof(slot))
mine("POST /auth/reauthenticate/passkey/begin", "passkey")
mine("POST /auth/logout")
mine(
    "PUT /resources/{type}/{id}/grants/{subject}", "grant", "other", type=lambda *_: KIND,
    id=lambda scene, _: scene.resource, subject=lambda scene, _: "user:" + scene.ids["other"],
    body=lambda scene, slot: {"actions": ["read"]},
)
mine(
    "DELETE /resources/{type}/{id}/grants/{subject}", "grant", "other", type=lambda *_: KIND,
    id=lambda scene, _: scene.resource, subject=lambda scene, _: "user:" + scene.ids["other"],
)
mine(
    "POST /access/check",
    body=lambda scene, slot: {"action": "read", "resource_type": KIND, "resource_id": scene.resource},
)
open_to_all(
    "POST /auth/refresh", who="subject",
    body=lambda scene, slot: {"refresh_token": scene.session(slot)["refresh_token"]},
)
open_to_all("POST /auth/login", body=credentials)
open_to_all("POST /auth/link", "reset", body=lambda scene, slot: {"token": scene.own(slot, scene.links["reset"])})
open_to_all(
    "POST /login/access-token",
    form=lambda scene, slot: {
        "username": scene.email.replace("@", "%40"), "password": scene.password.replace(" ", "+"),
    },
)
open_to_all(
    "POST /auth/login/mfa", "totp", "mfa", who="subject",
    body=lambda scene, slot: {
        "mfa_token": scene.own(slot, scene.challenges), "method": "recovery_code", "code": scene.codes[0],
    },
)
open_to_all(
    "POST /auth/login/mfa/lost", "totp", "mfa", who="subject",
    body=lambda scene, slot: {"mfa_token": scene.own(slot, scene.challenges)},
)
open_to_all("POST /auth/login/passkey/begin")
open_to_all(
    "POST /auth/login/passkey/finish", "passkey", "passwordless", who="subject",
    body=lambda scene, slot: {"credential": scene.passkey.get(scene.own(slot, scene.options["passwordless"]))},
)
open_to_all("POST /auth/password/forgot", body=lambda scene, slot: {"email": scene.email})
# Of two links the newer one counts; the older is tried beside it.
open_to_all(
    "POST /auth/password/reset", "reset", who="subject",
    body=lambda scene, slot: {
        "token": scene.own(slot if scene.alike else 0, scene.links["reset"]), "password": PASSWORDS[1 + slot],
    },
)
open_to_all(
    "POST /auth/register", body=lambda scene, slot: {"email": scene.emails[3], "password": PASSWORDS[0]}
)
open_to_all("POST /auth/verify-email", "verify", body=link("verify"))
open_to_all("POST /auth/verify-email/resend", body=lambda scene, slot: {"email": scene.emails[0]})
open_to_all("POST /auth/email/confirm", "email", body=link("email"))
open_to_all(
    "POST /auth/email/undo", "undo",
    body=lambda scene, slot: {"token": scene.links["undo"], "password": PASSWORDS[1 + slot]},
)
open_to_all(
    "POST /auth/factors/keep", "totp", "lost",
    body=lambda scene, slot: {"token": scene.own(slot, scene.links["factors"])},
)
open_to_all("POST /auth/factors/remove", "totp", "lost", body=link("factors"))
# There is an administrator; the race of two set-ups is run once, when the rig starts.
open_to_all(
    "POST /setup",
    body=lambda scene, slot: {"token": "pal_su_none", "email": scene.emails[3], "password": PASSWORDS[0]},
)
administered("POST /auth/introspect", form=lambda scene, slot: {"token": scene.token(slot)})
administered("POST /auth/revoke", form=lambda scene, slot: {"token": scene.token(slot)})
administered("POST /roles", body=lambda scene, slot: {"name": scene.new_role, "permissions": ["users:read"]})
administered("DELETE /roles/{role}", "role", role=lambda scene, _: scene.role)
administered(
    "PATCH /roles/{role}", "role", role=lambda scene, _: scene.role,
    body=lambda scene, slot: {"permissions": [["users:write"], ["roles:read"]][slot]},
)
administered("POST /service-accounts", body=lambda scene, slot: {"name": "new program"})
administered("POST /users", body=lambda scene, slot: {"email": scene.emails[3]})
administered(
    "PATCH /users/{id}", body=lambda scene, slot: {"name": f"name {slot}", "email": scene.emails[2]}
)
administered("DELETE /users/{id}")
administered(
    "POST /users/{id}/api-keys", "service", id=lambda scene, _: scene.ids["service"],
    body=lambda scene, slot: {"name": "new", "permissions": []},
)
administered(
    "DELETE /users/{id}/api-keys/{key}", "service", id=lambda scene, _: scene.ids["service"],
    key=lambda scene, _: scene.keys["service"]["id"],
)
administered("POST /users/{id}/disable")
administered("POST /users/{id}/enable")
administered("POST /users/{id}/reset-mfa", "totp")
administered("POST /users/{id}/reset-password")
administered("POST /users/{id}/revoke-sessions")
administered("POST /users/revoke-sessions", everybody=True)
administered("DELETE /users/{id}/roles/{role}", "role", role=lambda scene, _: scene.role)
administered("PUT /users/{id}/roles/{role}", "role", role=lambda scene, _: scene.role)
administered("POST /users/{id}/unlock")
