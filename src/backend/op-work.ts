/** What an operation cannot do without: bytes it reads and writes at least once, and its floating-point operations. */
import type { Lengths } from './compile.ts';
import { ELEMENT_BYTES, type Op, storageBytes, type Tensor } from './graph.ts';

export interface OpWork {
  /** Every weight, input, output and cached row once. */
  readonly bytes: number;
  /** Multiplications and additions of products; elementwise work is counted as none. */
  readonly flops: number;
}

/** A step as its operations saw it. */
export interface StepShape {
  readonly lengths: Lengths;
  /** For each sequence its tokens in the step and the position of the first. */
  readonly spans: readonly { readonly start: number; readonly tokens: number }[];
  /** Rows that each expert of a plan received, from its offsets. */
  rowsPerExpert(offsets: Tensor): Int32Array;
}

/** Of an operation of a forward pass over a paged cache. */
export function opWork({ kernel, writes, reads, scalars }: Op, step: StepShape): OpWork {
  const rows = ({ storage }: Tensor) =>
    storage.rows.axis === null ? storage.rows.times : storage.rows.times * step.lengths[storage.rows.axis];
  const bytes = (tensors: readonly (Tensor | null)[]) =>
    sum(tensors, (tensor) => (tensor === null ? 0 : tensorBytes(tensor, rows(tensor))));
  const out = writes[0]!;
  switch (kernel) {
    case 'linear':
      return { bytes: bytes([out, ...reads]), flops: 2 * rows(out) * out.cols * reads[0]!.cols };
    case 'head_linear': {
      const weights = reads.slice(1);
      const flops = 2 * rows(out) * sum(weights, (w) => w!.storage.rows.times * w!.cols);
      return { bytes: bytes([out, ...reads]), flops };
    }
    case 'expert_linear': {
      const [x, order, offsets, ...weights] = reads;
      const received = step.rowsPerExpert(offsets!);
      const woken = weights.filter((_, expert) => received[expert]! > 0);
      return { bytes: bytes([out, x!, order!, offsets!, ...woken]), flops: 2 * rows(out) * out.cols * x!.cols };
    }
    case 'latent_attention': {
      const [heads, latent, rope] = scalars as [number, number, number];
      const flops = 2 * heads * (2 * latent + rope) * sum(step.spans, attended);
      return { bytes: bytes([out, reads[0]!, reads[1]!]) + cachedRows(step) * rowBytes(reads[2]!), flops };
    }
    case 'paged_attention': {
      const [heads, , headDim] = scalars as [number, number, number];
      const flops = 2 * heads * 2 * headDim * sum(step.spans, attended);
      const cached = cachedRows(step) * (rowBytes(reads[1]!) + rowBytes(reads[2]!));
      return { bytes: bytes([out, reads[0]!]) + cached, flops };
    }
    case 'write_cache':
    case 'write_latent':
      return { bytes: bytes(reads) + rows(reads[0]!) * rowBytes(out), flops: 0 };
    case 'embed':
    case 'select_rows':
      return { bytes: bytes(writes) + rows(out) * rowBytes(kernel === 'embed' ? reads[1]! : reads[0]!), flops: 0 };
    default:
      return { bytes: bytes([...writes, ...reads]), flops: 0 };
  }
}

/** Pairs of a token of the step and a position that it sees. */
const attended = ({ start, tokens }: StepShape['spans'][number]) => tokens * start + (tokens * (tokens + 1)) / 2;

const cachedRows = ({ spans }: StepShape) => sum(spans, ({ start, tokens }) => start + tokens);

const rowBytes = ({ cols, storage }: Tensor) => cols * ELEMENT_BYTES[storage.dtype];

function tensorBytes(tensor: Tensor, rows: number): number {
  const { dtype, scales } = tensor.storage;
  return storageBytes(dtype, rows, tensor.cols) + (scales?.byteLength ?? 0);
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}
