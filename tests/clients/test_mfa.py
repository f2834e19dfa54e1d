"""Second factors, as someone else's software knows them: authenticator apps (pyotp, and zxing for the QR code), a
security key that doesn't ask who holds it (soft-webauthn), a passkey that does (python-fido2)."""

import base64
import re
import signal
import threading
import time

import pyotp
import pytest
import zxingcpp
from cryptography.hazmat.primitives.asymmetric import ed25519
from fido2 import features
from fido2.cose import EdDSA
from fido2.rpid import verify_rp_id
from fido2.utils import sha256, websafe_decode, websafe_encode
from fido2.webauthn import (
    Aaguid,
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialRequestOptions,
    UserVerificationRequirement,
)
from jwts import verified_jwt
from server import PASSWORD, Server
from soft_webauthn import SoftWebauthnDevice

features.webauthn_json_mapping.enabled = True

LOGIN = "/api/v1/auth/login"
ME = "/api/v1/users/me"
ALONE = LOGIN + "/passkey"
# The step before this one is taken to its end, so that not every check waits for the next.
BEHIND = {"MFA__TOTP_GRACE": "30s"}


def scanned(svg):
    """What a phone reads from the image: each dark square is drawn, and another maker's decoder looks at it."""
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    pixels = bytearray(b"\xff" * (width * height))
    dark = re.search(r'<path [^>]*fill="#000"[^>]*>', svg)[0]
    for square in re.finditer(r"M(\d+) (\d+)h(\d+)v(\d+)", dark):
        left, top, wide, high = map(int, square.groups())
        for row in range(top, top + high):
            pixels[row * width + left : row * width + left + wide] = bytes(wide)
    image = memoryview(bytes(pixels)).cast("B", (height, width))
    found = zxingcpp.read_barcodes(image)
    assert len(found) == 1, found
    return found[0].text


def wait_for_room(app, seconds=10):
    """Waits for the next step, if this one is nearly over."""
    left = app.interval - time.time() % app.interval
    if left < seconds:
        time.sleep(left + 0.1)


def enrol(server, token, behind=0):
    """Sets up an app by what it scans, with the code of so many seconds ago; answers it and the recovery codes."""
    status, made = server.request("POST", ME + "/totp", token=token)
    assert status == 200, made
    assert scanned(made["qr_svg"]) == made["otpauth_uri"]
    app = pyotp.parse_uri(made["otpauth_uri"])
    assert app.secret == made["secret"] and app.name == "ann@example.com" and app.issuer == "localhost", app
    wait_for_room(app)
    status, done = server.request("POST", ME + "/totp/confirm", {"code": app.at(int(time.time()) - behind)}, token)
    assert status == 200 and len(done["recovery_codes"]) == 10, done
    return app, done["recovery_codes"]


def asked(server, email="ann@example.com"):
    """The password is right, and a second factor is asked for."""
    status, answer = server.request("POST", LOGIN, {"email": email, "password": PASSWORD})
    assert (status, answer["code"]) == (401, "login.mfa_required"), answer
    return answer


def prove(server, challenge, method, **proof):
    body = {"mfa_token": challenge["mfa_token"], "method": method, **proof}
    return server.request("POST", LOGIN + "/mfa", body)


def refused(answer, code="login.denied"):
    status, body = answer
    assert (status, body["code"]) == (401, code), answer


def signed_in(server, answer, amr):
    status, session = answer
    assert status == 200, session
    claims = verified_jwt(server, session["access_token"])
    assert claims["amr"] == amr and abs(claims["auth_time"] - time.time()) < 20, claims
    assert server.request("GET", ME, token=session["access_token"])[0] == 200
    return session


def next_code(app):
    """The code after the one that set it up, which was that of the step before this one."""
    return app.now()


def test_pyotp_scans_the_code_and_signs_in_with_each_code_once(server):
    app, _ = enrol(server, server.sign_in()["access_token"])
    # The code that confirmed it was used.
    challenge = asked(server)
    assert challenge["methods"] == ["totp", "recovery_code"], challenge
    refused(prove(server, challenge, "totp", code=app.now()))
    wait_for_room(app, app.interval)
    code = app.now()
    signed_in(server, prove(server, challenge, "totp", code=code), ["pwd", "otp", "mfa"])
    refused(prove(server, challenge, "totp", code=code), "login.challenge_over")
    refused(prove(server, asked(server), "totp", code=code))
    refused(prove(server, asked(server), "totp", code=f"{(int(code) + 1) % 10**6:06}"))


def as_bytes(value):
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def as_json(credential):
    """What soft-webauthn answers, in the form of the specification's toJSON()."""
    text = lambda value: base64.urlsafe_b64encode(value).decode().rstrip("=")
    raw = text(credential["rawId"])
    response = {name: text(value) for name, value in credential["response"].items() if value is not None}
    return {
        "id": raw, "rawId": raw, "type": credential["type"], "response": response, "clientExtensionResults": {},
    }


