/** What this machine could do at most, measured: the bound beside which a model's speed is read. */
import { compile } from '../backend/compile.ts';
import { createGraph, own, resident, rowsOf } from '../backend/graph.ts';
import { allocate } from '../backend/native.ts';

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
  const sums = own(rowsOf(null), PIECES);
  graph.ops.push({ kernel: 'sum_squares', writes: [sums], reads: [data], scalars: [] });
  const program = compile(graph, { token: 1, logit: 1, sequence: 1 });
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await program.run({});
    best = Math.min(best, performance.now() - start);
  }
  return BYTES / (best / 1000);
}
