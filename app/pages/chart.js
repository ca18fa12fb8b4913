// Bars over time, one above the other, as a drawing.
import { shape } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 120;

/**
 * Draw into an <svg>.
 * @param svg the drawing; what it held is replaced.
 * @param steps one object for each bar, the oldest first.
 * @param layers names of the numbers that make a bar, from below; also their classes.
 * @param places bars there is room for; fewer stand at the right.
 * @param least the smallest height of the scale.
 * @returns the scale's height.
 */
export function draw(svg, steps, layers, places, least) {
  const sum = (one) => layers.reduce((all, name) => all + one[name], 0);
  const top = Math.max(least, ...steps.map(sum));
  const width = WIDTH / places;
  const bars = steps.slice(-places).flatMap((one, n, shown) => {
    const x = WIDTH - (shown.length - n) * width;
    let y = HEIGHT;
    return layers.map((name) => {
      const height = (one[name] / top) * HEIGHT;
      y -= height;
      return shape("rect", { class: name, x: x + 1, y, width: Math.max(1, width - 2), height });
    });
  });
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(...bars);
  return top;
}
