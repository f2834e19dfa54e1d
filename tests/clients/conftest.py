"""What only clients ask for by name: an inbox, a browser, Node.js packages."""

import os
import pathlib

import pytest
from aiosmtpd.controller import Controller
from browsing import Browser, chromium_started
from inbox import Inbox
from server import free_port


def pytest_collection_modifyitems(items):
    for item in items:
        for fixture, mark in [("browser", "browser"), ("node_modules", "node")]:
            if fixture in item.fixturenames:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests; each has a profile of its own."""
    with chromium_started() as chromium:
        yield chromium


@pytest.fixture
def browser(chromium):
    """A page in a fresh profile, which is watched."""
    context = chromium.new_context()
    context.set_default_timeout(20_000)
    yield Browser(context.new_page())
    context.close()


@pytest.fixture
def inbox():
    """A real SMTP server, and what arrives there."""
    inbox = Inbox(free_port())
    smtp = Controller(inbox, hostname="127.0.0.1", port=inbox.port)
    smtp.start()
    yield inbox
    smtp.stop()


@pytest.fixture
def node_modules():
    """Where ./test has installed the packages that package-lock.json names."""
    return pathlib.Path(os.environ["TEST_NODE_MODULES"])


@pytest.fixture
def mail_servers():
    """Where ./test has unpacked Postfix and OpenSMTPD."""
    return pathlib.Path(os.environ["TEST_MAIL_SERVERS"])
