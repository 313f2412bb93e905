import { expect, test } from 'vitest';
import { recast } from '../../models/recast.ts';

const tale =
  'Once there was an owl. The owl met a mouse, and all the other mice ran. "Fish are for fish!" said the Owl to the mouse.';

test('a cast is exchanged throughout: plurals, articles and capitals with it', () => {
  for (let seed = 0; seed < 200; seed++) {
    const { text, about } = recast(tale, seed, 0);
    const [, owl] = /^Once there was (?:an? )(\w+)\. The \1 met/.exec(text) ?? [];
    expect(owl).toBeDefined();
    expect(text).toContain(`said the ${owl![0]!.toUpperCase()}${owl!.slice(1)} to`);
    for (const [, article, noun] of text.matchAll(/\b(an?) (\w+)/g))
      expect([noun, /^[aeiou]/.test(noun!)]).toEqual([noun, article === 'an']);
    const [, mouse, mice] = /met an? (\w+), and all the other (\w+) ran/.exec(text)!;
    expect(mouse).not.toBe(owl);
    expect([
      `${mouse}s`,
      mice === mouse
        ? mouse
        : 'mice wolves geese foxes butterflies puppies bunnies ponies'.split(' ').find((p) => p === mice),
    ]).toContain(mice);
    expect(about).toContainEqual(expect.stringMatching(new RegExp(`^an? ${owl}$`)));
  }
});

test('a named child has another name from beginning to end, and the tale is about it', () => {
  const { text, about } = recast('A girl named Lily sang. Lily danced. Then Lily slept.', 4, 1);
  const [, name] = /named (\w+) sang\. \1 danced\. Then \1 slept\.$/.exec(text) ?? [];
  expect(name).toBeDefined();
  expect(about).toHaveLength(1);
});

test('a tale without a cast stays as it is, and a cast is a function of seed and index', () => {
  expect(recast('A car was red.', 1, 1)).toEqual({ text: 'A car was red.', about: [] });
  expect(recast(tale, 5, 7)).toEqual(recast(tale, 5, 7));
  expect(recast(tale, 5, 7)).not.toEqual(recast(tale, 6, 7));
});
