"use strict";

// What the forms of all pages share.
const forms = (() => {
  const show = (id, text) => { document.getElementById(id).textContent = text; };

  // Takes the token out of the address bar: it must not stay there, in the history or in a screenshot. A link that is
  // opened in a tab that already shows this page changes only the fragment, so the page starts again with the new one.
  function takeToken() {
    const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
    history.replaceState(null, "", location.pathname);
    addEventListener("hashchange", () => {
      if (new URLSearchParams(location.hash.slice(1)).has("token")) location.reload();
    });
    return token;
  }

  const clear = (form) => {
    for (const place of form.querySelectorAll(".error")) place.textContent = "";
  };

  // Shows an error at every required field that is empty. Returns whether there is none, and otherwise moves the focus
  // to the first.
  function complete(form) {
    const empty = [...form.querySelectorAll("[required]")].filter((input) => !input.value);
    for (const input of empty) show(input.name + "-error", "This field is required.");
    if (empty.length) empty[0].focus();
    return !empty.length;
  }

  // Shows each error of a problem at its field, and whatever belongs to no field below the form.
  function showErrors(problem, explain = (other) => other.detail || "Something went wrong. Try again.") {
    const apart = [];
    for (const { pointer, detail } of problem.errors || []) {
      const place = document.getElementById(pointer.slice(1) + "-error");
      if (place) place.textContent = detail;
      else apart.push(detail);
    }
    if (apart.length || !(problem.errors || []).length) show("form-error", apart.join(" ") || explain(problem));
  }

  return { show, takeToken, clear, complete, showErrors };
})();
