import { Tokenizer as Library } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fixtureText, fixtureTokenizer } from './fixtures.ts';

const RUNS = ['a', ' ', '\n', '!', '中文字', '😀', 'ab', "'", '\u0301', '=-', 'haha', '𐑏', '\t '];

test.each(['deepseek-r1', 'gpt2'])('%s: long runs and any text merge as in the library', async (name) => {
  const ours = await fixtureTokenizer(name);
  const library = new Library(JSON.parse(fixtureText(`${name}/tokenizer.json.gz`)), {});
  const theirs = (text: string): number[] => library.encode(text, { add_special_tokens: false }).ids;
  for (const run of RUNS) {
    const text = run.repeat(400);
    expect([run, ours.encode(text, { addSpecialTokens: false })]).toEqual([run, theirs(text)]);
  }
  const words = fc.stringMatching(/^[a-zA-Z' .,!é中]{1,60}$/);
  fc.assert(
    fc.property(words, (text) => {
      expect(ours.encode(text, { addSpecialTokens: false })).toEqual(theirs(text));
    }),
  );
});

test('a megabyte without a space is encoded and comes back', async () => {
  const tokenizer = await fixtureTokenizer('deepseek-r1');
  const text = 'abcdefgh'.repeat(2 ** 17);
  expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
});
