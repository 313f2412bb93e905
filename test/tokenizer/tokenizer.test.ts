import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createTextStream, loadTokenizer, type Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { fixtureLines, fixtureText, fixtureTokenizer, folderOf } from './fixtures.ts';

interface Vector {
  readonly text: string;
  readonly ids: readonly number[];
  readonly decoded_equal: boolean;
}

const streamed = (tokenizer: Tokenizer, ids: readonly number[], skipSpecialTokens: boolean) => {
  const stream = createTextStream(tokenizer, { skipSpecialTokens });
  return [...ids.map((id) => stream.push(id)), stream.flush()];
};

describe.each([
  ['deepseek-r1', 189],
  ['qwen2', 188],
  ['gpt-neox', 186],
  ['gpt2', 186],
])('%s', (name, count) => {
  const vectors = fixtureLines<Vector>(`${name}/vectors.jsonl.gz`);

  test('encodes every text to the ids of the Rust library', async () => {
    const tokenizer = await fixtureTokenizer(name);
    expect(vectors.length).toBe(count);
    for (const { text, ids } of vectors)
      expect([text, tokenizer.encode(text, { addSpecialTokens: false })]).toEqual([text, ids]);
  });

  test('decodes ids to the text, except where normalisation changed it', async () => {
    const tokenizer = await fixtureTokenizer(name);
    for (const { text, ids, decoded_equal } of vectors) {
      const decoded = tokenizer.decode(ids, { skipSpecialTokens: false });
      if (decoded_equal) expect(decoded).toBe(text);
      else expect(decoded).toBe(text.normalize('NFC'));
    }
  });

  test('streamed tokens join to the decoded text, in whole characters', async () => {
    const tokenizer = await fixtureTokenizer(name);
    for (const { ids } of vectors) {
      const pieces = streamed(tokenizer, ids, false);
      expect(pieces.join('')).toBe(tokenizer.decode(ids, { skipSpecialTokens: false }));
      for (const piece of pieces) expect(piece).not.toMatch(/\p{Surrogate}/u);
    }
  });

  test('any ids at all stream to what they decode to', async () => {
    const tokenizer = await fixtureTokenizer(name);
    const someIds = fc.array(fc.nat(tokenizer.vocabSize + 5), { maxLength: 40 });
    fc.assert(
      fc.property(someIds, fc.boolean(), (ids, skipSpecialTokens) => {
        const whole = tokenizer.decode(ids, { skipSpecialTokens });
        expect(streamed(tokenizer, ids, skipSpecialTokens).join('')).toBe(whole);
        const bytes = ids.flatMap((id) => [...tokenizer.bytes(id, { skipSpecialTokens })]);
        expect(whole).toBe(Buffer.from(bytes).toString('utf8'));
      }),
    );
  });

  test('any text comes back, normalised as the model wants it', async () => {
    const tokenizer = await fixtureTokenizer(name);
    const normal = (text: string) => (name === 'qwen2' || name === 'gpt-neox' ? text.normalize('NFC') : text);
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const ids = tokenizer.encode(text);
        expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(normal(text));
      }),
    );
  });
});

test.each([
  ['gpt-2', 'gpt2'],
  ['qwen2', 'qwen2'],
  ['deepseek-r1-qwen', 'qwen2'],
])('llama.cpp test pairs of %s', async (pairs, name) => {
  const tokenizer = await fixtureTokenizer(name);
  const texts = fixtureText('llama-cpp/texts.inp').split('\n__ggml_vocab_test__\n');
  const expected = fixtureText(`llama-cpp/${pairs}.out`).split('\n');
  expect(texts.length).toBe(47);
  for (const [i, text] of texts.entries()) {
    const ids = expected[i]!.trim().split(/\s+/).filter(Boolean).map(Number);
    expect([text, tokenizer.encode(text, { addSpecialTokens: false })]).toEqual([text, ids]);
  }
});

test('bos, eos and size come from the published files', async () => {
  const deepseek = await fixtureTokenizer('deepseek-r1');
  expect(deepseek).toMatchObject({ vocabSize: 128815, bosTokenId: 0, eosTokenIds: [1] });
  expect(await fixtureTokenizer('qwen2')).toMatchObject({ vocabSize: 151646, bosTokenId: null, eosTokenIds: [151645] });
});

