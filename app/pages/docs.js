// Shows /openapi.json as a page. Everything is put in as text, never as markup.
import { copies } from "./copy.js";
import { at, element } from "./dom.js";
import { curl, python } from "./examples.js";
import { keepKey, keyHeaders } from "./key.js";
import { field, kind, properties, prose } from "./schema.js";

const OPEN = "/v1/audio/transcriptions"; // the route that is unfolded at first

const anchor = (text) => text.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "") || "root";

/** A part of the page that is opened by its first line. */
function block(id, summary, ...content) {
  return element("details", { id, class: "block" }, element("summary", {}, ...summary), ...content);
}

/** The content of a successful answer, by type. */
function contents({ content = {} }) {
  return Object.entries(content).map(([type, { schema }]) => {
    const text = schema.description ? ` (${schema.description})` : "";
    return element("p", {}, element("code", {}, type), ": ", ...kind(schema), text);
  });
}

/** A button that sends a request without a body and shows the answer. */
function sender(path, method) {
  const button = element("button", { type: "button" }, "Send");
  const reply = element("pre", { class: "reply", tabindex: "0", role: "status", "aria-label": `The answer of ${path}`, hidden: "" });
  button.addEventListener("click", async () => {
    const text = await fetch(path, { method, headers: keyHeaders() }).then(
      async (answer) => `${answer.status}\n${await answer.text()}`,
      () => "The service cannot be reached.",
    );
    reply.textContent = text;
    reply.hidden = false;
  });
  return element("div", {}, element("p", {}, button), reply);
}

/** How to try a route from here: recordings go in with the form above, all else needs no body. */
function attempt(path, method, responses, form) {
  if (form) return element("p", {}, element("a", { href: "#try" }, "Try it"));
  const types = Object.keys(responses["200"].content);
  if (types.includes("text/html")) return element("p", {}, element("a", { href: path }, "Open the page"));
  return sender(path.replace("{model_id}", "whisper-1"), method.toUpperCase());
}

/** One method of one path. */
function operation(path, method, { summary, requestBody, parameters, responses }) {
  const badge = element("span", { class: "method" }, method.toUpperCase());
  const route = block(anchor(path), [badge, element("code", {}, path), " ", element("span", { class: "quiet" }, ...prose(summary))]);
  route.open = path === OPEN;
  const form = requestBody?.content["multipart/form-data"];
  if (form) route.append(properties(form.schema));
  if (parameters) {
    const named = parameters.map(({ name, schema, description }) => [name, { ...schema, description }]);
    route.append(properties({ properties: Object.fromEntries(named) }));
  }
  const failures = Object.keys(responses).filter((status) => status >= "400");
  route.append(
    ...contents(responses["200"]),
    element("p", { class: "quiet" }, "Headers: ", Object.keys(responses["200"].headers).join(", "), ". ", element("a", { href: "#errors" }, "Errors"), `: ${failures.join(", ")}.`),
    attempt(path, method, responses, form),
  );
  return route;
}

/** Each error once, although several routes have it. */
function errors(operations) {
  const texts = {};
  for (const { responses } of operations) {
    for (const [status, { description }] of Object.entries(responses)) if (status >= "400") texts[status] ??= description;
  }
  return Object.entries(texts).map(([status, text]) => field([element("strong", {}, status)], ...prose(text)));
}

/** Each header once, as the properties of an object. */
function headers(operations) {
  const all = operations.flatMap(({ responses }) => Object.values(responses).flatMap((response) => Object.entries(response.headers ?? {})));
  return { properties: Object.fromEntries(all.map(([name, { schema, description }]) => [name, { ...schema, description }])) };
}

/** The fields, as the lines and the playground's address have them. */
function wish(asksForKey) {
  const [format, language, prompt] = ["format", "language", "prompt"].map((id) => at(id).value.trim());
  return { name: "recording.wav", format, language, prompt, translate: at("task").value === "translate", asksForKey };
}

function playground({ format, language, prompt, translate }) {
  const query = new URLSearchParams({ response_format: format });
  if (language) query.set("language", language);
  if (prompt) query.set("prompt", prompt);
  if (translate) query.set("task", "translate");
  return `/playground?${query}`;
}

/** The lines that a person can copy, kept to the fields. */
function prepareLines(formats, asksForKey) {
  const writers = { curl, "Python, OpenAI's client": python, "As it is decoded": (lines) => curl({ ...lines, stream: true }) };
  const texts = Object.entries(writers).map(([title, write]) => {
    const text = element("code", {});
    const button = element("button", { type: "button", class: "plain", "aria-label": `Copy: ${title}` }, "Copy");
    copies(button, () => text.textContent, "copied");
    const label = element("div", { class: "label" }, title, button);
    at("lines").append(element("div", { class: "line" }, label, element("pre", { tabindex: "0", "aria-label": title }, text)));
    return [text, write];
  });
  const draw = () => {
    for (const [text, write] of texts) text.textContent = write(wish(asksForKey));
    at("playground").href = playground(wish(asksForKey));
    at("copied").textContent = "";
  };
  at("format").append(...formats.map((name) => element("option", {}, name)));
  at("try").addEventListener("input", draw);
  at("try").addEventListener("submit", (event) => event.preventDefault());
  draw();
}

/** Open and show the part of the page that the address names; the browser looked for it too early. */
function reveal() {
  const target = location.hash && at(location.hash.slice(1));
  if (!target) return;
  if (target.matches("details")) target.open = true;
  target.scrollIntoView();
}

function show({ info, security, paths, components }) {
  at("about").append(...info.description.split("\n\n").map((text) => element("p", {}, ...prose(text))));
  at("version").textContent = `version ${info.version}`;
  at("key-field").hidden = !security;
  const routes = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map((method) => [path, ...method]));
  const operations = routes.map((route) => route[2]);
  const form = paths[OPEN].post.requestBody.content["multipart/form-data"].schema;
  prepareLines(form.properties.response_format.enum, Boolean(security));
  at("routes").append(...routes.map((route) => operation(...route)));
  at("error-list").append(...errors(operations));
  for (const [name, schema] of Object.entries(components.schemas)) at("objects").append(block(`object-${name}`, [name], properties(schema)));
  at("objects").append(block("headers", ["Headers"], properties(headers(operations))));
  at("state").hidden = true;
  addEventListener("hashchange", reveal);
  reveal();
}

keepKey();
fetch("/openapi.json")
  .then((answer) => {
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  })
  .then(show)
  .catch((error) => {
    at("state").textContent = `openapi.json could not be read (${error.message}). Load the page again.`;
  });
