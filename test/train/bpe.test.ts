import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { loadChatTemplate, renderChat } from '../../src/tokenizer/chat-template.ts';
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { writeTokenizer } from '../../src/tokenizer/write-tokenizer.ts';
import { type Bpe, SPLIT_PATTERN, trainBpe } from '../../src/train/bpe.ts';

const SPECIALS = ['<|bos|>', '<|eos|>', '<|pad|>', '<think>'];

const TALES = [
  "The old fox said: 'Do not go there.' She didn't go, and the fox didn't either.",
  'Once upon a time there were 17 apples; 17 more made 34. The theme of the thesis: there, then, they.',
  'aaaaaaaa aaaa bananas, banana bandanas. Ärger über Äpfel: überall 😀😀 naïve café.\n\n  Two  spaces.\n',
];

async function saved(bpe: Bpe): Promise<{ tokenizer: Tokenizer; folder: string }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'farthing-bpe-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  await writeTokenizer(folder, {
    ...bpe,
    splitPattern: SPLIT_PATTERN,
    specials: SPECIALS,
    shown: ['<think>'],
    bos: '<|bos|>',
    eos: '<|eos|>',
    pad: '<|pad|>',
    chatTemplate: '{{ bos_token }}{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}',
    maxLength: 128,
  });
  return { tokenizer: (await loadTokenizer(folder))!, folder };
}

/** Counts every pair anew for each merge, on strings; returns merges and the pieces of every word. */
function plainTrainer(texts: readonly string[], merges: number) {
  const words = new Map<string, { pieces: string[]; count: number }>();
  for (const [word] of texts.flatMap((text) => [...text.matchAll(new RegExp(SPLIT_PATTERN, 'gu'))])) {
    const pieces = [...Buffer.from(word)].map((byte) => String.fromCharCode(byte));
    const known = words.get(word);
    if (known) known.count++;
    else words.set(word, { pieces, count: 1 });
  }
  const learnt: [string, string][] = [];
  const age = new Map<string, number>();
  for (let step = 0; step < merges; step++) {
    const counts = new Map<string, number>();
    for (const { pieces, count } of words.values()) {
      for (let i = 0; i + 1 < pieces.length; i++) {
        const pair = JSON.stringify([pieces[i], pieces[i + 1]]);
        counts.set(pair, (counts.get(pair) ?? 0) + count);
      }
    }
    const most = Math.max(...counts.values());
    if (!(most > 1)) break;
    const rank = (piece: string) => age.get(piece) ?? BYTE_ORDER.indexOf(piece) - 256;
    const [best] = [...counts]
      .filter(([, count]) => count === most)
      .map(([pair]) => JSON.parse(pair) as [string, string])
      .sort((x, y) => rank(x[0]) - rank(y[0]) || rank(x[1]) - rank(y[1]));
    const [left, right] = best!;
    learnt.push([left, right]);
    if (!age.has(left + right)) age.set(left + right, age.size);
    for (const word of words.values()) {
      for (let i = 0; i + 1 < word.pieces.length; i++) {
        if (word.pieces[i] === left && word.pieces[i + 1] === right) word.pieces.splice(i, 2, left + right);
      }
    }
  }
  return { learnt, words };
}

/** Bytes as strings in the order of their ids: printable Latin-1 first, then the 68 others. */
const BYTE_ORDER = Array.from({ length: 256 }, (_, byte) => byte)
  .sort((x, y) => Number(hidden(x)) - Number(hidden(y)) || x - y)
  .map((byte) => String.fromCharCode(byte));

function hidden(byte: number): boolean {
  return byte < 0x21 || (byte > 0x7e && byte < 0xa1) || byte === 0xad;
}

/** A token of the byte alphabet as bytes in a string. */
const asBytes = (tokenizer: Tokenizer, id: number) => Buffer.from(tokenizer.bytes(id)).toString('latin1');

async function comparePlain(texts: readonly string[], merges: number): Promise<void> {
  const bpe = trainBpe(texts, SPECIALS.length + 256 + merges, SPECIALS);
  const { tokenizer } = await saved(bpe);
  const idOf = new Map(bpe.vocabulary.map((token, id) => [token, id]));
  const { learnt, words } = plainTrainer(texts, bpe.merges.length);
  expect(bpe.merges.map((merge) => merge.map((token) => asBytes(tokenizer, idOf.get(token)!)))).toEqual(learnt);
  for (const [word, { pieces }] of words) {
    const ids = tokenizer.encode(word, { addSpecialTokens: false });
    expect([word, ids.map((id) => asBytes(tokenizer, id))]).toEqual([word, pieces]);
  }
}

test('learns the merges of a trainer that counts everything anew, and its file splits words likewise', async () => {
  await comparePlain(TALES, 120);
});

test('so it does on any text', async () => {
  const text = fc
    .array(fc.constantFrom('a', 'b', 'ab', 'c', ' ', 'é', '7'), { maxLength: 60 })
    .map((parts) => parts.join(''));
  await fc.assert(
    fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 4 }), (texts) => comparePlain(texts, 30)),
    { numRuns: 60 },
  );
});

test('any text comes back from its tokens', async () => {
  const { tokenizer } = await saved(trainBpe(TALES, 400, SPECIALS));
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      expect(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: true })).toBe(text);
    }),
  );
});

test('digits stand alone, special tokens are one token, bos is added', async () => {
  const { tokenizer, folder } = await saved(trainBpe(TALES, 290, SPECIALS));
  const ids = tokenizer.encode('<think>1734', { addSpecialTokens: false });
  expect(ids.map((id) => tokenizer.decode([id]))).toEqual(['<think>', '1', '7', '3', '4']);
  expect(tokenizer).toMatchObject({ vocabSize: 290, bosTokenId: 0, eosTokenIds: [1] });
  expect(tokenizer.encode('fox')[0]).toBe(0);
  const chat = renderChat((await loadChatTemplate(folder))!, [{ role: 'user', content: 'fox' }]);
  expect(chat).toBe('<|bos|>fox<|eos|>');
});

test('the order of the texts changes nothing', () => {
  expect(trainBpe([...TALES].reverse(), 380, SPECIALS)).toEqual(trainBpe(TALES, 380, SPECIALS));
});

test('training stops when no pair occurs twice', () => {
  expect(trainBpe(['abcd'], 1000, []).merges).toEqual([]);
});

test('a vocabulary too small for the bytes is refused', () => {
  expect(() => trainBpe(TALES, 200, SPECIALS)).toThrow(/vocabulary of 200, expected at least 260/);
});
