// Bars over time, one above the other, as a drawing that explains the bar under the pointer.
import { shape } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 120;
const PLACES = 60; // bars there is room for; fewer are at the right

export class Chart {
  #svg;
  #output;
  #layers;
  #explain;
  #steps = [];
  #place = null; // under the pointer, or chosen by arrow keys

  /**
   * @param svg the drawing.
   * @param output the element that says what a bar means.
   * @param layers names of the numbers that make a bar, from below; also their classes.
   * @param explain returns the meaning of a step, in words.
   */
  constructor(svg, output, layers, explain) {
    [this.#svg, this.#output, this.#layers, this.#explain] = [svg, output, layers, explain];
    for (const name of ["pointerdown", "pointermove"]) {
      svg.addEventListener(name, (event) => this.#point(Math.floor((event.offsetX / svg.clientWidth) * PLACES)));
    }
    for (const name of ["pointerleave", "blur"]) svg.addEventListener(name, () => this.#point(null));
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) this.#point(Math.max(0, Math.min(PLACES - 1, (this.#place ?? PLACES - 1) + by)));
    });
  }

  /**
   * Draw.
   * @param steps one object for each bar, the oldest first.
   * @returns the scale's height, at least 1.
   */
  draw(steps) {
    this.#steps = steps.slice(-PLACES);
    const sum = (step) => this.#layers.reduce((all, name) => all + step[name], 0);
    const top = Math.max(1, ...this.#steps.map(sum));
    const width = WIDTH / PLACES;
    const bars = this.#steps.flatMap((step, n) => {
      const x = WIDTH - (this.#steps.length - n) * width;
      let y = HEIGHT;
      return this.#layers.map((name) => {
        const height = (step[name] / top) * HEIGHT;
        y -= height;
        return shape("rect", { class: name, x: x + 1, y, width: width - 2, height });
      });
    });
    if (this.#place !== null) bars.unshift(shape("rect", { class: "pointed", x: this.#place * width, y: 0, width, height: HEIGHT }));
    this.#svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.#svg.setAttribute("preserveAspectRatio", "none");
    this.#svg.replaceChildren(...bars);
    this.#say();
    return top;
  }

  #point(place) {
    this.#place = place;
    this.draw(this.#steps);
  }

  #say() {
    const step = this.#place === null ? null : this.#steps[this.#place - PLACES + this.#steps.length];
    const text = step ? this.#explain(step, this.#steps.at(-1)) : "";
    if (this.#output.textContent !== text) this.#output.textContent = text;
  }
}
