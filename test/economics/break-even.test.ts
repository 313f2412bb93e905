import fc from 'fast-check';
import { expect, test } from 'vitest';
import { apiPrice, breakEven } from '../../src/economics/break-even.ts';
import { PRICE_BOOK } from '../../src/economics/price-book.ts';
import { seconds, usdPerMillion } from '../../src/economics/quantity.ts';
import type { Workload } from '../../src/economics/serving.ts';

const workload: Workload = {
  promptTokens: 3000,
  outputTokens: 1000,
  hitShare: 0.5,
  tpotTarget: seconds(0.05),
  ttftTarget: seconds(5),
  load: 1,
};
const from = (model: string, text: string) =>
  PRICE_BOOK.prices.find((price) => price.model === model && price.currency === 'USD' && price.from.text === text)!;

test('a price without hours is that of its tokens', () => {
  // Half of 3000 at 0.07, half at 0.27, 1000 at 1.10, over 4000.
  expect(apiPrice(from('deepseek-v3', '2025-02-08T16:00Z'), workload)).toBeCloseTo(
    (1500 * 0.07 + 1500 * 0.27 + 1000 * 1.1) / 4000,
    12,
  );
});

test('hours weigh as much as the week has of them', () => {
  // Eight of 24 hours at half the price; 35 of 168 at twice.
  const standard = (1500 * 0.07 + 1500 * 0.27 + 1000 * 1.1) / 4000;
  expect(apiPrice(from('deepseek-v3', '2025-02-26T16:30Z'), workload)).toBeCloseTo(standard * (5 / 6), 12);
  const offPeak = (1500 * 0.003 + 1500 * 0.15 + 1000 * 0.6) / 4000;
  expect(apiPrice(from('deepseek-flash', '2026-09-10T04:00Z'), workload)).toBeCloseTo(offPeak * (1 + 35 / 168), 12);
});

test('below the break-even the API costs less, at it both cost the same', () => {
  fc.assert(
    fc.property(
      fc.double({ min: 0.01, max: 100, noNaN: true }),
      fc.double({ min: 100, max: 1e6, noNaN: true }),
      fc.double({ min: 1e7, max: 1e13, noNaN: true }),
      (perMillion, unitRent, unitTokens) => {
        const rent = (tokens: number) => Math.max(1, Math.ceil(tokens / unitTokens)) * unitRent;
        const api = (tokens: number) => (tokens * perMillion) / 1e6;
        const met = breakEven(rent, usdPerMillion(perMillion));
        // One full unit costs as much as its tokens do at the API: with dearer units it never pays.
        const pays = unitRent <= api(unitTokens);
        if (met === null) expect(pays).toBe(false);
        else {
          expect(pays).toBe(true);
          expect(rent(met)).toBeLessThanOrEqual(api(met) * (1 + 1e-9));
          for (const share of [0.25, 0.5, 0.9]) expect(rent(met * share)).toBeGreaterThan(api(met * share));
        }
      },
    ),
  );
});
