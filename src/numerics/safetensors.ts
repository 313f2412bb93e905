/**
 * Reading safetensors files: 8 bytes of header length (little-endian), a JSON header, then the tensors' bytes. Nothing
 * in a header is believed before it is checked: names, types, sizes, and that the tensors fill the file exactly.
 */
import { constants } from 'node:buffer';
import { DTYPE_BYTES, isStoredDType, type StoredDType } from './dtype.ts';
import { duplicateKey } from './duplicate-key.ts';
import { FormatError, shown } from './format-error.ts';

export class SafetensorsError extends FormatError {
  override name = 'SafetensorsError';
}

export interface SafetensorsTensor {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  /** A view of the file, made when asked for; row-major, not necessarily aligned to the element size. */
  readonly bytes: Uint8Array;
  /** Begins to read the bytes, or gives back the memory that looking at them took; they can be looked at again. */
  advise(when: 'soon' | 'done'): void;
}

export interface SafetensorsFile {
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The format's own limit; a real header holds some hundred bytes a tensor. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;

/** Bytes of a file, wherever they are held. */
export interface FileBytes {
  readonly size: number;
  /** For the header: read now. */
  read(offset: number, bytes: number): Uint8Array;
  /** For a tensor: a view of the file. */
  view(offset: number, bytes: number): Uint8Array;
  /** That a range will be looked at soon, or is done with for now. */
  advise(offset: number, bytes: number, when: 'soon' | 'done'): void;
}

/** @param file the whole file in memory; tensors are views of it. Otherwise as `readSafetensors` */
export function parseSafetensors(file: ArrayBuffer, fileName: string): SafetensorsFile {
  const view = (offset: number, bytes: number) => new Uint8Array(file, offset, bytes);
  return readSafetensors({ size: file.byteLength, read: view, view, advise() {} }, fileName);
}

/**
 * @param fileName as it should be named in messages
 * @throws SafetensorsError naming file and tensor, expected and found
 */
export function readSafetensors(file: FileBytes, fileName: string): SafetensorsFile {
  const refuse: Refuse = (problem) => {
    throw new SafetensorsError(`${fileName}: ${problem}`);
  };
  const header = parseHeader(file, refuse);
  const dataStart = LENGTH_BYTES + header.bytes;
  const metadata = parseMetadata(header.entries.get('__metadata__'), refuse);
  header.entries.delete('__metadata__');

  const ranges = [...header.entries]
    .map(([name, entry]) => parseEntry(name, entry, refuse))
    .sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkTheyFillTheFile(ranges, file.size - dataStart, refuse);
  const tensors = new Map<string, SafetensorsTensor>();
  for (const { name, dtype, shape, begin, end } of ranges) {
    tensors.set(name, {
      name,
      dtype,
      shape,
      get bytes() {
        return file.view(dataStart + begin, end - begin);
      },
      advise: (when) => file.advise(dataStart + begin, end - begin, when),
    });
  }
  return { tensors, metadata };
}

type Refuse = (problem: string) => never;

interface Range {
  readonly name: string;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

function parseHeader(file: FileBytes, refuse: Refuse): { bytes: number; entries: Map<string, unknown> } {
  if (file.size < LENGTH_BYTES) {
    refuse(
      `has ${count(file.size, 'byte')}, expected at least the ${LENGTH_BYTES} of a header length. It is truncated`,
    );
  }
  const start = file.read(0, LENGTH_BYTES);
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    refuse(`the header length says ${length} bytes, expected at most ${MAX_HEADER_BYTES}. It is no safetensors file`);
  }
  const bytes = Number(length);
  if (bytes > file.size - LENGTH_BYTES) {
    refuse(`the header length says ${bytes} bytes, but only ${file.size - LENGTH_BYTES} follow. The file is truncated`);
  }
  let text: string;
  try {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    text = decoder.decode(file.read(LENGTH_BYTES, bytes));
  } catch {
    return refuse('the header is not UTF-8 text');
  }
  if (!text.startsWith('{')) refuse(`the header starts with ${JSON.stringify(text.slice(0, 1))}, expected "{"`);
  let header: object;
  try {
    header = JSON.parse(text);
  } catch (error) {
    return refuse(`the header is not JSON: ${(error as Error).message}`);
  }
  const repeated = duplicateKey(text);
  if (repeated !== null) refuse(`the header names "${repeated}" twice`);
  return { bytes, entries: new Map<string, unknown>(Object.entries(header)) };
}

function parseMetadata(entry: unknown, refuse: Refuse): Record<string, string> {
  if (entry === undefined) return {};
  if (!isRecord(entry)) return refuse(`__metadata__ is ${shown(entry)}, expected an object of strings`);
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== 'string') refuse(`__metadata__ "${key}" is ${shown(value)}, expected a string`);
  }
  return entry as Record<string, string>;
}

function parseEntry(name: string, entry: unknown, refuse: Refuse): Range {
  const refuseTensor: Refuse = (problem) => refuse(`tensor "${name}" ${problem}`);
  if (!isRecord(entry)) {
    return refuseTensor(`is described by ${shown(entry)}, expected { dtype, shape, data_offsets }`);
  }
  const foreign = Object.keys(entry).find((key) => key !== 'dtype' && key !== 'shape' && key !== 'data_offsets');
  if (foreign !== undefined) refuseTensor(`has a key "${foreign}", expected dtype, shape and data_offsets only`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string' || !isStoredDType(dtype)) {
    return refuseTensor(`has dtype ${shown(dtype)}, expected one of ${Object.keys(DTYPE_BYTES).join(', ')}`);
  }
  if (!isSizes(shape)) return refuseTensor(`has shape ${shown(shape)}, expected an array of whole sizes from 0`);
  if (!isSizes(offsets) || offsets.length !== 2) {
    return refuseTensor(`has data_offsets ${shown(offsets)}, expected [begin, end] in bytes`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end) refuseTensor(`has data_offsets [${begin}, ${end}], expected begin not past end`);
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
  if (bytes !== end - begin) {
    refuseTensor(`has ${end - begin} bytes, expected ${bytes} (${dtype} [${shape.join(', ')}])`);
  }
  if (bytes > constants.MAX_LENGTH) {
    refuseTensor(`has ${bytes} bytes, more than the ${constants.MAX_LENGTH} that this Node.js can address in one view`);
  }
  return { name, dtype, shape, begin, end };
}

/** The tensors lie side by side from the first byte of the data to the last. @param ranges in order of begin */
function checkTheyFillTheFile(ranges: readonly Range[], dataBytes: number, refuse: Refuse): void {
  let filled = 0;
  let previous = '';
  for (const { name, begin, end } of ranges) {
    if (end > dataBytes) {
      refuse(`tensor "${name}" ends at byte ${end} of the data, but the file holds ${dataBytes}. It is truncated`);
    }
    if (begin < filled) refuse(`tensor "${name}" begins at byte ${begin}, inside tensor "${previous}" (to ${filled})`);
    if (begin > filled)
      refuse(`tensor "${name}" begins at byte ${begin}, expected ${filled}: a hole of ${begin - filled} bytes`);
    filled = end;
    previous = name;
  }
  if (filled !== dataBytes) refuse(`${count(dataBytes - filled, 'byte')} after the last tensor, expected none`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
}
