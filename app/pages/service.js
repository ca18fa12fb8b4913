// The service's API as this page uses it.
import { events } from "./event_stream.js";

/** A sentence for a person about what went wrong. */
export class ServiceError extends Error {
  /** @param status the answer's; 0: there was none. */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Whether requests need a key. */
export async function asksForKey() {
  const answer = await fetch("/openapi.json");
  return answer.ok && Boolean((await answer.json()).security);
}

/** The form of a request: a recording and what is wished for. */
function form(wish, format) {
  const made = new FormData();
  made.append("file", wish.file, wish.file.name);
  made.append("model", "whisper-1");
  made.append("response_format", format);
  made.append("timestamp_granularities[]", "word");
  if (wish.language && !wish.translate) made.append("language", wish.language);
  if (wish.prompt) made.append("prompt", wish.prompt);
  return made;
}

async function post(wish, body, signal) {
  const headers = wish.key ? { Authorization: `Bearer ${wish.key}` } : {};
  const path = `/v1/audio/${wish.translate ? "translations" : "transcriptions"}`;
  const answer = await fetch(path, { method: "POST", headers, body, signal }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service cannot be reached.");
  });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new ServiceError(told?.error?.message ?? `The service answered with status ${answer.status}.`, answer.status);
}

/**
 * Transcribe as it is decoded.
 * @param wish file, key, language, prompt, translate.
 * @param onSegment called with each segment and its words.
 * @returns the last event, which has all that verbose_json has, and the model's name.
 */
export async function transcribe(wish, onSegment, signal) {
  const body = form(wish, "verbose_json");
  body.append("stream", "true");
  const answer = await post(wish, body, signal);
  const cut = new ServiceError("The answer ended before its time. Send the recording again.");
  const model = answer.headers.get("x-model");
  try {
    for await (const event of events(answer.body)) {
      if (event.type === "error") throw new ServiceError(event.error.message);
      if (event.type === "transcript.text.delta") onSegment(event.segment);
      if (event.type === "transcript.text.done") return { ...event, model };
    }
  } catch (error) {
    throw error.name === "AbortError" || error instanceof ServiceError ? error : cut;
  }
  throw cut;
}

/** The same recording in another format, as the service writes it. */
export async function written(wish, format, signal) {
  return (await post(wish, form(wish, format), signal)).text();
}
