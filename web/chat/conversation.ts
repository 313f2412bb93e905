/**
 * The conversation: prompts with their answers, kept across visits, and what can be done to it. At most one answer
 * is being written at a time, and it is the last.
 */
import { computed } from '@preact/signals';
import * as z from 'zod/mini';
import { saved } from '../style/saved.ts';
import { type ChatMessage, type ChatRequest, streamChat, usageSchema } from './chat-stream.ts';
import { ChatError, failureSchema } from './failure.ts';
import { askModels, model } from './models.ts';
import { apiKey, NUMBER_SETTINGS, settings } from './settings.ts';

const answerSchema = z.object({
  state: z.enum(['writing', 'done', 'stopped', 'failed']),
  reasoning: z.string(),
  content: z.string(),
  /** Why the model ended: "stop", or "length" at the token limit. */
  finish: z.nullable(z.string()),
  usage: z.nullable(usageSchema),
  /** From the request to the first piece, to the first word behind the reasoning, and to the last piece. */
  firstMs: z.nullable(z.number()),
  contentMs: z.nullable(z.number()),
  lastMs: z.nullable(z.number()),
  failure: z.nullable(failureSchema),
});
export type Answer = z.infer<typeof answerSchema>;

const turnSchema = z.object({ prompt: z.string(), answer: answerSchema });
export type Turn = z.infer<typeof turnSchema>;

const NOTHING_YET: Answer = {
  state: 'writing',
  reasoning: '',
  content: '',
  finish: null,
  usage: null,
  firstMs: null,
  contentMs: null,
  lastMs: null,
  failure: null,
};

export const turns = saved<Turn[]>('farthing.conversation', z.array(turnSchema), [], 400);
/** The conversation that the present one took the place of. */
export const earlier = saved<Turn[]>('farthing.earlier', z.array(turnSchema), []);

// A page that was left while an answer was being written finds it stopped.
turns.value = turns.value.map(({ prompt, answer }) => ({
  prompt,
  answer: answer.state === 'writing' ? { ...answer, state: 'stopped' } : answer,
}));

export const writing = computed(() => turns.value.at(-1)?.answer.state === 'writing');

let abort = new AbortController();

export function ask(prompt: string): void {
  if (writing.value) return;
  void answer([...turns.value, { prompt, answer: NOTHING_YET }]);
}

/** Writes the last answer anew. */
export function regenerate(): void {
  const last = turns.value.at(-1);
  if (last) replaceLast(last.prompt);
}

/** Puts `prompt` in the place of the last one, and has it answered. */
export function replaceLast(prompt: string): void {
  stop();
  void answer([...turns.value.slice(0, -1), { prompt, answer: NOTHING_YET }]);
}

/** Ends the answer that is being written; what is written stays. */
export function stop(): void {
  if (!writing.value) return;
  abort.abort();
  setLast((answer) => ({ ...answer, state: 'stopped' }));
}

export function startNew(): void {
  stop();
  if (turns.value.length > 0) earlier.value = turns.value;
  turns.value = [];
}

/** Back to the conversation before the present one. */
export function goBack(): void {
  stop();
  const present = turns.value;
  turns.value = earlier.value;
  earlier.value = present;
}

/** How often the page takes in what has come; tokens may come much faster than a screen can show them. */
const SHOW_EVERY_MS = 33;

async function answer(asked: Turn[]): Promise<void> {
  abort = new AbortController();
  const { signal } = abort;
  turns.value = asked;
  const start = performance.now();
  let written = NOTHING_YET;
  let shownAt = 0;
  const show = () => {
    if (signal.aborted) return;
    setLast(() => written);
    shownAt = performance.now();
  };
  // What comes just before a pause is shown during it.
  const timer = setInterval(show, SHOW_EVERY_MS * 4);
  // Leaving the page breaks the connection first; that is no failure of the server.
  addEventListener('beforeunload', stop);
  try {
    const body = chatRequest(model.peek() ?? (await askModels()), asked);
    for await (const piece of streamChat(body, { apiKey: apiKey.peek(), signal })) {
      const now = performance.now() - start;
      const someText = piece.reasoning !== '' || piece.content !== '';
      const content = written.content + piece.content;
      written = {
        ...written,
        reasoning: written.reasoning + piece.reasoning,
        content,
        finish: piece.finish ?? written.finish,
        usage: piece.usage ?? written.usage,
        firstMs: written.firstMs ?? (someText ? now : null),
        contentMs: written.contentMs ?? (content === '' ? null : now),
        lastMs: someText ? now : written.lastMs,
      };
      if (start + now - shownAt >= SHOW_EVERY_MS) show();
    }
    written = { ...written, state: 'done' };
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof ChatError)) throw error;
    written = { ...written, state: 'failed', failure: error.failure };
  } finally {
    clearInterval(timer);
    removeEventListener('beforeunload', stop);
    show();
  }
}

function setLast(change: (answer: Answer) => Answer): void {
  const last = turns.value.at(-1);
  if (last) turns.value = [...turns.value.slice(0, -1), { ...last, answer: change(last.answer) }];
}

function chatRequest(model: string, asked: readonly Turn[]): ChatRequest {
  const { systemPrompt, ...sampling } = settings.peek();
  const chosen = NUMBER_SETTINGS.flatMap(({ name }) => (sampling[name] === null ? [] : [[name, sampling[name]]]));
  return { model, messages: messagesOf(systemPrompt, asked), ...Object.fromEntries(chosen) };
}

/** The last turn is the question. Turns without an answer are left out, and so is reasoning, as DeepSeek's API asks. */
function messagesOf(systemPrompt: string, asked: readonly Turn[]): ChatMessage[] {
  const messages: ChatMessage[] = [];
  if (systemPrompt.trim() !== '') messages.push({ role: 'system', content: systemPrompt });
  for (const [i, { prompt, answer }] of asked.entries()) {
    const question = i === asked.length - 1;
    if (!question && answer.content === '') continue;
    messages.push({ role: 'user', content: prompt });
    if (!question) messages.push({ role: 'assistant', content: answer.content });
  }
  return messages;
}
