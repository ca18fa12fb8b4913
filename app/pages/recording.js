// One recording: its file, its transcript by now, and the answer in each format.
import { ServiceError, transcribe } from "./service.js";
import { Transcript } from "./transcript.js";

export class Recording {
  state = "waiting"; // then working; then done, cancelled or failed
  answers = {}; // by format, as far as they are known
  sent = null; // the options that the answers belong to
  facts = null; // what is known of a complete transcript
  error = null;
  sentShare = 0; // of the upload
  reached = null; // the end of the last segment, and when it came
  #onChange;
  #newTranscript;
  #work = new AbortController();

  /**
   * @param playFrom called with the second of a word or line that a person chose.
   * @param onChange called whenever this recording has changed.
   */
  constructor(file, playFrom, onChange) {
    this.file = file;
    this.#onChange = onChange;
    this.#newTranscript = () => new Transcript(playFrom);
    this.transcript = this.#newTranscript();
  }

  /** Whether there is a text that can be taken along: the whole one, or what came before Cancel. */
  get hasAnswers() {
    return "text" in this.answers;
  }

  /** Transcribe. An earlier text stays until the new one is complete. */
  async run(wish) {
    const [draft, stays] = [this.#newTranscript(), this.facts !== null];
    this.#work = new AbortController();
    this.#begin(draft, stays, wish);
    const onSent = (share) => this.#sending(share);
    const onSegment = (segment) => this.#grow(draft, segment);
    try {
      this.#complete(draft, wish, await transcribe(wish, this.#work.signal, { onSent, onSegment }));
    } catch (error) {
      this.#stop(error, stays);
    }
    this.#onChange(this);
  }

  cancel() {
    this.#work.abort();
    if (this.state === "waiting") this.state = "cancelled";
    this.#onChange(this);
  }

  #begin(draft, stays, wish) {
    if (!stays) [this.transcript, this.answers, this.sent] = [draft, {}, wish];
    [this.state, this.error, this.sentShare, this.reached] = ["working", null, 0, null];
    this.began = this.sentAt = performance.now();
    this.first = null;
    this.#onChange(this);
  }

  #sending(share) {
    this.sentShare = share;
    this.sentAt = performance.now();
    this.#onChange(this);
  }

  #grow(draft, segment) {
    draft.add(segment);
    this.first ??= performance.now() - this.began;
    this.reached = { seconds: segment.end, at: performance.now() };
    this.#onChange(this);
  }

  #complete(draft, wish, done) {
    const { type, usage, model, languages, ...verbose } = done;
    const billed = { type: "duration", seconds: Math.ceil(done.duration) };
    [this.transcript, this.sent, this.state] = [draft, wish, "done"];
    this.answers = {
      text: `${done.text}\n`,
      json: JSON.stringify({ text: done.text, languages, usage: billed }, null, 2),
      verbose_json: JSON.stringify({ ...verbose, usage: billed }, null, 2),
    };
    this.facts = { ...done, first: this.first, all: performance.now() - this.began };
  }

  /** Keep what has come, unless an earlier text has stayed. */
  #stop(error, stays) {
    this.state = this.#work.signal.aborted ? "cancelled" : "failed";
    if (this.state === "failed") this.error = error instanceof ServiceError ? error : new ServiceError(`This page failed: ${error.message}.`);
    if (stays || !this.transcript.segments.length) return;
    const { text, segments } = this.transcript;
    this.answers = {
      text: `${text}\n`,
      json: JSON.stringify({ text }, null, 2),
      verbose_json: JSON.stringify({ text, segments }, null, 2),
    };
  }
}
