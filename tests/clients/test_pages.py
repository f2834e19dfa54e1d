"""Our pages in Chromium, and other sites that would use a visitor's cookie."""

import contextlib
import http.server
import json
import threading
import time

import pytest
from browsing import tab_to
from server import PASSWORD, ROOT, Server, free_port

def test_the_setup_page_works_in_a_browser_under_its_policy(browser, tmp_path):
    with Server(tmp_path) as server:
        page = browser.page
        page.goto(server.greeting["setup_link"])
        assert "token" not in page.url, "the token stays in the address bar"
        page.get_by_role("button", name="Create administrator").click()
        assert page.locator("#email-error").inner_text() == "This field is required."
        assert page.locator("#password-error").inner_text() == "This field is required."
        page.get_by_label("Email").fill("root")
        page.get_by_label("Password").fill("short")
        page.keyboard.press("Enter")
        page.get_by_text("Use at least 15 characters").wait_for()
        assert page.locator("#email-error").inner_text() != ""
        page.get_by_label("Email").fill("root@example.com")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Create administrator").click()
        page.get_by_text("You can now sign in as root@example.com").wait_for()
        browser.is_clean(server)
        assert server.sign_in("root@example.com")["token_type"] == "Bearer"
        for name, path in [("Read the API reference", "/docs"), ("Sign in and add", "/account/security")]:
            assert page.get_by_role("link", name=name).get_attribute("href") == path
        assert page.goto(server.greeting["setup_link"].split("#")[0]).status == 410
        page.get_by_text("already set up").wait_for()
        page.get_by_role("link", name="Sign in").click()
        page.get_by_role("button", name="Sign in", exact=True).wait_for()
        browser.is_clean(server)


def newest_link(page, server, to):
    """Where the newest email of the mailbox leads."""
    page.goto(server.url + "/mailbox")
    return page.locator(f"article a[href*='/account/{to}']").first.get_attribute("href")


def test_the_account_pages_work_in_a_browser_under_their_policy(server, browser):
    new, newer = "five green kettles whistle", "mossy lantern drifts inland"
    page = browser.page
    page.goto(server.url + "/.well-known/change-password")
    page.get_by_label("Email").fill("ann@example.com")
    page.get_by_label("Current password").fill("not the right one at all")
    page.get_by_label("New password").fill(new)
    page.get_by_role("button", name="Change the password").click()
    page.get_by_text("The email address or the password is wrong").wait_for()
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password").fill("short")
    page.keyboard.press("Enter")
    page.get_by_text("Use at least 15 characters").wait_for()
    page.get_by_label("New password").fill(new)
    page.keyboard.press("Enter")
    page.get_by_text("Your new password is set").wait_for()
    browser.is_clean(server)
    kept = page.evaluate("document.cookie + Object.values({...localStorage, ...sessionStorage}).join()")
    assert kept == "", kept

    assert server.request("POST", "/api/v1/auth/password/forgot", {"email": "ann@example.com"})[0] == 202
    time.sleep(2)
    use_link(browser, server, "reset", newer, "Your new password is set")
    status, session = server.request(
        "POST", "/api/v1/auth/login", {"email": "ann@example.com", "password": newer}
    )
    assert status == 200, session
    body = {"email": "ann@new.example"}
    assert server.request("POST", "/api/v1/users/me/email", body, session["access_token"])[0] == 202
    time.sleep(2)
    use_link(browser, server, "email", newer, "Your email address has been changed")
    time.sleep(2)
    use_link(browser, server, "undo", PASSWORD, "Your account is restored")
    server.command("user", "create", "bob@example.com", "--invite")
    time.sleep(2)
    use_link(browser, server, "invite", PASSWORD, "Your password is set")
    server.sign_in()
    server.sign_in("bob@example.com")


def use_link(browser, server, to, password, message):
    """Follows the newest email's link, gives the password, and is done."""
    page = browser.page
    link = newest_link(page, server, to)
    page.goto(link)
    assert "token" not in page.url, "the token stays in the address bar"
    page.locator("input[name=password]").fill(password)
    page.keyboard.press("Enter")
    page.get_by_text(message).wait_for()
    browser.is_clean(server)
    # It was good once.
    page.goto("about:blank")
    page.goto(link)
    page.locator("input[name=password]").fill(password)
    page.keyboard.press("Enter")
    page.get_by_text("This link was used").wait_for()


