/**
 * The weights of a checkpoint in the backend's packed layout. A forward pass asks for tensors by name; each is
 * given memory at once and filled by `ready()`, so only what a graph uses is ever read from disk.
 */
import { compile } from '../backend/compile.ts';
import {
  type Compute,
  createGraph,
  type DType,
  ELEMENT_BYTES,
  type Graph,
  type Region,
  resident,
  storageBytes,
  type Tensor,
} from '../backend/graph.ts';
import { allocate } from '../backend/native.ts';
import { pack, packTransposed } from '../backend/ops.ts';
import { type Checkpoint, type StoredTensor, toFloat32 } from './checkpoint.ts';
import type { DeepSeekConfig } from './config.ts';
import type { Weights } from './weights.ts';

export interface PackedWeights extends Weights {
  /** Reads and packs everything asked for since the last call, on all threads. */
  ready(): Promise<void>;
  /** Bytes held in memory, memory-mapped tables not included. */
  readonly bytes: number;
}

const STORED_DTYPE: Record<StoredTensor['dtype'], DType> = { F32: 'f32', F16: 'f16', BF16: 'bf16', F8_E4M3: 'fp8' };
const FP8_BLOCK = 128;
const JOBS_AT_ONCE = 1024;

export function packedWeights(checkpoint: Checkpoint, compute: Compute): PackedWeights {
  const made = new Map<string, Tensor>();
  const slab = slabAllocator();
  let jobs: ((graph: Graph) => void)[] = [];

  const once = (key: string, make: () => Tensor) => {
    const known = made.get(key);
    if (known) return known;
    const tensor = make();
    made.set(key, tensor);
    return tensor;
  };
  const packedLike = (n: number, k: number, dtype: DType, scales: Region | null) =>
    resident(n, k, dtype, slab.take(storageBytes(dtype, n, k)), scales);
  const floats = (values: Float32Array): Region => {
    const region = slab.take(values.byteLength);
    new Float32Array(region.buffer, region.byteOffset, values.length).set(values);
    return region;
  };

  /** Rows [from, from + rows) of a stored matrix, as the source of a pack; dequantised where blocks do not align. */
  const rowsOfStored = (stored: StoredTensor, from: number, rows: number): Tensor => {
    const [total, cols] = stored.shape as [number, number];
    const aligned = from % FP8_BLOCK === 0 && (rows % FP8_BLOCK === 0 || from + rows === total);
    if (stored.dtype === 'F8_E4M3' && !aligned) {
      const all = toFloat32(stored);
      return resident(rows, cols, 'f32', floats(all.subarray(from * cols, (from + rows) * cols)));
    }
    const dtype = STORED_DTYPE[stored.dtype];
    const rowBytes = cols * ELEMENT_BYTES[dtype];
    const bytes = stored.bytes.subarray(from * rowBytes, (from + rows) * rowBytes);
    const gridCols = Math.ceil(cols / FP8_BLOCK);
    const scales = stored.scales?.subarray(
      (from / FP8_BLOCK) * gridCols,
      Math.ceil((from + rows) / FP8_BLOCK) * gridCols,
    );
    return resident(rows, cols, dtype, regionOf(bytes), scales ? floats(scales) : null);
  };

  const packedFormat = (source: Tensor, precise: boolean): DType => {
    if (source.storage.dtype === 'fp8' && !precise) return 'packed_fp8';
    if (source.storage.dtype === 'bf16' && !precise) return 'packed_bf16';
    return compute === 'f32' || precise ? 'packed_f32' : 'packed_bf16';
  };

  return {
    linear(name, precise) {
      const tied = name === 'lm_head' && !checkpoint.has('lm_head.weight');
      const key = `${tied ? 'model.embed_tokens' : name}.weight`;
      return once(`linear ${key}`, () => {
        const stored = checkpoint.tensor(key);
        const [n, k] = stored.shape as [number, number];
        const source = rowsOfStored(stored, 0, n);
        const dtype = packedFormat(source, precise !== undefined);
        const packed = packedLike(n, k, dtype, dtype === 'packed_fp8' ? source.storage.scales : null);
        jobs.push((graph) => pack(graph, source, packed));
        return packed;
      });
    },
    vector(name) {
      return once(`vector ${name}`, () => {
        const values = toFloat32(checkpoint.tensor(name));
        return resident(1, values.length, 'f32', floats(values));
      });
    },
    table(name) {
      return once(`table ${name}`, () => {
        const stored = checkpoint.tensor(`${name}.weight`);
        const [rows, cols] = stored.shape as [number, number];
        const dtype = STORED_DTYPE[stored.dtype];
        const mapped = (dtype === 'f32' || dtype === 'bf16') && stored.bytes.byteOffset % ELEMENT_BYTES[dtype] === 0;
        if (mapped) return resident(rows, cols, dtype, regionOf(stored.bytes));
        return resident(rows, cols, 'f32', floats(toFloat32(stored)));
      });
    },
    head(name, head, part) {
      return once(`${part} ${head} ${name}`, () => {
        const { qkNopeHeadDim, vHeadDim, kvLoraRank } = checkpoint.config as DeepSeekConfig;
        const stored = checkpoint.tensor(`${name}.weight`);
        const first = head * (qkNopeHeadDim + vHeadDim);
        const source =
          part === 'key'
            ? rowsOfStored(stored, first, qkNopeHeadDim)
            : rowsOfStored(stored, first + qkNopeHeadDim, vHeadDim);
        const dtype = packedFormat(source, false);
        if (part === 'value') {
          const packed = packedLike(vHeadDim, kvLoraRank, dtype, source.storage.scales);
          jobs.push((graph) => pack(graph, source, packed));
          return packed;
        }
        const scales = source.storage.scales && floats(transposedScales(source));
        const packed = packedLike(kvLoraRank, qkNopeHeadDim, dtype, scales);
        jobs.push((graph) => packTransposed(graph, source, packed));
        return packed;
      });
    },
    async ready() {
      const waiting = jobs;
      jobs = [];
      for (let first = 0; first < waiting.length; first += JOBS_AT_ONCE) {
        const graph = createGraph(compute);
        for (const job of waiting.slice(first, first + JOBS_AT_ONCE)) job(graph);
        await compile(graph, { token: 0, logit: 0, sequence: 0 }).run({});
      }
    },
    get bytes() {
      return slab.bytes();
    },
  };
}

