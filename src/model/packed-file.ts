/**
 * The packed weights of a checkpoint in a file of their own, mapped into memory: a model larger than memory runs, since
 * the system reads the experts that tokens are routed to, keeps what memory has room for, and drops what was not used
 * for long. Starting again costs nothing. The file is a safetensors file of bytes; it is written once, aside, and names
 * the checkpoint it was made from.
 */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Compute, Region, Tensor } from '../backend/graph.ts';
import { allocate } from '../backend/native.ts';
import type { SafetensorsFile } from '../numerics/safetensors.ts';
import { type TensorToWrite, writeSafetensors } from '../numerics/safetensors-writer.ts';
import type { Checkpoint } from './checkpoint.ts';
import { openSafetensors } from './mapped-safetensors.ts';
import { headPiece, type Piece, pieceLayout, pieceTensor, wholePiece } from './packed-piece.ts';
import { packAll } from './packed-weights.ts';
import { weightCatalogue } from './weight-catalogue.ts';

export interface PackedFile {
  /** The packed tensor of a piece: a view of the mapped file. */
  tensor(piece: Piece): Tensor;
}

/** Of the layout in native/kernels/pack.h: a file of another version is written anew. */
const LAYOUT_VERSION = '1';

/**
 * Opens the packed file of a checkpoint, writing it first where there is none or it was made from other weights.
 * @param onProgress called while it is written, with pieces done and in all
 */
export async function openPackedFile(
  file: string,
  checkpoint: Checkpoint,
  compute: Compute,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<PackedFile> {
  const origin = await originOf(checkpoint, compute);
  const exists = await stat(file).then(
    () => true,
    () => false,
  );
  let opened = exists ? openSafetensors(file) : null;
  if (opened && !('farthing_packed' in opened.metadata)) {
    throw new Error(`${file}: is no packed file of Farthing. Choose another name; nothing was changed`);
  }
  if (opened?.metadata.farthing_packed !== origin) {
    await writePackedFile(file, checkpoint, compute, origin, onProgress);
    opened = openSafetensors(file);
  }
  return { tensor: (piece) => mappedPiece(opened!, checkpoint, compute, piece) };
}

/** What the content depends on: layout, compute mode, and the weight files by name, size and time. */
async function originOf({ folder }: Checkpoint, compute: Compute): Promise<string> {
  const hash = createHash('sha256').update(`${LAYOUT_VERSION} ${compute}`);
  for (const name of (await readdir(folder)).filter((each) => each.endsWith('.safetensors')).sort()) {
    const { size, mtimeMs } = await stat(path.join(folder, name));
    hash.update(`\n${name} ${size} ${mtimeMs}`);
  }
  return hash.digest('hex');
}

const padded = (bytes: number) => Math.ceil(bytes / 64) * 64;

async function writePackedFile(
  file: string,
  checkpoint: Checkpoint,
  compute: Compute,
  origin: string,
  onProgress: (done: number, total: number) => void,
): Promise<void> {
  const pieces = allPieces(checkpoint);
  let done = 0;
  const tensors = pieces.map((piece, i): TensorToWrite => {
    const layout = pieceLayout(checkpoint, compute, piece);
    const size = padded(layout.bytes) + padded(layout.scaleBytes);
    const bytes = async () => {
      for (const next of pieces.slice(i + 1, i + 9)) checkpoint.prefetch(next.name);
      const buffer = allocate(size);
      const packed = pieceTensor(layout, ...regionsOf(layout, buffer, 0));
      await packAll(checkpoint, compute, [{ piece, packed }]);
      onProgress(++done, pieces.length);
      return new Uint8Array(buffer);
    };
    return { name: piece.key, dtype: 'U8', shape: [size], bytes };
  });
  await writeSafetensors(file, tensors, { farthing_packed: origin });
}

/** Every piece that some pass over the model may ask for. */
function allPieces(checkpoint: Checkpoint): Piece[] {
  const { config } = checkpoint;
  return weightCatalogue(config).flatMap(({ name, role }) => {
    if (!checkpoint.has(name)) return [];
    if (role === 'embedding' && config.tieWordEmbeddings) return [wholePiece(checkpoint, name, false)];
    if (role !== 'linear' && role !== 'expert' && role !== 'router' && role !== 'head') return [];
    if (config.family === 'deepseek' && name.endsWith('.kv_b_proj.weight')) {
      return Array.from({ length: config.numAttentionHeads }, (_, head) => [
        headPiece(config, name, head, 'key'),
        headPiece(config, name, head, 'value'),
      ]).flat();
    }
    return [wholePiece(checkpoint, name, role === 'router')];
  });
}

function mappedPiece(file: SafetensorsFile, checkpoint: Checkpoint, compute: Compute, piece: Piece): Tensor {
  const layout = pieceLayout(checkpoint, compute, piece);
  const { buffer, byteOffset } = file.tensors.get(piece.key)!.bytes;
  return pieceTensor(layout, ...regionsOf(layout, buffer as ArrayBuffer, byteOffset));
}

/** The packed values, then their scales. */
function regionsOf(layout: { bytes: number; scaleBytes: number }, buffer: ArrayBuffer, at: number): [Region, Region] {
  return [
    { buffer, byteOffset: at, byteLength: layout.bytes },
    { buffer, byteOffset: at + padded(layout.bytes), byteLength: layout.scaleBytes },
  ];
}
