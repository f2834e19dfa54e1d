"""Signs in, reads and signs out with the client that openapi-python-client generated."""

import json
import sys

from palisade_client import AuthenticatedClient, Client
from palisade_client.api.auth import post_auth_login, post_auth_logout
from palisade_client.api.usersme import get_users_me, get_users_me_sessions
from palisade_client.models import LoginBody

url, email = sys.argv[1:]
body = LoginBody(email=email, password=sys.stdin.read())
session = post_auth_login.sync(client=Client(base_url=url), body=body)
client = AuthenticatedClient(base_url=url, token=session.access_token)
user = get_users_me.sync(client=client)
sessions = get_users_me_sessions.sync(client=client)
post_auth_logout.sync_detailed(client=client)
after = get_users_me.sync_detailed(client=client)
print(json.dumps({"email": user.email, "sessions": len(sessions.items), "after": after.status_code}))
