import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { type Piece, streamChat } from '../../web/chat/chat-stream.ts';
import { ChatError } from '../../web/chat/failure.ts';
import { collect } from './collect.ts';

const body = { model: 'm', messages: [{ role: 'user', content: 'Hello' }] } as const;

let close = () => {};
afterEach(() => close());

async function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  close = () => {
    server.closeAllConnections();
    server.close();
  };
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function ask(baseUrl: string, signal = new AbortController().signal, apiKey = ''): Promise<Piece[]> {
  return collect(streamChat(body, { apiKey, signal, baseUrl }));
}

async function failureOf(asked: Promise<unknown>) {
  const error = await asked.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ChatError);
  return (error as ChatError).failure;
}

/** A server that answers every request with these events. */
const events = (...data: string[]) =>
  listen((_, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8' });
    response.end(data.map((one) => `data: ${one}\n\n`).join(''));
  });

const status = (code: number, headers: Record<string, string>, text: string) =>
  listen((_, response) => {
    response.writeHead(code, headers);
    response.end(text);
  });

// Chunks as DeepSeek's API documents them for its reasoning model.
test('reasoning, content, the reason for the end and the usage come as they are sent', async () => {
  const url = await events(
    '{"choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":""},"finish_reason":null}]}',
    '{"choices":[{"index":0,"delta":{"content":null,"reasoning_content":"Hm."},"finish_reason":null}],"usage":null}',
    '{"choices":[{"index":0,"delta":{"content":"Hi","reasoning_content":null},"finish_reason":null}],"usage":null}',
    '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}',
    '{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}',
    '[DONE]',
  );
  expect(await ask(url)).toEqual([
    { reasoning: '', content: '', finish: null, usage: null },
    { reasoning: 'Hm.', content: '', finish: null, usage: null },
    { reasoning: '', content: 'Hi', finish: null, usage: null },
    { reasoning: '', content: '', finish: 'stop', usage: null },
    { reasoning: '', content: '', finish: null, usage: { prompt_tokens: 5, completion_tokens: 2 } },
  ]);
});

test('the key goes as a bearer token, and a stream with usage is asked for', async () => {
  let sent: { authorization?: string | undefined; text: string } = { text: '' };
  const url = await listen(async (request, response) => {
    sent = { authorization: request.headers.authorization, text: (await request.toArray()).join('') };
    response.writeHead(200, { 'Content-Type': 'text/event-stream' }).end('data: [DONE]\n\n');
  });
  await ask(url, undefined, 'a key');
  expect(sent.authorization).toBe('Bearer a key');
  expect(JSON.parse(sent.text)).toEqual({ ...body, stream: true, stream_options: { include_usage: true } });
});

test('no server is told from a server that refuses', async () => {
  const url = await events();
  close();
  expect(await failureOf(ask(url))).toEqual({ kind: 'unreachable' });
});

const apiError = (message: string) => JSON.stringify({ error: { message, type: 't', param: null, code: null } });

test.each([
  [401, 'unauthorized', 'the API key is wrong'],
  [400, 'refused', 'temperature: expected a number from 0 to 2'],
  [404, 'refused', 'the model "m" does not exist'],
  [500, 'broken', 'the server failed'],
])('%i is shown in the words of the server', async (code, kind, message) => {
  const url = await status(code, { 'Content-Type': 'application/json' }, apiError(message));
  expect(await failureOf(ask(url))).toEqual({ kind, message });
});

test('an error page of a proxy is named by its status', async () => {
  const url = await status(502, { 'Content-Type': 'text/html' }, '<h1>Bad gateway</h1>');
  expect(await failureOf(ask(url))).toEqual({ kind: 'broken', message: 'The server answered 502 Bad Gateway' });
});

test.each([
  ['seconds', () => '7', 7000],
  ['a date', () => new Date(Date.now() + 9000).toUTCString(), 9000],
  ['nothing', () => undefined, 1000],
])('429 says when to try again: %s', async (_, header, ms) => {
  const before = Date.now();
  const retryAfter = header();
  const url = await status(429, retryAfter === undefined ? {} : { 'Retry-After': retryAfter }, apiError('queue full'));
  const failure = await failureOf(ask(url));
  if (failure.kind !== 'busy') throw new Error(`found ${failure.kind}`);
  // A date counts whole seconds.
  expect(failure.retryAt).toBeGreaterThanOrEqual(before + ms - 1000);
  expect(failure.retryAt).toBeLessThanOrEqual(Date.now() + ms);
});

test('an error in the middle of the stream is shown in the words of the server', async () => {
  const url = await events('{"choices":[{"delta":{"content":"Once"}}]}', apiError('the worker ended'));
  expect(await failureOf(ask(url))).toEqual({ kind: 'broken', message: 'the worker ended' });
});

test('a stream that ends before the answer does is a failure, ended properly or not', async () => {
  const ended = await events('{"choices":[{"delta":{"content":"Once"}}]}');
  const expected = { kind: 'broken', message: 'The connection ended before the answer did' };
  expect(await failureOf(ask(ended))).toEqual(expected);
  close();
  const cutOff = await listen((_, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('data: {"choices":[{"delta":{"content":"Once"}}]}\n\n', () => response.destroy());
  });
  expect(await failureOf(ask(cutOff))).toEqual(expected);
});

test.each([
  ['no JSON', '{"choices":', 'is not JSON: {"choices":'],
  ['no chunk', '{"choices":3}', 'is no chunk of an answer: {"choices":3}'],
])('an event that is %s is named', async (_, data, message) => {
  const failure = await failureOf(ask(await events(data)));
  expect(failure).toEqual({ kind: 'broken', message: `The server sent an event that ${message}` });
});

test('an answer that is no event stream is named', async () => {
  const url = await status(200, { 'Content-Type': 'text/html' }, '<p>Hello</p>');
  expect(await failureOf(ask(url))).toMatchObject({ message: expect.stringContaining('text/html') });
});

test('an abort ends the request and is no failure of the server', async () => {
  let gone = () => {};
  const hungUp = new Promise<void>((resolve) => {
    gone = resolve;
  });
  const url = await listen((_, response) => {
    response.once('close', gone);
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('data: {"choices":[{"delta":{"content":"Once"}}]}\n\n');
  });
  const abort = new AbortController();
  const error = await (async () => {
    for await (const _ of streamChat(body, { apiKey: '', signal: abort.signal, baseUrl: url })) abort.abort();
  })().catch((reason: unknown) => reason);
  expect(error).toMatchObject({ name: 'AbortError' });
  await hungUp;
});
