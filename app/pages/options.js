// The options of a request: the form's fields, filled in from the address, as far as the model has them.
import { at } from "./dom.js";
import { keepKey } from "./key.js";

/** Return what a person has asked for. */
export function wish(file) {
  const value = (id) => at(id).value.trim();
  return { file, key: value("key"), language: value("language"), prompt: value("prompt"), translate: at("translate").checked };
}

/** Fill the fields from an address such as /playground?language=de&prompt=Berlin&task=translate. */
function fillIn(query) {
  for (const id of ["language", "prompt"]) at(id).value = query.get(id) ?? "";
  at("translate").checked = query.get("task") === "translate";
  at("options").open = ["language", "prompt", "task"].some((name) => query.has(name));
}

/** Prepare the form. Returns the response format that the address names, if any. */
export function prepareOptions() {
  keepKey();
  const query = new URLSearchParams(location.search);
  fillIn(query);
  return query.get("response_format");
}

function disable(id, reason) {
  at(id).disabled = true;
  if (at(id).type === "checkbox") at(id).checked = false;
  else at(id).value = "";
  at(`${id}-note`).textContent = reason;
}

/** Disable what the model cannot do, with the reason. */
export function limitTo({ model, multilingual, translates }) {
  if (multilingual === false) {
    disable("language", `The model ${model} knows English only.`);
    at("language").placeholder = "English";
  }
  if (translates === false) disable("translate", `The model ${model} cannot translate.`);
}
