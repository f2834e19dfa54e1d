"""Verifies a token a line with PyJWT and the default cache of PyJWKClient; says `ok` or why not."""

import sys

import jwt

url = sys.argv[1]
keys = jwt.PyJWKClient(url + "/.well-known/jwks.json")
for line in sys.stdin:
    try:
        token = line.strip()
        key = keys.get_signing_key_from_jwt(token)
        jwt.decode(token, key, algorithms=["EdDSA"], audience=url, issuer=url)
        print("ok", flush=True)
    except jwt.PyJWTError as error:
        print(repr(error), flush=True)
