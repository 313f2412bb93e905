import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { mapFile } from '../../src/backend/native.ts';
import { openSafetensors } from '../../src/model/mapped-safetensors.ts';

const folder = mkdtempSync(join(tmpdir(), 'farthing-mapped-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('openSafetensors', () => {
  test('a file larger than 4 GiB gives every tensor, also those that lie across gigabytes', () => {
    const path = join(folder, 'large.safetensors');
    const GiB = 2 ** 30;
    const sizes = { first: 1.5 * GiB, across: 1.75 * GiB, large: 3 * GiB, last: 16 };
    const header: Record<string, unknown> = {};
    let end = 0;
    for (const [name, size] of Object.entries(sizes)) {
      header[name] = { dtype: 'U8', shape: [size], data_offsets: [end, end + size] };
      end += size;
    }
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    writeFileSync(path, Buffer.concat([length, json]));
    // A hole of zeros takes no room on disk; only the ends of each tensor are written.
    truncateSync(path, 8 + json.length + end);
    const file = openSync(path, 'r+');
    let begin = 8 + json.length;
    for (const [which, size] of Object.values(sizes).entries()) {
      writeSync(file, Uint8Array.of(10 + which), 0, 1, begin);
      writeSync(file, Uint8Array.of(20 + which), 0, 1, begin + size - 1);
      begin += size;
    }
    closeSync(file);
    const { tensors } = openSafetensors(path);
    const ends = [...tensors.values()].map(({ bytes }) => [bytes.length, bytes[0], bytes[bytes.length - 1]]);
    expect(ends).toEqual(Object.values(sizes).map((size, which) => [size, 10 + which, 20 + which]));
  });

  test('what is no file, or not there, is named', () => {
    expect(() => openSafetensors(join(folder, 'none.safetensors'))).toThrow(/ENOENT.*none\.safetensors/);
  });

  test('no part outside a file is mapped', () => {
    const path = join(folder, 'small');
    writeFileSync(path, 'four');
    for (const [offset, bytes] of [
      [0, 5],
      [4, 1],
      [65536, 1],
      [0, 0],
      [-65536, 4],
      [0, 2 ** 53],
    ] as const) {
      expect(() => mapFile(path, offset, bytes)).toThrow(`${path}: has 4 bytes, expected ${bytes} from ${offset}`);
    }
    expect(() => mapFile(folder, 0, 1)).toThrow(`${folder}: not a regular file`);
    expect(Buffer.from(mapFile(path, 0, 4)).toString()).toBe('four');
  });
});
