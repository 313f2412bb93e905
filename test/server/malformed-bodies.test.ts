import { beforeAll, expect, test } from 'vitest';
import { serve } from './serve-process.ts';
import type { Served } from './spawn-serve.ts';
import { makeTinyModel } from './tiny-model.ts';

let served: Served;
beforeAll(async () => {
  served = await serve('--model', await makeTinyModel());
});

const JSON_TYPE = { 'Content-Type': 'application/json' };
const post = (path: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = JSON_TYPE) =>
  fetch(`${served.url}${path}`, { method: 'POST', body, headers });

const user = { role: 'user', content: 'hi' };
const chat = (fields: object) => ({ model: 'tiny-model', messages: [user], max_tokens: 2, ...fields });

const chatBodies: [body: unknown, param: string | null, message: RegExp][] = [
  [null, null, /expected a JSON object/],
  [[], null, /expected a JSON object/],
  ['hello', null, /expected a JSON object/],
  [{}, 'model', /expected the name of a model/],
  [chat({ model: 7 }), 'model', /expected the name of a model/],
  [chat({ messages: undefined }), 'messages', /expected an array of messages/],
  [chat({ messages: 'hi' }), 'messages', /expected an array of messages/],
  [chat({ messages: [] }), 'messages', /at least one message/],
  [chat({ messages: [5] }), 'messages.0', /expected a message/],
  [chat({ messages: [user, { role: 'wizard', content: 'hi' }] }), 'messages.1.role', /"assistant"/],
  [chat({ messages: [{ role: 'user' }] }), 'messages.0.content', /string or an array of text parts/],
  [chat({ messages: [{ role: 'user', content: 5 }] }), 'messages.0.content', /string or an array of text parts/],
  [
    chat({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] }),
    'messages.0.content.0.type',
    /only parts of type "text"/,
  ],
  [chat({ messages: [{ role: 'user', content: '\ud800' }] }), 'messages.0.content', /unpaired surrogate/],
  [chat({ messages: [{ role: 'assistant', tool_calls: [{}] }] }), 'messages.0.tool_calls', /not supported/],
  [chat({ max_tokens: 0 }), 'max_tokens', /whole number from 1/],
  [chat({ max_tokens: -1 }), 'max_tokens', /whole number from 1/],
  [chat({ max_tokens: 1.5 }), 'max_tokens', /whole number/],
  [chat({ max_tokens: '5' }), 'max_tokens', /whole number/],
  [chat({ max_tokens: 1e300 }), 'max_tokens', /whole number/],
  [chat({ temperature: -0.1 }), 'temperature', /number from 0 to 2/],
  [chat({ temperature: 2.1 }), 'temperature', /number from 0 to 2/],
  [chat({ temperature: 'hot' }), 'temperature', /number from 0 to 2/],
  [chat({ top_p: 1.01 }), 'top_p', /number from 0 to 1/],
  [chat({ top_k: 0.5 }), 'top_k', /whole number/],
  [chat({ seed: 2 ** 60 }), 'seed', /whole number/],
  [chat({ stop: 5 }), 'stop', /string or an array of strings/],
  [chat({ stop: [''] }), 'stop.0', /empty/],
  [chat({ stop: Array(17).fill('x') }), 'stop', /more than 16/],
  [chat({ stream: 'yes' }), 'stream', /true or false/],
  [chat({ stream_options: { include_usage: true } }), 'stream_options', /only allowed with stream: true/],
  [chat({ n: 2 }), 'n', /only one choice/],
  [chat({ top_logprobs: 2 }), 'top_logprobs', /needs logprobs: true/],
  [chat({ logprobs: true, top_logprobs: 21 }), 'top_logprobs', /from 0 to 20/],
  [chat({ tools: [{ type: 'function' }] }), 'tools', /not supported/],
  [chat({ response_format: { type: 'json_object' } }), 'response_format.type', /only "text"/],
  [chat({ frequency_penalty: 1 }), 'frequency_penalty', /only 0/],
  [chat({ logit_bias: { 5: 1 } }), 'logit_bias.5', /not supported/],
  [chat({ max_tokens: 600 }), 'messages', /the model's context holds 512/],
];

