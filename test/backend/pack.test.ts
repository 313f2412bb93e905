import { describe, expect, test } from 'vitest';
import { createGraph, type Region, resident, storageBytes, type Tensor } from '../../src/backend/graph.ts';
import { pack, packTransposed } from '../../src/backend/ops.ts';
import { float32ToBf16 } from '../../src/numerics/bf16.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { type Matrix, type Packed, runGraph, type Stored, stored } from './product-operands.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const shapes = [
  [1, 1],
  [16, 32],
  [17, 3],
  [5, 100],
  [40, 66],
  [130, 259],
] as const;

/** Where value (n, k) of a packed matrix stands, as native/kernels/pack.h says, in values from its start. */
function place(dtype: Packed, depth: number, n: number, k: number): number {
  const step = dtype === 'packed_fp8' ? 4 : 2;
  const panel = Math.floor(n / 16) * 16 * Math.ceil(depth / step) * step;
  const lane = n % 16;
  if (dtype === 'packed_f32') return panel + k * 16 + lane;
  if (dtype === 'packed_bf16') return panel + Math.floor(k / 2) * 32 + lane * 2 + (k % 2);
  const inQuad = Math.floor(lane / 4) * 16 + Math.floor((k % 4) / 2) * 8 + (lane % 4) * 2 + (k % 2);
  return panel + Math.floor(k / 4) * 64 + inQuad;
}

async function packedBytes(source: Tensor, dtype: Packed, n: number, k: number, transposed: boolean) {
  const bytes = new Uint8Array(storageBytes(dtype, n, k)).fill(0xee);
  const memory: Region = { buffer: bytes.buffer, byteOffset: 0, byteLength: bytes.length };
  const graph = createGraph('f32');
  (transposed ? packTransposed : pack)(graph, source, resident(n, k, dtype, memory));
  await runGraph(graph);
  return bytes;
}

/** The packed form built value by value, zeros where nothing is stored. */
function expectedBytes(source: Matrix, dtype: Packed, n: number, k: number, transposed: boolean): Uint8Array {
  const bytes = new Uint8Array(storageBytes(dtype, n, k));
  const region = source.tensor.storage.memory as Region;
  const codes = new Uint8Array(region.buffer, region.byteOffset);
  const [floats, halves] = [new Float32Array(bytes.buffer), new Uint16Array(bytes.buffer)];
  const rounded = float32ToBf16(source.values);
  for (let i = 0; i < n * k; i++) {
    const [row, col] = [Math.floor(i / source.cols), i % source.cols];
    const at = transposed ? place(dtype, k, col, row) : place(dtype, k, row, col);
    if (dtype === 'packed_f32') floats[at] = source.values[i]!;
    else if (dtype === 'packed_bf16') halves[at] = rounded[i]!;
    else bytes[at] = codes[i]!;
  }
  return bytes;
}

const conversions: [Stored, Packed][] = [
  ['f32', 'packed_f32'],
  ['f32', 'packed_bf16'],
  ['bf16', 'packed_f32'],
  ['bf16', 'packed_bf16'],
  ['f16', 'packed_f32'],
  ['f16', 'packed_bf16'],
  ['fp8', 'packed_f32'],
  ['fp8', 'packed_bf16'],
  ['fp8', 'packed_fp8'],
];

describe.each(conversions)('%s to %s', (from, to) => {
  test.each(shapes)('%i × %i: every value in its place, zeros around', async (n, k) => {
    for (const skew of [0, 3]) {
      const source = stored(from, n, k, n + k, skew);
      const packed = await packedBytes(source.tensor, to, n, k, false);
      expect(Buffer.compare(packed, expectedBytes(source, to, n, k, false))).toBe(0);
      const turned = stored(from, k, n, n + k + 1, skew);
      const turnedPacked = await packedBytes(turned.tensor, to, n, k, true);
      expect(Buffer.compare(turnedPacked, expectedBytes(turned, to, n, k, true))).toBe(0);
    }
  });
});
