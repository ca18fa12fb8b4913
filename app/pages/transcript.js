// The text on the page: a line for each segment, a span for each word, lit as the audio plays.
import { element } from "./dom.js";

const SURE = 0.5; // words less probable than this are marked
const LOOKING_MS = 4000; // after scrolling by hand the text stays where it is for so long

export const clock = (seconds) => {
  const whole = Math.floor(seconds);
  const minutes = `${Math.floor(whole / 60) % 60}`.padStart(whole < 3600 ? 1 : 2, "0");
  const hours = whole < 3600 ? "" : `${Math.floor(whole / 3600)}:`;
  return `${hours}${minutes}:${`${whole % 60}`.padStart(2, "0")}`;
};

let scrolledAt = -LOOKING_MS;
for (const name of ["wheel", "touchmove"]) {
  addEventListener(name, () => (scrolledAt = performance.now()), { passive: true });
}

/** The last of some ordered things that began by this moment; -1: none has. */
function begun(ordered, seconds) {
  let [low, high] = [0, ordered.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ordered[middle].start <= seconds) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Scroll to a word that is hidden, also by the player above; the page's `scroll-padding` knows its height. */
export function reveal(span) {
  const hidden = parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 0;
  const { top, bottom } = span.getBoundingClientRect();
  if (top >= hidden && bottom <= innerHeight) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  span.scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
}

export class Transcript {
  #playFrom;
  #words = [];
  #lines = [];
  #lit = null;
  list = element("ol", { class: "transcript" });
  segments = [];

  /** @param playFrom called with the second that a person chose. */
  constructor(playFrom) {
    this.#playFrom = playFrom;
  }

  add(segment) {
    const words = segment.words?.length ? segment.words : [{ ...segment, word: segment.text, probability: 1 }];
    const text = element("p", {});
    const line = { text: "", words: [] };
    for (const word of words) {
      const bare = word.word.trimStart();
      const span = element("span", word.probability < SURE ? { class: "word unsure" } : { class: "word" }, bare);
      span.addEventListener("click", () => this.#playFrom(word.start));
      this.#words.push({ start: word.start, end: word.end, span });
      line.words.push({ from: line.text.length, to: line.text.length + word.word.length, span });
      line.text += word.word.toLowerCase();
      text.append(text.firstChild ? word.word.slice(0, word.word.length - bare.length) : "", span);
    }
    this.#lines.push(line);
    const start = element("button", { type: "button", class: "plain", "aria-label": `Play from ${clock(segment.start)}` }, clock(segment.start));
    start.addEventListener("click", () => this.#playFrom(segment.start));
    this.list.append(element("li", {}, start, text));
    this.segments.push(segment);
  }

  /**
   * Light the word that is heard now; none in a pause.
   * @param follows whether the page scrolls to it.
   */
  light(seconds, follows) {
    const word = this.#words[begun(this.#words, seconds)];
    const heard = word && seconds < word.end ? word.span : null;
    if (heard === this.#lit) return;
    this.#lit?.classList.remove("heard");
    heard?.classList.add("heard");
    this.#lit = heard;
    if (heard && follows && performance.now() - scrolledAt > LOOKING_MS) reveal(heard);
  }

  /** Return the words of each place where a text occurs, in any case. */
  find(wanted) {
    const places = [];
    for (const { text, words } of this.#lines) {
      for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
        places.push(words.filter(({ from, to }) => from < at + wanted.length && to > at).map(({ span }) => span));
      }
    }
    return places;
  }

  get text() {
    return this.segments.map((segment) => segment.text).join("").trim();
  }

  /** The model's mean probability of a word; null: no words. */
  get confidence() {
    const all = this.segments.flatMap((segment) => segment.words ?? []);
    return all.length ? all.reduce((sum, word) => sum + word.probability, 0) / all.length : null;
  }

  get isUnsure() {
    return this.list.querySelector(".unsure") !== null;
  }
}
