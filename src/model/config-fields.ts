/**
 * The kinds of fields a config.json has, each with its range and the words for what is expected, and the one place
 * where a failed check becomes a message.
 */
import { z } from 'zod';
import { FormatError, shown } from '../numerics/format-error.ts';

export class ConfigError extends FormatError {
  override name = 'ConfigError';
}

/** Several times the largest published model, and small enough that no size made of them runs away. */
export const LIMITS = {
  vocab: 2 ** 22,
  width: 2 ** 20,
  layers: 512,
  heads: 4096,
  headDim: 4096,
  experts: 4096,
  expertsOfAllLayers: 2 ** 17,
  positions: 2 ** 28,
};

/** A whole number from `min` to `max`. */
export function whole(min: number, max: number) {
  const expected = `a whole number from ${min} to ${max}`;
  return z.int(expected).min(min, expected).max(max, expected);
}

/** A finite number from `min` to `max`. */
export function number(min: number, max: number) {
  const expected = `a number from ${min} to ${max}`;
  return z.number(expected).min(min, expected).max(max, expected);
}

export function oneOf<const Names extends readonly string[]>(names: Names) {
  return z.enum(names, `one of ${names.map((name) => `"${name}"`).join(', ')}`);
}

export function flag() {
  return z.boolean('true or false');
}

/** A field that changes the mathematics; only the value that leaves it as implemented is accepted, or none. */
export function only<const Value extends boolean | number | string>(value: Value, why: string) {
  return z.literal(value, `${JSON.stringify(value)} (${why})`).nullish();
}

/** Refuses a field that contradicts another: its key, what it is, what was expected of it. */
export type Refuse = (field: string, found: unknown, expected: string) => never;

export function refuseIn(fileName: string): Refuse {
  return (field, found, expected) => {
    throw new ConfigError(`${fileName}: "${field}" is ${shown(found)}, expected ${expected}`);
  };
}

/** @throws ConfigError with a line for every field that fails, expected and found */
export function parseFields<Schema extends z.ZodType>(schema: Schema, json: object, fileName: string): z.infer<Schema> {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => {
    if (issue.code === 'unrecognized_keys') {
      const keys = issue.keys.map((key) => `"${[...issue.path, key].join('.')}"`).join(', ');
      return `${fileName}: ${keys} is not known, and what it would change is not implemented`;
    }
    return `${fileName}: "${issue.path.join('.')}" is ${shown(valueAt(json, issue.path))}, expected ${issue.message}`;
  });
  throw new ConfigError(problems.join('\n'));
}

function valueAt(json: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], json);
}
