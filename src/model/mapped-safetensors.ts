/** A safetensors file mapped into memory: only what is looked at is ever read from disk. */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { adviseMapped, mapFile } from '../backend/native.ts';
import { type FileBytes, readSafetensors, type SafetensorsFile } from '../numerics/safetensors.ts';

/**
 * The file must not shrink while it is in use: replace checkpoints by renaming a new file over the old one.
 * @param fileName as it should be named in messages
 * @throws SafetensorsError naming file and tensor; Error when the file cannot be opened
 */
export function openSafetensors(path: string, fileName = basename(path)): SafetensorsFile {
  return readSafetensors(mappedBytes(path), fileName);
}

/** Node 20 has no ArrayBuffer over foreign memory larger than 4 GiB, and published shards are larger. */
const WINDOW_BYTES = 2 ** 32;
const STEP_BYTES = WINDOW_BYTES / 2;
/** A multiple of every page size. */
const ALIGNMENT = 2 ** 16;

/**
 * A file seen through windows that begin every 2 GiB and are 4 GiB long, so that a range of up to 2 GiB lies in one.
 * Each is mapped when first looked through: mapping makes Node collect garbage, as if the memory had been allocated.
 */
function mappedBytes(path: string): FileBytes {
  const { size } = statSync(path);
  const windows = new Map<number, ArrayBuffer>();
  const map = (start: number, bytes: number) => mapFile(path, start, Math.min(bytes, size - start));
  const windowOf = (offset: number) => {
    const start = offset - (offset % STEP_BYTES);
    const window = windows.get(start) ?? map(start, WINDOW_BYTES);
    windows.set(start, window);
    return { window, start };
  };
  return {
    size,
    read: (offset, bytes) => readBytes(path, offset, bytes),
    view(offset, bytes) {
      if (bytes === 0) return new Uint8Array(0);
      if (bytes > STEP_BYTES) {
        const start = offset - (offset % ALIGNMENT);
        return new Uint8Array(map(start, offset - start + bytes), offset - start, bytes);
      }
      const { window, start } = windowOf(offset);
      return new Uint8Array(window, offset - start, bytes);
    },
    advise(offset, bytes, when) {
      if (bytes === 0 || bytes > STEP_BYTES) return;
      const { window, start } = windowOf(offset);
      adviseMapped(window, offset - start, bytes, when === 'soon');
    },
  };
}

function readBytes(path: string, offset: number, bytes: number): Uint8Array {
  const content = new Uint8Array(bytes);
  const file = openSync(path, 'r');
  try {
    readSync(file, content, 0, bytes, offset);
  } finally {
    closeSync(file);
  }
  return content;
}
