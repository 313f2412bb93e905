import fc from 'fast-check';
import { expect, test } from 'vitest';
import { explain, TECHNIQUES } from '../../src/economics/explanation.ts';
import { MACHINES } from '../../src/economics/machine.ts';
import { type Evaluation, evaluate } from '../../web/cost/evaluation.ts';
import type { Figure } from '../../web/cost/figure.ts';
import { breakEvenFigure } from '../../web/cost/figures/break-even.ts';
import { cacheByUsers } from '../../web/cost/figures/cache-by-users.ts';
import { priceByBatch } from '../../web/cost/figures/price-by-batch.ts';
import { priceByContext } from '../../web/cost/figures/price-by-context.ts';
import { roofline } from '../../web/cost/figures/roofline.ts';
import { whyCheap } from '../../web/cost/figures/why-cheap.ts';
import { API_PRICES, fromAddress, RANGES, type Scenario, SERVABLE, START, toAddress } from '../../web/cost/scenario.ts';
import { costsOneByOne } from '../../web/cost/techniques.ts';

const within = (field: keyof typeof RANGES) =>
  fc.integer({ min: Math.ceil(RANGES[field].least), max: RANGES[field].greatest });
const scenarios: fc.Arbitrary<Scenario> = fc.record({
  model: fc.constantFrom(...SERVABLE.map(({ id }) => id)),
  machine: fc.constantFrom(...MACHINES.map(({ id }) => id)),
  rent: fc.option(within('rent')),
  prompt: within('prompt'),
  output: within('output'),
  hits: within('hits'),
  speed: within('speed'),
  load: within('load'),
  precision: fc.constantFrom('fp8', 'bf16'),
  cache: fc.constantFrom('bf16', 'fp8'),
  spread: fc.boolean(),
  mtp: within('mtp'),
  api: fc.constantFrom(...API_PRICES.keys()),
  volume: within('volume'),
  measure: fc.constantFrom('output', 'input'),
  order: fc.oneof(
    fc.constant('free'),
    fc.shuffledSubarray([...TECHNIQUES], { minLength: TECHNIQUES.length }).map((order) => order.join('.')),
  ),
});

test('a scenario comes back from its address as it was', () => {
  fc.assert(
    fc.property(scenarios, (scenario) => {
      expect(fromAddress(toAddress(scenario))).toEqual(scenario);
    }),
  );
  expect(toAddress(START)).toBe('');
});

test.each([
  'model=gpt-9&prompt=-3',
  'hits=all&volume=1e99&spread=perhaps',
  'rent=&cache=int6&__proto__=1&order=fp8.fp8',
  '%%%&&=',
])('the address %s opens the page as it starts', (query) => {
  expect(fromAddress(query)).toEqual(START);
});

test('every scenario is either priced, with a figure of each kind, or refused in words', () => {
  fc.assert(
    fc.property(scenarios, (scenario) => {
      const now = evaluate(scenario);
      if (typeof now === 'string') {
        expect(now).toMatch(/expected/);
        return;
      }
      for (const value of Object.values(now.serving.usd)) expect(value).toBeGreaterThanOrEqual(0);
      for (const figure of allFigures(now)) {
        expect(figure.says).not.toMatch(/NaN|Infinity|undefined/);
        expect(figure.rows.length).toBeGreaterThan(0);
        for (const { values, result } of figure.workings) expect(values + result).not.toMatch(/NaN|Infinity|undefined/);
      }
    }),
    { numRuns: 30 },
  );
});

const FIGURES = [priceByBatch, priceByContext, roofline, cacheByUsers, breakEvenFigure];
function waterfall(now: Evaluation): Figure {
  const work = costsOneByOne(now);
  for (;;) {
    const { done, value } = work.next();
    if (done) return whyCheap(now, value);
  }
}

function allFigures(now: Evaluation): Figure[] {
  return [waterfall(now), ...FIGURES.map((figure) => figure(now))];
}

test('the waterfall is the explanation of the command line, in an order and in none', () => {
  const now = evaluate(START);
  if (typeof now === 'string') throw new Error(now);
  const { architecture, machine, workload } = now;
  const order = ['caching', 'mtp', 'wide', 'fp8', 'mla', 'experts'];
  const { steps, shares } = explain(architecture, { machine, workload, acceptance: START.mtp / 100 }, order);
  const factors = (order: string) => {
    const rows = waterfall({ ...now, scenario: { ...START, order } }).rows.slice(1, -1);
    return rows.map(({ factor }) => Number(factor));
  };
  const { rows } = waterfall(now);
  expect(rows.at(-1)!['USD after']).toBe(now.serving.usd.output);
  expect(factors(order.join('.'))).toEqual(steps.map(({ outputFactor }) => outputFactor));
  factors('free').forEach((factor, i) => {
    expect(factor / shares[i]!.outputFactor).toBeCloseTo(1, 9);
  });
});

const SCALES: Record<string, string> = {
  k: 'e3',
  M: 'e6',
  bn: 'e9',
  tn: 'e12',
  ms: 'e-3',
  KB: 'e3',
  MB: 'e6',
  GB: 'e9',
  TB: 'e12',
  PB: 'e15',
  MFLOP: 'e6',
  GFLOP: 'e9',
};

/** What a line of arithmetic comes to; null where it is words. */
function workOut(text: string): number | null {
  const plain = text
    .replace(/[$,]/g, '')
    .replace(/(\d)\s?(TFLOP\/s|TB\/s|FLOP a byte|times (?:cheaper|dearer)|tokens)/g, '$1')
    .replace(/(\d)\s?(ms|[KMGTP]B|[MG]FLOP|bn|tn|k|M)\b/g, (_, digit: string, unit: string) => digit + SCALES[unit])
    .replace(/(\d)\s?(s|B|h)\b/g, '$1')
    .replaceAll('×', '*')
    .replaceAll('÷', '/')
    .replaceAll('−', '-')
    .replaceAll('^', '**')
    .replace(/10 ?\*\*(-?\d+)/g, '1e$1');
  if (!/^[\d\s.e*/()+-]+$/.test(plain)) return null;
  return Number(new Function(`return ${plain}`)());
}

test.each([
  START,
  { ...START, model: 'llama-3.1-70b', machine: 'h100-sxm', load: 40 },
  { ...START, model: 'deepseek-v2-lite', machine: 'l40s', speed: 30, cache: 'fp8' },
  { ...START, mtp: 85, prompt: 40_000, hits: 90 },
] as const)('the values put into a formula come to its result: $model on $machine', (scenario) => {
  const now = evaluate(scenario);
  if (typeof now === 'string') throw new Error(now);
  for (const { id, workings } of allFigures(now)) {
    const checked = workings.filter(({ what, values, result }) => {
      const left = workOut(values);
      const right = workOut(result);
      if (left === null || right === null) return false;
      expect({ id, what, values, result, ratio: left / right }).toMatchObject({ ratio: expect.closeTo(1, 1.3) });
      return true;
    });
    expect({ id, checked: checked.length }).not.toEqual({ id, checked: 0 });
  }
});
