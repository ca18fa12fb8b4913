// The API key: kept in the tab's own storage, which all pages share and which is gone with the tab.
import { at } from "./dom.js";

const NAME = "key";

export const savedKey = () => sessionStorage.getItem(NAME) ?? "";

/** Keep what is typed into the page's key field. */
export function keepKey() {
  at("key").value = savedKey();
  at("key").addEventListener("input", () => sessionStorage.setItem(NAME, at("key").value.trim()));
}