const regionOf = (bytes: Uint8Array): Region => ({
  buffer: bytes.buffer as ArrayBuffer,
  byteOffset: bytes.byteOffset,
  byteLength: bytes.byteLength,
});

/** The block scales of the transposed matrix: [ceil(cols/128), ceil(rows/128)]. */
function transposedScales({ storage }: Tensor): Float32Array {
  const { buffer, byteOffset } = storage.scales!;
  const rows = Math.ceil(storage.rows.times / FP8_BLOCK);
  const cols = Math.ceil(storage.cols / FP8_BLOCK);
  const scales = new Float32Array(buffer, byteOffset, rows * cols);
  return Float32Array.from(scales, (_, i) => scales[(i % rows) * cols + Math.floor(i / rows)]!);
}

/** Hands out 64-byte aligned regions of large allocations. */
function slabAllocator() {
  const SLAB_BYTES = 256 * 2 ** 20;
  let buffer = new ArrayBuffer(0);
  let used = 0;
  let total = 0;
  return {
    take(bytes: number): Region {
      const size = Math.ceil(bytes / 64) * 64;
      if (used + size > buffer.byteLength) {
        buffer = allocate(Math.max(size, SLAB_BYTES));
        used = 0;
      }
      const region = { buffer, byteOffset: used, byteLength: bytes };
      used += size;
      total += size;
      return region;
    },
    bytes: () => total,
  };
}
