/** What this machine could do at most, measured: the bound beside which a model's speed is read. */
import { compile } from '../backend/compile.ts';
import { type Compute, createGraph, own, resident, rowsOf } from '../backend/graph.ts';
import { allocate, threads } from '../backend/native.ts';

/** Far more than any processor's caches hold. */
const BYTES = 2 ** 28;
const PIECES = 1024;
const ROUNDS = 5;

/** Bytes a second that all threads together read from memory, in the best of a few rounds. */
export async function measureReadBandwidth(): Promise<number> {
  const buffer = allocate(BYTES);
  // Memory that was never written is one shared page of zeros.
  new Float32Array(buffer).fill(1);
  const graph = createGraph('f32');
  const data = resident(1, BYTES / 4, 'f32', { buffer, byteOffset: 0, byteLength: BYTES });
  const greatest = own(rowsOf(null), PIECES);
  graph.ops.push({ kernel: 'measure_read', writes: [greatest], reads: [data], scalars: [] });
  const program = compile(graph, { token: 1, logit: 1, sequence: 1 });
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await program.run({});
    best = Math.min(best, performance.now() - start);
  }
  return BYTES / (best / 1000);
}

/** Multiply-adds of each chain in a round of the measurement: some ten milliseconds. */
const PEAK_ROUNDS = 2 ** 18;

/** Floating-point operations a second of all threads together on operands in registers, in the best of a few rounds. */
export async function measurePeak(compute: Compute): Promise<number> {
  const graph = createGraph(compute);
  const flops = own(rowsOf(null, threads()), 1);
  const scalars = [PEAK_ROUNDS, compute === 'fast' ? 1 : 0, 0.5];
  graph.ops.push({ kernel: 'measure_peak', writes: [flops], reads: [], scalars });
  const program = compile(graph, { token: 1, logit: 1, sequence: 1 });
  let best = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await program.run({});
    const seconds = (performance.now() - start) / 1000;
    best = Math.max(best, program.f32(flops).reduce((sum, each) => sum + each, 0) / seconds);
  }
  return best;
}
