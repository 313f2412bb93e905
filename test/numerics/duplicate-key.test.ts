import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { duplicateKey } from '../../src/numerics/duplicate-key.ts';

describe('duplicateKey', () => {
  test('a key that one object holds twice is found at any depth, however it is written', () => {
    expect(duplicateKey('{"a": 1, "b": {"c": 1, "c" : 2}}')).toBe('c');
    expect(duplicateKey('[{"a": 1}, {"x": [], "\\u0078": 0}]')).toBe('x');
    expect(duplicateKey('{"\\"": 1, "\\"": 2}')).toBe('"');
    expect(duplicateKey('{"__proto__": 1, "__proto__": 2}')).toBe('__proto__');
  });

  test('equal keys of different objects, and equal strings that are no keys, are left alone', () => {
    expect(duplicateKey('{"a": {"a": ["a", "a", "{", "\\\\"]}, "b": {"a": "a:"}}')).toBe(null);
    fc.assert(fc.property(fc.json(), (json) => duplicateKey(JSON.stringify(JSON.parse(json))) === null));
  });
});
