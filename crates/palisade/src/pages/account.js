"use strict";

const form = document.getElementById("account");
const token = forms.takeToken();
if (!token) forms.show("form-error", "This page requires the complete link from the email. Open the link again.");

// Shows who received the link, which also tells a password manager which account the password belongs to. A link that
// can't be used is reported before anything is entered.
async function lookUp() {
  const answer = await fetch("/api/v1/auth/link", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  const found = await answer.json();
  if (answer.ok) {
    document.getElementById("username").value = found.email;
    document.getElementById("recipient").hidden = false;
  } else if (answer.status === 422) {
    forms.showErrors(found);
  }
}

// If the lookup fails, the form works all the same.
if (token) lookUp().catch(() => null);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  forms.clear(form);
  const button = event.submitter || form.querySelector("button");
  if (!button.formNoValidate && !forms.complete(form)) return;
  const body = new Map([["token", token], ...new FormData(form)]);
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
      forms.showErrors(await answer.json());
    }
  } catch {
    forms.show("form-error", "The server is not responding. Try again.");
  }
  button.disabled = false;
});
