"""Second factors in Chromium: our pages with codes that we compute and passkeys of a virtual authenticator."""

import base64
import hmac
import time

import pytest
from browsing import tab_to
from server import PASSWORD

NEW = "five green kettles whistle"
# The code of the step before is taken to the end of a step: two in a row, without waiting.
SETTINGS = {"MFA__TOTP_GRACE": "30s"}
# Browsers offer passkeys on their own, and a virtual authenticator takes every offer: switched off where a check
# signs in in another way.
NO_OFFERS = "PublicKeyCredential.isConditionalMediationAvailable = async () => false;"
# As in browsers that don't know the JSON forms.
OLD = """
delete PublicKeyCredential.parseCreationOptionsFromJSON;
delete PublicKeyCredential.parseRequestOptionsFromJSON;
delete PublicKeyCredential.prototype.toJSON;
"""


class App:
    """An authenticator app (RFC 6238)."""

    def __init__(self, secret):
        secret = secret.replace(" ", "")
        self.key = base64.b32decode(secret + "=" * (-len(secret) % 8))
        self.used = 0

    def code(self):
        """A code that wasn't given before."""
        while self.used >= time.time() // 30:
            time.sleep(1)
        self.used = max(self.used + 1, int(time.time()) // 30 - 1)
        digest = hmac.digest(self.key, self.used.to_bytes(8, "big"), "sha1")
        at = digest[-1] & 15
        return f"{(int.from_bytes(digest[at:at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


class Authenticator:
    """What holds passkeys."""

    def __init__(self, page, **more):
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("WebAuthn.enable")
        options = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True,
                   "isUserVerified": True, "automaticPresenceSimulation": True, **more}
        made = self.devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        self.id = made["authenticatorId"]

    def verifies(self, whether):
        """Whether its user gives a fingerprint, or is there at least."""
        words = {"authenticatorId": self.id, "isUserVerified": whether}
        self.devtools.send("WebAuthn.setUserVerified", words)

    def remove(self):
        self.devtools.send("WebAuthn.removeVirtualAuthenticator", {"authenticatorId": self.id})

    def ids(self):
        """The ids of its passkeys, as pages see them."""
        found = self.devtools.send("WebAuthn.getCredentials", {"authenticatorId": self.id})["credentials"]
        return [one["credentialId"].replace("+", "-").replace("/", "_").rstrip("=") for one in found]

    def count(self):
        return len(self.ids())


pytestmark = pytest.mark.settings(**SETTINGS)


@pytest.fixture
def script():
    """What runs before the page's own scripts."""
    return NO_OFFERS


@pytest.fixture
def page(server, browser, script):
    """The page about what protects Ann's account; in the end nothing was reported or sent elsewhere."""
    page = browser.page
    page.add_init_script(script)
    page.goto(server.url + "/account/security")
    yield page
    browser.is_clean(server)
    kept = page.evaluate("document.cookie + Object.values({...localStorage, ...sessionStorage}).join()")
    assert kept == "", kept


def give_password(page, password=PASSWORD, email="ann@example.com"):
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def is_in(page, email="ann@example.com"):
    page.locator("#who").filter(has_text=email).wait_for()


def sign_out(page):
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("Signed out.", exact=True).wait_for()
    assert page.locator("#signed-in").is_hidden()


def press(page, name, within="body"):
    page.locator(within).get_by_role("button", name=name, exact=True).click()


def give_code(page, label, code):
    """In the dialog that asks for a factor."""
    dialog = page.get_by_role("dialog")
    dialog.get_by_label(label).fill(code)
    dialog.get_by_role("button", name="Continue").click()


def recovery_codes(page):
    page.locator("#codes").wait_for()
    codes = page.locator("#codes-list li").all_inner_texts()
    assert len(set(codes)) == 10, codes
    return codes


def set_up_app(page):
    page.get_by_role("button", name="Set up").click()
    page.locator("#totp-qr path").wait_for()
    app = App(page.locator("#totp-secret").inner_text())
    page.get_by_label("Code from the app").fill(app.code())
    press(page, "Confirm")
    page.get_by_text("The authenticator app is set up.").wait_for()
    return app, recovery_codes(page)


def add_passkey(page, name="Blue key"):
    page.get_by_label("Name for the new passkey").fill(name)
    press(page, "Add a passkey")
    page.get_by_text("The passkey was added.").wait_for()
    page.locator("#passkeys-list").get_by_text(name, exact=True).wait_for()


