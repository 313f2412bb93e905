/** IEEE binary16: some published checkpoints store it, and GGUF files keep their scales in it. */

/** f32 [n] from f16 bit patterns [n]; exact. */
export function f16ToFloat32(bits: Uint16Array): Float32Array {
  const values = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i]!;
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 31) values[i] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else if (exponent === 0) values[i] = sign * fraction * 2 ** -24;
    else values[i] = sign * (1024 + fraction) * 2 ** (exponent - 25);
  }
  return values;
}

const floatBits = new Float32Array(1);
const intBits = new Uint32Array(floatBits.buffer);

/** Nearest f16, ties to even; beyond its range, infinity. */
export function float32ToF16(value: number): number {
  if (value < 0) return 0x8000 | float32ToF16(-value);
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
