"use strict";

// Second factors in a browser, for every page that signs a user in. Nothing is stored: what the user types and
// signs here is sent only to the server.
const factors = (() => {
  const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const base64url = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const described = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  // Parses the JSON forms of WebAuthn Level 3, sections 5.1.8 to 5.1.10, by hand if the browser can't.
  function creation(json) {
    if (PublicKeyCredential.parseCreationOptionsFromJSON) return PublicKeyCredential.parseCreationOptionsFromJSON(json);
    const user = { ...json.user, id: bytes(json.user.id) };
    return { ...json, user, challenge: bytes(json.challenge), excludeCredentials: described(json.excludeCredentials) };
  }

  function request(json) {
    if (PublicKeyCredential.parseRequestOptionsFromJSON) return PublicKeyCredential.parseRequestOptionsFromJSON(json);
    return { ...json, challenge: bytes(json.challenge), allowCredentials: described(json.allowCredentials) };
  }

  function written(credential) {
    try {
      return credential.toJSON();
    } catch {
      // `toJSON` is missing, or throws because a password manager replaced the credential.
    }
    const { response } = credential;
    const part = { clientDataJSON: base64url(response.clientDataJSON) };
    if (response.attestationObject) {
      part.attestationObject = base64url(response.attestationObject);
      part.transports = response.getTransports ? response.getTransports() : [];
    } else {
      part.authenticatorData = base64url(response.authenticatorData);
      part.signature = base64url(response.signature);
      if (response.userHandle) part.userHandle = base64url(response.userHandle);
    }
    const made = { id: credential.id, rawId: base64url(credential.rawId), type: credential.type, response: part };
    return { ...made, clientExtensionResults: credential.getClientExtensionResults() };
  }

  // Creates a passkey; signs with a passkey.
  const create = async (options) => written(await navigator.credentials.create({ publicKey: creation(options) }));
  const get = async (options, more) => written(await navigator.credentials.get({ publicKey: request(options), ...more }));

  // Asks the browser to stop offering a passkey that no account has, if the browser can do so. It does not matter here
  // whether it does: the passkey was refused, and the user sees why.
  function report(problem, { rpId }, { id }) {
    if (problem.code !== "login.passkey_unknown" || !PublicKeyCredential.signalUnknownCredential) return;
    PublicKeyCredential.signalUnknownCredential({ rpId, credentialId: id }).catch(() => {});
  }

  // Returns a message for users: from a problem that the server returned, or for an exception from the browser.
  function explain(error) {
    if (error.detail) return error.errors && error.errors.length ? error.errors[0].detail : error.detail;
    if (!(error instanceof DOMException)) return "The server is not responding. Try again.";
    return REASONS.get(error.name) || "The passkey was not used. Try again.";
  }

  const REASONS = new Map([
    ["InvalidStateError", "This device already has a passkey for this account."],
    ["SecurityError", "The passkeys of this server can't be used on this page, because the page's host does not match."],
  ]);

  // The proof was refused, and another one can follow.
  const REFUSED = ["login.denied", "login.passkey_unknown"];

  const WAYS = new Map(Object.entries({
    passkey: {
      says: "Use a passkey on this device, a phone or a security key.",
      go: "Use a passkey",
      instead: "Use a passkey instead",
    },
    totp: {
      says: "Enter the six-digit code from your authenticator app.",
      label: "Code from the authenticator app",
      input: { type: "text", inputmode: "numeric", autocomplete: "one-time-code" },
      instead: "Use the authenticator app instead",
    },
    recovery_code: {
      says: "Each of your recovery codes works once.",
      label: "Recovery code",
      input: { type: "text", inputmode: "text", autocomplete: "off" },
      instead: "Use a recovery code instead",
    },
    password: {
      label: "Password",
      input: { type: "password", inputmode: "text", autocomplete: "current-password" },
      instead: "Use the password instead",
    },
  }));

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // Requests a proof by one of `methods`, starting with the first. Returns the response in which `prove` accepted the
  // proof, or null if the user canceled. Throws the problem if a proof can no longer be given.
  function ask({ title, methods, username, passkeyOptions, prove }) {
    const usable = methods.filter((method) => WAYS.has(method) && (method !== "passkey" || window.PublicKeyCredential));
    if (!usable.length) throw { detail: "This browser supports none of the factors of this account." };
    const lead = element("p", { id: "factor-hint" });
    const label = element("label", { for: "factor" });
    const input = element("input", { id: "factor", autocapitalize: "none", spellcheck: "false", "aria-describedby": "factor-hint factor-error" });
    const field = element("div", {}, label, input);
    // Tells a password manager which account is asked about.
    const account = element("input", { type: "email", autocomplete: "username", value: username, readonly: "", hidden: "" });
    const error = element("p", { class: "error", id: "factor-error", role: "alert" });
    const go = element("button", { type: "submit" });
    const cancel = element("button", { type: "button", class: "quiet" }, "Cancel");
    const others = element("div", { class: "others" });
    const form = element("form", { novalidate: "" },
      element("h2", { id: "factor-title" }, title), lead, account, field, error, element("div", { class: "row" }, go, cancel), others);
    const dialog = element("dialog", { id: "factor-dialog", "aria-labelledby": "factor-title" }, form);
    let way = null;

    function choose(method) {
      way = method;
      const { label: name, input: attributes, says: hint, go: verb } = WAYS.get(method);
      lead.textContent = hint || "";
      field.hidden = !name;
      label.textContent = name || "";
      for (const [key, value] of Object.entries(attributes || {})) input.setAttribute(key, value);
      input.value = error.textContent = "";
      go.textContent = verb || "Continue";
      others.replaceChildren(...usable.filter((other) => other !== method).map((other) => {
        const button = element("button", { type: "button", class: "quiet" }, WAYS.get(other).instead);
        button.addEventListener("click", () => choose(other));
        return button;
      }));
      (name ? input : go).focus();
    }

    let options = null;
    async function proof(signal) {
      if (way === "passkey") {
        options = await passkeyOptions();
        return { method: way, credential: await get(options, { signal }) };
      }
      if (way === "password") return { method: way, password: input.value };
      return { method: way, code: input.value.replaceAll(/\s/g, "") };
    }

    return new Promise((resolve, reject) => {
      const closed = new AbortController();
      let busy = false, taken = null, over = null;
      function settle() {
        dialog.remove();
        if (over) reject(over);
        else resolve(taken);
      }
      dialog.addEventListener("close", () => {
        closed.abort();
        // A proof that was already sent still counts, even if the dialog is closed in the meantime.
        if (!busy) settle();
      });
      cancel.addEventListener("click", () => dialog.close());
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        if (busy) return;
        busy = true;
        error.textContent = "";
        try {
          const given = await proof(closed.signal);
          const answer = await prove(given);
          if (answer.ok) {
            taken = answer;
          } else {
            const problem = await answer.json();
            if (given.credential) report(problem, options, given.credential);
            if (answer.status === 401 && !REFUSED.includes(problem.code)) over = problem;
            else throw problem;
          }
        } catch (problem) {
          error.textContent = explain(problem);
          if (!field.hidden) input.select();
        }
        busy = false;
        if (!dialog.open) settle();
        else if (taken || over) dialog.close();
      });
      document.body.append(dialog);
      dialog.showModal();
      choose(usable[0]);
    });
  }

  // Signs in with a password and any second factor that is required. Returns the response, or null if the user
  // canceled. Throws the problem.
  async function signIn(send, body) {
    const answer = await send("POST", "/auth/login", body);
    if (answer.ok) return answer;
    const { code, mfa_token, methods, passkey_options, ...problem } = await answer.json();
    if (code !== "login.mfa_required") throw { code, ...problem };
    return ask({
      title: "Second step",
      username: body.email,
      methods: methods.filter((method) => method !== "passkey" || passkey_options),
      passkeyOptions: () => passkey_options,
      prove: (proof) => send("POST", "/auth/login/mfa", { mfa_token, ...proof }),
    });
  }

  // Requests a fresh proof of identity from the signed-in user. Returns and throws the same as `ask`.
  function stepUp(send, methods, username) {
    return ask({
      title: "Confirm your identity",
      methods,
      username,
      passkeyOptions: async () => {
        const begun = await send("POST", "/auth/reauthenticate/passkey/begin");
        const options = await begun.json();
        if (!begun.ok) throw options;
        return options;
      },
      prove: ({ method, ...proof }) => send("POST", "/auth/reauthenticate", proof),
    });
  }

  return { create, get, report, explain, signIn, stepUp };
})();
