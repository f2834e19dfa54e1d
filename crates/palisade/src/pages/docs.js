"use strict";

// Tokens are kept only in this variable, so closing the page discards them.
let tokens = null;
let api = null;
let schemas = new Map();

const byId = (id) => document.getElementById(id);

// Text is only ever inserted as text: no part of a response is parsed as markup.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  const name = schema.$ref.split("/").pop();
  return { ...schemas.get(name), title: name };
}

function typeOf(given) {
  const schema = resolve(given);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const either = schema.anyOf || schema.oneOf;
  if (either) return either.map(typeOf).join(" or ");
  const types = [].concat(schema.type || "any").map((type) => {
    if (type === "array") return "array of " + typeOf(schema.items);
    if (type === "object" && schema.title) return schema.title;
    return schema.format && type === "string" ? `string (${schema.format})` : type;
  });
  return types.join(" or ");
}

function exampleOf(given) {
  const schema = resolve(given);
  if (schema.examples && schema.examples.length) return schema.examples[0];
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  const either = schema.anyOf || schema.oneOf;
  if (either) return exampleOf(either[0]);
  const type = [].concat(schema.type || "null")[0];
  if (type === "object") {
    const required = schema.required || [];
    const fields = Object.entries(schema.properties || {});
    const shown = fields.filter(([name, field]) => required.includes(name) || resolve(field).examples);
    return Object.fromEntries(shown.map(([name, field]) => [name, exampleOf(field)]));
  }
  if (type === "array") return [exampleOf(schema.items)];
  return new Map([["integer", schema.minimum || 0], ["number", 0], ["boolean", false], ["string", ""], ["null", null]]).get(type);
}

// Identifiers and paths wrap between their words and never within one.
const wrapped = (text) => String(text).split(/(?<=[/_.,])/).flatMap((part, index) => index ? [element("wbr"), part] : [part]);

// Descriptions are written in Markdown, but contain no markup other than code.
const plain = (text) => (text || "").replaceAll("`", "");

function fieldTable(given) {
  const schema = resolve(given);
  const parts = schema.anyOf || schema.oneOf || [schema];
  const tables = parts.map(resolve).filter((part) => part.properties).map((part) => {
    const required = part.required || [];
    const rows = Object.entries(part.properties).map(([name, field]) =>
      element("tr", {},
        element("td", {}, element("code", {}, ...wrapped(name)), required.includes(name) ? "" : " (optional)"),
        element("td", {}, ...wrapped(typeOf(field))),
        element("td", {}, plain(field.description || resolve(field).description))));
    const head = element("tr", {}, ...["Field", "Type", "Meaning"].map((text) => element("th", { scope: "col" }, text)));
    const caption = part.title ? element("caption", {}, part.title) : null;
    return element("div", { class: "table" },
      element("table", {}, caption, element("thead", {}, head), element("tbody", {}, ...rows)));
  });
  return tables;
}

const JSON_TYPE = "application/json";

async function send(method, path, body, quiet, type = JSON_TYPE) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = type;
  if (tokens && !quiet) {
    if (tokens.expires <= Date.now() + 5000) await refresh();
    if (tokens) headers.Authorization = "Bearer " + tokens.access;
  }
  return fetch(path, { method, headers, body, credentials: "same-origin" });
}

function keep(answer) {
  tokens = { access: answer.access_token, refresh: answer.refresh_token, expires: Date.now() + answer.expires_in * 1000 };
}

async function refresh() {
  const body = JSON.stringify({ refresh_token: tokens.refresh });
  const answer = await send("POST", "/api/v1/auth/refresh", body, true);
  if (answer.ok) {
    keep(await answer.json());
  } else {
    tokens = null;
    showUser(null);
    byId("sign-in-state").textContent = "The session has ended.";
  }
}

function showUser(user) {
  byId("sign-in").hidden = user !== null;
  byId("signed-in").hidden = user === null;
  byId("signing-in-title").textContent = user ? "Try the API" : "Sign in to try the API";
  byId("who").textContent = user ? user.email : "";
}

async function lookWhoIsSignedIn() {
  const answer = await send("GET", "/api/v1/users/me");
  showUser(answer.ok ? await answer.json() : null);
}

byId("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  const state = byId("sign-in-state");
  state.textContent = "";
  const body = { email: form.email.value, password: form.password.value, transport: form.transport.value };
  try {
    const answer = await factors.signIn((method, path, json) => send(method, "/api/v1" + path, JSON.stringify(json), true), body);
    if (!answer) return;
    const result = await answer.json();
    if (result.access_token) keep(result);
    form.reset();
    await lookWhoIsSignedIn();
  } catch (problem) {
    state.textContent = factors.explain(problem);
  }
});

byId("sign-out").addEventListener("click", async () => {
  try {
    await send("POST", "/api/v1/auth/logout");
    tokens = null;
    showUser(null);
    byId("sign-in-state").textContent = "Signed out.";
  } catch {
    byId("sign-in-state").textContent = "The server is not responding. The session is still active.";
  }
});

