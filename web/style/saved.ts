/** Signals whose value outlives the page: kept in localStorage, checked by a schema when read back. */
import { effect, type Signal, signal } from '@preact/signals';
import type * as z from 'zod/mini';

/** Set once the browser has refused to keep something (private window, storage full): it will be lost on leaving. */
export const storageRefused = signal(false);

/**
 * @param initial the value on a first visit, and where what is stored does not fit the schema
 * @param delayMs how long writing may lag behind the value; what is pending is written when the page is left
 */
export function saved<T>(key: string, schema: z.ZodMiniType<T>, initial: T, delayMs = 0): Signal<T> {
  const value = signal(read(key, schema) ?? initial);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const write = () => {
    clearTimeout(timer);
    timer = undefined;
    try {
      localStorage.setItem(key, JSON.stringify(value.peek()));
    } catch {
      storageRefused.value = true;
    }
  };
  let first = true;
  effect(() => {
    value.value;
    if (first) first = false;
    else if (delayMs === 0) write();
    else timer ??= setTimeout(write, delayMs);
  });
  addEventListener('pagehide', () => {
    if (timer !== undefined) write();
  });
  return value;
}

function read<T>(key: string, schema: z.ZodMiniType<T>): T | undefined {
  try {
    return schema.safeParse(JSON.parse(localStorage.getItem(key) ?? 'null')).data;
  } catch {
    // No storage, or not JSON: as good as nothing stored.
    return undefined;
  }
}
