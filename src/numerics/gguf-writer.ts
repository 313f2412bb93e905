/** Writing GGUF files (version 3), the format of llama.cpp: key-value metadata, tensor infos, aligned data. */
import { replaceFile } from './replace-file.ts';

/** Element types by their numbers in the format. */
const GGUF_TYPES = { F32: 0, Q8_0: 8, BF16: 30 } as const;
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

/** Bytes of a tensor: Q8_0 holds blocks of 32 values in 34 bytes along the innermost axis. */
function ggufBytes(type: GgufType, shape: readonly number[]): number {
  const count = shape.reduce((a, b) => a * b, 1);
  return type === 'Q8_0' ? (count / 32) * 34 : count * (type === 'F32' ? 4 : 2);
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

/** Q8_0: blocks of 32 values, an f16 scale (largest magnitude / 127) and 32 signed bytes, rounded half away from zero. */
export function quantiseQ8(values: Float32Array): Uint8Array {
  if (values.length % 32 !== 0) throw new RangeError(`${values.length} values, expected a multiple of 32`);
  const out = new Uint8Array((values.length / 32) * 34);
  const view = new DataView(out.buffer);
  for (let block = 0; block < values.length / 32; block++) {
    let most = 0;
    for (let i = 0; i < 32; i++) most = Math.max(most, Math.abs(values[block * 32 + i]!));
    const scale = most / 127;
    const inverse = scale > 0 ? 1 / scale : 0;
    view.setUint16(block * 34, float32ToF16(scale), true);
    for (let i = 0; i < 32; i++) {
      const scaled = values[block * 32 + i]! * inverse;
      view.setInt8(block * 34 + 2 + i, Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5));
    }
  }
  return out;
}

const floatBits = new Float32Array(1);
const intBits = new Uint32Array(floatBits.buffer);

/** Nearest f16 of a non-negative number in its range, ties to even. */
export function float32ToF16(value: number): number {
  floatBits[0] = value;
  const bits = intBits[0]!;
  const exponent = (bits >>> 23) - 112;
  if (exponent >= 31) return 0x7c00;
  if (exponent <= 0) return roundHalfEven(value * 2 ** 24);
  const rest = bits & 0x1fff;
  const half = (exponent << 10) | ((bits >>> 13) & 0x3ff);
  return half + (rest > 0x1000 || (rest === 0x1000 && (half & 1) === 1) ? 1 : 0);
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
}
