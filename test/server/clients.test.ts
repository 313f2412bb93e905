import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { beforeAll, expect, test } from 'vitest';
import { serve } from './serve-process.ts';
import { metric, type Served } from './spawn-serve.ts';
import { makeTinyModel } from './tiny-model.ts';

let folder: string;
let served: Served;
beforeAll(async () => {
  folder = await makeTinyModel();
  served = await serve('--model', folder, '--sequences', '8', '--waiting', '24');
});

const bodyOf = (i: number, fields: object = {}) => ({
  model: 'tiny-model',
  prompt: `Client ${i} asks: ${'why? '.repeat(i * 3)}`,
  max_tokens: 10 + (i % 5) * 7,
  temperature: i % 3 === 0 ? 0 : 1,
  seed: i,
  logprobs: 1,
  ...fields,
});

function post(url: string, body: object, signal?: AbortSignal): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  });
}

async function choiceOf(i: number): Promise<unknown> {
  const { choices } = (await (await post(served.url, bodyOf(i))).json()) as { choices: unknown[] };
  return choices[0];
}

/** Waits until the metric has the value; the test's time limit bounds it. */
async function until(name: string, value: number, label = ''): Promise<void> {
  while ((await metric(served.url, name, label)) !== value) await pause(10);
}

test('16 clients at once each get exactly what they would get alone', async () => {
  const clients = Array.from({ length: 16 }, (_, i) => i);
  const alone: unknown[] = [];
  for (const i of clients) alone.push(await choiceOf(i));
  expect(await Promise.all(clients.map(choiceOf))).toEqual(alone);
});

test('a client that leaves in the middle of a stream frees its place at once', async () => {
  const leaving = new AbortController();
  const aborted = await metric(served.url, 'vllm:request_success_total', 'abort');
  const response = await post(served.url, bodyOf(1, { max_tokens: 400, stream: true }), leaving.signal);
  const reader = response.body!.getReader();
  await reader.read();
  leaving.abort();
  await until('vllm:request_success_total', aborted + 1, 'abort');
  await until('vllm:num_requests_running', 0);
  await until('vllm:kv_cache_usage_perc', 0);
  // It is no failure of the server's: nothing is logged.
  expect(served.said()).toBe('');
});

test('a client that leaves before its answer is complete frees its place too', async () => {
  const leaving = new AbortController();
  const aborted = await metric(served.url, 'vllm:request_success_total', 'abort');
  const pending = post(served.url, bodyOf(1, { max_tokens: 400 }), leaving.signal).catch(() => 'left');
  await until('vllm:num_requests_running', 1);
  leaving.abort();
  expect(await pending).toBe('left');
  await until('vllm:request_success_total', aborted + 1, 'abort');
  await until('vllm:num_requests_running', 0);
});

test('beyond the queue clients are told to come back, and the others are served', async () => {
  const responses = await Promise.all(
    Array.from({ length: 60 }, () => post(served.url, bodyOf(2, { max_tokens: 60 }))),
  );
  const refused = responses.filter(({ status }) => status === 429);
  expect(refused.length).toBeGreaterThan(0);
  expect(refused[0]!.headers.get('Retry-After')).toMatch(/^\d+$/);
  expect(await refused[0]!.json()).toMatchObject({ error: { type: 'rate_limit_error' } });
  const texts = new Set<string>();
  for (const response of responses.filter(({ status }) => status === 200)) {
    texts.add(((await response.json()) as { choices: { text: string }[] }).choices[0]!.text);
  }
  expect(texts.size).toBe(1);
});

test('on SIGTERM an answer under way is finished and a view of training runs ended, then the process ends well', async () => {
  const runs = await mkdtemp(path.join(os.tmpdir(), 'runs-'));
  const own = await serve('--model', folder, '--runs', runs);
  const watched = await fetch(`${own.url}/v1/runs`);
  const response = await post(own.url, bodyOf(3, { max_tokens: 200, stream: true }));
  own.process.kill('SIGTERM');
  const events = (await response.text()).trim().split('\n\n');
  expect(events.at(-1)).toBe('data: [DONE]');
  expect(events.at(-2)).toContain('"finish_reason":"length"');
  expect(await watched.text()).toBe('data: {"runs":[]}\n\ndata: [DONE]\n\n');
  await rm(runs, { recursive: true });
  expect(await own.exit).toBe(0);
  expect(own.said()).toBe('');
});

test('a port that is taken is said so', async () => {
  const { port } = new URL(served.url);
  await expect(serve('--model', folder, '--port', port)).rejects.toThrow(`port ${port} of 127.0.0.1 is taken`);
});
