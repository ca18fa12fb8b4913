// The list of recordings, when there are several: each with its state, to be shown by a click.
import { at, element } from "./dom.js";

const STATES = { waiting: "waits", working: "in progress", done: "done", cancelled: "cancelled", failed: "failed" };

function line(recording, shown, onChoice) {
  const button = element("button", { type: "button", class: "plain" }, recording.file.name);
  if (recording === shown) button.setAttribute("aria-current", "true");
  button.addEventListener("click", () => onChoice(recording));
  return element("li", { class: recording.state }, button, " ", element("span", { class: "quiet" }, STATES[recording.state]));
}

/** Show the list; one recording alone needs none. */
export function showFiles(recordings, shown, onChoice) {
  at("files").hidden = recordings.length < 2;
  const focused = [...at("file-list").children].findIndex((item) => item.contains(document.activeElement));
  at("file-list").replaceChildren(...recordings.map((recording) => line(recording, shown, onChoice)));
  if (focused >= 0) at("file-list").children[focused].firstChild.focus();
}