test.each(chatBodies)('chat body %j is refused, naming %s', async (body, param, message) => {
  const response = await post('/v1/chat/completions', JSON.stringify(body));
  expect(response.status).toBe(400);
  const { error } = (await response.json()) as { error: { message: string } };
  expect(error).toMatchObject({ type: 'invalid_request_error', param });
  expect(error.message).toMatch(message);
});

const completionBodies: [fields: object, param: string, message: RegExp][] = [
  [{}, 'prompt', /a string or an array of token ids/],
  [{ prompt: 5 }, 'prompt', /a string or an array of token ids/],
  [{ prompt: '' }, 'prompt', /empty/],
  [{ prompt: [] }, 'prompt', /empty/],
  [{ prompt: [-1] }, 'prompt.0', /expected a token id/],
  [{ prompt: [1, 'a'] }, 'prompt', /a string or an array of token ids/],
  [{ prompt: [1e9] }, 'prompt', /token id 1000000000 .*expected 0 to 383/],
  [{ prompt: ['a', 'b'] }, 'prompt', /only one is supported/],
  [{ prompt: 'a', echo: true }, 'echo', /not supported/],
  [{ prompt: 'a', suffix: 'b' }, 'suffix', /not supported/],
  [{ prompt: 'a', best_of: 3 }, 'best_of', /only 1/],
  [{ prompt: 'z'.repeat(200_000) }, 'prompt', /200000 characters; 512 tokens hold at most/],
  [{ prompt: Array(600).fill(7) }, 'prompt', /the model's context holds 512/],
];

test.each(completionBodies)('completion body %# is refused, naming the field', async (fields, param, message) => {
  const response = await post('/v1/completions', JSON.stringify({ model: 'tiny-model', ...fields }));
  expect(response.status).toBe(400);
  const { error } = (await response.json()) as { error: { message: string } };
  expect(error).toMatchObject({ type: 'invalid_request_error', param });
  expect(error.message).toMatch(message);
});

test.each([
  ['', /not JSON/],
  ['{"model": ', /not JSON/],
  ['{"model": "tiny-model",}', /not JSON/],
  ['['.repeat(100_000), /not JSON/],
  [`{"model": "\xff"}`, /./],
])('a body that is not JSON is refused: %.30j', async (body, message) => {
  const response = await post('/v1/chat/completions', body);
  expect(response.status).toBe(400);
  expect(((await response.json()) as { error: { message: string } }).error.message).toMatch(message);
});

test('bytes that are not UTF-8 are refused', async () => {
  const response = await post('/v1/chat/completions', Uint8Array.of(0x22, 0xff, 0xfe, 0x22));
  expect(response.status).toBe(400);
});

test('what is asked in the wrong way is refused in the API’s own shape', async () => {
  const cases: [response: Promise<Response>, status: number][] = [
    [post('/v1/chat/completions', '{}', { 'Content-Type': 'text/plain' }), 415],
    [post('/v1/chat/completions', ' '.repeat(17 * 2 ** 20)), 413],
    [post('/v1/chat/completions', JSON.stringify(chat({ model: 'gpt-4' }))), 404],
    [post('/v1/embeddings', '{}'), 404],
    [fetch(`${served.url}/v1/models/gpt-4`), 404],
    [fetch(`${served.url}/v1/chat/completions`), 405],
    [fetch(`${served.url}/v1/models`, { method: 'DELETE' }), 405],
  ];
  for (const [pending, status] of cases) {
    const response = await pending;
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { message: expect.any(String), type: expect.any(String) } });
  }
  expect((await fetch(`${served.url}/v1/completions`)).headers.get('Allow')).toBe('POST');
});

test('the server is still well after all that', async () => {
  const response = await post('/v1/chat/completions', JSON.stringify(chat({})));
  expect(response.status).toBe(200);
  expect(await (await fetch(`${served.url}/health`)).json()).toEqual({ status: 'ok', model: 'tiny-model' });
});
