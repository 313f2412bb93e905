/**
 * The engine of this package on the machine at hand, predicted from how fast its kernels ran there by themselves, in other
 * shapes. A step is a list of operations, one after the other (step-operations.ts). Latent attention only; answers as
 * `farthing bench` measures them.
 */
import type { Architecture } from './architecture.ts';
import { type AttentionRates, type AttentionRun, attentionSeconds, fitAttentionRates } from './attention-rates.ts';
import { fitNonNegative } from './non-negative-fit.ts';
import {
  fitProductRates,
  type ProductRates,
  type ProductRun,
  productSeconds,
  type WeightFormat,
} from './product-rates.ts';
import { type LocalStep, stepOperations } from './step-operations.ts';

/** A step of a small model, as it was measured. */
interface StepRun extends LocalStep {
  readonly seconds: number;
  /** Without the first operation, which waits for the threads to wake. */
  readonly kernels: readonly { readonly kernel: string; readonly seconds: number }[];
}

export interface EngineProbe {
  /** Tokens that the engine takes into one step of a prompt. */
  readonly stepTokens: number;
  readonly threads: number;
  readonly weights: 'fp8' | 'bf16';
  readonly products: readonly ProductRun[];
  readonly attention: readonly AttentionRun[];
  /** Of `model`, for what is neither. */
  readonly steps: readonly StepRun[];
}

export interface EngineRates {
  readonly stepTokens: number;
  readonly weights: 'fp8' | 'bf16';
  /** To begin a step and to end it. */
  readonly secondsPerStep: number;
  readonly products: Readonly<Partial<Record<WeightFormat, ProductRates>>>;
  readonly attention: AttentionRates;
  /** Of the kernels that are neither products nor attention. */
  readonly rows: Readonly<Record<string, { readonly secondsPerCall: number; readonly secondsPerValue: number }>>;
}

/** Tokens a second of reading a prompt of so many tokens. */
export function localPrefill(a: Architecture, rates: EngineRates, promptTokens: number): number {
  let seconds = 0;
  for (let start = 0; start < promptTokens; start += rates.stepTokens) {
    const tokensEach = Math.min(rates.stepTokens, promptTokens - start);
    seconds += stepSeconds(a, rates, { sequences: 1, tokensEach, start });
  }
  return promptTokens / seconds;
}

/** Tokens a second of `batch` sequences together that write after `context` tokens. */
export function localDecode(a: Architecture, rates: EngineRates, batch: number, context: number): number {
  return batch / stepSeconds(a, rates, { sequences: batch, tokensEach: 1, start: context });
}

function stepSeconds(a: Architecture, rates: EngineRates, step: LocalStep): number {
  const { products, rows, attention, bytes } = stepOperations(a, step, rates.weights);
  let seconds = rates.secondsPerStep + attention.count * attentionSeconds(rates.attention, attention, step, bytes);
  for (const each of products) {
    seconds += each.count * productSeconds(rates.products[each.format]!, each, each.rows, bytes / each.woken);
  }
  for (const { kernel, count, work } of rows) {
    const { secondsPerCall, secondsPerValue } = rates.rows[kernel]!;
    seconds += count * secondsPerCall + work * secondsPerValue;
  }
  return seconds;
}

/** @param model whose steps are among what was measured */
export function fitEngineRates(model: Architecture, probe: EngineProbe): EngineRates {
  const { stepTokens, threads, weights, products, attention, steps } = probe;
  const counted = steps.map((step) => ({ step, operations: stepOperations(model, step, weights).rows }));
  const kernels = new Set(counted.flatMap(({ operations }) => operations.map(({ kernel }) => kernel)));
  const rows = [...kernels].map((kernel) => {
    const observations = counted.map(({ step, operations }) => {
      const mine = operations.filter((each) => each.kernel === kernel);
      const sum = (value: (each: (typeof mine)[number]) => number) => mine.reduce((all, each) => all + value(each), 0);
      return {
        terms: [sum(({ count }) => count), sum(({ work }) => work)],
        value: step.kernels.find((each) => each.kernel === kernel)?.seconds ?? 0,
      };
    });
    const [secondsPerCall, secondsPerValue] = fitNonNegative(observations) as [number, number];
    return [kernel, { secondsPerCall, secondsPerValue }] as const;
  });
  const least = steps.reduce((one, other) => (other.seconds < one.seconds ? other : one));
  const formats = [...new Set(products.map(({ format }) => format))];
  return {
    stepTokens,
    weights,
    secondsPerStep: Math.max(0, least.seconds - least.kernels.reduce((sum, { seconds }) => sum + seconds, 0)),
    products: Object.fromEntries(
      formats.map((format) => [
        format,
        fitProductRates(
          products.filter((run) => run.format === format),
          threads,
        ),
      ]),
    ),
    attention: fitAttentionRates(attention),
    rows: Object.fromEntries(rows),
  };
}
