/** Reads a text/event-stream (WHATWG HTML, §9.2.6) from bytes that may be cut anywhere. */

/** The data of each event, its lines joined by line feeds. Other fields play no part in a chat and are passed over. */
export async function* serverEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = createEventParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    await reader.cancel();
  }
}

interface EventParser {
  /** The data of the events that `text` completes. An event is complete at the empty line behind it. */
  push(text: string): string[];
}

export function createEventParser(): EventParser {
  let line = '';
  let data: string[] = [];
  // A line feed after a carriage return belongs to it, even when it comes with the next piece.
  let afterReturn = false;

  return {
    push(text) {
      const events: string[] = [];
      const fresh = afterReturn && text.startsWith('\n') ? text.slice(1) : text;
      if (text !== '') afterReturn = text.endsWith('\r');
      const lines = fresh.split(/\r\n|\r|\n/);
      for (const [i, part] of lines.entries()) {
        line += part;
        if (i === lines.length - 1) break;
        if (line === '') {
          if (data.length > 0) events.push(data.join('\n'));
          data = [];
        } else if (line === 'data') {
          data.push('');
        } else if (line.startsWith('data:')) {
          data.push(line.slice(line[5] === ' ' ? 6 : 5));
        }
        line = '';
      }
      return events;
    },
  };
}