def for_soft(options):
    options = {**options, "challenge": as_bytes(options["challenge"])}
    if "user" in options:
        options["user"] = {**options["user"], "id": as_bytes(options["user"]["id"])}
    return {"publicKey": options}


def register(server, token, make, name="Key"):
    status, options = server.request("POST", ME + "/passkeys/begin", token=token)
    assert status == 200, options
    body = {"credential": make(options), "name": name}
    return server.request("POST", ME + "/passkeys/finish", body, token)


def test_soft_webauthn_is_a_second_factor_and_not_enough_alone(server):
    key = SoftWebauthnDevice()
    token = server.sign_in()["access_token"]
    create = lambda options: as_json(key.create(for_soft(options), server.url))
    status, made = register(server, token, create)
    assert status == 201 and len(made["recovery_codes"]) == 10, made
    challenge = asked(server)
    assert challenge["methods"] == ["passkey", "recovery_code"], challenge
    options = challenge["passkey_options"]
    assert [as_bytes(one["id"]) for one in options["allowCredentials"]] == [key.credential_id], options
    credential = as_json(key.get(for_soft(options), server.url))
    answer = prove(server, challenge, "passkey", credential=credential)
    signed_in(server, answer, ["pwd", "hwk", "user", "mfa"])
    # The same answer for another sign-in.
    refused(prove(server, asked(server), "passkey", credential=credential))
    # It says that someone touched it, not who.
    status, options = server.request("POST", ALONE + "/begin")
    assert status == 200 and options["userVerification"] == "required", options
    credential = as_json(key.get(for_soft(options), server.url))
    refused(server.request("POST", ALONE + "/finish", {"credential": credential}))


class Passkey:
    """An authenticator and the browser before it, from the parts of python-fido2: it verifies its user."""

    FLAGS = AuthenticatorData.FLAG
    SYNCED = FLAGS.UP | FLAGS.UV | FLAGS.BE | FLAGS.BS

    def __init__(self):
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.id, self.user = b"a passkey of python-fido2, 32 by", None

    def client_data(self, kind, challenge, origin):
        return CollectedClientData.create(type=kind, challenge=challenge, origin=origin)

    def create(self, json_options, origin):
        options = PublicKeyCredentialCreationOptions.from_dict(json_options)
        assert verify_rp_id(options.rp.id, origin), options
        assert EdDSA.ALGORITHM in [one.alg for one in options.pub_key_cred_params], options
        self.user = options.user.id
        public_key = EdDSA.from_cryptography_key(self.key.public_key())
        held = AttestedCredentialData.create(Aaguid.NONE, self.id, public_key)
        data = AuthenticatorData.create(
            sha256(options.rp.id.encode()), self.SYNCED | self.FLAGS.AT, 0, held
        )
        client = self.client_data(CollectedClientData.TYPE.CREATE, options.challenge, origin)
        attestation = AttestationObject.create("none", data, {})
        return self.credential(
            clientDataJSON=client, attestationObject=bytes(attestation), transports=["internal"]
        )

    def get(self, json_options, origin, challenge=None, flip=False):
        options = PublicKeyCredentialRequestOptions.from_dict(json_options)
        assert options.user_verification == UserVerificationRequirement.REQUIRED, options
        data = AuthenticatorData.create(sha256(options.rp_id.encode()), self.SYNCED, 0)
        kind = CollectedClientData.TYPE.GET
        client = self.client_data(kind, challenge or options.challenge, origin)
        signature = bytearray(self.key.sign(data + client.hash))
        # As anyone who relies on it would see it.
        EdDSA.from_cryptography_key(self.key.public_key()).verify(data + client.hash, bytes(signature))
        if flip:
            signature[10] ^= 1
        return self.credential(
            authenticatorData=data, clientDataJSON=client, signature=signature, userHandle=self.user
        )

    def credential(self, transports=None, **response):
        response = {name: websafe_encode(bytes(value)) for name, value in response.items()}
        if transports:
            response["transports"] = transports
        own = websafe_encode(self.id)
        return {
            "id": own, "rawId": own, "type": "public-key", "response": response,
            "clientExtensionResults": {}, "authenticatorAttachment": "platform",
        }


def test_a_passkey_of_python_fido2_signs_in_alone_and_only_as_it_was_asked(server):
    key, ours = Passkey(), server.url
    token = server.sign_in()["access_token"]
    status, made = register(server, token, lambda options: key.create(options, ours), "Phone")
    assert status == 201 and made["backup_eligible"] and made["backed_up"], made

    def begin():
        status, options = server.request("POST", ALONE + "/begin")
        assert status == 200 and not options.get("allowCredentials"), options
        return options

    finish = lambda credential: server.request("POST", ALONE + "/finish", {"credential": credential})
    options = begin()
    credential = key.get(options, ours)
    signed_in(server, finish(credential), ["swk", "user", "mfa"])
    refused(finish(credential), "login.challenge_over")
    for origin in [ours + "0", ours.replace("http:", "https:"), "http://localhost"]:
        refused(finish(key.get(begin(), origin)))
    refused(finish(key.get(begin(), ours, flip=True)))
    # Its own choice, and that of a sign-in with a password, which is of another kind.
    other = begin()
    refused(finish(key.get(other, ours, challenge=bytes(48))), "login.challenge_over")
    challenge = asked(server)
    elsewhere = websafe_decode(challenge["passkey_options"]["challenge"])
    refused(finish(key.get(other, ours, challenge=elsewhere)), "login.challenge_over")
    refused(prove(server, challenge, "passkey", credential=key.get(other, ours)))
    signed_in(server, finish(key.get(other, ours)), ["swk", "user", "mfa"])
    # Another key that says it is this one.
    thief = Passkey()
    thief.user = key.user
    refused(finish(thief.get(begin(), ours)))


