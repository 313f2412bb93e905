import fc from 'fast-check';
import { expect, test } from 'vitest';
import { uniform } from '../../src/engine/random.ts';
import { argmax, logprobs, type Sampling, sample } from '../../src/engine/sampler.ts';

// Few distinct values, so that ties are common.
const logitsOf = fc
  .array(fc.oneof(fc.integer({ min: -4, max: 4 }), fc.float({ min: -8, max: 8, noNaN: true })), {
    minLength: 1,
    maxLength: 300,
  })
  .map((values) => Float32Array.from(values));

/** Sorts everything and follows the definition. */
function candidatesByDefinition(logits: Float32Array, { temperature, topP, topK }: Sampling): Map<number, number> {
  const greatest = Math.max(...logits);
  let tokens = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
  if (topK > 0) tokens = tokens.slice(0, topK);
  const weight = (token: number) => Math.exp((logits[token]! - greatest) / temperature);
  const total = tokens.reduce((sum, token) => sum + weight(token), 0);
  const kept: number[] = [];
  let mass = 0;
  for (const token of tokens) {
    kept.push(token);
    mass += weight(token);
    if (mass >= topP * total) break;
  }
  return new Map(kept.map((token) => [token, weight(token) / mass]));
}

const samplings = fc.record({
  temperature: fc.double({ min: 0.05, max: 2, noNaN: true }),
  topP: fc.constantFrom(0, 0.1, 0.5, 0.9, 1),
  topK: fc.constantFrom(0, 1, 2, 40, 1000),
  seed: fc.nat(),
});

test('only tokens within top-k and top-p are drawn', () => {
  fc.assert(
    fc.property(logitsOf, samplings, fc.nat(5000), (logits, sampling, position) => {
      const allowed = candidatesByDefinition(logits, sampling);
      expect([...allowed.keys()]).toContain(sample(logits, sampling, position));
    }),
  );
});

test('tokens are drawn as often as their probability says', () => {
  const logits = Float32Array.from([1, 2, 3, 2, -1, 0.5]);
  for (const [topK, topP] of [
    [0, 1],
    [3, 1],
    [0, 0.8],
    [4, 0.9],
  ] as const) {
    const sampling = { temperature: 0.8, topK, topP, seed: 11 };
    const draws = 20_000;
    const counts = new Array<number>(logits.length).fill(0);
    for (let position = 0; position < draws; position++) counts[sample(logits, sampling, position)]! += 1;
    const expected = candidatesByDefinition(logits, sampling);
    for (const [token, count] of counts.entries()) {
      const p = expected.get(token) ?? 0;
      // Five standard deviations.
      expect(Math.abs(count / draws - p)).toBeLessThanOrEqual(5 * Math.sqrt((p * (1 - p)) / draws));
    }
  }
});

test('temperature 0 takes the most probable token and the lower id among equals', () => {
  fc.assert(
    fc.property(logitsOf, fc.nat(), (logits, position) => {
      const greedy = { temperature: 0, topP: 1, topK: 0, seed: 1 };
      const best = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b)[0];
      expect(sample(logits, greedy, position)).toBe(best);
      expect(argmax(logits)).toBe(best);
    }),
  );
});

test('a top-p of 0 still leaves one candidate', () => {
  expect(sample(Float32Array.from([0, 5, 1]), { temperature: 1, topP: 0, topK: 0, seed: 3 }, 0)).toBe(1);
});

test('without limits the draw inverts the cumulative distribution in order of token id', () => {
  const logits = Float32Array.from([0, 0, 0, 0]);
  for (let position = 0; position < 50; position++) {
    const token = sample(logits, { temperature: 1, topP: 1, topK: 0, seed: 5 }, position);
    expect(token).toBe(Math.floor(uniform(5, position) * 4));
  }
});

test('log-probabilities are those of the softmax in float64', () => {
  fc.assert(
    fc.property(logitsOf, fc.nat(10), (logits, count) => {
      const chosen = logits.length - 1;
      const logSum = Math.log([...logits].reduce((sum, logit) => sum + Math.exp(logit), 0));
      const { logprob, top } = logprobs(logits, chosen, count);
      expect(logprob).toBeCloseTo(logits[chosen]! - logSum, 9);
      const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, count);
      expect(top.map(({ token }) => token)).toEqual(order);
      for (const { token, logprob } of top) expect(logprob).toBeCloseTo(logits[token]! - logSum, 9);
    }),
  );
});
