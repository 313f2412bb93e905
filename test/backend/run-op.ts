/** Runs a few ops on given numbers: what the kernel tests have in common. */
import { compile } from '../../src/backend/compile.ts';
import { type Compute, createGraph, type Graph, own, rowsOf, type Tensor } from '../../src/backend/graph.ts';

export interface Given {
  readonly cols: number;
  readonly values: ArrayLike<number>;
  readonly dtype?: 'f32' | 'i32';
}

/**
 * Builds a graph over `own` tensors holding `given`, runs it once and returns the tensors that `build` names.
 * Rows of a given tensor are values.length / cols, fixed.
 */
export async function runOps<Name extends string, Out extends string>(
  given: Record<Name, Given>,
  build: (graph: Graph, inputs: Record<Name, Tensor>) => Record<Out, Tensor>,
  compute: Compute = 'f32',
): Promise<Record<Out, number[]>> {
  const graph = createGraph(compute);
  const inputs = {} as Record<Name, Tensor>;
  for (const name of Object.keys(given) as Name[]) {
    const { cols, values, dtype = 'f32' } = given[name];
    inputs[name] = own(rowsOf(null, values.length / cols), cols, dtype);
  }
  const outputs = build(graph, inputs);
  const kept = [...(Object.values(inputs) as Tensor[]), ...(Object.values(outputs) as Tensor[])];
  const program = compile(graph, { token: 0, logit: 0, sequence: 0 }, kept);
  const numbers = (tensor: Tensor) => (tensor.storage.dtype === 'i32' ? program.i32(tensor) : program.f32(tensor));
  for (const name of Object.keys(given) as Name[]) numbers(inputs[name]).set(given[name].values);
  await program.run({});
  const entries = (Object.keys(outputs) as Out[]).map((name) => [name, Array.from(numbers(outputs[name]))]);
  return Object.fromEntries(entries) as Record<Out, number[]>;
}

/** A deterministic sequence of numbers in (−1, 1), different for every seed. */
export function noise(count: number, seed: number): number[] {
  let state = (seed * 2654435761) >>> 0 || 1;
  return Array.from({ length: count }, () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return Math.fround(state / 2 ** 31 - 1);
  });
}

/** Central difference of a scalar function, in float64, at each element of `at`. */
export function slope(f: (x: number[]) => number, at: number[], step = 1e-5): number[] {
  return at.map((value, i) => {
    const moved = (by: number) => f(at.map((x, j) => (j === i ? value + by : x)));
    return (moved(step) - moved(-step)) / (2 * step);
  });
}

export const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
};

/** ‖a − b‖ / ‖b‖ */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let error = 0;
  let size = 0;
  for (let i = 0; i < b.length; i++) {
    error += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return Math.sqrt(error / (size || 1));
}
