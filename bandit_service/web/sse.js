// The events of a stream of server-sent events, as fetch reads it.

/** Yield {kind, data} of each event until the stream ends. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held = (held + decoder.decode(value, { stream: true })).replaceAll("\r\n", "\n");
      let end;
      while ((end = held.indexOf("\n\n")) >= 0) {
        const event = parsed(held.slice(0, end));
        held = held.slice(end + 2);
        if (event.data) yield event;
      }
    }
  } finally { // who stops reading closes the connection, too
    reader.cancel().catch(() => {});
  }
}

function parsed(text) {
  let kind = "message";
  const data = [];
  for (const line of text.split("\n")) {
    if (line.startsWith("event:")) kind = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return { kind, data: data.join("\n") };
}
