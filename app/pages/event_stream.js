// Server-sent events as they come, each as the object behind its `data:`.

/**
 * Read a stream of events. (EventSource cannot send a file.)
 * Source: WHATWG, HTML Living Standard, section 9.2.6.
 * @param body a ReadableStream of bytes.
 */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data: "));
      if (lines.length) yield JSON.parse(lines.map((line) => line.slice(6)).join("\n"));
    }
  }
}
