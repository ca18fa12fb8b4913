// The service's API as these pages use it.
import { EventParser } from "./event_stream.js";

/** A sentence for a person about what went wrong. */
export class ServiceError extends Error {
  /**
   * @param status the answer's; 0: there was none.
   * @param param the form's field that is wrong, as far as the service names one.
   */
  constructor(message, status = 0, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }

  /** Whether the same recording is refused again, whatever the options. */
  get isFinal() {
    return this.status === 413 || this.param === "file";
  }
}

/** Return whether requests need a key. */
export async function asksForKey() {
  const answer = await fetch("/openapi.json");
  return answer.ok && Boolean((await answer.json()).security);
}

/** Return the model's name and abilities: `multilingual` and `translates` are null while it loads. */
export async function abilities() {
  const answer = await fetch("/");
  return answer.ok ? answer.json() : {};
}

/** The form of a request: a recording and its options. */
function form(wish, format) {
  const body = new FormData();
  body.append("file", wish.file, wish.file.name);
  body.append("model", "whisper-1");
  body.append("response_format", format);
  body.append("timestamp_granularities[]", "word");
  if (wish.language && !wish.translate) body.append("language", wish.language);
  if (wish.prompt) body.append("prompt", wish.prompt);
  return body;
}

/** The error that a refused request's answer describes. */
function refusal(request) {
  try {
    const { message, param } = JSON.parse(request.responseText).error;
    return new ServiceError(message, request.status, param);
  } catch {
    return new ServiceError(`The service answered with status ${request.status}.`, request.status);
  }
}

/**
 * Send a form. XMLHttpRequest, because fetch does not tell how much of a body is sent.
 * @param watch onSent: called with the share sent, from 0 to 1; onText: called with each new piece of
 *   the answer.
 * @returns the request, once its answer is complete.
 */
function post(wish, body, signal, { onSent, onText } = {}) {
  const request = new XMLHttpRequest();
  request.open("POST", `/v1/audio/${wish.translate ? "translations" : "transcriptions"}`);
  try {
    if (wish.key) request.setRequestHeader("Authorization", `Bearer ${wish.key}`);
  } catch {
    throw new ServiceError("The API key has characters that no key has.", 401);
  }
  let read = 0;
  const grow = () => {
    if (request.status !== 200) return;
    const text = request.responseText.slice(read);
    read += text.length;
    if (text) onText?.(text);
  };
  return new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => onSent?.(event.total ? event.loaded / event.total : 1);
    request.upload.onload = () => onSent?.(1);
    request.onprogress = grow;
    request.onload = () => {
      grow();
      if (request.status === 200) resolve(request);
      else reject(refusal(request));
    };
    request.onerror = () => reject(new ServiceError(read ? CUT : "The service cannot be reached."));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

const CUT = "The answer ended before its time. Send the recording again.";

/**
 * Transcribe as it is decoded.
 * @param wish file, key, language, prompt, translate.
 * @param watch onSent: called with the share of the recording that is sent; onSegment: called with each
 *   segment and its words.
 * @returns the last event, which has all that verbose_json has, and the model's name.
 */
export async function transcribe(wish, signal, { onSent, onSegment }) {
  const body = form(wish, "verbose_json");
  body.append("stream", "true");
  const parser = new EventParser();
  let [done, failure] = [null, null];
  const onText = (text) => {
    for (const event of parser.push(text)) {
      if (event.type === "error") failure = new ServiceError(event.error.message, 200, event.error.param);
      if (event.type === "transcript.text.delta") onSegment(event.segment);
      if (event.type === "transcript.text.done") done = event;
    }
  };
  const request = await post(wish, body, signal, { onSent, onText });
  if (!done) throw failure ?? new ServiceError(CUT);
  return { ...done, model: request.getResponseHeader("x-model") };
}

/** Return the same recording in another format, as the service writes it. */
export async function written(wish, format, signal) {
  return (await post(wish, form(wish, format), signal)).responseText;
}
