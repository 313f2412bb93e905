/** Quantised blocks of GGUF files: 32 values share an f16 scale, as llama.cpp's reference code makes them. */
import { float32ToF16 } from './f16.ts';

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

/**
 * Q4_0: blocks of 32 values, an f16 scale (the value of largest magnitude / −8, so that it comes back exactly) and 16 bytes:
 * value i in the low half of byte i, value i + 16 in the high half, each offset by 8.
 */
export function quantiseQ4(values: Float32Array): Uint8Array {
  if (values.length % 32 !== 0) throw new RangeError(`${values.length} values, expected a multiple of 32`);
  const out = new Uint8Array((values.length / 32) * 18);
  const view = new DataView(out.buffer);
  for (let block = 0; block < values.length / 32; block++) {
    let most = 0;
    for (let i = 0; i < 32; i++) {
      const value = values[block * 32 + i]!;
      if (Math.abs(value) > Math.abs(most)) most = value;
    }
    const scale = most / -8;
    const inverse = scale === 0 ? 0 : 1 / scale;
    const code = (i: number) => Math.min(15, Math.floor(values[block * 32 + i]! * inverse + 8.5));
    view.setUint16(block * 18, float32ToF16(scale), true);
    for (let i = 0; i < 16; i++) out[block * 18 + 2 + i] = code(i) | (code(i + 16) << 4);
  }
  return out;
}
