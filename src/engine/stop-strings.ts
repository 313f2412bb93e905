/**
 * Finds stop strings in text that arrives in pieces, wherever the pieces break. Text that may turn out to be the
 * beginning of a stop string is held back until it is known.
 */

export interface StopMatcher {
  /** Text that is certain to come before any stop string. Nothing follows once `stopped`. */
  push(piece: string): { text: string; stopped: boolean };
  /** What was held back, at the end of the text. */
  flush(): string;
}

/**
 * Matches the stop string that is completed first, so that the result does not depend on how the text is broken; the
 * stop string itself is not part of the text.
 */
export function createStopMatcher(stops: readonly string[]): StopMatcher {
  let held = '';
  return {
    push(piece) {
      held += piece;
      const found = firstCompleted(held, stops);
      if (found !== null) {
        const text = held.slice(0, found);
        held = '';
        return { text, stopped: true };
      }
      const open = Math.max(0, ...stops.map((stop) => beginningAtEnd(held, stop)));
      const text = held.slice(0, held.length - open);
      held = held.slice(held.length - open);
      return { text, stopped: false };
    },
    flush() {
      const text = held;
      held = '';
      return text;
    },
  };
}

/** Where the stop string begins that ends first (the longest of those that end there); null when there is none. */
function firstCompleted(text: string, stops: readonly string[]): number | null {
  let start: number | null = null;
  let end = Number.POSITIVE_INFINITY;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at === -1) continue;
    const earlier = at + stop.length < end || (at + stop.length === end && at < (start ?? 0));
    if (earlier) {
      start = at;
      end = at + stop.length;
    }
  }
  return start;
}

/** Length of the longest end of `text` that is a beginning of `wanted` but not all of it. */
export function beginningAtEnd(text: string, wanted: string): number {
  for (let length = Math.min(wanted.length - 1, text.length); length > 0; length--) {
    if (wanted.startsWith(text.slice(text.length - length))) return length;
  }
  return 0;
}
