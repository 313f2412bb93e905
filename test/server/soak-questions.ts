/** Requests of random kinds and lengths, and what the model answers to each of them alone. */
import { uniform } from '../../src/engine/random.ts';
import type { LanguageModel } from '../../src/index.ts';

export interface Question {
  readonly path: '/v1/chat/completions' | '/v1/completions';
  readonly body: Readonly<Record<string, unknown>>;
  readonly answer: Answer;
}

export interface Answer {
  readonly text: string;
  readonly finish: string | null;
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Of each token but one that stops; null where the question does not ask for them. */
  readonly logprobs: readonly number[] | null;
}

/** Whole numbers from 0 to below `below`, always the same ones for the same seed. */
export function dice(seed: number): (below: number) => number {
  let position = 0;
  return (below) => Math.floor(uniform(seed, position++) * below);
}

const WORDS = 'the fox crow old tree bread ran away and said to home big red cake little girl mouse water why'.split(
  ' ',
);
const OPENINGS = [40, 90, 150, 260];

/** @param model answers one request at a time, without drafts, from an empty cache: each has a tenant of its own */
export async function makeQuestions(model: LanguageModel, count: number, seed: number): Promise<Question[]> {
  const questions: Question[] = [];
  for (let i = 0; i < count; i++) questions.push(await makeQuestion(model, i, dice(seed * 1000 + i)));
  return questions;
}

async function makeQuestion(model: LanguageModel, index: number, roll: ReturnType<typeof dice>): Promise<Question> {
  const opening = roll(2) === 0 ? [] : wordsOf(OPENINGS[roll(OPENINGS.length)]!, dice(0));
  const text = [...opening, ...wordsOf(1 + roll(roll(4) === 0 ? 250 : 40), roll)].join(' ');
  const sampling = {
    temperature: [0, 0.5, 1][roll(3)]!,
    topP: [0.9, 1][roll(2)]!,
    topK: [0, 20][roll(2)]!,
    seed: roll(1e6),
    maxTokens: 1 + roll(roll(5) === 0 ? 320 : 48),
    stop: roll(4) === 0 ? [' the', '.\n'] : [],
  };
  const withLogprobs = roll(2) === 0;
  const kind = (['chat', 'text', 'ids'] as const)[roll(3)]!;
  const prompt =
    kind === 'chat'
      ? { messages: [{ role: 'user' as const, content: text }] }
      : { tokens: model.encode({ prompt: text }) };
  const generation = model.generate({
    ...prompt,
    ...sampling,
    tenant: `alone-${index}`,
    logprobs: withLogprobs ? 0 : undefined,
  });
  let [written, finish] = ['', null as string | null];
  const logprobs: number[] = [];
  for await (const piece of generation) {
    written += piece.text;
    finish = piece.finish;
    if (piece.logprobs && finish !== 'stop') logprobs.push(piece.logprobs.logprob);
  }
  const { promptTokens, completionTokens } = generation.usage;
  const { temperature, topP, topK, maxTokens, stop } = sampling;
  return {
    path: kind === 'chat' ? '/v1/chat/completions' : '/v1/completions',
    body: {
      model: model.name,
      ...(kind === 'text' ? { prompt: text } : 'messages' in prompt ? prompt : { prompt: prompt.tokens }),
      temperature,
      top_p: topP,
      top_k: topK,
      seed: sampling.seed,
      max_tokens: maxTokens,
      ...(stop.length > 0 && { stop }),
      ...(withLogprobs && { logprobs: kind === 'chat' ? true : 0 }),
    },
    answer: { text: written, finish, promptTokens, completionTokens, logprobs: withLogprobs ? logprobs : null },
  };
}

function wordsOf(count: number, roll: ReturnType<typeof dice>): string[] {
  return Array.from({ length: count }, () => WORDS[roll(WORDS.length)]!);
}
