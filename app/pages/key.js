// The API key: kept in the tab's own storage, which all pages share and which is gone with the tab.
import { at } from "./dom.js";

const NAME = "key";

export const savedKey = () => sessionStorage.getItem(NAME) ?? "";

/** The key as a header; a text that no header can hold is a wrong key, and goes as an empty one. */
export function keyHeaders() {
  return /^[\x20-\xff]+$/.test(savedKey()) ? { "X-API-Key": savedKey() } : {};
}

/** Keep what is typed into the page's key field. */
export function keepKey() {
  at("key").value = savedKey();
  at("key").addEventListener("input", () => sessionStorage.setItem(NAME, at("key").value.trim()));
}
