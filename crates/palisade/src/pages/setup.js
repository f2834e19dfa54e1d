"use strict";

const form = document.getElementById("setup");
const show = (id, text) => { document.getElementById(id).textContent = text; };

const token = new URLSearchParams(location.hash.slice(1)).get("token");
// The token must not stay in the address bar, the history or a screenshot.
history.replaceState(null, "", location.pathname);
if (!token) {
  show("form-error", "This page requires the complete link that the server printed. Print a new one with: palisade setup-link");
}

function showErrors(problem) {
  let placed = false;
  for (const error of problem.errors || []) {
    const place = document.getElementById(error.pointer.slice(1) + "-error");
    if (place) {
      place.textContent = error.detail;
      placed = true;
    } else {
      show("form-error", error.detail);
      placed = true;
    }
  }
  if (!placed) show("form-error", problem.detail || "Something went wrong. Try again.");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  for (const id of ["email-error", "name-error", "password-error", "form-error"]) show(id, "");
  const body = { token: token || "", email: form.email.value, password: form.password.value };
  const name = form.elements.namedItem("name").value.trim();
  if (name) body.name = name;
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch("/api/v1/setup", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const result = await answer.json();
    if (answer.status === 201) {
      show("who", result.email);
      form.reset();
      form.hidden = true;
      document.getElementById("lead").hidden = true;
      document.getElementById("done").hidden = false;
    } else {
      showErrors(result);
    }
  } catch {
    show("form-error", "The server is not responding. Try again.");
  }
  button.disabled = false;
});
