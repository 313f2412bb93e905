import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import { serve } from './serve-process.ts';
import type { Served } from './spawn-serve.ts';
import { makeTinyModel } from './tiny-model.ts';

let served: Served;
beforeAll(async () => {
  served = await serve('--model', await makeTinyModel());
});

/** Sends bytes as they are; @returns all that comes back before the connection ends. */
async function send(...pieces: string[]): Promise<string> {
  const socket = connect(Number(new URL(served.url).port), '127.0.0.1');
  const answer = text(socket).catch(() => '');
  for (const piece of pieces) {
    socket.write(piece);
    await pause(1);
  }
  return answer;
}

const head = (length: number | string, type = 'application/json') =>
  `POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: ${type}\r\n` +
  (typeof length === 'number' ? `Content-Length: ${length}\r\n\r\n` : `Transfer-Encoding: chunked\r\n\r\n${length}`);
const body = JSON.stringify({ model: 'tiny-model', prompt: 'hi', max_tokens: 2 });

test('what is not HTTP is turned away', async () => {
  expect(await send('HELLO\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
});

test('headers that are too long are refused with a reason that arrives, however much is still being sent', async () => {
  for (const length of [100_000, 5_000_000]) {
    const answer = await send(`GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(length)}\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
    expect(answer).toContain('"message":"the headers of the request are too long"');
  }
});

test('a body in many small pieces is read whole', async () => {
  expect(await send(head(body.length), ...body)).toMatch(/^HTTP\/1\.1 200 OK/);
  const chunked = [...body].map((letter) => `1\r\n${letter}\r\n`).join('');
  expect(await send(head(`${chunked}0\r\n\r\n`))).toMatch(/^HTTP\/1\.1 200 OK/);
});

test('a body without a stated length that grows too large is refused', async () => {
  const piece = `100000\r\n${' '.repeat(2 ** 20)}\r\n`;
  expect(await send(head(''), ...Array<string>(20).fill(piece))).toMatch(/^HTTP\/1\.1 413 /);
});

test('a refusal reaches a client that waits for it in the middle of its body', async () => {
  expect(await send(head(2 ** 20, 'text/plain'), body)).toMatch(/^HTTP\/1\.1 415 .*"type":"invalid_request_error"/s);
});

test('a client that goes in the middle of its request, or sends none, leaves no trace', async () => {
  for (const sent of ['', head(body.length), head(body.length) + body.slice(0, 20), head('5\r\n{"mod')]) {
    const socket = connect(Number(new URL(served.url).port), '127.0.0.1');
    socket.write(sent);
    await pause(20);
    socket.destroy();
  }
  await pause(20);
  expect((await fetch(`${served.url}/health`)).status).toBe(200);
  expect(served.said()).toBe('');
});