def test_a_link_works_in_a_tab_that_already_shows_its_page(server, browser):
    page = browser.page
    page.goto(server.url + "/account/reset#token=pal_pr_stale")
    page.locator("input[name=password]").fill("mossy lantern drifts inland")
    page.keyboard.press("Enter")
    page.locator("#form-error").filter(has_text="link").wait_for()
    assert server.request("POST", "/api/v1/auth/password/forgot", {"email": "ann@example.com"})[0] == 202
    time.sleep(2)
    status, session = server.request("POST", "/api/v1/auth/login", {"email": "ann@example.com", "password": PASSWORD})
    assert status == 200, session
    mailbox = page.context.new_page()
    link = newest_link(mailbox, server, "reset")
    page.evaluate("(link) => { location.href = link; }", link)
    page.wait_for_function("document.getElementById('form-error').textContent === ''")
    assert "token" not in page.url, "the token stays in the address bar"
    page.locator("input[name=password]").fill("mossy lantern drifts inland")
    page.keyboard.press("Enter")
    page.get_by_text("Your new password is set").wait_for()


def test_the_docs_page_asks_before_what_ends_something_and_breaks_no_identifier(server, browser):
    page = browser.page
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(server.url + "/docs")
    page.get_by_label("Email").fill("ann@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("#who").filter(has_text="ann@example.com").wait_for()
    assert page.locator("#signing-in-title").inner_text() == "Try the API"
    ends_all = page.locator("#delete_users_me")
    ends_all.locator("summary").first.click()
    assert "Sign in" not in ends_all.inner_text()
    ends_all.get_by_role("button", name="Send").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert ends_all.locator(".answer").count() == 0
    ends_all.get_by_role("button", name="Send").click()
    page.get_by_role("dialog").get_by_role("button", name="Send").click()
    ends_all.locator(".answer").wait_for()
    # An identifier that wraps within a word has two lines where its longest word alone has one.
    broken = page.evaluate(BROKEN)
    assert broken == [], broken
    browser.is_clean(server)


BROKEN = """() => {
  for (const view of document.querySelectorAll(".operation")) view.open = true;
  return new Promise((resolve) => setTimeout(() => {
    const broken = [];
    for (const part of document.querySelectorAll(".path, .operation td, .operation td code")) {
      for (const node of part.childNodes) {
        if (node.nodeType !== Node.TEXT_NODE) continue;
        for (const { 0: word, index } of node.data.matchAll(/[^\\s-]+/g)) {
          const range = document.createRange();
          range.setStart(node, index);
          range.setEnd(node, index + word.length);
          const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
          if (lines.size > 1) broken.push(word);
        }
      }
    }
    resolve(broken);
  }, 100));
}"""


@pytest.mark.parametrize("transport", ["token", "cookie"])
def test_the_docs_page_is_read_and_tried_by_keyboard_alone(server, browser, transport):
    page = browser.page
    page.goto(server.url + "/docs")
    page.get_by_text("Signs in with an email address and a password", exact=True).wait_for()
    tab_to(page, "[name=email]")
    page.keyboard.type("ann@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Tab")
    page.keyboard.type(transport)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#who").filter(has_text="ann@example.com").wait_for()
    tab_to(page, "#filter")
    page.keyboard.type("get /users/me returns")
    tab_to(page, "#get_users_me > summary")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Send").wait_for()
    tab_to(page, "#get_users_me button")
    page.keyboard.press("Enter")
    shown = page.locator("#get_users_me .answer").inner_text()
    assert json.loads(shown)["email"] == "ann@example.com", shown
    tokens = page.evaluate("Object.values({...localStorage, ...sessionStorage}).join()")
    assert tokens == "", "the page keeps something"
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("Signed out.").wait_for()
    page.locator("#get_users_me button").click()
    page.locator("#get_users_me h3").filter(has_text="401").wait_for()
    browser.is_clean(server)


def test_every_operation_on_the_docs_page_opens_and_offers_its_example(server, browser):
    page = browser.page
    page.goto(server.url + "/docs")
    page.locator(".operation").first.wait_for()
    document = page.evaluate("fetch('/openapi.json').then((answer) => answer.json())")
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert page.locator(".operation").count() == len(operations)
    for operation in operations:
        view = page.locator("#" + operation["operationId"])
        view.locator("summary").first.click()
        view.get_by_role("button", name="Send").wait_for()
        if "requestBody" in operation:
            json.loads(view.locator("textarea").input_value())
    browser.is_clean(server)


# The operations of the page /docs are opened, because their contents are hidden otherwise.
OPENED = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
OVERFLOWS = """() => {
  const page = document.documentElement;
  const wide = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1);
  return page.scrollWidth > page.clientWidth ? wide.map((one) => one.outerHTML.slice(0, 120)) : null;
}"""


def test_every_page_fits_a_phone(server, browser):
    source = ROOT / "crates/palisade/src/pages"
    names = {file.stem for file in source.glob("*.html")} - {"shell", "setup_done"}
    longest = "a" * 64 + "@" + ".".join(["b" * 57] * 3) + ".example"
    for email in ["ann@example.com", longest]:
        if email != "ann@example.com":
            server.command("user", "create", email, stdin=PASSWORD + "\n")
        assert server.request("POST", "/api/v1/auth/password/forgot", {"email": email})[0] == 202
    page = browser.page
    page.set_viewport_size({"width": 390, "height": 844})
    began = time.time()
    while page.locator("article pre a").count() < 2:
        assert time.time() - began < 20, "the emails are not in the mailbox"
        page.goto(server.url + "/mailbox")
    for name in sorted(names):
        path = name if name in {"docs", "mailbox", "setup"} else "account/" + name
        answer = page.goto(f"{server.url}/{path}")
        assert answer.status == 200, path
        page.locator(".operation" if name == "docs" else "main").last.wait_for()
        page.evaluate(OPENED)
        wide = page.evaluate(OVERFLOWS)
        assert wide is None, (path, wide)


@contextlib.contextmanager
def elsewhere(pages):
    """Another web server: on localhost it is another origin of our site, on 127.0.0.1 another site."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = pages.get(self.path, "").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    port = free_port()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield port
    finally:
        server.shutdown()
        server.server_close()


SIGN_IN = """async ([email, password]) => (await fetch("/api/v1/auth/login", {
  method: "POST", headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ email, password, transport: "cookie" }) })).status"""
ME = """async () => (await fetch("/api/v1/users/me")).status"""
# No body and no preflight: what a hostile page can send without asking.
SEND = """async (url) => {
  try { await fetch(url, { method: "POST", mode: "no-cors", credentials: "include" }); } catch {}
}"""
READ = """async (url) => {
  try { return await (await fetch(url, { credentials: "include" })).text(); } catch { return "refused"; }
}"""


def test_a_cookie_session_works_here_and_for_no_other_site(server, browser):
    page = browser.page
    logout = server.url + "/api/v1/auth/logout"
    form = f"<form method=post action={logout}><button>win a prize</button></form>"
    with elsewhere({"/": "<p>hello", "/form": form}) as port:
        page.goto(server.url + "/docs")
        assert page.evaluate(SIGN_IN, ["ann@example.com", PASSWORD]) == 200
        assert page.evaluate(ME) == 200
        assert page.evaluate("document.cookie") == "", "a script can read the cookie"
        for origin in [f"http://localhost:{port}", f"http://127.0.0.1:{port}"]:
            page.goto(origin + "/")
            page.evaluate(SEND, logout)
            assert page.evaluate(READ, server.url + "/api/v1/users/me") == "refused"
            page.goto(origin + "/form")
            page.get_by_role("button").click()
            page.wait_for_url(logout)
            shown = json.loads(page.locator("body").inner_text())
            assert shown["code"] in ("access.cross_site", "access.not_signed_in"), shown
        page.goto(server.url + "/docs")
        assert page.evaluate(ME) == 200, "another site ended the session"
        assert page.evaluate("async (url) => (await fetch(url, { method: 'POST' })).status", logout) == 204
        assert page.evaluate(ME) == 401
