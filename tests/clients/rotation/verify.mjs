// Verifies a token a line with jose and the default cache of createRemoteJWKSet; says `ok` or why not.

import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const url = process.argv[2];
const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", url));
for await (const line of createInterface({ input: process.stdin })) {
  try {
    await jwtVerify(line.trim(), keys, { issuer: url, audience: url, typ: "at+jwt" });
    console.log("ok");
  } catch (error) {
    console.log(String(error));
  }
}
