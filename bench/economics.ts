/**
 * How fast the cost model answers: `npx tsx bench/economics.ts`. One whole evaluation (prices of a scenario, as a slider
 * asks for) for several models, the figures of the cost explorer, and a surface of 10,000 points of batch and context.
 * Writes bench/results/economics.json.
 */
import { decodePoint } from '../src/economics/decode.ts';
import { evaluate } from '../web/cost/evaluation.ts';
import { geometric } from '../web/cost/figure.ts';
import { breakEvenFigure } from '../web/cost/figures/break-even.ts';
import { cacheByUsers } from '../web/cost/figures/cache-by-users.ts';
import { priceByBatch } from '../web/cost/figures/price-by-batch.ts';
import { priceByContext } from '../web/cost/figures/price-by-context.ts';
import { roofline } from '../web/cost/figures/roofline.ts';
import { START } from '../web/cost/scenario.ts';
import { origin, writeResult } from './result-file.ts';

const FIGURES = [priceByBatch, priceByContext, roofline, cacheByUsers, breakEvenFigure];
const SIDE = 100;

const rows = ['deepseek-v3', 'deepseek-v3.2', 'deepseek-v2', 'llama-3.1-405b', 'llama-3.1-8b'].map((model) => {
  const scenario = { ...START, model };
  const now = evaluate(scenario);
  if (typeof now === 'string') throw new Error(`${model}: ${now}`);
  const { architecture, plan } = now;
  const surface = () => {
    for (const batch of geometric(1, 256, SIDE)) {
      for (const context of geometric(512, 131_072, SIDE)) decodePoint(architecture, plan.decode, batch, context);
    }
  };
  return {
    model,
    'evaluation, ms': time(() => evaluate(scenario), 500),
    'figures, ms': time(() => FIGURES.map((figure) => figure(now)), 50),
    'surface of 10,000, ms': time(surface, 3),
  };
});

/** Milliseconds: the least and the median of several runs, after one that is not counted. */
function time(run: () => unknown, times: number): { min: number; median: number } {
  run();
  const taken = Array.from({ length: times }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  }).sort((a, b) => a - b);
  return { min: taken[0]!, median: taken[times >> 1]! };
}

console.table(
  rows.map(({ model, ...times }) => ({
    model,
    ...Object.fromEntries(
      Object.entries(times).map(([name, { min, median }]) => [name, `${min.toFixed(2)}, median ${median.toFixed(2)}`]),
    ),
  })),
);
await writeResult('economics', origin(), { rows });
