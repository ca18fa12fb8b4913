// Records the microphone to a file, and measures its level meanwhile.

const EVERY_MS = 50;

/** Whether this page may ask for a microphone: browsers want https, or the machine itself. */
export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

export class Recorder {
  #recorder = null;
  #timer = 0;

  get running() {
    return this.#recorder !== null;
  }

  /**
   * Start; the browser asks its user first.
   * @param onStart called when the user has agreed.
   * @param onLevel called with the level from 0 to 1 and the seconds recorded so far.
   * @returns the recording, once it is stopped.
   */
  async record(onStart, onLevel) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const context = new AudioContext();
    const meter = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(meter);
    const samples = new Float32Array(meter.fftSize);
    const began = performance.now();
    const parts = [];
    this.#recorder = new MediaRecorder(stream);
    this.#recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    const stopped = new Promise((resolve) => this.#recorder.addEventListener("stop", resolve));
    this.#recorder.start();
    onStart();
    this.#timer = setInterval(() => {
      meter.getFloatTimeDomainData(samples);
      const top = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
      onLevel(Math.min(1, 1.6 * Math.sqrt(top)), (performance.now() - began) / 1000);
    }, EVERY_MS);
    await stopped;
    clearInterval(this.#timer);
    for (const track of stream.getTracks()) track.stop();
    await context.close();
    const type = this.#recorder.mimeType.split(";")[0];
    this.#recorder = null;
    return new File(parts, `recording.${type.split("/")[1] || "webm"}`, { type });
  }

  stop() {
    this.#recorder?.stop();
  }
}
