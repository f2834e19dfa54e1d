"""Access tokens as PyJWT verifies them."""

import jwt


def verified_jwt(server, token, **more):
    keys = jwt.PyJWKClient(server.url + "/.well-known/jwks.json")
    key = keys.get_signing_key_from_jwt(token)
    options = {"require": ["exp", "iat", "iss", "aud", "sub", "sid", "jti", "auth_time"]}
    arguments = {"audience": server.url, "issuer": server.url, **more}
    return jwt.decode(token, key, algorithms=["EdDSA", "ES256"], options=options, **arguments)
