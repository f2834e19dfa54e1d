// Signs in, reads and signs out with the types that openapi-typescript made of the description.
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

const [url, email] = process.argv.slice(2) as [string, string];
const password = readFileSync(0, "utf8");
const client = createClient<paths>({ baseUrl: url });

const signedIn = await client.POST("/api/v1/auth/login", { body: { email, password } });
if (signedIn.error) throw new Error(signedIn.error.code);
if (!("access_token" in signedIn.data)) throw new Error("asked for tokens, got a cookie");
const headers = { Authorization: `Bearer ${signedIn.data.access_token}` };

const me = await client.GET("/api/v1/users/me", { headers });
const sessions = await client.GET("/api/v1/users/me/sessions", { headers });
await client.POST("/api/v1/auth/logout", { headers });
const after = await client.GET("/api/v1/users/me", { headers });

console.log(JSON.stringify({
  email: me.data?.email,
  sessions: sessions.data?.items.length,
  after: after.response.status,
}));
