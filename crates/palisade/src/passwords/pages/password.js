"use strict";

const form = document.getElementById("change");
const show = (id, text) => { document.getElementById(id).textContent = text; };

function showErrors(problem) {
  let placed = false;
  for (const error of problem.errors || []) {
    const place = document.getElementById(error.pointer.slice(1) + "-error");
    show(place ? place.id : "form-error", error.detail);
    placed = true;
  }
  if (!placed) show("form-error", problem.detail || "Something went wrong; please try again.");
}

const send = (method, path, body, token) => fetch("/api/v1" + path, {
  method,
  credentials: "omit",
  headers: { "Content-Type": "application/json", ...(token && { Authorization: "Bearer " + token }) },
  body: body && JSON.stringify(body),
});

// A session of its own for this one change: it is kept nowhere and ended afterwards.
async function change(fields) {
  const { email, current_password, new_password } = fields;
  const login = await send("POST", "/auth/login", { email, password: current_password, device_name: "Change of password" });
  if (!login.ok) return showErrors(await login.json());
  const { access_token, session_id } = await login.json();
  const changed = await send("POST", "/users/me/password", { current_password, new_password }, access_token);
  await send("DELETE", "/users/me/sessions/" + session_id, null, access_token);
  if (!changed.ok) return showErrors(await changed.json());
  form.reset();
  form.hidden = true;
  document.getElementById("lead").hidden = true;
  document.getElementById("done").hidden = false;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  for (const place of form.querySelectorAll(".error")) place.textContent = "";
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    await change(Object.fromEntries(new FormData(form)));
  } catch {
    show("form-error", "The server doesn't answer; please try again.");
  }
  button.disabled = false;
});
