"use strict";

const form = document.getElementById("account");
const show = (id, text) => { document.getElementById(id).textContent = text; };

const token = new URLSearchParams(location.hash.slice(1)).get("token");
// The token must not stay in the address bar, the history or a screenshot.
history.replaceState(null, "", location.pathname);
if (!token) show("form-error", "This page requires the complete link from the email. Open the link again.");

function showErrors(problem) {
  let placed = false;
  for (const error of problem.errors || []) {
    const place = document.getElementById(error.pointer.slice(1) + "-error");
    show(place ? place.id : "form-error", error.detail);
    placed = true;
  }
  if (!placed) show("form-error", problem.detail || "Something went wrong. Try again.");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  for (const place of form.querySelectorAll(".error")) place.textContent = "";
  const button = event.submitter || form.querySelector("button");
  const body = new Map([["token", token || ""], ...new FormData(form)]);
  body.delete(button.dataset.omit);
  button.disabled = true;
  try {
    const answer = await fetch(button.getAttribute("formaction") || form.dataset.action, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(Object.fromEntries(body)),
    });
    if (answer.ok) {
      form.reset();
      form.hidden = true;
      document.getElementById("lead").hidden = true;
      document.getElementById("done").hidden = false;
    } else {
      showErrors(await answer.json());
    }
  } catch {
    show("form-error", "The server is not responding. Try again.");
  }
  button.disabled = false;
});
