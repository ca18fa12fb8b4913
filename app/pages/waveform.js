// A recording's loudness over its length, with its segments below: drawn, and decoded for it.

const RATE = 8000; // enough for loudness, and an hour needs 115 MB a channel while it is decoded
const LARGEST_BYTES = 64e6; // of a file; larger ones are shown by their segments alone
const BAR = 3;
const GAP = 2;
const STRIP = 6; // of the segments
const PEAKS = 1200;

/**
 * Loudness from 0 to 1 at equal steps, and the length in seconds; null where the browser cannot tell.
 */
export async function loudness(file) {
  if (file.size > LARGEST_BYTES) return null;
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const audio = await context.decodeAudioData(await file.arrayBuffer());
    const samples = audio.getChannelData(0);
    const step = Math.max(1, samples.length / PEAKS);
    const peaks = Array.from({ length: Math.min(PEAKS, samples.length) }, (_, n) => {
      let top = 0;
      for (let at = Math.floor(n * step); at < (n + 1) * step && at < samples.length; at++) top = Math.max(top, Math.abs(samples[at]));
      return top;
    });
    const loudest = Math.max(0.05, ...peaks);
    return { peaks: peaks.map((peak) => peak / loudest), duration: audio.duration };
  } catch {
    return null; // not a format this browser reads; the service may
  }
}

export class Waveform {
  #canvas;
  #peaks = [];
  #segments = [];
  #duration = 0;
  #seconds = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** A new recording, of which nothing is known yet. */
  clear() {
    [this.#peaks, this.#segments, this.#duration, this.#seconds] = [[], [], 0, 0];
    this.draw();
  }

  /** While recording: how loud it is now; the last ones are shown. */
  hear(level) {
    this.#peaks.push(level);
    this.#peaks = this.#peaks.slice(-Math.floor(this.#canvas.clientWidth / (BAR + GAP)));
    this.draw(this.#peaks.length);
  }

  show({ peaks, segments, duration, seconds }) {
    this.#peaks = peaks ?? this.#peaks;
    this.#segments = segments ?? this.#segments;
    this.#duration = duration ?? this.#duration;
    this.#seconds = seconds ?? this.#seconds;
    this.draw();
  }

  draw(bars = 0) {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width) return;
    const scale = devicePixelRatio;
    [this.#canvas.width, this.#canvas.height] = [width * scale, height * scale];
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    const colour = (name) => style.getPropertyValue(name);
    const room = height - STRIP - 4;
    const count = bars || Math.floor(width / (BAR + GAP));
    const played = this.#duration ? (this.#seconds / this.#duration) * width : 0;
    for (let n = 0; n < count; n++) {
      const from = Math.floor((n * this.#peaks.length) / count);
      const to = Math.max(from + 1, Math.floor(((n + 1) * this.#peaks.length) / count));
      const peak = Math.max(0, ...this.#peaks.slice(from, to));
      const tall = Math.max(2, peak * room);
      const x = n * (BAR + GAP);
      pen.fillStyle = colour(x < played ? "--accent" : "--bar");
      pen.beginPath();
      pen.roundRect(x, (room - tall) / 2, BAR, tall, 1.5);
      pen.fill();
    }
    if (!this.#duration) return;
    for (const { start, end } of this.#segments) {
      const [x, right] = [(start / this.#duration) * width, (end / this.#duration) * width];
      pen.fillStyle = colour(start <= this.#seconds && this.#seconds < end ? "--accent" : "--strip");
      pen.beginPath();
      pen.roundRect(x + 1, height - STRIP, Math.max(2, right - x - 2), STRIP, 3);
      pen.fill();
    }
  }
}