test('special tokens stay out of the text, other added tokens stay in', async () => {
  const deepseek = await fixtureTokenizer('deepseek-r1');
  const ids = deepseek.encode('<｜User｜>hi<｜Assistant｜><think>\n</think>yo<｜end▁of▁sentence｜>');
  expect(ids).toContain(128798);
  expect(deepseek.decode(ids)).toBe('<｜User｜>hi<｜Assistant｜><think>\n</think>yo');
});

test('a character of several tokens is emitted once, whole', async () => {
  const tokenizer = await fixtureTokenizer('gpt2');
  const ids = tokenizer.encode('🦊');
  expect(ids.length).toBeGreaterThan(1);
  expect(streamed(tokenizer, ids, true)).toEqual([...ids.slice(1).map(() => ''), '🦊', '']);
  expect(streamed(tokenizer, ids.slice(0, -1), true).join('')).toBe('\ufffd');
});

const SMALL = {
  added_tokens: [{ id: 4, content: '<s>', special: true }],
  decoder: { type: 'ByteLevel' },
  model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2, c: 3 }, merges: ['a b'] },
};
const small = (change: object) => ({ 'tokenizer.json': JSON.stringify({ ...SMALL, ...change }) });
const model = (change: object) => small({ model: { ...SMALL.model, ...change } });

test('a folder without tokenizer.json has no tokenizer', async () => {
  expect(await loadTokenizer(folderOf({}))).toBeNull();
});

test('bos is added where tokenizer_config.json asks for it and the post-processor does not add it', async () => {
  const config = { 'tokenizer_config.json': JSON.stringify({ bos_token: '<s>', add_bos_token: true }) };
  const single = [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }];
  const processor = { post_processor: { type: 'TemplateProcessing', single, pair: [], special_tokens: {} } };
  for (const files of [small({}), small(processor)]) {
    const tokenizer = (await loadTokenizer(folderOf({ ...files, ...config })))!;
    expect(tokenizer.encode('abc')).toEqual([4, 2, 3]);
    expect(tokenizer.encode('')).toEqual([4]);
    expect(tokenizer.encode('abc', { addSpecialTokens: false })).toEqual([2, 3]);
  }
});

test.each<[string, Record<string, string>, RegExp]>([
  ['a file that is not JSON', { 'tokenizer.json': '{"model":' }, /tokenizer\.json: not JSON/],
  ['no model', { 'tokenizer.json': '{}' }, /"model": expected an object, found missing/],
  ['another kind of model', model({ type: 'Unigram' }), /"model.type": expected "BPE", found "Unigram"/],
  ['marks at the ends of words', model({ end_of_word_suffix: '</w>' }), /"model.end_of_word_suffix": .* found "<\/w>"/],
  ['a vocabulary that is a list', model({ vocab: [] }), /"model.vocab": expected an object from token to id/],
  ['an id that is no number', model({ vocab: { a: 'x' } }), /expected a token id for "a", found "x"/],
  ['two tokens of one id', model({ vocab: { a: 0, b: 1, ab: 2, c: 2 } }), /id 2 belongs to both "ab" and "c"/],
  ['an absurd id', model({ vocab: { a: 0, b: 1, ab: 2, c: 2 ** 40 } }), /id 1099511627776 of "c", expected at most/],
  ['no merges', model({ merges: undefined }), /"model.merges": expected a list of merges, found missing/],
  ['a merge of unknown tokens', model({ merges: ['a b', 'a z'] }), /"model.merges.1": .* found "a z"/],
  ['an added token without id', small({ added_tokens: [{ content: 'x', special: true }] }), /"added_tokens.0.id"/],
  [
    'a decoder of another kind',
    small({ decoder: { type: 'CTC' } }),
    /"decoder": expected ByteLevel.* found {"type":"CTC"}/,
  ],
  ['an unknown pre-tokenizer', small({ pre_tokenizer: { type: 'Magic' } }), /tokenizer\.json: .*Magic/],
  [
    'a bos that is no token',
    { ...small({}), 'tokenizer_config.json': '{"bos_token":"<no>"}' },
    /"bos_token": <no> is no token/,
  ],
  [
    'a bos that is a number',
    { ...small({}), 'tokenizer_config.json': '{"bos_token":7}' },
    /"bos_token": expected a token, found 7/,
  ],
])('%s is refused by name', async (_, files, message) => {
  await expect(loadTokenizer(folderOf(files))).rejects.toThrow(message);
});
