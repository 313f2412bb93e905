import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseSafetensors, SafetensorsError } from '../../src/numerics/safetensors.ts';

const golden = new URL('../fixtures/golden/', import.meta.url);

/** A file of the given header text (its length first) and data bytes. */
function fileOf(header: string | Uint8Array, data: Uint8Array | number = 0): ArrayBuffer {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const content = typeof data === 'number' ? new Uint8Array(data) : data;
  const file = new Uint8Array(8 + json.length + content.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  file.set(content, 8 + json.length);
  return file.buffer;
}

/** What parsing gives: a file, or a message; anything else that is thrown fails the test. */
function outcome(file: ArrayBuffer) {
  try {
    return parseSafetensors(file, 'x.safetensors');
  } catch (error) {
    expect(error).toBeInstanceOf(SafetensorsError);
    expect((error as Error).message).toMatch(/^x\.safetensors: ./);
    return null;
  }
}

describe('parseSafetensors', () => {
  test('a file of the reference writer gives its tensors, values and metadata', () => {
    const file = new Uint8Array(readFileSync(new URL('v3-tiny/golden.safetensors', golden))).buffer;
    const { tensors } = parseSafetensors(file, 'golden.safetensors');
    const { prompts } = JSON.parse(readFileSync(new URL('v3-tiny/golden.json', golden), 'utf8'));
    for (const [k, prompt] of prompts.entries()) {
      const ids = tensors.get(`p${k}.input_ids`)!;
      expect(ids).toMatchObject({ dtype: 'I32', shape: [prompt.input_ids.length] });
      expect([...new Int32Array(ids.bytes.slice().buffer)]).toEqual(prompt.input_ids);
    }
    const model = new Uint8Array(readFileSync(new URL('v3-tiny/model.safetensors', golden))).buffer;
    expect(parseSafetensors(model, 'model.safetensors').metadata).toEqual({ format: 'pt' });
  });

  test('scalars, empty tensors, padding after the header and any order of entries are allowed', () => {
    const header = {
      second: { dtype: 'F32', shape: [], data_offsets: [2, 6] },
      none: { dtype: 'I64', shape: [3, 0], data_offsets: [2, 2] },
      first: { dtype: 'U8', shape: [2], data_offsets: [0, 2] },
    };
    const { tensors } = parseSafetensors(fileOf(`${JSON.stringify(header)}   `, Uint8Array.of(1, 2, 3, 4, 5, 6)), 'x');
    expect([...tensors.get('first')!.bytes]).toEqual([1, 2]);
    expect([...tensors.get('second')!.bytes]).toEqual([3, 4, 5, 6]);
    expect(tensors.get('none')!.bytes).toHaveLength(0);
  });

  test('names that are special to JavaScript are names like others', () => {
    const header =
      '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"constructor":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}';
    expect([...parseSafetensors(fileOf(header, 1), 'x').tensors.keys()].sort()).toEqual(['__proto__', 'constructor']);
  });

  test('sizes too large to be exact are not taken for matching', () => {
    const shapes = [
      '[4294967296,4294967296]',
      '[9007199254740991,9007199254740991,0]',
      '[1e300]',
      `[${'9'.repeat(400)}]`,
    ];
    for (const shape of shapes) outcome(fileOf(`{"a":{"dtype":"F32","shape":${shape},"data_offsets":[0,16]}}`, 16));
    expect(outcome(fileOf('{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}}', 16))).toBe(
      null,
    );
  });

  test('deeply nested JSON is refused or read, and does not crash', () => {
    const deep = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
    expect(outcome(fileOf(`{"a":${deep}}`))).toBe(null);
    expect(outcome(fileOf(`{"a":{"dtype":${deep},"shape":[],"data_offsets":[0,0]}}`))).toBe(null);
    expect(outcome(fileOf('{'.repeat(100_000)))).toBe(null);
    expect(outcome(fileOf(`{"${'\\"'.repeat(500_000)}":1}`))).toBe(null);
  });

  test('any bytes at all are read or refused by name', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        outcome(bytes.slice().buffer);
        outcome(fileOf(bytes, 16));
      }),
      { numRuns: 2000 },
    );
  });

  test('any JSON as header is read or refused by name', () => {
    const entry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom('F32', 'BF16', 'U8', 'F8_E4M3', 'F4'), fc.jsonValue()),
        shape: fc.oneof(fc.array(fc.integer({ min: -1, max: 5 }), { maxLength: 3 }), fc.jsonValue()),
        data_offsets: fc.oneof(
          fc.tuple(fc.integer({ min: -4, max: 40 }), fc.integer({ min: -4, max: 40 })),
          fc.jsonValue(),
        ),
      },
      { requiredKeys: ['dtype', 'shape'] },
    );
    const header = fc.dictionary(
      fc.oneof(fc.string(), fc.constantFrom('a', 'b', '__metadata__')),
      fc.oneof(entry, fc.jsonValue()),
      { maxKeys: 4 },
    );
    fc.assert(
      fc.property(fc.oneof(header, fc.jsonValue()), fc.nat({ max: 48 }), (json, dataBytes) => {
        const parsed = outcome(fileOf(JSON.stringify(json), dataBytes));
        const total = [...(parsed?.tensors.values() ?? [])].reduce((sum, { bytes }) => sum + bytes.length, 0);
        expect(total).toBe(parsed ? dataBytes : 0);
      }),
      { numRuns: 3000 },
    );
  });

  test('a good file with bytes changed is read or refused by name', () => {
    const header = JSON.stringify({
      __metadata__: { format: 'pt' },
      a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
      b: { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
    });
    const good = new Uint8Array(fileOf(header, 32));
    const change = fc.tuple(fc.nat({ max: 8 + header.length - 1 }), fc.nat({ max: 255 }));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), fc.nat({ max: good.length }), (changes, length) => {
        const damaged = good.slice();
        for (const [at, byte] of changes) damaged[at] = byte;
        outcome(damaged.buffer);
        outcome(damaged.slice(0, length).buffer);
      }),
      { numRuns: 3000 },
    );
  });
});
