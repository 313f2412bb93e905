/** Writing GGUF files (version 3), the format of llama.cpp: key-value metadata, tensor infos, aligned data. */
import { replaceFile } from './replace-file.ts';

/** Element types by their numbers in the format. */
const GGUF_TYPES = { F32: 0, Q4_0: 2, Q8_0: 8, BF16: 30 } as const;
export type GgufType = keyof typeof GGUF_TYPES;

export type GgufValue =
  | { readonly type: 'u32' | 'f32' | 'i32'; readonly value: number }
  | { readonly type: 'bool'; readonly value: boolean }
  | { readonly type: 'string'; readonly value: string }
  | { readonly type: 'strings'; readonly value: readonly string[] }
  | { readonly type: 'i32s'; readonly value: readonly number[] };

export interface GgufTensor {
  readonly name: string;
  readonly type: GgufType;
  /** Outermost first, as everywhere here; the file holds it innermost first. */
  readonly shape: readonly number[];
  readonly bytes: () => Uint8Array | Promise<Uint8Array>;
}

const ALIGNMENT = 32;
const VALUE_TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;
const padding = (bytes: number) => (ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT;

/** Q8_0 and Q4_0 hold blocks of 32 values along the innermost axis, in 34 and 18 bytes. */
const BYTES_PER_VALUE: Record<GgufType, number> = { F32: 4, BF16: 2, Q8_0: 34 / 32, Q4_0: 18 / 32 };

function ggufBytes(type: GgufType, shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1) * BYTES_PER_VALUE[type];
}

/** @throws RangeError when a tensor's bytes do not match its type and shape */
export async function writeGguf(
  path: string,
  metadata: Readonly<Record<string, GgufValue>>,
  tensors: readonly GgufTensor[],
): Promise<void> {
  const header = new HeaderBytes();
  header.raw(Buffer.from('GGUF'));
  header.u32(3);
  header.u64(tensors.length);
  header.u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    header.text(key);
    header.value(value);
  }
  let offset = 0;
  for (const { name, type, shape } of tensors) {
    header.text(name);
    header.u32(shape.length);
    for (const size of [...shape].reverse()) header.u64(size);
    header.u32(GGUF_TYPES[type]);
    header.u64(offset);
    const bytes = ggufBytes(type, shape);
    offset += bytes + padding(bytes);
  }
  const start = header.bytes();
  await replaceFile(path, async (file) => {
    await file.writeFile(Buffer.concat([start, Buffer.alloc(padding(start.length))]));
    for (const { name, type, shape, bytes } of tensors) {
      const content = await bytes();
      if (content.byteLength !== ggufBytes(type, shape)) {
        throw new RangeError(`tensor "${name}" has ${content.byteLength} bytes, expected ${ggufBytes(type, shape)}`);
      }
      await file.writeFile(content);
      await file.writeFile(Buffer.alloc(padding(content.byteLength)));
    }
  });
}

class HeaderBytes {
  private readonly parts: Buffer[] = [];

  raw(bytes: Buffer): void {
    this.parts.push(bytes);
  }
  u32(value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    this.raw(bytes);
  }
  i32(value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    this.raw(bytes);
  }
  u64(value: number): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    this.raw(bytes);
  }
  text(value: string): void {
    const bytes = Buffer.from(value, 'utf8');
    this.u64(bytes.length);
    this.raw(bytes);
  }
  value(of: GgufValue): void {
    if (of.type === 'strings' || of.type === 'i32s') {
      this.u32(VALUE_TYPES.array);
      this.u32(of.type === 'strings' ? VALUE_TYPES.string : VALUE_TYPES.i32);
      this.u64(of.value.length);
      for (const item of of.value) typeof item === 'string' ? this.text(item) : this.i32(item);
      return;
    }
    this.u32(VALUE_TYPES[of.type]);
    if (of.type === 'string') this.text(of.value);
    else if (of.type === 'bool') this.raw(Buffer.from([of.value ? 1 : 0]));
    else if (of.type === 'f32') {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatLE(of.value);
      this.raw(bytes);
    } else if (of.type === 'i32') this.i32(of.value);
    else this.u32(of.value);
  }
  bytes(): Buffer {
    return Buffer.concat(this.parts);
  }
}
