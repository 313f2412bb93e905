import fc from 'fast-check';
import { expect, test } from 'vitest';
import { spokenUpTo } from '../../web/chat/spoken.ts';

test('sentences are told when they are over, and no sooner', () => {
  const told = (text: string) => text.slice(0, spokenUpTo(text, 0, false));
  expect(told('Once upon a time')).toBe('');
  expect(told('There was a fox.')).toBe('');
  expect(told('There was a fox. He')).toBe('There was a fox. ');
  expect(told('“Sing!” said the fox. “Will')).toBe('“Sing!” said the fox. ');
  expect(told('17 + 5 = 22\n22 - 3')).toBe('17 + 5 = 22\n');
  expect(told('It costs 3.50 in all')).toBe('');
});

test('everything is told once and in order, however the text comes', () => {
  const letters = fc.array(fc.constantFrom('a', ' ', '.', '!', '\n', '”', '3'), { maxLength: 60 });
  fc.assert(
    fc.property(letters, fc.array(fc.nat(60), { maxLength: 12 }), (parts, at) => {
      const text = parts.join('');
      let heard = '';
      for (const length of [...at.filter((n) => n < text.length).sort((a, b) => a - b), text.length]) {
        heard += text.slice(heard.length, spokenUpTo(text.slice(0, length), heard.length, false));
      }
      heard += text.slice(heard.length, spokenUpTo(text, heard.length, true));
      expect(heard).toBe(text);
    }),
  );
});
