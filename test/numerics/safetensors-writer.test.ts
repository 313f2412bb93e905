import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { DTYPE_BYTES, type StoredDType } from '../../src/numerics/dtype.ts';
import { parseSafetensors } from '../../src/numerics/safetensors.ts';
import { writeSafetensors } from '../../src/numerics/safetensors-writer.ts';

const folder = mkdtempSync(join(tmpdir(), 'farthing-safetensors-'));
afterAll(() => rmSync(folder, { recursive: true }));

const read = (path: string) => parseSafetensors(new Uint8Array(readFileSync(path)).buffer, path);

const tensors = fc.uniqueArray(
  fc
    .record({
      name: fc.string({ minLength: 1 }).filter((name) => name !== '__metadata__'),
      dtype: fc.constantFrom<StoredDType>('F32', 'BF16', 'F8_E4M3', 'I64', 'U8'),
      shape: fc.array(fc.nat({ max: 5 }), { maxLength: 3 }),
    })
    .map((tensor) => {
      const size = tensor.shape.reduce((product, axis) => product * axis, DTYPE_BYTES[tensor.dtype]);
      return { ...tensor, bytes: Uint8Array.from({ length: size }, (_, i) => (i * 37 + tensor.name.length) & 255) };
    }),
  { selector: ({ name }) => name, maxLength: 6 },
);

describe('writeSafetensors', () => {
  test('what is written is read back, each tensor aligned to its elements', async () => {
    const path = join(folder, 'round-trip.safetensors');
    const metadata = fc.dictionary(fc.string(), fc.string());
    await fc.assert(
      fc.asyncProperty(tensors, metadata, fc.boolean(), async (written, metadata, late) => {
        await writeSafetensors(path, late ? written.map((t) => ({ ...t, bytes: () => t.bytes })) : written, metadata);
        const file = read(path);
        expect(Object.entries(file.metadata).sort()).toEqual(Object.entries(metadata).sort());
        expect(file.tensors.size).toBe(written.length);
        for (const { name, dtype, shape, bytes } of written) {
          const found = file.tensors.get(name)!;
          expect(found).toMatchObject({ dtype, shape });
          expect(Buffer.from(found.bytes).equals(bytes)).toBe(true);
          expect(found.bytes.byteOffset % DTYPE_BYTES[dtype]).toBe(0);
        }
      }),
      { numRuns: 50 },
    );
  });

  test('a header is what the format says: its length, JSON, the data where the offsets say', async () => {
    const path = join(folder, 'header.safetensors');
    await writeSafetensors(
      path,
      [
        { name: 'small', dtype: 'U8', shape: [3], bytes: Uint8Array.of(7, 8, 9) },
        { name: 'large', dtype: 'F32', shape: [1, 1], bytes: Uint8Array.of(0, 0, 128, 63) },
      ],
      { format: 'pt' },
    );
    const file = readFileSync(path);
    const headerBytes = Number(file.readBigUInt64LE(0));
    expect(JSON.parse(file.toString('utf8', 8, 8 + headerBytes))).toEqual({
      __metadata__: { format: 'pt' },
      large: { dtype: 'F32', shape: [1, 1], data_offsets: [0, 4] },
      small: { dtype: 'U8', shape: [3], data_offsets: [4, 7] },
    });
    expect(file.readFloatLE(8 + headerBytes)).toBe(1);
    expect([...file.subarray(8 + headerBytes + 4)]).toEqual([7, 8, 9]);
  });

  test('a write that fails leaves the old file as it was and nothing beside it', async () => {
    const kept = mkdtempSync(join(folder, 'kept-'));
    const old = join(kept, 'model.safetensors');
    writeFileSync(old, 'the old file');
    const ok = { name: 'a', dtype: 'U8', shape: [2], bytes: Uint8Array.of(1, 2) } as const;
    const fails = () => Promise.reject(new Error('the disk is gone'));
    await expect(writeSafetensors(old, [ok, { ...ok, name: 'b', bytes: fails }])).rejects.toThrow('the disk is gone');
    await expect(writeSafetensors(old, [{ ...ok, shape: [3] }])).rejects.toThrow(
      'tensor "a" has 2 bytes, expected 3 (U8 [3])',
    );
    await expect(writeSafetensors(old, [ok, ok])).rejects.toThrow('two tensors are named "a"');
    expect(readFileSync(old, 'utf8')).toBe('the old file');
    expect(readdirSync(kept)).toEqual(['model.safetensors']);
  });
});