const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function curl(method, path, body, needsSession, type) {
  const lines = [`curl -X ${method} ${quoted(location.origin + path)}`];
  if (needsSession) lines.push('  -H "Authorization: Bearer $ACCESS_TOKEN"');
  if (body !== undefined) lines.push(`  -H 'Content-Type: ${type}'`, "  -d " + quoted(body));
  return lines.join(" \\\n");
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

// Asks the user to confirm a call that ends, removes or replaces something.
function sure(method, target, summary) {
  const dialog = byId("sure");
  byId("sure-call").replaceChildren(...wrapped(`${method} ${target}`));
  byId("sure-hint").textContent = summary + ".";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

byId("sure-yes").addEventListener("click", () => byId("sure").close("yes"));
byId("sure-no").addEventListener("click", () => byId("sure").close());

function tryOut(method, path, operation) {
  const form = element("form", { novalidate: "" });
  const inputs = (operation.parameters || []).map((parameter) => {
    const input = element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    const note = [parameter.in === "path" ? "in the path" : "optional", typeOf(parameter.schema), parameter.description];
    form.append(element("label", {}, `${parameter.name} (${note.filter(Boolean).join(", ")})`, input));
    return { parameter, input };
  });
  let bodyInput = null;
  const [type, media] = operation.requestBody ? Object.entries(operation.requestBody.content)[0] : [JSON_TYPE, null];
  const schema = media && media.schema;
  // A form is written as JSON here, and sent as a form.
  const encoded = (text) => type === JSON_TYPE ? text : String(new URLSearchParams(JSON.parse(text)));
  if (schema) {
    const text = JSON.stringify(exampleOf(schema), null, 2);
    bodyInput = element("textarea", { rows: String(text.split("\n").length + 1), spellcheck: "false" });
    bodyInput.value = text;
    form.append(element("label", {}, type === JSON_TYPE ? "Body" : "Body (sent as a form)", bodyInput), ...fieldTable(schema));
  }
  const output = element("div", { role: "status" });
  form.append(element("button", { type: "submit" }, "Send"), output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let target = path;
    const query = new URLSearchParams();
    for (const { parameter, input } of inputs) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(parameter.name, input.value);
    }
    if (query.size) target += "?" + query;
    const typed = bodyInput ? bodyInput.value.trim() : "";
    let body;
    try {
      body = typed ? encoded(typed) : undefined;
    } catch {
      output.replaceChildren(element("p", { class: "error" }, "The body is not valid JSON."));
      return;
    }
    if (operation["x-destructive"] && !await sure(method, target, operation.summary)) return;
    const shown = [element("h3", {}, "Command"), element("pre", { tabindex: "0" }, curl(method, target, body, operation.security.length > 0, type))];
    try {
      const began = performance.now();
      const answer = await send(method, target, body, false, type);
      const text = await answer.text();
      const took = Math.round(performance.now() - began);
      const headers = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      shown.unshift(
        element("h3", {}, `${answer.status} ${answer.statusText} (${took} ms)`),
        element("pre", { tabindex: "0", class: "answer" }, text ? pretty(text) : "(no body)"),
        element("details", {}, element("summary", {}, "Headers"), element("pre", {}, headers)));
    } catch {
      shown.unshift(element("p", { class: "error" }, "The server is not responding. Try again."));
    }
    output.replaceChildren(...shown);
  });
  return form;
}

function answers(operation) {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const media = Object.values(response.content || {})[0];
    return element("tr", {},
      element("td", {}, status),
      element("td", {}, ...wrapped(plain(response.description))),
      element("td", {}, ...wrapped(media ? typeOf(media.schema) : "no body")));
  });
  const head = element("tr", {}, ...["Status", "Meaning or codes", "Body"].map((text) => element("th", { scope: "col" }, text)));
  const good = Object.entries(operation.responses).find(([status]) => status.startsWith("2"));
  const media = good && good[1].content && Object.values(good[1].content)[0];
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  return [element("div", { class: "table" }, table), ...(media ? fieldTable(media.schema) : [])];
}

function operationView(method, path, operation) {
  const summary = element("summary", {},
    element("span", { class: "method " + method }, method.toUpperCase()),
    element("span", { class: "path" }, ...wrapped(path)),
    element("span", {}, operation.summary));
  const inside = element("div");
  const view = element("details", { class: "operation", id: operation.operationId }, summary, inside);
  view.dataset.words = [method, path, operation.summary, operation.description].join(" ").toLowerCase();
  // Built when it is first opened, so that the page loads quickly however long the list is.
  view.addEventListener("toggle", () => {
    if (!view.open || inside.hasChildNodes()) return;
    const text = plain(operation.description);
    inside.append(
      element("p", {}, ...wrapped([text, operation.security.length ? "Requires authentication." : ""].filter(Boolean).join(" "))),
      element("h3", {}, "Try it"), tryOut(method.toUpperCase(), path, operation),
      element("h3", {}, "Responses"), ...answers(operation));
  });
  return view;
}

function showAll() {
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operationView(method, path, operation));
    }
  }
  const sections = [...groups].map(([tag, views]) =>
    element("section", { "aria-label": tag }, element("h2", {}, tag), ...views));
  byId("operations").replaceChildren(...sections);
  showNamed();
  addEventListener("hashchange", showNamed);
}

// Opens the operation that the fragment names, also if the link is opened in a tab that already shows the page.
function showNamed() {
  const named = location.hash && byId(location.hash.slice(1));
  if (named && named.classList.contains("operation")) {
    named.hidden = named.parentElement.hidden = false;
    named.open = true;
    named.scrollIntoView();
  }
}

byId("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of byId("operations").querySelectorAll("section")) {
    let shown = 0;
    for (const view of section.querySelectorAll(".operation")) {
      view.hidden = !words.every((word) => view.dataset.words.includes(word));
      if (!view.hidden) shown += 1;
    }
    section.hidden = shown === 0;
  }
});

async function start() {
  try {
    api = await (await fetch("/openapi.json")).json();
    schemas = new Map(Object.entries(api.components.schemas));
  } catch {
    byId("loading").textContent = "The API description can't be loaded. Reload the page.";
    return;
  }
  byId("title").textContent = api.info.title;
  document.title = api.info.title + " API reference";
  byId("version").textContent = api.info.version;
  byId("introduction").textContent = plain(api.info.description);
  showAll();
  // Only a cookie session can exist at this point.
  await lookWhoIsSignedIn();
}

start();
