import OpenAI from 'openai';
import { beforeAll, expect, test } from 'vitest';
import { serve } from './serve-process.ts';
import type { Served } from './spawn-serve.ts';
import { makeTinyModel } from './tiny-model.ts';

const KEY = 'a secret';
let served: Served;
let client: OpenAI;

beforeAll(async () => {
  served = await serve('--model', await makeTinyModel(), '--api-key', KEY);
  client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: KEY, maxRetries: 0 });
});

const question = {
  model: 'tiny-model',
  messages: [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Tell me a tale' },
  ],
  max_tokens: 24,
  seed: 5,
} satisfies OpenAI.ChatCompletionCreateParamsNonStreaming;

test('the model is listed and found by name', async () => {
  const { data } = await client.models.list();
  expect(data.map(({ id, object }) => ({ id, object }))).toEqual([{ id: 'tiny-model', object: 'model' }]);
  expect((await client.models.retrieve('tiny-model')).id).toBe('tiny-model');
});

test('a chat is answered, and the same seed gives the same answer', async () => {
  const first = await client.chat.completions.create(question);
  const second = await client.chat.completions.create(question);
  const [choice] = first.choices;
  expect(choice?.message.role).toBe('assistant');
  expect(choice?.message.content).not.toBe('');
  expect(choice?.finish_reason).toBe('length');
  expect(second.choices).toEqual(first.choices);
  const other = await client.chat.completions.create({ ...question, seed: 6 });
  expect(other.choices[0]?.message.content).not.toBe(choice?.message.content);
});

test('a stream adds up to the whole answer and ends with the usage when asked for', async () => {
  const whole = await client.chat.completions.create(question);
  const stream = await client.chat.completions.create({
    ...question,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks: OpenAI.ChatCompletionChunk[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  expect(chunks[0]?.choices[0]?.delta).toEqual({ role: 'assistant', content: '' });
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
  expect(text).toBe(whole.choices[0]?.message.content);
  expect(chunks.flatMap((chunk) => chunk.choices[0]?.finish_reason ?? [])).toEqual(['length']);
  expect(chunks.at(-1)?.choices).toEqual([]);
  expect(chunks.at(-1)?.usage).toMatchObject({
    prompt_tokens: whole.usage?.prompt_tokens,
    completion_tokens: 24,
    total_tokens: whole.usage?.total_tokens,
  });
  expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
  expect(chunks.length).toBeGreaterThan(10);
});

test('the prompt is counted as hits and misses of the prefix cache', async () => {
  const messages = [{ role: 'user' as const, content: 'x '.repeat(70) }];
  const asked = { ...question, messages, max_tokens: 1 };
  const usages = [await client.chat.completions.create(asked), await client.chat.completions.create(asked)].map(
    ({ usage }) => usage as unknown as Record<string, number>,
  );
  const prompt = usages[0]!.prompt_tokens!;
  expect(prompt).toBeGreaterThan(128);
  expect(usages[0]).toMatchObject({ prompt_cache_hit_tokens: 0, prompt_cache_miss_tokens: prompt });
  expect(usages[1]).toMatchObject({ prompt_cache_hit_tokens: 128, prompt_cache_miss_tokens: prompt - 128 });
});

test('a stop string ends the answer before it', async () => {
  const whole = (await client.chat.completions.create(question)).choices[0]!.message.content!;
  const stop = whole.slice(8, 11);
  const stopped = await client.chat.completions.create({ ...question, stop: [stop] });
  expect(stopped.choices[0]).toMatchObject({
    finish_reason: 'stop',
    message: { content: whole.slice(0, whole.indexOf(stop)) },
  });
});

test('log-probabilities come with each token, the most probable first', async () => {
  const { choices } = await client.chat.completions.create({
    ...question,
    temperature: 0,
    logprobs: true,
    top_logprobs: 3,
  });
  const entries = choices[0]!.logprobs!.content!;
  expect(entries).toHaveLength(24);
  for (const { token, logprob, top_logprobs } of entries) {
    expect(top_logprobs).toHaveLength(3);
    expect(top_logprobs[0]).toMatchObject({ token, logprob });
    expect(top_logprobs[0]!.logprob).toBeGreaterThanOrEqual(top_logprobs[1]!.logprob);
    expect(logprob).toBeLessThanOrEqual(0);
  }
});

test('text completions continue text and token ids alike, whole and streamed', async () => {
  const asked = { model: 'tiny-model', max_tokens: 12, temperature: 0, logprobs: 2 };
  const whole = await client.completions.create({ ...asked, prompt: 'Once upon a time' });
  expect(whole.choices[0]).toMatchObject({ finish_reason: 'length', index: 0 });
  expect(whole.choices[0]!.logprobs!.token_logprobs).toHaveLength(12);
  const stream = await client.completions.create({ ...asked, prompt: 'Once upon a time', stream: true });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
  expect(text).toBe(whole.choices[0]!.text);
  const ids = await client.completions.create({ ...asked, prompt: [40, 41, 42] });
  expect(ids.usage?.prompt_tokens).toBe(3);
});

test('failures reach the client as its own error classes', async () => {
  const wrongKey = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'wrong', maxRetries: 0 });
  await expect(wrongKey.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
  await expect(client.chat.completions.create({ ...question, model: 'gpt-4' })).rejects.toBeInstanceOf(
    OpenAI.NotFoundError,
  );
  const tooLong = client.chat.completions.create({ ...question, max_tokens: 5000 });
  await expect(tooLong).rejects.toMatchObject({
    status: 400,
    param: 'messages',
    code: 'context_length_exceeded',
    message: expect.stringMatching(/asks for 5000 more.*context holds 512/),
  });
});

test('what the model thinks comes apart from what it says', async () => {
  const thinking = await serve('--model', await makeTinyModel({ thinks: true }));
  const asker = new OpenAI({ baseURL: `${thinking.url}/v1`, apiKey: 'any' });
  const { choices, usage } = await asker.chat.completions.create(question);
  const message = choices[0]!.message as OpenAI.ChatCompletionMessage & { reasoning_content?: string };
  expect(message.content).toBe('');
  expect(message.reasoning_content).not.toBe('');
  expect(usage?.completion_tokens_details?.reasoning_tokens).toBe(24);
  let streamed = '';
  for await (const { choices } of await asker.chat.completions.create({ ...question, stream: true })) {
    streamed += (choices[0]?.delta as { reasoning_content?: string } | undefined)?.reasoning_content ?? '';
  }
  expect(streamed).toBe(message.reasoning_content);
});
