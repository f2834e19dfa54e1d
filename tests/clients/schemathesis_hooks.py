"""Signs schemathesis in, and in again when it has ended its own session."""

import os

import requests
import schemathesis

URL = os.environ["TARGET"]


@schemathesis.auth(refresh_interval=None)
class Token:
    token = None

    def get(self, _case, _context):
        headers = {"Authorization": f"Bearer {Token.token}"}
        if not Token.token or not requests.get(f"{URL}/api/v1/users/me", headers=headers, timeout=10).ok:
            body = {"email": os.environ["EMAIL"], "password": os.environ["PASSWORD"]}
            answer = requests.post(f"{URL}/api/v1/auth/login", json=body, timeout=30)
            answer.raise_for_status()
            Token.token = answer.json()["access_token"]
        return Token.token

    def set(self, case, token, _context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}
