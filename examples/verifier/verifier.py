"""A service that verifies Palisade's access tokens itself and still refuses the tokens of ended sessions.

It requires PyJWT and cryptography. It fetches the public keys and follows the signed revocation feed. When the newest
page of the feed is older than a bound, it refuses every token, so an attacker who blocks the feed gains nothing.

Usage: PALISADE_API_KEY=pal_ak_… verifier.py URL, with one token per line on standard input.
"""

import datetime
import os
import sys
import threading
import time
import urllib.parse
import urllib.request

import jwt

ALGORITHMS = ["EdDSA", "ES256"]


class Refused(Exception):
    """The token is not accepted."""


class Verifier:
    """Verifies access tokens of the server at `url`.

    `api_key` belongs to a service account with the permission `tokens:introspect`. `bound` is how many seconds old
    the newest page of the feed may be. The server sends a page at least every three seconds.
    """

    def __init__(self, url, api_key, audience=None, issuer=None, bound=15.0):
        self.url = url.rstrip("/")
        self.api_key = api_key
        self.issuer = issuer or self.url
        self.audience = audience or self.issuer
        self.bound = bound
        self.keys = jwt.PyJWKClient(self.url + "/.well-known/jwks.json", lifespan=300, timeout=5)
        self.ended = {}
        self.outdated = {}
        self.looked = -5.0
        self.place = None
        self.head = None
        self.after = None
        self.stopping = threading.Event()

    def start(self):
        """Starts to follow the feed, in a separate thread."""
        threading.Thread(target=self._follow, daemon=True).start()
        return self

    def stop(self):
        self.stopping.set()

    def verify(self, token):
        """Returns the claims of a valid token of an active session. They are up to date."""
        # This check is first: without a current revocation feed, no token can be trusted.
        head = self.head
        if head is None or time.time() - head > self.bound:
            raise Refused("the revocation feed is out of date")
        claims = self._signed(token, "at+jwt", self.audience, ["exp", "iat", "sub", "sid", "gen"])
        if claims["sid"] in self.ended:
            raise Refused("the session has ended")
        # Claims about the user have changed, or the user has proved their identity again. The client refreshes.
        generation, _ = self.outdated.get(claims["sid"], (0, 0))
        if not isinstance(claims["gen"], int) or claims["gen"] < generation:
            raise Refused("the token is outdated")
        return claims

    def _signed(self, text, kind, audience, require, leeway=0):
        """Returns the claims of a JWT that the server signed, if its type is `kind`."""
        try:
            header = jwt.get_unverified_header(text)
            if header.get("typ") != kind:
                raise Refused(f"the type is not {kind}")
            key = self._key(header.get("kid"))
            # `iat` is not verified, because the server's clock may be slightly ahead. `exp` always is.
            options = {"require": ["iss", *require], "verify_aud": audience is not None, "verify_iat": False}
            return jwt.decode(
                text, key, algorithms=ALGORITHMS, issuer=self.issuer, audience=audience, options=options,
                leeway=leeway,
            )
        except jwt.PyJWTError as error:
            raise Refused(str(error)) from error

    def _key(self, kid):
        """Returns the server's key with this id. Unknown ids cause at most one fetch every five seconds."""
        known = {key.key_id: key for key in self.keys.get_signing_keys()}
        if kid not in known and time.monotonic() - self.looked >= 5:
            self.looked = time.monotonic()
            known = {key.key_id: key for key in self.keys.get_signing_keys(refresh=True)}
        if kid not in known:
            raise Refused("the key is unknown")
        return known[kid]

    def _follow(self):
        while not self.stopping.is_set():
            try:
                self._stream()
            except (OSError, Refused, ValueError):
                # The request was refused, the connection was lost, or the page was invalid. Only the age of
                # `head` matters.
                pass
            self.stopping.wait(0.5)

    def _stream(self):
        after = "?" + urllib.parse.urlencode({"after": self.after}) if self.after else ""
        headers = {"Authorization": "Bearer " + self.api_key, "Accept": "text/event-stream"}
        request = urllib.request.Request(self.url + "/api/v1/auth/revocations" + after, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as lines:
            self.place = None
            for line in lines:
                if self.stopping.is_set():
                    return
                if line.startswith(b"data: "):
                    self._take(line[len(b"data: "):].strip().decode())

    def _take(self, page):
        # The clocks may differ slightly.
        claims = self._signed(page, "revocations+jwt", None, ["exp", "iat"], leeway=5)
        # If a page is missing, the client starts again from `after`.
        place = claims["stream"]
        if self.place is None:
            follows = place["page"] == 0 and claims["after"] == (self.after or "0.0")
        else:
            follows = place == {"id": self.place["id"], "page": self.place["page"] + 1}
        if not follows:
            raise Refused("a page is missing")
        self.place = place
        now = time.time()
        for item in claims["items"]:
            # The same item may arrive twice, and an earlier item after a later one.
            (name,) = (value for field, value in item.items() if field.endswith("_id"))
            until = seconds(item["until"])
            if "generation" in item:
                self.outdated[name] = max(self.outdated.get(name, (0, 0)), (item["generation"], until))
            else:
                self.ended[name] = until
        for gone in [name for name, until in self.ended.items() if until < now]:
            del self.ended[gone]
        for gone in [name for name, (_, until) in self.outdated.items() if until < now]:
            del self.outdated[gone]
        self.after = claims["next"]
        # Only the last available page shows that nothing is missing. `head` never goes back.
        if not claims["more"]:
            self.head = max(self.head or 0.0, seconds(claims["head"]["time"]))


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main():
    verifier = Verifier(sys.argv[1], os.environ["PALISADE_API_KEY"]).start()
    for line in sys.stdin:
        try:
            print("valid  ", verifier.verify(line.strip())["sub"], flush=True)
        except Refused as why:
            print("refused", why, flush=True)


if __name__ == "__main__":
    main()
