"use strict";

const form = document.getElementById("setup");
const token = forms.takeToken();
if (!token) {
  forms.show("form-error", "This page requires the complete link that the server printed. Print a new one with: palisade setup-link");
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  forms.clear(form);
  if (!forms.complete(form)) return;
  const body = { token, email: form.email.value, password: form.password.value };
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
      forms.show("who", result.email);
      form.reset();
      form.hidden = true;
      document.getElementById("lead").hidden = true;
      document.getElementById("done").hidden = false;
    } else {
      forms.showErrors(result);
    }
  } catch {
    forms.show("form-error", "The server is not responding. Try again.");
  }
  button.disabled = false;
});
