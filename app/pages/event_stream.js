// Server-sent events from a text that grows, each as the object behind its `data:`.

/** Cut a stream of text into events. Source: WHATWG, HTML Living Standard, section 9.2.6. */
export class EventParser {
  #rest = "";

  /**
   * @param text what has arrived since the last call.
   * @returns the events that it completes.
   */
  push(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    return blocks.map(data).filter((lines) => lines).map((lines) => JSON.parse(lines));
  }
}

function data(block) {
  const lines = block.split("\n").filter((line) => line.startsWith("data: "));
  return lines.map((line) => line.slice(6)).join("\n");
}
