import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createStopMatcher } from '../../src/engine/stop-strings.ts';

/** Any way to break a text into pieces. */
const pieces = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 5 }), { maxLength: 12 });
const stopList = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n'), minLength: 1, maxLength: 4 }), {
  minLength: 1,
  maxLength: 3,
});

function feed(stops: string[], parts: string[]) {
  const matcher = createStopMatcher(stops);
  let text = '';
  for (const part of parts) {
    const pushed = matcher.push(part);
    text += pushed.text;
    if (pushed.stopped) return { text, stopped: true };
  }
  return { text: text + matcher.flush(), stopped: false };
}

test('the text ends before the stop string that is completed first, wherever the pieces break', () => {
  fc.assert(
    fc.property(stopList, pieces, (stops, parts) => {
      const whole = parts.join('');
      const ends = stops.filter((stop) => whole.includes(stop)).map((stop) => whole.indexOf(stop) + stop.length);
      if (ends.length === 0) {
        expect(feed(stops, parts)).toEqual({ text: whole, stopped: false });
        return;
      }
      // One letter at a time, the stop string that ends first decides; the earliest beginning among equals.
      const end = Math.min(...ends);
      const starts = stops.filter((stop) => whole.slice(0, end).endsWith(stop)).map((stop) => end - stop.length);
      expect(feed(stops, [...whole])).toEqual({ text: whole.slice(0, Math.min(...starts)), stopped: true });
      expect(feed(stops, parts)).toEqual(feed(stops, [...whole]));
    }),
    { numRuns: 2000 },
  );
});

test('text that cannot begin a stop string is passed on at once', () => {
  const matcher = createStopMatcher(['###']);
  expect(matcher.push('one #')).toEqual({ text: 'one ', stopped: false });
  expect(matcher.push('two')).toEqual({ text: '#two', stopped: false });
  expect(matcher.push('##').text).toBe('');
  expect(matcher.flush()).toBe('##');
});
