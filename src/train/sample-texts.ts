/**
 * What a model in training writes: prompts continued by its own forward pass over whole sequences. It has no cache, so
 * a token costs a pass over all texts, which for a few short ones is about a step of training in all.
 */
import { compile } from '../backend/compile.ts';
import { own, rowsOf } from '../backend/graph.ts';
import { selectRows } from '../backend/ops.ts';
import type { ModelConfig } from '../model/config.ts';
import { forward, frequencyTable, head } from '../model/forward.ts';
import { ropeFrequencies } from '../model/rope.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { type Parameters, trainingGraph } from './parameters.ts';
import { randomBits } from './random.ts';

export interface SampleSettings {
  readonly prompts: readonly string[];
  /** Most tokens to write after each prompt. */
  readonly tokens: number;
  readonly temperature: number;
  readonly seed: number;
}

export interface SampledText {
  readonly prompt: string;
  /** What follows the prompt. */
  readonly text: string;
}

/** @returns a function that continues every prompt with the weights as they are (after `parameters.repack`) */
export function textSampler(
  config: ModelConfig,
  parameters: Parameters,
  tokenizer: Tokenizer,
  { prompts, tokens, temperature, seed }: SampleSettings,
): () => Promise<SampledText[]> {
  const encoded = prompts.map((prompt) => promptIds(tokenizer, prompt));
  const length = Math.min(Math.max(...encoded.map((ids) => ids.length)) + tokens, config.maxPositionEmbeddings);
  const rows = prompts.length * length;
  const graph = trainingGraph(parameters, rows);
  const column = (count: number) => own(rowsOf(null, count), 1, 'i32');
  const [ids, positions, starts, last] = [column(rows), column(rows), column(rows), column(prompts.length)];
  const rope = ropeFrequencies(config);
  const inputs = { ids, positions, frequencies: frequencyTable(rope), attention: { kind: 'causal', starts } } as const;
  const { hidden } = forward(graph, config, rope, parameters.weights, inputs);
  const logits = head(graph, parameters.weights, selectRows(graph, hidden, last));
  const program = compile(graph, { token: 0, logit: 0, sequence: 0 }, [ids, positions, starts, last, logits]);
  program.i32(positions).set(Array.from({ length: rows }, (_, row) => row % length));
  program.i32(starts).set(Array.from({ length: rows }, (_, row) => row - (row % length)));

  return async () => {
    const texts = encoded.map((prompt) => ({ ids: prompt.slice(0, length), ended: false }));
    // rows after a text's last token hold nothing yet, and no row before them sees them
    program.i32(ids).fill(0);
    texts.forEach((text, t) => {
      program.i32(ids).set(text.ids, t * length);
    });
    while (texts.some((text) => !text.ended && text.ids.length < length)) {
      program.i32(last).set(texts.map((text, t) => t * length + text.ids.length - 1));
      await program.run({});
      const all = program.f32(logits);
      texts.forEach((text, t) => {
        if (text.ended || text.ids.length === length) return;
        const own = all.subarray(t * config.vocabSize, (t + 1) * config.vocabSize);
        const id = draw(own, temperature, (i) => randomBits(seed + t, text.ids.length, i));
        text.ended = tokenizer.eosTokenIds.includes(id);
        program.i32(ids)[t * length + text.ids.length] = id;
        text.ids.push(id);
      });
    }
    return texts.map((text, t) => ({
      prompt: prompts[t]!,
      text: tokenizer.decode(text.ids.slice(encoded[t]!.length)),
    }));
  };
}

/** A text's first token follows bos, as in training; an empty prompt is bos alone. */
function promptIds(tokenizer: Tokenizer, prompt: string): number[] {
  const bos = tokenizer.bosTokenId === null ? [] : [tokenizer.bosTokenId];
  const ids = [...bos, ...tokenizer.encode(prompt, { addSpecialTokens: false })];
  return ids.length > 0 ? ids : [0];
}

/** A token by its probability: the greatest of logit / temperature + Gumbel noise. */
function draw(logits: Float32Array, temperature: number, bits: (i: number) => number): number {
  const noisy = (i: number) =>
    logits[i]! - (temperature === 0 ? 0 : temperature * Math.log(-Math.log((bits(i) + 0.5) / 2 ** 32)));
  let best = 0;
  let most = noisy(0);
  for (let i = 1; i < logits.length; i++) {
    const value = noisy(i);
    if (value > most) [best, most] = [i, value];
  }
  return best;
}
