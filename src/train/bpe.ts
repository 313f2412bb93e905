/**
 * Training a byte-level byte-pair tokenizer (Sennrich et al. 2016, with the byte alphabet of GPT-2). Digits stand
 * alone, so that numbers are read and written digit by digit.
 */
import { BYTE_CHARACTERS } from '../tokenizer/byte-alphabet.ts';

/** Words with an optional leading space, single digits, runs of signs, runs of space; merges stay within one. */
export const SPLIT_PATTERN = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

export interface Bpe {
  /** Every token in order of its id, in the byte alphabet; special tokens come first, as they are. */
  readonly vocabulary: readonly string[];
  readonly merges: readonly (readonly [string, string])[];
}

/**
 * Learns merges until the vocabulary has `size` entries or no pair occurs twice. The most frequent pair is merged
 * first; ties go to the pair with the smaller ids, so the result is a function of the counts alone.
 * @param texts an iterable that is read once
 */
export function trainBpe(texts: Iterable<string>, size: number, specials: readonly string[]): Bpe {
  const smallest = specials.length + BYTE_CHARACTERS.length;
  if (size < smallest)
    throw new RangeError(`a vocabulary of ${size}, expected at least ${smallest} (bytes and special tokens)`);
  const vocabulary = [...specials, ...[...BYTE_CHARACTERS].sort()];
  const idOf = new Map(vocabulary.map((token, id) => [token, id]));
  const idOfByte = BYTE_CHARACTERS.map((character) => idOf.get(character)!);
  const words = countWords(texts).map(([word, count]) => ({
    ids: Array.from(Buffer.from(word, 'utf8'), (byte) => idOfByte[byte]!),
    count,
  }));
  const pairs = countPairs(words);

  const merges: [string, string][] = [];
  while (vocabulary.length < size) {
    const best = pairs.takeMostFrequent();
    if (!best) break;
    const { a, b } = best;
    const [left, right] = [vocabulary[a]!, vocabulary[b]!];
    merges.push([left, right]);
    // The same token can come about in two ways (ab+c, a+bc); it keeps its first id.
    const merged = idOf.get(left + right) ?? vocabulary.length;
    if (merged === vocabulary.length) {
      vocabulary.push(left + right);
      idOf.set(left + right, merged);
    }
    for (const word of best.words) {
      const { ids, count } = words[word]!;
      pairs.change(ids, -count, word);
      words[word]!.ids = mergePair(ids, a, b, merged);
      pairs.change(words[word]!.ids, count, word);
    }
    pairs.settle();
  }
  return { vocabulary, merges };
}

function countWords(texts: Iterable<string>): [string, number][] {
  const split = new RegExp(SPLIT_PATTERN, 'gu');
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [word] of text.matchAll(split)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts];
}

function mergePair(ids: readonly number[], a: number, b: number, merged: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === a && ids[i + 1] === b) {
      out.push(merged);
      i++;
    } else {
      out.push(ids[i]!);
    }
  }
  return out;
}

interface Pair {
  readonly a: number;
  readonly b: number;
  count: number;
  /** Words that have or had the pair. */
  readonly words: Set<number>;
}

/** Ids stay below this, so that a pair's key orders as the pair does. */
const MOST_TOKENS = 2 ** 24;

/**
 * How often each pair of neighbours occurs. A heap orders the pairs by the count they had when pushed; whoever rises
 * is pushed again, whoever has fallen since is pushed back when it comes up, so the top is always right.
 */
function countPairs(words: readonly { ids: readonly number[]; count: number }[]) {
  const pairs = new Map<number, Pair>();
  const heap: { pair: Pair; count: number }[] = [];
  const risen = new Set<Pair>();

  function change(ids: readonly number[], by: number, word: number): void {
    for (let i = 0; i + 1 < ids.length; i++) {
      const [a, b] = [ids[i]!, ids[i + 1]!];
      const key = a * MOST_TOKENS + b;
      let pair = pairs.get(key);
      if (!pair) {
        pair = { a, b, count: 0, words: new Set() };
        pairs.set(key, pair);
      }
      pair.count += by;
      if (by > 0) {
        pair.words.add(word);
        risen.add(pair);
      }
    }
  }

  function settle(): void {
    for (const pair of risen) {
      if (pair.count > 1) push(heap, { pair, count: pair.count });
    }
    risen.clear();
  }

  function takeMostFrequent(): Pair | null {
    for (let top = pop(heap); top; top = pop(heap)) {
      const { pair, count } = top;
      if (pair.count === count) return pair;
      if (pair.count < count && pair.count > 1) push(heap, { pair, count: pair.count });
    }
    return null;
  }

  words.forEach(({ ids, count }, word) => {
    change(ids, count, word);
  });
  settle();
  return { change, settle, takeMostFrequent };
}

type Entry = { readonly pair: Pair; readonly count: number };

const before = (x: Entry, y: Entry) =>
  x.count > y.count || (x.count === y.count && (x.pair.a < y.pair.a || (x.pair.a === y.pair.a && x.pair.b < y.pair.b)));

function push(heap: Entry[], entry: Entry): void {
  let at = heap.length;
  heap.push(entry);
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!before(entry, heap[parent]!)) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = entry;
}

function pop(heap: Entry[]): Entry | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (heap.length === 0 || !last) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
    if (!before(heap[child]!, last)) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = last;
  return top;
}
