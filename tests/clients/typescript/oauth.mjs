// openid-client: finds the endpoints, introspects and revokes as a client with a secret, refreshes.
import { readFileSync } from "node:fs";
import * as oauth from "openid-client";

const [url, id] = process.argv.slice(2);
const { secret, token, refresh } = JSON.parse(readFileSync(0, "utf8"));

async function found(how) {
  const execute = [oauth.allowInsecureRequests];
  return await oauth.discovery(new URL(url), id, undefined, how, { algorithm: "oauth2", execute });
}

async function failed(call) {
  try {
    await call;
    return "nothing";
  } catch (error) {
    return error.error ?? error.cause?.[0]?.scheme ?? String(error);
  }
}

const basic = await found(oauth.ClientSecretBasic(secret));
const post = await found(oauth.ClientSecretPost(secret));
const wrong = await found(oauth.ClientSecretBasic("pal_ak_wrong"));
const told = {
  issuer: basic.serverMetadata().issuer,
  basic: (await oauth.tokenIntrospection(basic, token)).active,
  post: (await oauth.tokenIntrospection(post, token)).active,
  wrong: await failed(oauth.tokenIntrospection(wrong, token)),
};
const renewed = await oauth.refreshTokenGrant(await found(oauth.None()), refresh);
told.renewed = (await oauth.tokenIntrospection(post, renewed.access_token)).active;
await oauth.tokenRevocation(basic, renewed.access_token);
told.revoked = (await oauth.tokenIntrospection(post, renewed.access_token)).active;
// With a secret too, which this endpoint doesn't need.
told.ended = await failed(oauth.refreshTokenGrant(basic, renewed.refresh_token));
console.log(JSON.stringify(told));
