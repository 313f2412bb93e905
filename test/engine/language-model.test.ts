import { afterAll, beforeAll, expect, test } from 'vitest';
import { type LanguageModel, loadModel, PromptError, type TextPiece } from '../../src/index.ts';
import { makeTinyModel } from '../server/tiny-model.ts';

const GOLDEN = 'test/fixtures/golden/v3-tiny';
let tiny: LanguageModel;
let bare: LanguageModel;
beforeAll(async () => {
  tiny = await loadModel(await makeTinyModel(), { compute: 'f32' });
  bare = await loadModel(GOLDEN, { compute: 'f32' });
});
afterAll(() => Promise.all([tiny.close(), bare.close()]));

async function collect(generation: AsyncIterable<TextPiece>): Promise<TextPiece[]> {
  const pieces: TextPiece[] = [];
  for await (const piece of generation) pieces.push(piece);
  return pieces;
}
const textOf = (pieces: TextPiece[]) => pieces.map(({ text }) => text).join('');

// test/fixtures/golden/v3-tiny/golden.json, prompt 0.
const PROMPT = [0, 255, 92, 51, 160, 105, 11];
const GREEDY = [95, 166, 218, 38, 330, 279, 372, 381, 147, 279, 212, 33, 366, 255, 122, 94];

test('greedy generation continues the golden prompt with the golden tokens', async () => {
  const pieces = await collect(bare.generate({ tokens: PROMPT, maxTokens: 16, temperature: 0 }));
  expect(pieces.map(({ token }) => token)).toEqual(GREEDY);
  expect(pieces.at(-1)?.finish).toBe('length');
});

test('logits has a row for every token of the prompt, and its last row is what generation samples from', async () => {
  const logits = await bare.logits(PROMPT);
  expect(logits).toHaveLength(PROMPT.length * 384);
  const last = logits.subarray(-384);
  expect(last.indexOf(Math.max(...last))).toBe(GREEDY[0]);
  const [first] = await collect(bare.generate({ tokens: PROMPT, maxTokens: 1, temperature: 0, logprobs: 0 }));
  const normalizer = Math.log(last.reduce((sum, logit) => sum + Math.exp(logit), 0));
  expect(first?.logprobs?.logprob).toBeCloseTo(last[GREEDY[0]!]! - normalizer, 6);
});

test('a prompt as text, as messages and as tokens', async () => {
  const options = { maxTokens: 8, seed: 1 };
  const fromText = await collect(tiny.generate({ prompt: 'Once upon', ...options }));
  const fromTokens = await collect(tiny.generate({ tokens: tiny.encode({ prompt: 'Once upon' }), ...options }));
  expect(fromText).toEqual(fromTokens);
  const messages = [{ role: 'user' as const, content: 'Hello' }];
  const chatted = await collect(tiny.generate({ messages, ...options }));
  expect(chatted).toEqual(
    await collect(tiny.generate({ tokens: tiny.encode({ prompt: '<|user|>Hello<|assistant|>' }), ...options })),
  );
});

test('the text of the pieces is the decoded answer', async () => {
  const pieces = await collect(tiny.generate({ prompt: 'Once', maxTokens: 60, seed: 2 }));
  expect(textOf(pieces)).toBe(tiny.tokenizer?.decode(pieces.map(({ token }) => token)));
});

test('a stop string ends the text before it, and counts what was sampled', async () => {
  const options = { prompt: 'Once', maxTokens: 60, seed: 2 };
  const whole = textOf(await collect(tiny.generate(options)));
  const stop = whole.slice(10, 13);
  const generation = tiny.generate({ ...options, stop: [stop] });
  const pieces = await collect(generation);
  expect(textOf(pieces)).toBe(whole.slice(0, whole.indexOf(stop)));
  expect(pieces.at(-1)?.finish).toBe('stop');
  expect(generation.usage.completionTokens).toBe(pieces.length);
});

test('an abort signal ends the generation and frees its memory', async () => {
  const aborting = new AbortController();
  let count = 0;
  for await (const _ of tiny.generate({ prompt: 'Once', maxTokens: 400, signal: aborting.signal })) {
    if (++count === 3) aborting.abort();
  }
  expect(count).toBeLessThan(400);
  const { running, waiting } = tiny.engine.status();
  expect([running, waiting]).toEqual([0, 0]);
});

test('prompts that the model cannot take are refused in words', () => {
  expect(() => bare.generate({ prompt: 'hello' })).toThrow(PromptError);
  expect(() => bare.generate({ prompt: 'hello' })).toThrow('has no tokenizer.json');
  expect(() => bare.generate({ tokens: [384] })).toThrow('token id 384 in the prompt, expected 0 to 383');
  expect(() => bare.generate({ tokens: [] })).toThrow('the prompt is empty');
  expect(() => bare.generate({ tokens: PROMPT, maxTokens: 122 })).toThrow("the model's context holds 128");
});
