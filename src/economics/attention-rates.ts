/**
 * How long latent attention takes on a machine: for each position that is attended to, the arithmetic of its heads and the
 * bytes of its cached row, more of them where they come from memory rather than from the processor's caches.
 */
import { ascending, between } from './between.ts';
import { fitNonNegative } from './non-negative-fit.ts';
import { type AttentionShape, CACHE_BYTES, type LocalStep } from './step-operations.ts';

export interface AttentionRun extends AttentionShape, LocalStep {
  readonly poolBytes: number;
  readonly seconds: number;
}

/** Coefficients of `decodeTerms` at some number of sequences, which rises. */
type DecodeRates = readonly { readonly sequences: number; readonly coefficients: readonly number[] }[];

export interface AttentionRates {
  /** Read before the same cached rows are read again, where all of them come from memory. */
  readonly farBytes: number;
  readonly decode: DecodeRates;
  /** Of `prefillTerms`. */
  readonly prefill: readonly number[];
}

/** Query rows that share a matrix tile. */
const TILE_ROWS = 16;

const width = ({ kvRank, ropeDim }: AttentionShape) => 2 * kvRank + ropeDim;

function decodeTerms(shape: AttentionShape, { sequences, start }: LocalStep, far: number): number[] {
  const positions = sequences * (start + 1);
  const products = positions * Math.ceil(shape.heads / TILE_ROWS);
  const bytes = positions * (shape.kvRank + shape.ropeDim) * CACHE_BYTES;
  return [1, sequences * shape.heads * width(shape), products, products * width(shape), bytes, bytes * far];
}

function prefillTerms(shape: AttentionShape, { sequences, tokensEach, start }: LocalStep): number[] {
  const rows = sequences * tokensEach * shape.heads;
  const pairs = rows * (start + (tokensEach + 1) / 2);
  return [1, rows * width(shape), pairs, pairs * width(shape)];
}

/** What a core's own caches may hold of it. */
const NEAR_BYTES = 8 * 2 ** 20;

const shareOfFar = (bytes: number, farBytes: number) =>
  Math.min(1, Math.max(0, Math.log(bytes / NEAR_BYTES) / Math.log(farBytes / NEAR_BYTES)));

export function fitAttentionRates(runs: readonly AttentionRun[]): AttentionRates {
  const farBytes = Math.max(...runs.map(({ poolBytes }) => poolBytes));
  const decoded = runs.filter(({ tokensEach }) => tokensEach === 1);
  const observed = (terms: (run: AttentionRun) => number[]) => (run: AttentionRun) => ({
    terms: terms(run),
    value: run.seconds,
  });
  return {
    farBytes,
    decode: ascending(decoded.map(({ sequences }) => sequences)).map((sequences) => ({
      sequences,
      coefficients: fitNonNegative(
        decoded
          .filter((run) => run.sequences === sequences)
          .map(observed((run) => decodeTerms(run, run, shareOfFar(run.poolBytes, farBytes)))),
      ),
    })),
    prefill: fitNonNegative(
      runs.filter(({ tokensEach }) => tokensEach > 1).map(observed((run) => prefillTerms(run, run))),
    ),
  };
}

/** @param reuseBytes read before the same cached rows are read again */
export function attentionSeconds(
  rates: AttentionRates,
  shape: AttentionShape,
  step: LocalStep,
  reuseBytes: number,
): number {
  if (step.tokensEach > 1) return dot(rates.prefill, prefillTerms(shape, step));
  const terms = decodeTerms(shape, step, shareOfFar(reuseBytes, rates.farBytes));
  return between(
    rates.decode,
    step.sequences,
    ({ sequences }) => sequences,
    ({ coefficients }) => dot(coefficients, terms),
  );
}

const dot = (one: readonly number[], other: readonly number[]) =>
  one.reduce((sum, each, i) => sum + each * other[i]!, 0);
