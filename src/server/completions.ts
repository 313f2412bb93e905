/** POST /v1/completions: text or token ids in, their continuation out, whole or as it is written. */
import { randomUUID } from 'node:crypto';
import type { LanguageModel } from '../engine/language-model.ts';
import type { TextGeneration, TextPiece } from '../engine/text-generation.ts';
import { completionLogprobs } from './logprobs.ts';
import type { CompletionBody } from './request-bodies.ts';
import { textOptions } from './text-options.ts';
import { timingsOf } from './timings.ts';
import { usageOf } from './usage.ts';

/** OpenAI's default length of a text completion. */
const DEFAULT_MAX_TOKENS = 16;

/** A continuation under way, to be taken as one object or as a series of them. */
export interface TextCompletion {
  readonly generation: TextGeneration;
  whole(): Promise<object>;
  chunks(): AsyncGenerator<object>;
}

/** @throws PromptError, RequestTooLargeError, QueueFullError before anything is generated */
export function startCompletion(model: LanguageModel, body: CompletionBody, signal: AbortSignal): TextCompletion {
  const generation = model.generate({
    ...(typeof body.prompt === 'string' ? { prompt: body.prompt } : { tokens: body.prompt }),
    ...textOptions(body, signal),
    maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
    logprobs: body.logprobs ?? undefined,
  });
  const head = {
    id: `cmpl-${randomUUID()}`,
    object: 'text_completion',
    created: Math.floor(Date.now() / 1000),
    model: model.name,
  };
  const choice = (pieces: readonly TextPiece[], textBefore: number) => ({
    index: 0,
    text: pieces.map((piece) => piece.text).join(''),
    logprobs: body.logprobs == null ? null : completionLogprobs(model, pieces, textBefore),
    finish_reason: pieces.at(-1)?.finish ?? null,
  });
  const timings = () => body.timings && { timings: timingsOf(generation) };
  return {
    generation,
    async whole() {
      const pieces: TextPiece[] = [];
      for await (const piece of generation) pieces.push(piece);
      return { ...head, choices: [choice(pieces, 0)], usage: usageOf(generation.usage), ...timings() };
    },
    async *chunks() {
      const withUsage = body.stream_options?.include_usage === true;
      let written = 0;
      for await (const piece of generation) {
        if (piece.text === '' && !piece.finish && !piece.logprobs) continue;
        yield { ...head, choices: [choice([piece], written)], ...(withUsage && { usage: null }) };
        written += piece.text.length;
      }
      const usage = withUsage && { usage: usageOf(generation.usage) };
      if (usage || body.timings) yield { ...head, choices: [], ...usage, ...timings() };
    },
  };
}
