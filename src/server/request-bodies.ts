/**
 * The bodies of POST /v1/chat/completions and /v1/completions, checked at the door. Fields that would change the
 * answer and that this server does not implement are refused, not ignored; fields nobody knows are ignored, as
 * clients add their own.
 */
import { z } from 'zod';

/** Bounds that keep one request from costing more than its tokens. */
const MOST_STOPS = 16;
const LONGEST_STOP = 256;
const MOST_TOP_LOGPROBS = 20;

const text = (what: string) =>
  z.string(`expected ${what}`).refine((value) => !/\p{Surrogate}/u.test(value), 'contains an unpaired surrogate');

const number = (least: number, greatest: number) => {
  const message = `expected a number from ${least} to ${greatest}`;
  return z.number(message).min(least, message).max(greatest, message).nullish();
};
const whole = (least: number, greatest: number) => {
  const message = `expected a whole number from ${least} to ${greatest}`;
  return z.number(message).int(message).min(least, message).max(greatest, message).nullish();
};

const stop = z
  .union(
    [text('a string').transform((one) => [one]), z.array(text('a string'))],
    'expected a string or an array of strings',
  )
  .pipe(
    z
      .array(
        z.string().min(1, 'a stop string is empty').max(LONGEST_STOP, `a stop string is longer than ${LONGEST_STOP}`),
      )
      .max(MOST_STOPS, `more than ${MOST_STOPS} stop strings`),
  );

/** What both endpoints share. */
const common = {
  model: z.string('expected the name of a model'),
  max_tokens: whole(1, 2 ** 31),
  temperature: number(0, 2),
  top_p: number(0, 1),
  top_k: whole(-1, 2 ** 31),
  seed: whole(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  stop: stop.nullish(),
  stream: z.boolean('expected true or false').nullish(),
  stream_options: z
    .object({ include_usage: z.boolean('expected true or false').nullish() }, 'expected an object')
    .nullish(),
  n: z.literal(1, 'only one choice is supported').nullish(),
  /** As in vLLM: 0 is usual, greater numbers yield to it. */
  priority: whole(0, 1000),
  /** As in vLLM: requests with different salts share no cached prefix. */
  cache_salt: text('a string').max(256).nullish(),
  /** Ours: report where the time of the answer went. */
  timings: z.boolean('expected true or false').nullish(),
  frequency_penalty: z.literal(0, 'only 0 is supported').nullish(),
  presence_penalty: z.literal(0, 'only 0 is supported').nullish(),
  logit_bias: z.record(z.string(), z.never('logit_bias is not supported')).nullish(),
};

const textParts = z
  .array(
    z.object(
      { type: z.literal('text', 'only parts of type "text" are supported'), text: text('a string') },
      'expected a part {type, text}',
    ),
    'expected a string or an array of text parts',
  )
  .transform((parts) => parts.map((part) => part.text).join(''));
const content = z.union([text('a string'), textParts], 'expected a string or an array of text parts');

const message = z.discriminatedUnion(
  'role',
  [
    z.object({ role: z.enum(['system', 'developer']), content }),
    z.object({ role: z.literal('user'), content }),
    z.object({
      role: z.literal('assistant'),
      content: content.nullish().transform((value) => value ?? ''),
      reasoning_content: z.string().nullish(),
      tool_calls: z.array(z.unknown()).max(0, 'tool calls are not supported').nullish(),
    }),
  ],
  'expected a message with a role of "system", "developer", "user" or "assistant"',
);

export const chatBody = z
  .object(
    {
      ...common,
      messages: z.array(message, 'expected an array of messages').min(1, 'at least one message is needed'),
      max_completion_tokens: whole(1, 2 ** 31),
      logprobs: z.boolean('expected true or false').nullish(),
      top_logprobs: whole(0, MOST_TOP_LOGPROBS),
      tools: z.array(z.unknown()).max(0, 'tools are not supported').nullish(),
      response_format: z
        .object({ type: z.literal('text', 'only "text" is supported') }, 'expected an object')
        .nullish(),
    },
    'expected a JSON object',
  )
  .refine((body) => body.top_logprobs == null || body.logprobs === true, {
    path: ['top_logprobs'],
    message: 'needs logprobs: true',
  })
  .refine(streamsWhereAsked, streamOptionsMisplaced());
export type ChatBody = z.infer<typeof chatBody>;

/** Text or token ids; an array of prompts is taken when it holds just one. */
const onePrompt = z.preprocess(
  (value) => (Array.isArray(value) && value.length === 1 && typeof value[0] !== 'number' ? value[0] : value),
  z.union(
    [text('a string'), z.array(z.int('expected a token id').min(0, 'expected a token id'))],
    'expected a string or an array of token ids; of several prompts only one is supported',
  ),
);

export const completionBody = z
  .object(
    {
      ...common,
      prompt: onePrompt,
      logprobs: whole(0, MOST_TOP_LOGPROBS),
      echo: z.literal(false, 'echo is not supported').nullish(),
      suffix: z.literal('', 'suffix is not supported').nullish(),
      best_of: z.literal(1, 'only 1 is supported').nullish(),
    },
    'expected a JSON object',
  )
  .refine(streamsWhereAsked, streamOptionsMisplaced());
export type CompletionBody = z.infer<typeof completionBody>;

function streamsWhereAsked(body: { stream?: boolean | null | undefined; stream_options?: unknown }): boolean {
  return body.stream_options == null || body.stream === true;
}

function streamOptionsMisplaced() {
  return { path: ['stream_options'], message: 'is only allowed with stream: true' };
}
