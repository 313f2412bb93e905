/**
 * How long a product takes on a machine: a fixed cost, and what the busiest thread does: its work items, the inputs it takes, the
 * outputs it writes, its weights. Each coefficient is fitted to products of other shapes, at several numbers of rows.
 */
import { ascending, between } from './between.ts';
import { fitNonNegative } from './non-negative-fit.ts';

export type WeightFormat = 'fp8' | 'bf16' | 'f32';

/** One product [rows, k] · [n, k]ᵀ, or several of a shape in one operation. */
export interface ProductShape {
  readonly format: WeightFormat;
  readonly products: number;
  readonly k: number;
  readonly n: number;
}

/** As measured. */
export interface ProductRun extends ProductShape {
  readonly rows: number;
  readonly poolBytes: number;
  readonly seconds: number;
}

/** Coefficients at some number of rows. */
interface ProductLevel {
  readonly rows: number;
  readonly secondsPerItem: number;
  /** Of all rows together: a value of input that a thread takes in, one of output that it writes. */
  readonly secondsPerInput: number;
  readonly secondsPerOutput: number;
  /** By the bytes that are read before the same weights are read again; they rise. */
  readonly secondsPerWeight: readonly { readonly bytes: number; readonly seconds: number }[];
}

export interface ProductRates {
  readonly threads: number;
  readonly secondsPerCall: number;
  /** Rows rise. */
  readonly levels: readonly ProductLevel[];
}

/** Outputs of a panel of packed weights; up to how many rows a thread has one share of all panels. */
const LANES = 16;
const FEW_ROWS = 32;
/** With more: panels of a work item, items a thread should have, and rows of a block. */
const CHUNK = 4;
const ITEMS = 4;
const BLOCK_ROWS = 256;

/** What the busiest thread does: `each_share` and `each_block` in native/kernels/linear.h. */
function busiest({ products, k, n }: ProductShape, rows: number, threads: number) {
  const panels = Math.ceil(n / LANES);
  if (rows <= FEW_ROWS) {
    const share = mostOfThread(products * panels, threads) / (products * panels);
    const touched = Math.max(1, products * share);
    return { items: touched, weights: share * products * k * n, inputs: touched * k, outputs: share * products * n };
  }
  const blocks = products * Math.ceil(rows / BLOCK_ROWS);
  let chunk = CHUNK;
  while (chunk < panels && blocks * Math.ceil(panels / (2 * chunk)) >= ITEMS * threads) chunk *= 2;
  const chunks = Math.ceil(panels / chunk);
  const items = blocks * chunks;
  const mine = mostOfThread(items, threads);
  return {
    items: mine,
    weights: (mine / items) * products * k * n,
    inputs: products * Math.min(1, Math.max(chunks, mine / blocks) / threads) * k,
    outputs: (mine / items) * products * n,
  };
}

/** An expected number of items stands for whole ones around it, which leave a thread idle now and then. */
function mostOfThread(items: number, threads: number): number {
  const whole = Math.round(items);
  return Math.abs(items - whole) < 1e-9 ? Math.ceil(whole / threads) : (items + (threads - 1) / 2) / threads;
}

export function fitProductRates(runs: readonly ProductRun[], threads: number): ProductRates {
  const rowCounts = ascending(runs.map(({ rows }) => rows));
  const widest = runs.reduce((one, other) => (other.k * other.n > one.k * one.n ? other : one));
  const isWide = ({ k, n }: ProductRun) => k === widest.k && n === widest.n;
  const pools = ascending(runs.filter(isWide).map(({ poolBytes }) => poolBytes));
  const near = runs.filter((run) => run.poolBytes <= pools[0]!);
  const terms = (run: ProductRun) => busiest(run, run.rows, threads);
  const few = near.filter(({ rows }) => rows === rowCounts[0]);
  const [secondsPerCall] = fitNonNegative(
    few.map((run) => {
      const { items, inputs, outputs, weights } = terms(run);
      return { terms: [1, items, inputs, outputs, weights], value: run.seconds };
    }),
  ) as [number];
  const levels = rowCounts.map((rows): ProductLevel => {
    const at = near.filter((run) => run.rows === rows);
    const [secondsPerItem, secondsPerInput, secondsPerOutput, perWeight] = fitNonNegative(
      at.map((run) => {
        const { items, inputs, outputs, weights } = terms(run);
        return { terms: [items, inputs, outputs, weights], value: Math.max(0, run.seconds - secondsPerCall) };
      }),
    ) as [number, number, number, number];
    const far = pools.slice(1).flatMap((bytes) => {
      const same = runs.filter((run) => isWide(run) && run.rows === rows && run.poolBytes === bytes);
      const rate = (run: ProductRun) => {
        const { items, inputs, outputs, weights } = terms(run);
        return (
          (run.seconds -
            secondsPerCall -
            items * secondsPerItem -
            inputs * secondsPerInput -
            outputs * secondsPerOutput) /
          weights
        );
      };
      if (same.length === 0) return [];
      return [{ bytes, seconds: Math.max(perWeight, same.reduce((sum, run) => sum + rate(run), 0) / same.length) }];
    });
    return {
      rows,
      secondsPerItem,
      secondsPerInput,
      secondsPerOutput,
      secondsPerWeight: [{ bytes: pools[0]!, seconds: perWeight }, ...far],
    };
  });
  return { threads, secondsPerCall, levels };
}

const WEIGHT_BYTES = { fp8: 1, bf16: 2, f32: 4 };

export const productBytes = ({ format, products, k, n }: ProductShape) => products * k * n * WEIGHT_BYTES[format];

/** Rows that products have, with the share of the products that have so many. */
export type RowShares = readonly { readonly rows: number; readonly share: number }[];

/** @param reuseBytes read before the same weights are read again */
export function productSeconds(
  rates: ProductRates,
  shape: ProductShape,
  rowShares: RowShares,
  reuseBytes: number,
): number {
  let seconds = rates.secondsPerCall;
  for (const { rows, share } of rowShares) {
    const { items, inputs, outputs, weights } = busiest(shape, rows, rates.threads);
    const at = (coefficient: (level: ProductLevel) => number) =>
      between(rates.levels, rows, (level) => level.rows, coefficient);
    seconds +=
      share *
      (items * at(({ secondsPerItem }) => secondsPerItem) +
        inputs * at(({ secondsPerInput }) => secondsPerInput) +
        outputs * at(({ secondsPerOutput }) => secondsPerOutput) +
        weights *
          at(({ secondsPerWeight }) =>
            between(
              secondsPerWeight,
              reuseBytes,
              ({ bytes }) => bytes,
              (point) => point.seconds,
              Math.log,
            ),
          ));
  }
  return seconds;
}
