// Buttons that copy a text, and say so.
import { at } from "./dom.js";

/**
 * Copy when a button is pressed.
 * @param button an element.
 * @param read returns the text.
 * @param noteId the id of the element that says what became of it.
 */
export function copies(button, read, noteId) {
  button.addEventListener("click", async () => {
    const copied = await navigator.clipboard?.writeText(read()).then(() => true, () => false);
    at(noteId).textContent = copied ? "Copied." : "The browser does not let this page copy; select the text instead.";
  });
}
