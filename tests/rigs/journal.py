"""Writers that keep a journal of what the server acknowledged, and hold the server to it after a fault.

Each writer has a user of its own and does, over and over: a new name, a refresh, now and then a sign-in and a
sign-out. What was answered with 2xx must be there afterwards; what got no answer may have happened or not.
"""

import collections
import http.client
import json
import random
import threading
import time

from server import PASSWORD

API = "/api/v1"
# Longer than this no request may take; a fault that only delays is a fault of its own.
PATIENCE = 60


class Unanswered(Exception):
    """No answer came: the request may have been carried out or not."""


class Client:
    """One kept connection, as a client of an application has it."""

    def __init__(self, port):
        self.port, self.connection = port, None

    def call(self, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            self.connection.request(method, API + path, json.dumps(body) if body is not None else None, headers)
            answer = self.connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unanswered(str(error)) from error

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Broken(Exception):
    """The server broke a promise."""


class Writer:
    """One user and everything the server said about it."""

    def __init__(self, number):
        self.number = number
        self.email = f"writer{number}@example.com"
        self.random = random.Random(number)
        self.count = 0
        self.acked_name, self.tried_names = None, []
        self.session = None
        self.used = []
        self.successors = {}
        # Sessions that were ended, with the answer 204.
        self.ended = collections.deque(maxlen=20)
        self.acked = 0

    def sign_in(self, client):
        body = {"email": self.email, "password": PASSWORD}
        status, answer = client.call("POST", "/auth/login", body)
        if status != 200:
            raise Unanswered(f"sign-in: {status}")
        self.acked += 1
        return answer

    def work(self, client):
        """One step. Raises Unanswered when the server is gone."""
        self.count += 1
        if self.session is None:
            self.session = self.sign_in(client)
            self.used = []
        step = self.random.random()
        if step < 0.55:
            self.rename(client)
        elif step < 0.95:
            self.refresh(client)
        else:
            self.sign_out(client)

    def expect(self, what, status, good):
        if status == good:
            self.acked += 1
            return True
        if status in (503, 408):
            return False
        raise Broken(f"{self.email}: {what} was answered {status}")

    def rename(self, client):
        name = f"n{self.count}"
        self.tried_names.append(name)
        status, _ = client.call("PATCH", "/users/me", {"name": name}, self.session["access_token"])
        if self.expect("a new name", status, 200):
            self.acked_name, self.tried_names = name, []

    def refresh(self, client):
        parent = self.session["refresh_token"]
        status, answer = client.call("POST", "/auth/refresh", {"refresh_token": parent})
        if self.expect("a refresh", status, 200):
            self.took(parent, answer)

    def took(self, parent, answer):
        known = self.successors.setdefault(parent, answer["refresh_token"])
        if known != answer["refresh_token"]:
            raise Broken(f"{self.email}: one refresh token had two successors")
        self.used.append(parent)
        self.session = answer

    def sign_out(self, client):
        ended, self.session = self.session, None
        status, _ = client.call("POST", "/auth/logout", token=ended["access_token"])
        # 401: an earlier attempt without an answer had ended it.
        if status != 401 and self.expect("a sign-out", status, 204):
            self.ended.append(ended)

    def judge(self, client):
        """After the fault: everything that was acknowledged holds."""
        for ended in self.ended:
            status, _ = client.call("GET", "/users/me", token=ended["access_token"])
            if status != 401:
                raise Broken(f"{self.email}: an ended session's token was answered {status}")
            status, _ = client.call("POST", "/auth/refresh", {"refresh_token": ended["refresh_token"]})
            if status != 401:
                raise Broken(f"{self.email}: an ended session's refresh token was answered {status}")
        if self.session is None:
            self.session, self.used = self.sign_in(client), []
        token = self.session["access_token"]
        status, answer = client.call("GET", "/users/me", token=token)
        if status != 200:
            raise Broken(f"{self.email}: a living session was answered {status}")
        if answer["name"] != self.acked_name and answer["name"] not in self.tried_names:
            raise Broken(f"{self.email}: the name {self.acked_name} became {answer['name']}")
        self.acked_name, self.tried_names = answer["name"], []
        parent = self.session["refresh_token"]
        status, answer = client.call("POST", "/auth/refresh", {"refresh_token": parent})
        if status != 200:
            raise Broken(f"{self.email}: the newest refresh token was answered {status}")
        self.took(parent, answer)
        if self.used[:-1] and self.random.random() < 0.2:
            self.replay(client)

    def replay(self, client):
        """A token whose successor was used is no good to anyone, and ends its family."""
        status, _ = client.call("POST", "/auth/refresh", {"refresh_token": self.used[-2]})
        if status != 401:
            raise Broken(f"{self.email}: a refresh token was used twice ({status})")
        status, _ = client.call("GET", "/users/me", token=self.session["access_token"])
        if status != 401:
            raise Broken(f"{self.email}: the family outlived the replay ({status})")
        self.ended.append(self.session)
        self.session = None


class Load:
    """Many writers at once, until they are told to stop or the server is gone."""

    def __init__(self, writers, port):
        self.broken, self.stopped = [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(writer, port)) for writer in writers]
        for thread in self.threads:
            thread.start()

    def run(self, writer, port):
        client = Client(port)
        try:
            while not self.stopped.is_set():
                writer.work(client)
        except Unanswered:
            pass
        except Exception as error:  # told when the load ends
            self.broken.append(error)
        client.close()

    def end(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE * 3)
            assert not thread.is_alive(), "a request hangs"
        if self.broken:
            raise self.broken[0]


def judge(writers, port):
    """All writers at once, so that a thousand answers take seconds."""
    broken = []

    def one(writer):
        client = Client(port)
        try:
            writer.judge(client)
        except Exception as error:
            broken.append(error)
        client.close()

    threads = [threading.Thread(target=one, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]


def register(writers, port):
    for writer in writers:
        body = {"email": writer.email, "password": PASSWORD}
        status, answer = Client(port).call("POST", "/auth/register", body)
        assert status == 202, answer


def wait_until(what, seconds, ready):
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < seconds, f"{what} took longer than {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - began
