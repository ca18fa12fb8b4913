// The text on the page: a line for each segment, a span for each word, lit as the audio plays.
import { element } from "./dom.js";

const SURE = 0.5; // words less probable than this are marked

export const clock = (seconds) => {
  const whole = Math.floor(seconds);
  const minutes = `${Math.floor(whole / 60) % 60}`.padStart(whole < 3600 ? 1 : 2, "0");
  const hours = whole < 3600 ? "" : `${Math.floor(whole / 3600)}:`;
  return `${hours}${minutes}:${`${whole % 60}`.padStart(2, "0")}`;
};

/** The last of some ordered things that began by this moment; -1: none has. */
function begun(found, seconds) {
  let [low, high] = [0, found.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (found[middle].start <= seconds) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

export class Transcript {
  #place;
  #seek;
  #words = [];
  #lit = null;
  segments = [];

  /**
   * @param place the element that holds the lines.
   * @param seek called with the second that a person chose.
   */
  constructor(place, seek) {
    this.#place = place;
    this.#seek = seek;
  }

  clear() {
    this.#place.replaceChildren();
    [this.#words, this.#lit, this.segments] = [[], null, []];
  }

  add(segment) {
    const words = segment.words?.length ? segment.words : [{ ...segment, word: segment.text, probability: 1 }];
    const text = element("p", {});
    for (const word of words) {
      const bare = word.word.trimStart();
      const span = element("span", word.probability < SURE ? { class: "word unsure" } : { class: "word" }, bare);
      span.addEventListener("click", () => this.#seek(word.start));
      this.#words.push({ start: word.start, end: word.end, span });
      text.append(text.firstChild ? word.word.slice(0, word.word.length - bare.length) : "", span);
    }
    const start = element("button", { type: "button", class: "plain", "aria-label": `Play from ${clock(segment.start)}` }, clock(segment.start));
    start.addEventListener("click", () => this.#seek(segment.start));
    this.#place.append(element("li", {}, start, text));
    this.segments.push(segment);
  }

  /** Light the word that is heard now; none in a pause. */
  light(seconds) {
    const word = this.#words[begun(this.#words, seconds)];
    const heard = word && seconds < word.end ? word.span : null;
    if (heard === this.#lit) return;
    this.#lit?.classList.remove("heard");
    heard?.classList.add("heard");
    this.#lit = heard;
  }

  /** The model's mean probability of a word; null: no words. */
  get confidence() {
    const all = this.segments.flatMap((segment) => segment.words ?? []);
    return all.length ? all.reduce((sum, word) => sum + word.probability, 0) / all.length : null;
  }
}
