/**
 * The parts of a checkpoint that products read, each packed on its own (native/kernels/pack.h): a whole projection, or
 * one head's keys or values of a kv_b_proj.
 */
import {
  type Compute,
  columns,
  type DType,
  ELEMENT_BYTES,
  type Graph,
  type Region,
  resident,
  storageBytes,
  type Tensor,
} from '../backend/graph.ts';
import { findNaN, pack, packFours, packTransposed } from '../backend/ops.ts';
import { BLOCK } from '../numerics/block-scales.ts';
import { type Checkpoint, type StoredTensor, toFloat32 } from './checkpoint.ts';
import type { DeepSeekConfig } from './config.ts';

/** Rows [from, from + rows) of a stored matrix, for products as they are or transposed. */
export interface Piece {
  readonly key: string;
  readonly name: string;
  readonly from: number;
  readonly rows: number;
  readonly transposed: boolean;
  /** Stays f32 in every compute mode. */
  readonly precise: boolean;
}

export interface PieceLayout {
  readonly n: number;
  readonly k: number;
  readonly dtype: DType;
  readonly bytes: number;
  readonly scaleBytes: number;
}

export function wholePiece(checkpoint: Checkpoint, name: string, precise: boolean): Piece {
  return { key: name, name, from: 0, rows: checkpoint.header(name).shape[0]!, transposed: false, precise };
}

export function headPiece(config: DeepSeekConfig, name: string, head: number, part: 'key' | 'value'): Piece {
  const { qkNopeHeadDim, vHeadDim } = config;
  const first = head * (qkNopeHeadDim + vHeadDim);
  const range = part === 'key' ? { from: first, rows: qkNopeHeadDim } : { from: first + qkNopeHeadDim, rows: vHeadDim };
  return { key: `${name} ${part} ${head}`, name, ...range, transposed: part === 'key', precise: false };
}

export function pieceLayout(checkpoint: Checkpoint, compute: Compute, piece: Piece): PieceLayout {
  const { dtype: stored, shape } = checkpoint.header(piece.name);
  const cols = shape[1]!;
  const [n, k] = piece.transposed ? [cols, piece.rows] : [piece.rows, cols];
  // a head's part of a kv_b_proj is transposed or does not begin with the matrix: it is dequantised
  const fours = stored === 'NVFP4' && piece.rows === shape[0] && !piece.precise;
  const scaled = stored === 'F8_E4M3' && blocksAlign(piece, shape[0]!) && !piece.precise;
  const dtype = fours
    ? 'packed_fp4'
    : scaled
      ? 'packed_fp8'
      : stored === 'BF16' && !piece.precise
        ? 'packed_bf16'
        : compute === 'f32' || piece.precise
          ? 'packed_f32'
          : 'packed_bf16';
  const scaleBytes = fours ? 4 : scaled ? 4 * Math.ceil(n / BLOCK) * Math.ceil(k / BLOCK) : 0;
  return { n, k, dtype, bytes: storageBytes(dtype, n, k), scaleBytes };
}

/** The packed tensor of a piece in given memory. */
export function pieceTensor({ n, k, dtype, scaleBytes }: PieceLayout, memory: Region, scales: Region): Tensor {
  return resident(n, k, dtype, memory, scaleBytes > 0 ? scales : null);
}

/**
 * Appends what fills `packed` from the checkpoint, and what raises `damaged` (i32 [1, 1]) where an FP8 code is NaN. The
 * scales are written at once.
 */
export function packPiece(graph: Graph, checkpoint: Checkpoint, piece: Piece, packed: Tensor, damaged: Tensor): void {
  const stored = checkpoint.unscanned(piece.name);
  if (packed.storage.dtype === 'packed_fp4') {
    const [n] = stored.shape as [number, number];
    const { scales, global } = stored.fours!;
    const { buffer, byteOffset } = packed.storage.scales!;
    new Float32Array(buffer, byteOffset, 1)[0] = global;
    const bytes = (values: Uint8Array) => resident(n, values.length / n, 'fp8', regionOf(values));
    packFours(graph, bytes(stored.bytes), bytes(scales), packed);
    return;
  }
  const source = rowsOfStored(stored, piece);
  if (stored.dtype === 'F8_E4M3') findNaN(graph, storedRows(stored, piece), columns(damaged, 0, 1));
  if (packed.storage.scales) {
    const { buffer, byteOffset, byteLength } = packed.storage.scales;
    const { scales } = source.storage;
    const stored32 = new Float32Array(scales!.buffer, scales!.byteOffset, scales!.byteLength / 4);
    new Float32Array(buffer, byteOffset, byteLength / 4).set(
      piece.transposed ? transposedScales(stored32, piece.rows, stored.shape[1]!) : stored32,
    );
  }
  if (piece.transposed) packTransposed(graph, source, packed);
  else pack(graph, source, packed);
}

const blocksAlign = ({ from, rows }: Piece, total: number) =>
  from % BLOCK === 0 && (rows % BLOCK === 0 || from + rows === total);

/** The source of a pack, dequantised where blocks do not align. */
function rowsOfStored(stored: StoredTensor, piece: Piece): Tensor {
  const [total, cols] = stored.shape as [number, number];
  const { from, rows } = piece;
  const codes = stored.dtype === 'NVFP4' || (stored.dtype === 'F8_E4M3' && !blocksAlign(piece, total));
  if (!codes) return storedRows(stored, piece);
  const values = toFloat32(stored).subarray(from * cols, (from + rows) * cols);
  return resident(rows, cols, 'f32', regionOf(values));
}

const STORED_DTYPE = { F32: 'f32', F16: 'f16', BF16: 'bf16', F8_E4M3: 'fp8', NVFP4: 'fp8' } as const satisfies Record<
  StoredTensor['dtype'],
  DType
>;

/** Rows of a stored matrix where they lie; with the scales of whole blocks, which count where blocks align. */
function storedRows(stored: StoredTensor, { from, rows }: Piece): Tensor {
  const cols = stored.shape[1]!;
  const dtype = STORED_DTYPE[stored.dtype];
  const rowBytes = cols * ELEMENT_BYTES[dtype];
  const gridCols = Math.ceil(cols / BLOCK);
  const scales = stored.scales?.subarray(
    Math.floor(from / BLOCK) * gridCols,
    Math.ceil((from + rows) / BLOCK) * gridCols,
  );
  const bytes = stored.bytes.subarray(from * rowBytes, (from + rows) * rowBytes);
  return resident(rows, cols, dtype, regionOf(bytes), scales ? regionOf(scales) : null);
}

function regionOf({ buffer, byteOffset, byteLength }: Uint8Array | Float32Array): Region {
  return { buffer: buffer as ArrayBuffer, byteOffset, byteLength };
}

/** The block scales of the transposed matrix: [ceil(cols/128), ceil(rows/128)]. */
function transposedScales(scales: Float32Array, matrixRows: number, matrixCols: number): Float32Array {
  const [rows, cols] = [Math.ceil(matrixRows / BLOCK), Math.ceil(matrixCols / BLOCK)];
  return Float32Array.from(scales, (_, i) => scales[(i % rows) * cols + Math.floor(i / rows)]!);
}
