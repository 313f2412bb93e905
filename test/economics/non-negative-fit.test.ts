import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fitNonNegative } from '../../src/economics/non-negative-fit.ts';

const positive = fc.double({ min: 1e-3, max: 1e3, noNaN: true });
const observations = fc
  .array(fc.record({ terms: fc.tuple(positive, positive, positive), value: positive }), { minLength: 3, maxLength: 12 })
  .map((all) => all.map(({ terms, value }) => ({ terms: [...terms], value })));

const errorOf = (all: { terms: number[]; value: number }[], coefficients: readonly number[]) =>
  all.reduce(
    (sum, { terms, value }) =>
      sum + (terms.reduce((each, term, i) => each + term * coefficients[i]!, 0) / value - 1) ** 2,
    0,
  );

test('no coefficient is negative, and none that is nudged or dropped fits better', () => {
  fc.assert(
    fc.property(observations, fc.integer({ min: 0, max: 2 }), fc.constantFrom(0, 0.99, 1.01), (all, at, factor) => {
      const fitted = fitNonNegative(all);
      expect(Math.min(...fitted)).toBeGreaterThanOrEqual(0);
      const least = errorOf(all, fitted);
      const scaled = fitted.map((each, i) => (i === at ? each * factor : each));
      const raised = fitted.map((each, i) => (i === at ? each + 1e-4 : each));
      expect(errorOf(all, scaled)).toBeGreaterThanOrEqual(least * (1 - 1e-6));
      expect(errorOf(all, raised)).toBeGreaterThanOrEqual(least * (1 - 1e-6));
    }),
  );
});