@pytest.mark.settings(**BEHIND)
def test_a_recovery_code_works_once_and_stands_in_for_the_app(server):
    app, codes = enrol(server, server.sign_in()["access_token"], behind=30)
    answer = prove(server, asked(server), "recovery_code", code=codes[0].upper().replace("-", " "))
    session = signed_in(server, answer, ["pwd", "otp", "mfa"])
    me = server.request("GET", ME, token=session["access_token"])[1]
    assert me["mfa"] == {"totp": True, "passkeys": 0, "recovery_codes_left": 9}, me
    challenge = asked(server)
    refused(prove(server, challenge, "recovery_code", code=codes[0]))
    # Anyone who lost the phone removes it with that proof; the codes go with the factor that they stand in for.
    assert server.request("DELETE", ME + "/totp", token=session["access_token"]) == (204, None)
    refused(prove(server, challenge, "recovery_code", code=codes[1]), "login.challenge_over")
    assert server.sign_in()["token_type"] == "Bearer"


@pytest.mark.settings(**BEHIND)
@pytest.mark.databases("sqlite", "postgres")
def test_a_server_that_was_killed_remembers_which_codes_were_used(server):
    app, codes = enrol(server, server.sign_in()["access_token"], behind=30)
    challenge, code = asked(server), next_code(app)
    session = signed_in(server, prove(server, challenge, "totp", code=code), ["pwd", "otp", "mfa"])
    signed_in(server, prove(server, asked(server), "recovery_code", code=codes[0]), ["pwd", "otp", "mfa"])
    tried, wrong = asked(server), codes[0][:-1] + ("a" if codes[0][-1] != "a" else "b")
    for _ in range(3):
        refused(prove(server, tried, "recovery_code", code=wrong))
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(20)
    server.__enter__()
    # Codes that were used are known still: refused, and no guesses.
    refused(prove(server, tried, "totp", code=code))
    refused(prove(server, tried, "recovery_code", code=codes[0]))
    # The attempts before are counted still: two are left.
    refused(prove(server, tried, "recovery_code", code=wrong))
    refused(prove(server, tried, "recovery_code", code=wrong))
    refused(prove(server, tried, "recovery_code", code=codes[1]), "login.challenge_over")
    # So are the guesses at the account, which another challenge doesn't give back.
    status, locked = prove(server, asked(server), "recovery_code", code=codes[1])
    assert (status, locked["code"]) == (429, "lockout.locked"), locked
    assert server.request("GET", ME, token=session["access_token"])[0] == 200
    body = {"refresh_token": session["refresh_token"]}
    status, again = server.request("POST", "/api/v1/auth/refresh", body)
    assert status == 200, again
    assert verified_jwt(server, again["access_token"])["amr"] == ["pwd", "otp", "mfa"]
    me = server.request("GET", ME, token=again["access_token"])[1]
    assert me["mfa"] == {"totp": True, "passkeys": 0, "recovery_codes_left": 9}, me


@pytest.mark.settings(**BEHIND, LOCKOUT__ENABLED="false")
@pytest.mark.databases("postgres")
def test_of_twenty_uses_of_a_code_at_two_servers_one_is_taken(server, settings, database):
    same = {
        "PALISADE_SERVER__PUBLIC_URL": server.url,
        "PALISADE_KEYS__ROOT_KEY_FILE": server.directory + "/palisade-data/root.key",
    }
    with Server(server.directory, {**settings, **database, **same}) as second:
        app, codes = enrol(server, server.sign_in()["access_token"], behind=30)
        for method, code in [("totp", next_code(app)), ("recovery_code", codes[0])]:
            challenges = [(at, asked(at)) for at in (server, second) for _ in range(10)]
            together, answers = threading.Barrier(len(challenges)), []

            def attempt(at, challenge):
                together.wait()
                answers.append(prove(at, challenge, method, code=code))

            threads = [threading.Thread(target=attempt, args=pair) for pair in challenges]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(answers) == 20
            assert sum(status == 200 for status, _ in answers) == 1, (method, answers)
            for answer in answers:
                if answer[0] != 200:
                    refused(answer)
            # Nor is it taken by either of them later.
            for at in (server, second):
                refused(prove(at, asked(at), method, code=code))
