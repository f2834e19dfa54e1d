"use strict";

const form = document.getElementById("change");

function showErrors(problem) {
  if (problem.code === "access.mfa_required") {
    forms.show("form-error", "A second factor is required. First set one up on the page /account/security.");
  } else {
    forms.showErrors(problem, factors.explain);
  }
}

// A separate session for this one change. It is stored only in this variable, is kept while the user corrects the new
// password, and is ended afterwards.
let session = null;

const send = (method, path, body) => fetch("/api/v1" + path, {
  method,
  credentials: "omit",
  keepalive: method === "DELETE",
  headers: {
    ...(body && { "Content-Type": "application/json" }),
    ...(session && { Authorization: "Bearer " + session.access_token }),
  },
  body: body && JSON.stringify(body),
});

async function end() {
  if (!session) return;
  // This is not a sign-out: another user who is signed in to this browser stays signed in.
  const ended = send("DELETE", "/users/me/sessions/" + session.session_id);
  session = null;
  // If this fails, the session still expires.
  await ended.catch(() => null);
}

async function enter({ email, current_password }) {
  const login = { email, password: current_password, device_name: "Password change" };
  const answer = await factors.signIn(send, login);
  session = answer && await answer.json();
}

async function change(fields) {
  const { current_password, new_password } = fields;
  if (!session) await enter(fields);
  while (session) {
    const changed = await send("POST", "/users/me/password", { current_password, new_password });
    if (changed.ok) return true;
    const problem = await changed.json();
    if (changed.status === 401) {
      session = null;
      throw { detail: "The session has ended. Try again." };
    }
    if (problem.code !== "access.not_fresh") throw problem;
    // The account has a stronger factor than the one that was used to sign in.
    const proved = await factors.stepUp(send, problem.methods, fields.email);
    if (proved) session = await proved.json();
    else await end();
  }
  forms.show("form-error", "The password was not changed, because your identity was not confirmed.");
  return false;
}

function showDone() {
  form.reset();
  form.hidden = true;
  document.getElementById("lead").hidden = true;
  document.getElementById("done").hidden = false;
  document.getElementById("done-title").focus();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  forms.clear(form);
  if (!forms.complete(form)) return;
  const button = form.querySelector("button");
  if (button.getAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  try {
    if (await change(Object.fromEntries(new FormData(form)))) {
      await end();
      showDone();
    }
  } catch (problem) {
    showErrors(problem);
  }
  button.removeAttribute("aria-disabled");
});

// A different email address or password requires a new sign-in.
for (const name of ["email", "current_password"]) form.elements.namedItem(name).addEventListener("input", end);
addEventListener("pagehide", end);