def test_an_authenticator_app_is_set_up_and_asked_for_by_keyboard_alone(server, page):
    tab_to(page, "#email")
    page.keyboard.type("ann@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    is_in(page)
    tab_to(page, "#totp-begin")
    page.keyboard.press("Enter")
    page.locator("#totp-qr path").wait_for()
    page.locator("#totp-code:focus").wait_for()
    # The picture is the secret's: so many modules, and the whole page is drawn under the policy.
    assert page.locator("#totp-qr path").get_attribute("d").count("M") > 300
    secret = page.locator("#totp-secret").inner_text()
    link = page.locator("#totp-link").get_attribute("href")
    assert link.startswith("otpauth://totp/") and "secret=" + secret.replace(" ", "") in link, link
    app = App(secret)
    right = app.code()
    page.keyboard.type(f"{(int(right) + 1) % 1_000_000:06}")
    page.keyboard.press("Enter")
    page.get_by_text("This code is wrong or has expired").wait_for()
    page.keyboard.type(right)
    page.keyboard.press("Enter")
    codes = recovery_codes(page)
    page.locator("#codes-title:focus").wait_for()
    tab_to(page, "#codes-kept")
    page.keyboard.press("Enter")
    assert page.locator("#codes").is_hidden() and codes[0] not in page.content()
    page.get_by_text("10 codes remain.").wait_for()
    assert secret not in page.content()
    tab_to(page, "#sign-out")
    page.keyboard.press("Enter")
    page.get_by_text("Signed out.", exact=True).wait_for()

    page.locator("#email:focus").wait_for()
    page.keyboard.type("ann@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("#factor:focus").wait_for()
    page.keyboard.type("000000" if right != "000000" else "111111")
    page.keyboard.press("Enter")
    page.get_by_text("The code is wrong").wait_for()
    page.keyboard.type(app.code())
    page.keyboard.press("Enter")
    is_in(page)

    # Escape gives it up, and no one is in.
    sign_out(page)
    give_password(page)
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert page.evaluate("async () => (await fetch('/api/v1/users/me')).status") == 401
    press(page, "Sign in")
    press(page, "Use a recovery code instead")
    give_code(page, "Recovery code", codes[3])
    is_in(page)
    page.get_by_text("9 codes remain.").wait_for()


@pytest.mark.parametrize("script", [NO_OFFERS, NO_OFFERS + OLD], ids=["json_forms", "without_json_forms"])
def test_a_passkey_is_added_and_signs_in_alone_and_after_the_password(page):
    authenticator = Authenticator(page)
    give_password(page)
    is_in(page)
    add_passkey(page)
    assert authenticator.count() == 1
    codes = recovery_codes(page)
    # The same device takes no second one.
    page.get_by_label("Name for the new passkey").fill("Again")
    press(page, "Add a passkey")
    page.get_by_text("This device already has a passkey for this account.").wait_for()
    sign_out(page)
    assert codes[0] not in page.content() and "Blue key" not in page.content()

    press(page, "Sign in with a passkey")
    is_in(page)
    page.locator("#passkeys-list").get_by_text("last used").wait_for()
    sign_out(page)

    give_password(page)
    press(page, "Use a passkey", "dialog")
    is_in(page)

    page.get_by_role("button", name="Rename Blue key").click()
    page.get_by_label("New name for Blue key").fill("Desk <b>")
    page.keyboard.press("Enter")
    page.get_by_text("The passkey was renamed.").wait_for()
    page.get_by_role("button", name="Remove Desk <b>").click()
    press(page, "Cancel", "#sure")
    page.get_by_role("button", name="Remove Desk <b>").click()
    press(page, "Yes", "#sure")
    page.get_by_text("You have no passkey.").wait_for()
    sign_out(page)
    give_password(page)
    is_in(page)


# Notes what the browser is told of passkeys, and passes it on. `strange` changes the id of the next passkey that signs.
SIGNALS = """
window.__signals = [];
const signal = PublicKeyCredential.signalUnknownCredential.bind(PublicKeyCredential);
PublicKeyCredential.signalUnknownCredential = (options) => { window.__signals.push(options); return signal(options); };
const toJSON = PublicKeyCredential.prototype.toJSON;
PublicKeyCredential.prototype.toJSON = function () {
  const json = toJSON.call(this);
  return window.strange ? { ...json, id: window.strange, rawId: window.strange } : json;
};
"""
UNTOLD = "delete PublicKeyCredential.signalUnknownCredential;"
UNKNOWN = "This passkey is not registered, or was removed."


@pytest.mark.parametrize("script", [NO_OFFERS + SIGNALS, NO_OFFERS + UNTOLD], ids=["told", "untold"])
def test_a_browser_is_told_that_a_passkey_was_removed(page, request):
    authenticator = Authenticator(page)
    give_password(page)
    is_in(page)
    add_passkey(page)
    [own] = authenticator.ids()
    page.get_by_role("button", name="Remove Blue key").click()
    press(page, "Yes", "#sure")
    page.get_by_text("The passkey was removed.").wait_for()
    sign_out(page)
    assert authenticator.ids() == [own], "the device doesn't know yet"
    press(page, "Sign in with a passkey")
    page.get_by_text(UNKNOWN).wait_for()
    if "untold" in request.node.name:
        assert authenticator.ids() == [own]
    else:
        assert page.evaluate("window.__signals") == [{"rpId": "localhost", "credentialId": own}]
        assert authenticator.ids() == []
    # The page goes on.
    give_password(page)
    is_in(page)


@pytest.mark.parametrize("script", [NO_OFFERS + SIGNALS], ids=["told"])
def test_a_dialog_stays_open_for_another_proof_than_an_unknown_passkey(page):
    authenticator = Authenticator(page)
    give_password(page)
    is_in(page)
    add_passkey(page)
    [own] = authenticator.ids()
    sign_out(page)
    strange = "c3RyYW5nZXI6IGEgcGFzc2tleSBvZiBub2JvZHk"
    give_password(page)
    page.evaluate("(id) => { window.strange = id; }", strange)
    press(page, "Use a passkey", "dialog")
    page.get_by_role("dialog").get_by_text(UNKNOWN).wait_for()
    assert page.evaluate("window.__signals") == [{"rpId": "localhost", "credentialId": strange}]
    page.evaluate("window.strange = null")
    press(page, "Use a passkey", "dialog")
    is_in(page)
    assert len(page.evaluate("window.__signals")) == 1 and authenticator.ids() == [own]


@pytest.mark.parametrize("script", [""], ids=["offers"])
def test_a_passkey_is_offered_where_the_email_is_typed(page):
    give_password(page)
    is_in(page)
    Authenticator(page)
    add_passkey(page)
    # The virtual authenticator takes the first offer that is made.
    page.get_by_role("button", name="Sign out").click()
    page.locator("#signed-out").wait_for()
    is_in(page)


# What a changed page could do: it asks for less than the server did.
SIGN_IN_WITH = """async (userVerification) => {
  const send = (path, body) => fetch("/api/v1/auth/login/passkey/" + path, { method: "POST",
    headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const options = await (await send("begin")).json();
  const credential = await factors.get({ ...options, userVerification });
  const answer = await send("finish", { credential, transport: "cookie" });
  return [options.userVerification, answer.status, (await answer.json()).code];
}"""


def test_a_passkey_whose_user_was_not_verified_does_not_sign_in_alone(server, page):
    phone = Authenticator(page)
    give_password(page)
    is_in(page)
    add_passkey(page, "Phone")
    sign_out(page)
    assert page.evaluate(SIGN_IN_WITH, "discouraged") == ["required", 401, "login.denied"]
    assert page.evaluate(SIGN_IN_WITH, "required") == ["required", 200, None], "verified, it does"
    page.reload()
    is_in(page)
    sign_out(page)
    phone.verifies(False)
    press(page, "Sign in with a passkey")
    page.get_by_text("The passkey was not used").wait_for()
    assert page.evaluate(SIGN_IN_WITH, "discouraged") == ["required", 401, "login.denied"]
    phone.verifies(True)
    press(page, "Sign in with a passkey")
    is_in(page)
    page.get_by_role("button", name="Remove Phone").click()
    press(page, "Yes", "#sure")
    page.get_by_text("The passkey was removed.").wait_for()

    # A security key without a PIN: not alone, but after the password.
    phone.remove()
    Authenticator(page, transport="usb", hasResidentKey=False, hasUserVerification=False, isUserVerified=False)
    add_passkey(page, "Key")
    sign_out(page)
    give_password(page)
    press(page, "Use a passkey", "dialog")
    is_in(page)


def test_what_needs_a_fresh_proof_asks_for_the_passkey(server, page):
    Authenticator(page)
    give_password(page)
    is_in(page)
    app, codes = set_up_app(page)
    add_passkey(page)
    assert page.locator("#codes").is_visible(), "the codes that were shown are still there"
    sign_out(page)

    give_password(page)
    page.get_by_role("dialog").get_by_text("Use a passkey on this device").wait_for()
    press(page, "Use the authenticator app instead")
    give_code(page, "Code from the authenticator app", app.code())
    is_in(page)
    # A code signed in; what protects the account is changed with the strongest factor.
    press(page, "Remove the authenticator app")
    press(page, "Yes", "#sure")
    dialog = page.get_by_role("dialog", name="Confirm your identity")
    dialog.wait_for()
    assert dialog.get_by_role("button", name="authenticator app").count() == 0
    press(page, "Cancel", "dialog[open]")
    dialog.wait_for(state="detached")
    page.get_by_text("An authenticator app is set up for this account.").wait_for()
    press(page, "Remove the authenticator app")
    press(page, "Yes", "#sure")
    press(page, "Use a passkey", "dialog[open]")
    page.get_by_text("The authenticator app was removed.").wait_for()
    page.get_by_text("No authenticator app is set up for this account.").wait_for()

    # That proof goes on being fresh.
    press(page, "Create new recovery codes")
    press(page, "Yes", "#sure")
    page.get_by_text("New recovery codes were created.").wait_for()
    assert not set(recovery_codes(page)) & set(codes)


def test_the_codes_are_copied_and_printed_and_shown_once(server, page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    give_password(page)
    is_in(page)
    _, codes = set_up_app(page)
    press(page, "Copy")
    page.get_by_text("The codes were copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").split() == codes
    page.emulate_media(media="print")
    printed = [words for words in page.locator("main").inner_text().split("\n") if words]
    assert printed[-10:] == codes and "Passkeys" not in printed, printed
    page.emulate_media(media="screen")
    page.reload()
    is_in(page)
    assert page.locator("#codes").is_hidden() and codes[0] not in page.content()


@pytest.mark.settings(**SETTINGS, ACCESS__ADMIN_MFA="required")
def test_an_administrator_who_must_have_a_second_factor_sets_it_up_on_the_page(server, page):
    server.command("user", "create", "root@example.com", stdin=PASSWORD + "\n")
    server.command("user", "grant-role", "root@example.com", "admin")
    give_password(page, email="root@example.com")
    is_in(page, "root@example.com")
    status = "async () => (await fetch('/api/v1/users')).status"
    assert page.evaluate(status) == 403
    set_up_app(page)
    assert page.evaluate(status) == 200
    press(page, "Remove the authenticator app")
    press(page, "Yes", "#sure")
    page.get_by_text("A second factor is required").wait_for()


def change_password(page, old, new):
    page.get_by_label("Current password").fill(old)
    page.get_by_label("New password").fill(new)
    page.keyboard.press("Enter")


def test_a_password_is_changed_with_a_second_factor(server, page):
    give_password(page)
    is_in(page)
    app, _ = set_up_app(page)
    page.goto(server.url + "/account/password")
    page.get_by_label("Email").fill("ann@example.com")
    change_password(page, PASSWORD, "short")
    press(page, "Cancel", "dialog")
    page.get_by_text("The password was not changed").wait_for()
    change_password(page, PASSWORD, "short")
    give_code(page, "Code from the authenticator app", app.code())
    page.get_by_text("Use at least 15 characters").wait_for()
    # Who it is was proved; only the new password is mended.
    page.get_by_label("New password").fill(NEW)
    page.keyboard.press("Enter")
    page.get_by_text("Your new password is set").wait_for()

    page.goto(server.url + "/account/security")
    give_password(page, NEW)
    give_code(page, "Code from the authenticator app", app.code())
    is_in(page)
    sessions = page.evaluate("async () => (await (await fetch('/api/v1/users/me/sessions')).json()).items.length")
    assert sessions == 1, "the session of the change goes on"
    Authenticator(page)
    add_passkey(page)
    page.goto(server.url + "/account/password")
    page.get_by_label("Email").fill("ann@example.com")
    # A code signs in, and isn't enough where there is a passkey.
    change_password(page, NEW, PASSWORD)
    press(page, "Use the authenticator app instead")
    give_code(page, "Code from the authenticator app", app.code())
    page.get_by_role("dialog", name="Confirm your identity").wait_for()
    press(page, "Use a passkey", "dialog")
    page.get_by_text("Your new password is set").wait_for()


def test_the_docs_page_signs_in_with_a_second_factor(server, page):
    Authenticator(page)
    give_password(page)
    is_in(page)
    app, codes = set_up_app(page)
    add_passkey(page)
    sign_out(page)
    page.goto(server.url + "/docs")
    for transport in ["token", "cookie"]:
        for way in ["Use the authenticator app instead", "Use a recovery code instead", None]:
            page.get_by_label("Email").fill("ann@example.com")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_label("Session").select_option(transport)
            press(page, "Sign in")
            if way is None:
                press(page, "Use a passkey", "dialog")
            elif "recovery" in way:
                press(page, way)
                give_code(page, "Recovery code", codes.pop())
            else:
                press(page, way)
                give_code(page, "Code from the authenticator app", app.code())
            is_in(page)
            press(page, "Sign out")
            page.get_by_text("Signed out.", exact=True).wait_for()
