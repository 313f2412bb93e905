import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { type Explanation, explain, TECHNIQUES } from '../../src/economics/explanation.ts';
import { machineById } from '../../src/economics/machine.ts';
import { modelById } from '../../src/economics/model-catalogue.ts';
import { popularClaims } from '../../src/economics/popular-claims.ts';
import { seconds } from '../../src/economics/quantity.ts';
import { shapley } from '../../src/economics/shapley.ts';

const { architecture } = modelById('deepseek-v3');
const settings = {
  machine: machineById('h800-sxm'),
  workload: {
    promptTokens: 4400,
    outputTokens: 1200,
    hitShare: 0.56,
    tpotTarget: seconds(0.05),
    ttftTarget: seconds(5),
    load: 1,
  },
  acceptance: 0.85,
};
let usual: Explanation;
let reversed: Explanation;
beforeAll(() => {
  usual = explain(architecture, settings);
  reversed = explain(architecture, settings, [...TECHNIQUES].reverse());
});

test('the shares are the mean over every order, by trying them all', () => {
  const orders = permutations([0, 1, 2, 3]);
  fc.assert(
    fc.property(fc.array(fc.double({ min: -10, max: 10, noNaN: true }), { minLength: 16, maxLength: 16 }), (values) => {
      const sums = [0, 0, 0, 0];
      for (const order of orders) {
        let set = 0;
        for (const part of order) {
          sums[part]! += values[set | (1 << part)]! - values[set]!;
          set |= 1 << part;
        }
      }
      shapley(4, (set) => values[set]!).forEach((share, part) => {
        expect(share).toBeCloseTo(sums[part]! / orders.length, 9);
      });
    }),
  );
});

function permutations(items: readonly number[]): number[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item) => permutations(items.filter((other) => other !== item)).map((rest) => [item, ...rest]));
}

test('every order leads from the same start to the same end, and factors multiply to the whole', () => {
  for (const kind of ['input', 'output'] as const) {
    const factor = kind === 'input' ? 'inputFactor' : 'outputFactor';
    const whole = usual.start[kind] / usual.steps.at(-1)![kind];
    expect(reversed.start[kind]).toBe(usual.start[kind]);
    expect(reversed.steps.at(-1)![kind]).toBe(usual.steps.at(-1)![kind]);
    for (const parts of [usual.steps, reversed.steps, usual.shares]) {
      expect(parts.reduce((product, part) => product * part[factor], 1) / whole).toBeCloseTo(1, 9);
    }
  }
});

test('shares do not depend on the order, and add up to the whole saving', () => {
  expect(reversed.shares).toEqual(usual.shares);
  expect(usual.shares.reduce((sum, { inputShare }) => sum + inputShare, 0)).toBeCloseTo(1, 9);
  expect(usual.shares.reduce((sum, { outputShare }) => sum + outputShare, 0)).toBeCloseTo(1, 9);
});

test('drafting changes no prompt and prefix caching no answer', () => {
  const of = (technique: string) => usual.shares.find((share) => share.technique === technique)!;
  expect(of('mtp').inputFactor).toBeCloseTo(1, 9);
  expect(of('caching').outputFactor).toBeCloseTo(1, 9);
});

test('an order that leaves a technique out is refused with those there are', () => {
  expect(() => explain(architecture, settings, ['mla', 'fp8'])).toThrow(
    'the order is "mla,fp8", expected each of experts, mla, fp8, wide, mtp, caching once',
  );
});

const { claims } = JSON.parse(readFileSync('test/fixtures/economics/article_claims.json', 'utf8'));

test.each([
  ['active', 0, 'V3', 5.47],
  ['mla', 0, 'V3 with its 128 heads', 56.9],
  ['mla', 1, 'V3 with eight key-value heads', 3.56],
  ['mla', 2, 'Qwen2.5-72B', 4.66],
  ['mla', 3, 'Llama-3.1-405B', 7.34],
  ['users4x', 0, '1 − 1/4', 75],
  ['cost90', 1, 'V2’s output', 82.6],
  ['cost90', 2, 'of revenue', 84.5],
])('the arithmetic of the claim %s gives the checked figure %d', (id, _, formula, expected) => {
  const known = claims
    .find((claim: { id: string }) => claim.id === id)
    .exact.flatMap((exact: { value: unknown }) => exact.value);
  expect(known).toContain(expected);
  const figures = popularClaims().flatMap((claim) => claim.figures);
  const value = Number.parseFloat(figures.find((figure) => figure.formula.includes(formula))!.value);
  expect(Math.abs(value / expected - 1)).toBeLessThan(0.01);
});
