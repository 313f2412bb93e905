/**
 * From a row of logits to a token: greedy at temperature 0, otherwise temperature, then top-k, then top-p over
 * what top-k left, then one draw. Equal logits are ordered by token id, so the result is a function of its
 * arguments alone.
 */
import { uniform } from './random.ts';

export interface Sampling {
  /** 0 takes the most probable token. */
  readonly temperature: number;
  /** Keep the fewest most probable tokens whose mass reaches topP; 1 keeps all. At least one is kept. */
  readonly topP: number;
  /** Keep the topK most probable tokens; 0 keeps all. */
  readonly topK: number;
  readonly seed: number;
}

/**
 * The token drawn for position `position` of a sequence.
 * @param logits f32 [vocab]
 */
export function sample(logits: Float32Array, { temperature, topP, topK, seed }: Sampling, position: number): number {
  const best = argmax(logits);
  if (temperature === 0) return best;
  const greatest = logits[best]!;
  const weight = (token: number) => Math.exp((logits[token]! - greatest) / temperature);
  const draw = uniform(seed, position);
  if (topK === 0 && topP >= 1) return drawFromAll(logits, weight, draw);
  const candidates = nucleus(logits, weight, topP, topK === 0 ? logits.length : topK);
  let mass = 0;
  for (const token of candidates) mass += weight(token);
  let left = draw * mass;
  for (const token of candidates) {
    left -= weight(token);
    if (left < 0) return token;
  }
  return candidates.at(-1)!;
}

export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
}

/** Natural log-probabilities of the untouched distribution: of `chosen`, and of the `count` most probable tokens. */
export function logprobs(
  logits: Float32Array,
  chosen: number,
  count: number,
): { logprob: number; top: readonly TokenLogprob[] } {
  const greatest = logits[argmax(logits)]!;
  let mass = 0;
  for (let i = 0; i < logits.length; i++) mass += Math.exp(logits[i]! - greatest);
  const normalizer = greatest + Math.log(mass);
  const top = mostProbable(logits, count).map((token) => ({ token, logprob: logits[token]! - normalizer }));
  return { logprob: logits[chosen]! - normalizer, top };
}

/** Index of the greatest value; the lowest index among equals. */
export function argmax(values: Float32Array): number {
  let best = 0;
  let greatest = values[0]!;
  for (let i = 1; i < values.length; i++) {
    const value = values[i]!;
    if (value > greatest) {
      greatest = value;
      best = i;
    }
  }
  return best;
}

function drawFromAll(logits: Float32Array, weight: (token: number) => number, draw: number): number {
  let mass = 0;
  for (let token = 0; token < logits.length; token++) mass += weight(token);
  const target = draw * mass;
  let passed = 0;
  for (let token = 0; token < logits.length; token++) {
    passed += weight(token);
    if (passed > target) return token;
  }
  return argmax(logits);
}

/** Tokens by falling logit: at most `most`, and no more than needed for a share `topP` of their common mass. */
function nucleus(logits: Float32Array, weight: (token: number) => number, topP: number, most: number): number[] {
  const limited = most < logits.length ? mostProbable(logits, most) : null;
  let total = 0;
  if (limited) for (const token of limited) total += weight(token);
  else for (let token = 0; token < logits.length; token++) total += weight(token);
  const target = topP * total;
  // Ask for a few tokens first: sorting the whole vocabulary is rarely needed.
  for (let count = 64; ; count *= 8) {
    const ordered = limited ?? mostProbable(logits, Math.min(count, logits.length));
    let mass = 0;
    for (const [i, token] of ordered.entries()) {
      mass += weight(token);
      if (mass >= target) return ordered.slice(0, i + 1);
    }
    if (limited || ordered.length === logits.length) return ordered;
  }
}

/** The `count` tokens of greatest logit, by falling logit, then rising id. */
function mostProbable(logits: Float32Array, count: number): number[] {
  const wanted = Math.min(count, logits.length);
  if (wanted === 0) return [];
  const before = (a: number, b: number) => logits[a]! > logits[b]! || (logits[a]! === logits[b]! && a < b);
  // A heap with the worst kept token on top.
  const heap: number[] = [];
  const sink = (at: number) => {
    const token = heap[at]!;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child]!, heap[child + 1]!)) child++;
      if (!before(token, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = token;
  };
  for (let token = 0; token < wanted; token++) heap.push(token);
  for (let at = (wanted >> 1) - 1; at >= 0; at--) sink(at);
  for (let token = wanted; token < logits.length; token++) {
    if (!before(token, heap[0]!)) continue;
    heap[0] = token;
    sink(0);
  }
  return heap.sort((a, b) => (before(a, b) ? -1 : 1));
}
