"""Emails that arrived at a real SMTP server."""

import email
import email.policy
import re
import time


class Inbox:
    """Takes emails in, or refuses them as it is told."""

    def __init__(self, port):
        self.port, self.mails, self.refuse = port, [], None

    async def handle_DATA(self, server, session, envelope):
        if self.refuse:
            return self.refuse
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append((envelope.rcpt_tos, mail))
        return "250 Message accepted for delivery"

    def next(self, seconds=10):
        began = time.time()
        while not self.mails:
            assert time.time() - began < seconds, "no email came"
            time.sleep(0.02)
        return self.mails.pop(0)


def token(mail, page, url):
    text = mail.get_body(("plain",)).get_content()
    found = re.search(rf"^{re.escape(url)}/account/{page}#token=(\S+)\s*$", text, re.M)
    assert found, text
    assert found[1] in mail.get_body(("html",)).get_content()
    return found[1]
