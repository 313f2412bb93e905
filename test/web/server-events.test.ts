import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createEventParser, serverEvents } from '../../web/chat/server-events.ts';
import { collect } from './collect.ts';

function read(chunks: readonly Uint8Array[]): Promise<string[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
  return collect(serverEvents(body));
}

/** `bytes`, cut at each of `places`. */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const ends = [...places.map((place) => place % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
}

const lineEnd = fc.constantFrom('\n', '\r', '\r\n');
const line = fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => text.replace(/[\r\n]/g, ''));
const otherField = line.map((text) => [`:${text}`, `event: ${text}`, `id:${text}`, 'retry: 10', `datum: ${text}`]);

/** An event as it is sent: its data, lines of other fields among them, any kind of line end, the space or none. */
const event = fc
  .record({
    data: fc.array(line, { minLength: 1, maxLength: 3 }),
    others: otherField,
    which: fc.nat(4),
    ends: fc.array(lineEnd, { minLength: 5, maxLength: 5 }),
    spaces: fc.boolean(),
  })
  .map(({ data, others, which, ends, spaces }) => {
    // Without the space, a text that begins with one would lose it.
    const field = (text: string) => (spaces || text.startsWith(' ') ? `data: ${text}` : `data:${text}`);
    const lines = [others[which]!, ...data.map(field), ''];
    const last = lines.length - 1;
    // A carriage return and the line feed of an empty line would be one end, not two.
    const end = (i: number) => (i === last && ends[i - 1] === '\r' && ends[i] === '\n' ? '\r' : ends[i]);
    return { data: data.join('\n'), sent: lines.map((text, i) => `${text}${end(i)}`).join('') };
  });

test('every event arrives whole, wherever its bytes are cut', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { maxLength: 6 }),
      fc.array(fc.nat(4000), { maxLength: 40 }),
      async (events, at) => {
        const sent = events.map((one) => one.sent).join('');
        const bytes = new TextEncoder().encode(sent);
        expect(await read(cut(bytes, at))).toEqual(events.map(({ data }) => data));
      },
    ),
    { numRuns: 500 },
  );
});

test('one byte at a time gives what the whole gives', async () => {
  const bytes = new TextEncoder().encode(
    '\uFEFFdata: “Ein Zaunkönig” 🪙\r\n\r\n: beat\r\rdata\ndata: [DONE]\n\ndata: cut of',
  );
  const singly = Array.from(bytes, (_, i) => bytes.subarray(i, i + 1));
  expect(await read(singly)).toEqual(['“Ein Zaunkönig” 🪙', '\n[DONE]']);
  expect(await read([bytes])).toEqual(await read(singly));
});

// The examples of the specification: WHATWG HTML, §9.2.6, "Interpreting an event stream".
test.each([
  ['lines of one event are joined', 'data: YHOO\ndata: +2\ndata: 10\n\n', ['YHOO\n+2\n10']],
  [
    'comments and other fields are passed over',
    ': test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n',
    ['first event', 'second event', ' third event'],
  ],
  ['an event without its empty line is dropped', 'data\n\ndata\ndata\n\ndata:', ['', '\n']],
  ['the space after the colon is optional', 'data:test\n\ndata: test\n\n', ['test', 'test']],
])('%s', (_, sent, expected) => {
  expect(createEventParser().push(sent)).toEqual(expected);
});

test('an event is given out at the carriage return that ends it, not at the next piece', () => {
  const parser = createEventParser();
  expect(parser.push('data: a\r\r')).toEqual(['a']);
  expect(parser.push('\ndata: b\r\n\r')).toEqual(['b']);
  expect(parser.push('\n')).toEqual([]);
});

test('the connection is given up when the reader stops reading', async () => {
  let cancelled = false;
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(new TextEncoder().encode('data: on and on\n\n')),
    cancel: () => {
      cancelled = true;
    },
  });
  for await (const data of serverEvents(endless)) {
    expect(data).toBe('on and on');
    break;
  }
  expect(cancelled).toBe(true);
});
