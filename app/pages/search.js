// Finds text in the transcript that is shown, and steps through the places.
import { at } from "./dom.js";
import { reveal } from "./transcript.js";

export class Search {
  #places = [];
  #marked = [];
  #now = -1;
  #transcript = null;

  constructor() {
    at("search").addEventListener("input", () => this.#look());
    at("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#step(event.shiftKey ? -1 : 1);
    });
  }

  /** Search in this transcript from now on. */
  in(transcript) {
    if (transcript === this.#transcript) return;
    this.#transcript = transcript;
    at("search").value = "";
    this.#look();
  }

  #look() {
    for (const span of this.#marked) span.classList.remove("match", "now");
    const wanted = at("search").value.trim().toLowerCase();
    this.#places = wanted ? this.#transcript.find(wanted) : [];
    this.#marked = this.#places.flat();
    this.#now = -1;
    for (const span of this.#marked) span.classList.add("match");
    at("matches").textContent = wanted ? `${this.#places.length} found` : "";
  }

  #step(by) {
    if (!this.#places.length) return;
    for (const span of this.#places[this.#now] ?? []) span.classList.remove("now");
    this.#now = (Math.max(this.#now, by < 0 ? 0 : -1) + by + this.#places.length) % this.#places.length;
    for (const span of this.#places[this.#now]) span.classList.add("now");
    reveal(this.#places[this.#now][0]);
    at("matches").textContent = `${this.#now + 1} of ${this.#places.length}`;
  }
}
