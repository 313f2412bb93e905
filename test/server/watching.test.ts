import { beforeAll, expect, test } from 'vitest';
import { serve } from './serve-process.ts';
import { metric, type Served } from './spawn-serve.ts';

// The built-in model, since it drafts.
let served: Served;
beforeAll(async () => {
  served = await serve('--log-level', 'info');
});

const post = (path: string, body: object) =>
  fetch(`${served.url}${path}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ model: 'farthing-tiny', max_tokens: 40, temperature: 0, ...body }),
  });

interface Timings {
  queue_ms: number;
  prefill_ms: number;
  decode_ms: number;
  ttft_ms: number;
  tpot_ms: number;
  drafted_tokens: number;
  accepted_tokens: number;
}

function check(timings: Timings, completionTokens: number): void {
  expect(timings.queue_ms + timings.prefill_ms).toBeCloseTo(timings.ttft_ms, 2);
  expect(timings.tpot_ms * (completionTokens - 1)).toBeCloseTo(timings.decode_ms, 6);
  expect(timings.prefill_ms).toBeGreaterThan(0);
  expect(timings.drafted_tokens).toBeGreaterThanOrEqual(timings.accepted_tokens);
  expect(timings.accepted_tokens).toBeLessThan(completionTokens);
}

test('a client that asks for timings gets where the time went, whole or streamed; others get none', async () => {
  const messages = [{ role: 'user', content: 'Tell me a story about a fox.' }];
  const whole = await (await post('/v1/chat/completions', { messages, timings: true })).json();
  check(whole.timings, whole.usage.completion_tokens);
  const stream = await (await post('/v1/completions', { prompt: 'Once upon', stream: true, timings: true })).text();
  const last = JSON.parse(stream.trim().split('\n\n').at(-2)!.slice('data: '.length));
  check(last.timings, 40);
  expect(last).not.toHaveProperty('usage');
  expect(await (await post('/v1/completions', { prompt: 'Once' })).json()).not.toHaveProperty('timings');
});

test('metrics count drafts as vLLM does, and the log has a line for each answer', async () => {
  await (await post('/v1/completions', { prompt: 'Once upon a time there was', max_tokens: 100 })).json();
  const of = (name: string) => metric(served.url, `vllm:spec_decode_num_${name}`);
  const [drafts, drafted, accepted] = [
    await of('drafts_total'),
    await of('draft_tokens_total'),
    await of('accepted_tokens_total'),
  ];
  expect(drafts).toBeGreaterThan(0);
  expect(drafted).toBeGreaterThanOrEqual(drafts);
  expect(accepted).toBeGreaterThan(0);
  expect(await of('accepted_tokens_per_pos_total')).toBe(accepted);
  const answers = served
    .said()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ msg }) => msg === 'answer');
  expect(answers.at(-1)).toMatchObject({ completionTokens: 100, cachedTokens: 0, decode_ms: expect.any(Number) });
});

test('the engine tells what it does as events; every token of every layer went to as many experts as it is routed to', async () => {
  const response = await fetch(`${served.url}/v1/engine`);
  const { value } = await response.body!.getReader().read();
  const event = JSON.parse(new TextDecoder().decode(value).slice('data: '.length));
  expect(event).toMatchObject({
    model: 'farthing-tiny',
    running: 0,
    waiting: 0,
    // 80 + 16 values of two bytes in eight layers and the one that drafts
    cache: { dtype: 'bf16', bytesPerToken: 1728, blockTokens: 64 },
    drafts: { drafted: expect.any(Number) },
  });
  const layers = Object.values(event.expertLoads as Record<string, number[]>);
  expect(layers.map((loads) => loads.length)).toEqual(new Array(7).fill(16));
  const sums = layers.map((loads) => loads.reduce((a, b) => a + b, 0));
  expect(new Set(sums).size).toBe(1);
  const { promptTokens, generatedTokens } = event.counts;
  expect(sums[0]).toBeGreaterThan(4 * (promptTokens + generatedTokens - 10));
  expect(sums[0]! % 4).toBe(0);
});
