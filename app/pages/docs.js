// Shows /openapi.json as a page. Everything is put in as text, never as markup.
import { at, element } from "./dom.js";
import { curl, python } from "./examples.js";

/** Text in which `words between backticks` are code. */
function prose(text) {
  return text.split("`").map((part, n) => (n % 2 ? element("code", {}, part) : part));
}

const nameOf = (schema) => schema.$ref.split("/").pop();
const anchor = (text) => text.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "") || "root";

/** A schema in a few words, with links to objects that have a name. */
function kind(schema) {
  if (schema.$ref) return [element("a", { href: `#object-${nameOf(schema)}` }, nameOf(schema))];
  if (schema.anyOf) return schema.anyOf.flatMap((one, n) => (n ? [" or ", ...kind(one)] : kind(one)));
  if (schema.type === "array") return ["list of ", ...kind(schema.items)];
  if (schema.contentSchema) return kind(schema.contentSchema);
  if (schema.enum) return [schema.enum.join(", ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.format === "binary") return ["file"];
  if (schema.type === "object" && schema.properties) {
    const inner = Object.entries(schema.properties);
    return ["{ ", ...inner.flatMap(([name, one], n) => [n ? ", " : "", `${name}: `, ...kind(one)]), " }"];
  }
  const type = [].concat(schema.type || "any").join(" or ");
  if (schema.minimum === undefined && schema.maximum === undefined) return [type];
  if (schema.maximum === undefined) return [`${type} from ${schema.minimum}`];
  if (schema.minimum === undefined) return [`${type} to ${schema.maximum}`];
  return [`${type} from ${schema.minimum} to ${schema.maximum}`];
}

/** The properties of an object or a form, one below the other. */
function properties(schema) {
  const needed = new Set(schema.required || []);
  const list = element("dl");
  for (const [name, one] of Object.entries(schema.properties || {})) {
    const term = element("dt", {}, element("code", {}, name));
    if (needed.has(name)) term.append(" ", element("span", { class: "needed" }, "required"));
    const meaning = element("dd", {}, ...prose(one.description || ""));
    meaning.prepend(element("span", { class: "quiet" }, ...kind(one)), one.description ? ": " : "");
    list.append(element("div", { class: "field" }, term, meaning));
  }
  return list;
}

/** The answers of a route, each to be opened. */
function answers(responses) {
  return Object.entries(responses).map(([status, one]) => {
    const box = element("details", status === "200" ? { open: "" } : {});
    box.append(element("summary", {}, element("strong", {}, status), " ", one.description));
    for (const [type, body] of Object.entries(one.content || {})) {
      const text = body.schema.description ? ` (${body.schema.description})` : "";
      box.append(element("p", {}, element("code", {}, type), ": ", ...kind(body.schema), text));
    }
    const names = Object.entries(one.headers || {});
    if (names.length) {
      box.append(element("p", { class: "quiet" }, "Headers"));
      box.append(properties({ properties: Object.fromEntries(
        names.map(([name, header]) => [name, { ...header.schema, description: header.description }])) }));
    }
    return box;
  });
}

/** One method of one path. */
function operation(path, method, found) {
  const id = anchor(path);
  const section = element("section", { "aria-labelledby": id });
  section.append(
    element("h2", { id }, element("span", { class: "method" }, method.toUpperCase()), path),
    element("p", {}, ...prose(found.summary)),
  );
  const form = found.requestBody && found.requestBody.content["multipart/form-data"];
  if (form) section.append(element("h3", {}, "Fields (multipart/form-data)"), properties(form.schema));
  if (found.parameters) {
    const named = found.parameters.map((one) => [one.name, { ...one.schema, description: one.description }]);
    section.append(element("h3", {}, "In the path"), properties({ properties: Object.fromEntries(named) }));
  }
  section.append(element("h3", {}, "Answers"), ...answers(found.responses));
  return section;
}

/** The lines that a person can copy. */
function examples(asksForKey) {
  const wish = { name: "recording.wav", asksForKey };
  at("curl").textContent = curl({ ...wish, format: "text" });
  at("stream").textContent = curl({ ...wish, stream: true });
  at("python").textContent = python({ ...wish, format: "json" });
  at("key").hidden = !asksForKey;
}

function show(found) {
  at("title").textContent = found.info.title;
  at("about").append(...prose(found.info.description));
  at("version").textContent = `version ${found.info.version}`;
  examples(Boolean(found.security));
  for (const [path, methods] of Object.entries(found.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      at("contents").append(element("li", {}, element("a", { href: `#${anchor(path)}` }, path)));
      at("routes").append(operation(path, method, one));
    }
  }
  for (const [name, schema] of Object.entries(found.components.schemas)) {
    at("schemas").append(element("h3", { id: `object-${name}` }, name), properties(schema));
  }
  at("state").hidden = true;
  // The place that the address names is only now there.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

fetch("/openapi.json")
  .then((answer) => {
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  })
  .then(show)
  .catch((error) => {
    at("state").textContent = `openapi.json could not be read (${error.message}). Load the page again.`;
  });
