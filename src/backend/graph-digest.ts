/** Tells computations apart: kernels, shapes and numbers, not how many rows they run over. */
import { createHash } from 'node:crypto';
import type { Graph } from './graph.ts';

/** SHA-256 in hexadecimal. Graphs of equal digests do the same with equal weights and kernels. */
export function graphDigest({ ops, compute }: Graph): string {
  const hash = createHash('sha256').update(compute);
  for (const { kernel, scalars, writes, reads } of ops) {
    const shapes = [...writes, ...reads].map((t) => t && [t.storage.dtype, t.storage.cols, t.offset, t.cols]);
    hash.update(JSON.stringify([kernel, scalars, shapes]));
  }
  return hash.digest('hex');
}
