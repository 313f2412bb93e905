/** Writing safetensors files: one tensor in memory at a time, and the file appears whole or not at all. */
import { DTYPE_BYTES, type StoredDType } from './dtype.ts';
import { replaceFile } from './replace-file.ts';

export interface TensorToWrite {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** Row-major little-endian bytes, or a function that makes them when their turn comes. */
  readonly bytes: Uint8Array | (() => Uint8Array | Promise<Uint8Array>);
}

/** Linux writes at most 2 GiB a call. */
const CHUNK_BYTES = 2 ** 28;

/**
 * Writes `tensors` to `path`, larger element types first so that every tensor is aligned to its elements.
 * @param metadata free strings for the header's `__metadata__`
 * @throws RangeError when a name repeats or a tensor's bytes do not match dtype × shape
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const inOrder = [...tensors].sort((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype]);
  const header = headerOf(inOrder, metadata);
  await replaceFile(path, async (file) => {
    await file.writeFile(header);
    for (const tensor of inOrder) {
      const bytes = typeof tensor.bytes === 'function' ? await tensor.bytes() : tensor.bytes;
      if (bytes.byteLength !== bytesOfTensor(tensor)) {
        throw new RangeError(
          `tensor "${tensor.name}" has ${bytes.byteLength} bytes, expected ${bytesOfTensor(tensor)} (${tensor.dtype} [${tensor.shape.join(', ')}])`,
        );
      }
      for (let from = 0; from < bytes.byteLength; from += CHUNK_BYTES) {
        await file.writeFile(bytes.subarray(from, from + CHUNK_BYTES));
      }
    }
  });
}

export function bytesOfTensor({ dtype, shape }: Pick<TensorToWrite, 'dtype' | 'shape'>): number {
  return shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
}

/** Length and JSON, padded with spaces so that the data begins at a multiple of 64 bytes. */
function headerOf(tensors: readonly TensorToWrite[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const entries = new Map<string, unknown>();
  if (Object.keys(metadata).length > 0) entries.set('__metadata__', metadata);
  let end = 0;
  for (const tensor of tensors) {
    if (entries.has(tensor.name)) throw new RangeError(`two tensors are named "${tensor.name}"`);
    const begin = end;
    end += bytesOfTensor(tensor);
    entries.set(tensor.name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [begin, end] });
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const header = new Uint8Array(Math.ceil((8 + json.length) / 64) * 64).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(json, 8);
  return header;
}
