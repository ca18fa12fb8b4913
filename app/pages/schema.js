// JSON Schema in words: the kind of a value, and an object's properties one below the other.
import { element } from "./dom.js";

/** Text in which `words between backticks` are code. */
export function prose(text) {
  return text.split("`").map((part, n) => (n % 2 ? element("code", {}, part) : part));
}

const nameOf = (schema) => schema.$ref.split("/").pop();

/** A schema in a few words, with links to objects that have a name. */
export function kind(schema) {
  if (schema.$ref) return [element("a", { href: `#object-${nameOf(schema)}` }, nameOf(schema))];
  if (schema.anyOf) return schema.anyOf.flatMap((choice, n) => (n ? [" or ", ...kind(choice)] : kind(choice)));
  if (schema.type === "array") return ["list of ", ...kind(schema.items)];
  if (schema.contentSchema) return kind(schema.contentSchema);
  if (schema.enum) return [schema.enum.join(", ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.format === "binary") return ["file"];
  if (schema.type === "object" && schema.properties) {
    const inner = Object.entries(schema.properties);
    return ["{ ", ...inner.flatMap(([name, member], n) => [n ? ", " : "", `${name}: `, ...kind(member)]), " }"];
  }
  const type = [].concat(schema.type || "any").join(" or ");
  if (schema.minimum === undefined && schema.maximum === undefined) return [type];
  if (schema.maximum === undefined) return [`${type} from ${schema.minimum}`];
  if (schema.minimum === undefined) return [`${type} to ${schema.maximum}`];
  return [`${type} from ${schema.minimum} to ${schema.maximum}`];
}

/** A term and its meaning. */
export const field = (term, ...meaning) => element("div", { class: "field" }, element("dt", {}, ...term), element("dd", {}, ...meaning));

/** The properties of an object or a form. */
export function properties(schema) {
  const needed = new Set(schema.required || []);
  const list = element("dl");
  for (const [name, property] of Object.entries(schema.properties || {})) {
    const term = [element("code", {}, name), ...(needed.has(name) ? [" ", element("span", { class: "needed" }, "required")] : [])];
    const meaning = property.description ? [": ", ...prose(property.description)] : [];
    list.append(field(term, element("span", { class: "quiet" }, ...kind(property)), ...meaning));
  }
  return list;
}
