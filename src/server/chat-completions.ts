/**
 * POST /v1/chat/completions: a conversation in, the model's next message out, whole or as it is written. What an
 * R1-style model thinks inside `<think>…</think>` comes as `reasoning_content`, as in DeepSeek's API.
 */
import { randomUUID } from 'node:crypto';
import { answerPieces, opensReasoning } from '../engine/answer.ts';
import type { LanguageModel } from '../engine/language-model.ts';
import type { TextGeneration, TextPiece } from '../engine/text-generation.ts';
import { chatLogprob } from './logprobs.ts';
import type { ChatBody } from './request-bodies.ts';
import { textOptions } from './text-options.ts';
import { timingsOf } from './timings.ts';
import { usageOf } from './usage.ts';

/** An answer under way, to be taken as one object or as a series of them. */
export interface ChatCompletion {
  readonly generation: TextGeneration;
  whole(): Promise<object>;
  chunks(): AsyncGenerator<object>;
}

/** @throws ApiError, PromptError, RequestTooLargeError, QueueFullError before anything is generated */
export function startChat(model: LanguageModel, body: ChatBody, signal: AbortSignal): ChatCompletion {
  const messages = body.messages.map(({ role, content }) => ({
    role: role === 'developer' ? 'system' : role,
    content,
  }));
  const tokens = model.encode({ messages });
  const generation = model.generate({
    tokens,
    ...textOptions(body, signal),
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
  });
  const pieces = () => answerPieces(generation, opensReasoning(model, tokens));
  const head = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model: model.name };

  return {
    generation,
    async whole() {
      const parts = { reasoning: '', content: '', reasoningTokens: 0 };
      const logprobs: { content: object[]; reasoning_content: object[] } = { content: [], reasoning_content: [] };
      let finish: TextPiece['finish'] = null;
      for await (const piece of pieces()) {
        parts.reasoning += piece.reasoning;
        parts.content += piece.content;
        if (piece.thinking) parts.reasoningTokens++;
        const logprob = chatLogprob(model, piece);
        if (logprob) logprobs[piece.thinking ? 'reasoning_content' : 'content'].push(logprob);
        finish = piece.finish;
      }
      return {
        ...head,
        object: 'chat.completion',
        choices: [
          {
            index: 0,
            message: {
              role: 'assistant',
              content: parts.content,
              ...(parts.reasoning !== '' && { reasoning_content: parts.reasoning }),
              refusal: null,
            },
            logprobs: body.logprobs ? logprobs : null,
            finish_reason: finish,
          },
        ],
        usage: usageOf(generation.usage, parts.reasoningTokens),
        ...(body.timings && { timings: timingsOf(generation) }),
      };
    },
    async *chunks() {
      const withUsage = body.stream_options?.include_usage === true;
      const chunk = (delta: object, finish: string | null = null, logprobs: object | null = null) => ({
        ...head,
        object: 'chat.completion.chunk',
        choices: [{ index: 0, delta, logprobs, finish_reason: finish }],
        ...(withUsage && { usage: null }),
      });
      let reasoningTokens = 0;
      yield chunk({ role: 'assistant', content: '' });
      for await (const piece of pieces()) {
        const { reasoning, content, thinking } = piece;
        if (thinking) reasoningTokens++;
        const logprob = chatLogprob(model, piece);
        const logprobs = logprob && { [thinking ? 'reasoning_content' : 'content']: [logprob] };
        if (reasoning !== '') yield chunk({ reasoning_content: reasoning });
        if (content !== '' || logprobs) yield chunk({ content }, null, logprobs);
        if (piece.finish) yield chunk({}, piece.finish);
      }
      if (withUsage || body.timings) {
        yield {
          ...head,
          object: 'chat.completion.chunk',
          choices: [],
          ...(withUsage && { usage: usageOf(generation.usage, reasoningTokens) }),
          ...(body.timings && { timings: timingsOf(generation) }),
        };
      }
    },
  };
}
