"""Chromium, and a page that is watched."""

import contextlib
import json

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
# Asks the page itself: a report also comes for what a policy has only blocked.
WATCH = """
window.__reports = [];
document.addEventListener("securitypolicyviolation", (report) => {
  window.__reports.push(report.violatedDirective + " " + report.blockedURI);
});
"""


class Browser:
    """A page, with everything it asked for and everything it complained about."""

    def __init__(self, page):
        self.page = page
        self.requests, self.problems = [], []
        page.add_init_script(WATCH)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self.said)

    def said(self, message):
        # A refused request is shown as an error too; what the page does with it is looked at elsewhere.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def is_clean(self, server):
        reports = self.page.evaluate("window.__reports")
        assert not reports and not self.problems, (reports, self.problems)
        outside = [url for url in self.requests if not url.startswith(server.url + "/")]
        assert self.requests and not outside, outside


@contextlib.contextmanager
def chromium_started():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


def tab_to(page, what, most=60):
    """Presses Tab until the focus is there: nothing may be out of the keyboard's reach."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement && document.activeElement.matches({json.dumps(what)})"):
            return
    raise AssertionError(f"the keyboard doesn't reach {what}")
