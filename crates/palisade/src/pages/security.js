"use strict";

const byId = (id) => document.getElementById(id);
const show = (id, text) => { byId(id).textContent = text; };

const send = (method, path, body) => fetch("/api/v1" + path, {
  method,
  credentials: "same-origin",
  headers: body ? { "Content-Type": "application/json" } : {},
  body: body && JSON.stringify(body),
});

// Returns the response body, or throws it if it describes a problem.
async function read(answer) {
  const body = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw body;
  return body;
}

// Thrown if the user decided not to continue: there is no error, and nothing was changed.
const GIVEN_UP = { given_up: true };

// Sends a request that requires a fresh proof of identity, and asks the user for the proof if there is none.
async function ask(method, path, body) {
  for (;;) {
    try {
      return await read(await send(method, path, body));
    } catch (problem) {
      if (problem.code !== "access.not_fresh") throw problem;
      if (!await factors.stepUp(send, problem.methods, byId("who").textContent)) throw GIVEN_UP;
    }
  }
}

// Runs one action at a time. If it fails, the error is shown at `place`.
let busy = false;
async function attempt(place, action) {
  if (busy) return;
  busy = true;
  for (const error of document.querySelectorAll(".error")) error.textContent = "";
  show("state", "");
  try {
    await action();
  } catch (problem) {
    if (["access.not_signed_in", "access.invalid_token", "sessions.ended"].includes(problem.code)) {
      showSignedOut("The session has ended. Sign in again.");
      goTo("email");
    } else if (!problem.given_up) {
      show(place, factors.explain(problem));
    }
  }
  busy = false;
}

const on = (id, event, place, action) => byId(id).addEventListener(event, (happened) => {
  happened.preventDefault();
  attempt(place, action);
});

// Moves the focus, so that keyboard and screen reader users follow the page.
const goTo = (id) => byId(id).focus();

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Signing in and out.

let offered = null;

// Browsers offer any available passkeys in the email field. The challenge to sign is valid for five minutes and works
// once; after that, a new one is requested.
async function offerPasskeys() {
  const { PublicKeyCredential: known } = window;
  if (offered || !known || !known.isConditionalMediationAvailable) return;
  const mine = offered = new AbortController();
  try {
    if (!await known.isConditionalMediationAvailable()) return;
    const options = await read(await send("POST", "/auth/login/passkey/begin"));
    const credential = await factors.get(options, { mediation: "conditional", signal: mine.signal });
    offered = null;
    await attempt("sign-in-error", () => enterWithPasskey(options, credential));
  } catch {
    // The user did not request this, so there is nothing to report.
    if (offered === mine) offered = null;
  }
}

function withdrawOffer() {
  if (offered) offered.abort();
  offered = null;
}

byId("email").addEventListener("focus", offerPasskeys);

async function enterWithPasskey(options, credential) {
  try {
    await read(await send("POST", "/auth/login/passkey/finish", { credential, transport: "cookie" }));
  } catch (problem) {
    factors.report(problem, options, credential);
    throw problem;
  }
  await look();
  goTo("title");
}

function showSignedOut(says) {
  forget();
  byId("signed-in").hidden = true;
  byId("signed-out").hidden = false;
  byId("with-passkey").hidden = !window.PublicKeyCredential;
  show("state", says);
  offerPasskeys();
}

// Removes what was shown to one user, so that the next user can't see it.
function forget() {
  hideCodes();
  endSetUp();
  byId("passkeys-list").replaceChildren();
  for (const id of ["who", "totp-state", "recovery-state"]) show(id, "");
  for (const form of document.querySelectorAll("form")) form.reset();
}

on("sign-in", "submit", "sign-in-error", async () => {
  const { email, password } = Object.fromEntries(new FormData(byId("sign-in")));
  if (!await factors.signIn(send, { email, password, transport: "cookie" })) return;
  withdrawOffer();
  byId("sign-in").reset();
  await look();
  goTo("title");
});

