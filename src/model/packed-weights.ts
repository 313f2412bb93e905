/**
 * The weights of a checkpoint in the backend's packed layout. A forward pass asks for tensors by name; each is given
 * memory at once and filled by `ready()`, so only what a graph uses is ever read from disk. Or they are pieces of a
 * packed file, which the system reads when a product first touches them.
 */
import { compile } from '../backend/compile.ts';
import {
  type Compute,
  columns,
  createGraph,
  type DType,
  ELEMENT_BYTES,
  own,
  type Region,
  resident,
  rowsOf,
  type Tensor,
} from '../backend/graph.ts';
import { allocate } from '../backend/native.ts';
import { type Checkpoint, toFloat32 } from './checkpoint.ts';
import type { DeepSeekConfig } from './config.ts';
import type { PackedFile } from './packed-file.ts';
import { headPiece, type Piece, packPiece, pieceLayout, pieceTensor, wholePiece } from './packed-piece.ts';
import type { Weights } from './weights.ts';

export interface PackedWeights extends Weights {
  /** Reads and packs everything asked for since the last call, on all threads. */
  ready(): Promise<void>;
  /** Bytes held in memory; mapped files are not. */
  readonly bytes: number;
}

interface Job {
  readonly piece: Piece;
  readonly packed: Tensor;
}

export function packedWeights(checkpoint: Checkpoint, compute: Compute, file: PackedFile | null): PackedWeights {
  const made = new Map<string, Tensor>();
  const slab = slabAllocator();
  let jobs: Job[] = [];

  const once = (key: string, make: () => Tensor) => {
    const known = made.get(key);
    if (known) return known;
    const tensor = make();
    made.set(key, tensor);
    return tensor;
  };
  const packed = (piece: Piece) =>
    once(`packed ${piece.key}`, () => {
      if (file) return file.tensor(piece);
      const layout = pieceLayout(checkpoint, compute, piece);
      const tensor = pieceTensor(layout, slab.take(layout.bytes), slab.take(layout.scaleBytes));
      jobs.push({ piece, packed: tensor });
      return tensor;
    });
  const floats = (values: Float32Array): Region => {
    const region = slab.take(values.byteLength);
    new Float32Array(region.buffer, region.byteOffset, values.length).set(values);
    return region;
  };

  return {
    linear(name, precise) {
      const tied = name === 'lm_head' && !checkpoint.has('lm_head.weight');
      const stored = `${tied ? 'model.embed_tokens' : name}.weight`;
      return packed(wholePiece(checkpoint, stored, precise !== undefined));
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
        const dtype: DType | null = stored.dtype === 'F32' ? 'f32' : stored.dtype === 'BF16' ? 'bf16' : null;
        const { buffer, byteOffset, byteLength } = stored.bytes;
        if (dtype && byteOffset % ELEMENT_BYTES[dtype] === 0)
          return resident(rows, cols, dtype, { buffer: buffer as ArrayBuffer, byteOffset, byteLength });
        return resident(rows, cols, 'f32', floats(toFloat32(stored)));
      });
    },
    head(name, head, part) {
      return packed(headPiece(checkpoint.config as DeepSeekConfig, `${name}.weight`, head, part));
    },
    async ready() {
      const groups = grouped(checkpoint, jobs);
      jobs = [];
      prefetch(checkpoint, groups[0]);
      for (const [i, group] of groups.entries()) {
        prefetch(checkpoint, groups[i + 1]);
        await packAll(checkpoint, compute, group);
      }
    },
    get bytes() {
      return slab.bytes();
    },
  };
}

/** Source bytes that are packed together: while one group is packed the next is read from disk. */
const GROUP_BYTES = 128 * 2 ** 20;

function grouped(checkpoint: Checkpoint, jobs: readonly Job[]): Job[][] {
  const groups: Job[][] = [];
  let left = 0;
  for (const job of jobs) {
    const { shape, byteLength } = checkpoint.header(job.piece.name);
    const bytes = (byteLength / shape[0]!) * job.piece.rows;
    if (bytes > left || groups.length === 0) {
      groups.push([]);
      left = GROUP_BYTES;
    }
    groups.at(-1)!.push(job);
    left -= bytes;
  }
  return groups;
}

function prefetch(checkpoint: Checkpoint, group: readonly Job[] | undefined): void {
  for (const name of new Set(group?.map(({ piece }) => piece.name))) checkpoint.prefetch(name);
}

/**
 * Packs pieces and gives back the memory of the mapped pages they came from.
 * @throws CheckpointError when a stored tensor holds what no weight can be
 */
export async function packAll(checkpoint: Checkpoint, compute: Compute, jobs: readonly Job[]): Promise<void> {
  const graph = createGraph(compute);
  const damaged = own(rowsOf(null), jobs.length, 'i32');
  for (const [i, { piece, packed }] of jobs.entries())
    packPiece(graph, checkpoint, piece, packed, columns(damaged, i, 1));
  const program = compile(graph, { token: 0, logit: 0, sequence: 0 }, [damaged]);
  await program.run({});
  const found = graph.ops.some(({ writes }) => writes[0]?.storage === damaged.storage)
    ? program.i32(damaged).findIndex((flag) => flag !== 0)
    : -1;
  // looking again, value by value, says where
  if (found >= 0) checkpoint.tensor(jobs[found]!.piece.name);
  for (const name of new Set(jobs.map(({ piece }) => piece.name))) checkpoint.release(name);
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