on("with-passkey", "click", "sign-in-error", async () => {
  withdrawOffer();
  const options = await read(await send("POST", "/auth/login/passkey/begin"));
  await enterWithPasskey(options, await factors.get(options));
});

on("sign-out", "click", "state", async () => {
  await read(await send("POST", "/auth/logout"));
  showSignedOut("Signed out.");
  goTo("email");
});

// The current passkeys and second factors.

async function look() {
  const user = await read(await send("GET", "/users/me"));
  const { mfa } = user;
  const passkeys = mfa.passkeys ? (await read(await send("GET", "/users/me/passkeys"))).items : [];
  show("who", user.email);
  byId("passkeys-none").hidden = passkeys.length > 0;
  byId("passkeys-list").replaceChildren(...passkeys.map(passkeyView));
  byId("passkey-new").hidden = !window.PublicKeyCredential;
  show("totp-state", mfa.totp ? "An authenticator app is set up for this account." : "No authenticator app is set up for this account.");
  show("totp-begin", mfa.totp ? "Replace the authenticator app" : "Set up an authenticator app");
  byId("totp-remove").hidden = !mfa.totp;
  const any = mfa.totp || mfa.passkeys > 0;
  const left = mfa.recovery_codes_left === 1 ? "1 code remains." : `${mfa.recovery_codes_left} codes remain.`;
  show("recovery-state", any ? left : "You receive recovery codes with your first passkey or authenticator app. A recovery code works once, in place of a factor that you have lost.");
  byId("recovery-renew").hidden = !any;
  byId("signed-out").hidden = true;
  byId("signed-in").hidden = false;
}

// Passkeys.

const day = (time) => new Date(time).toLocaleDateString();

function passkeyView(passkey) {
  const { id, name, created_at, last_used_at } = passkey;
  const used = last_used_at ? `, last used ${day(last_used_at)}` : "";
  const button = (text, action) => {
    const made = element("button", { type: "button", class: "quiet", "aria-label": `${text} ${name}` }, text);
    made.addEventListener("click", action);
    return made;
  };
  const view = element("li", {}, element("strong", {}, name), element("p", { class: "hint" }, `Added ${day(created_at)}${used}`),
    element("div", { class: "row" },
      button("Rename", () => view.replaceWith(passkeyRenaming(passkey, view))),
      button("Remove", () => attempt("passkeys-error", () => removePasskey(passkey)))));
  return view;
}

function passkeyRenaming({ id, name }, view) {
  const input = element("input", { type: "text", id: "rename", autocomplete: "off", maxlength: "200", "aria-describedby": "passkeys-error" });
  input.value = name;
  const cancel = element("button", { type: "button", class: "quiet" }, "Cancel");
  const form = element("form", { novalidate: "" },
    element("label", { for: "rename" }, `New name for ${name}`), input,
    element("div", { class: "row" }, element("button", { type: "submit" }, "Save"), cancel));
  const item = element("li", {}, form);
  const back = () => {
    item.replaceWith(view);
    view.querySelector("button").focus();
  };
  cancel.addEventListener("click", back);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt("passkeys-error", async () => {
      await ask("PATCH", `/users/me/passkeys/${id}`, { name: input.value });
      await look();
      show("state", "The passkey was renamed.");
      goTo("passkeys-title");
    });
  });
  // Selects the text once the input is in the page.
  queueMicrotask(() => input.select());
  return item;
}

async function removePasskey({ id, name }) {
  if (!await sure(`Remove the passkey ${name}?`, "You can no longer sign in with it. All other devices are signed out.")) return;
  await ask("DELETE", `/users/me/passkeys/${id}`);
  await look();
  show("state", "The passkey was removed.");
  goTo("passkeys-title");
}

on("passkey-new", "submit", "passkeys-error", async () => {
  const name = byId("passkey-name").value.trim();
  const credential = await factors.create(await ask("POST", "/users/me/passkeys/begin"));
  const made = await ask("POST", "/users/me/passkeys/finish", { credential, ...(name && { name }) });
  byId("passkey-new").reset();
  await look();
  show("state", "The passkey was added.");
  goTo("passkeys-title");
  if (made.recovery_codes.length) showCodes(made.recovery_codes);
});

// The authenticator app.

const SVG = "http://www.w3.org/2000/svg";

// The QR code, redrawn from its outline, so that nothing from the server is parsed as markup.
function qrCode(text) {
  const [, width, height] = text.match(/ viewBox="0 0 (\d+) (\d+)"/);
  const [, outline] = text.match(/ d="([MhvHV\d ]+)"/);
  const draw = (name, attributes, ...children) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  return draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "QR code for the secret", "shape-rendering": "crispEdges" },
    draw("rect", { width, height, fill: "#fff" }), draw("path", { d: outline, fill: "#000" }));
}

on("totp-begin", "click", "totp-error", async () => {
  const { secret, otpauth_uri, qr_svg } = await ask("POST", "/users/me/totp");
  byId("totp-qr").replaceChildren(qrCode(qr_svg));
  show("totp-secret", secret.match(/.{1,4}/g).join(" "));
  if (otpauth_uri.startsWith("otpauth://")) byId("totp-link").href = otpauth_uri;
  byId("totp-choices").hidden = true;
  byId("totp-confirm").hidden = false;
  goTo("totp-code");
});

function endSetUp() {
  byId("totp-confirm").hidden = true;
  byId("totp-confirm").reset();
  byId("totp-qr").replaceChildren();
  show("totp-secret", "");
  byId("totp-link").removeAttribute("href");
  byId("totp-choices").hidden = false;
}

byId("totp-cancel").addEventListener("click", () => {
  endSetUp();
  show("totp-error", "");
  goTo("totp-begin");
});

on("totp-confirm", "submit", "totp-error", async () => {
  const code = byId("totp-code").value.replaceAll(/\s/g, "");
  byId("totp-code").select();
  const { recovery_codes } = await ask("POST", "/users/me/totp/confirm", { code });
  endSetUp();
  await look();
  show("state", "The authenticator app is set up.");
  showCodes(recovery_codes);
});

on("totp-remove", "click", "totp-error", async () => {
  if (!await sure("Remove the authenticator app?", "Its codes stop working. All other devices are signed out.")) return;
  await ask("DELETE", "/users/me/totp");
  await look();
  show("state", "The authenticator app was removed.");
  goTo("totp-title");
});

// Recovery codes.

function showCodes(codes) {
  byId("codes-list").replaceChildren(...codes.map((code) => element("li", {}, code)));
  byId("codes").hidden = false;
  goTo("codes-title");
}

function hideCodes() {
  byId("codes").hidden = true;
  byId("codes-list").replaceChildren();
}

byId("codes-copy").addEventListener("click", async () => {
  const codes = [...byId("codes-list").children].map((item) => item.textContent);
  try {
    await navigator.clipboard.writeText(codes.join("\n") + "\n");
    show("state", "The codes were copied.");
  } catch {
    show("state", "The browser does not allow this page to copy. Select the codes and copy them yourself.");
  }
});

byId("codes-print").addEventListener("click", () => print());

byId("codes-kept").addEventListener("click", () => {
  hideCodes();
  goTo("recovery-title");
});

on("recovery-renew", "click", "recovery-error", async () => {
  if (!await sure("Create new recovery codes?", "Your current codes stop working.")) return;
  const { recovery_codes } = await ask("POST", "/users/me/recovery-codes");
  await look();
  show("state", "New recovery codes were created.");
  showCodes(recovery_codes);
});

// Asks the user to confirm an action that can't be undone.
function sure(title, says) {
  const dialog = byId("sure");
  show("sure-title", title);
  show("sure-hint", says);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

byId("sure-yes").addEventListener("click", () => byId("sure").close("yes"));
byId("sure-no").addEventListener("click", () => byId("sure").close());

// A page that the browser restored from its cache may show outdated or private data.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

(async () => {
  try {
    await look();
  } catch (problem) {
    showSignedOut(problem.code === "access.not_signed_in" || problem.code === "access.invalid_token" ? "" : factors.explain(problem));
  }
})();
