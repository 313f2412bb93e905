/** A conversation in the terminal. Ctrl-C stops an answer, and ends the conversation where there is none. */
import { createInterface } from 'node:readline/promises';
import { opensReasoning } from '../engine/answer.ts';
import { type LanguageModel, PromptError } from '../engine/language-model.ts';
import { RequestTooLargeError } from '../engine/scheduler.ts';
import type { TextOptions } from '../engine/text-generation.ts';
import type { ChatMessage } from '../tokenizer/chat-template.ts';
import { writeAnswer } from './write-answer.ts';

const HELP = '/new starts over, /quit ends, Ctrl-C stops an answer';

export async function chat(model: LanguageModel, opening: ChatMessage[], options: TextOptions): Promise<void> {
  if (!model.chatTemplate) throw new PromptError(`${model.folder} has no chat template: give a prompt with --raw`);
  const terminal = createInterface({ input: process.stdin, output: process.stdout, prompt: '> ' });
  let messages = [...opening];
  let answering: AbortController | null = null;
  terminal.on('SIGINT', () => {
    if (answering) answering.abort();
    else terminal.close();
  });
  console.log(`${model.name}: ${HELP}`);
  terminal.prompt();
  for await (const line of terminal) {
    const said = line.trim();
    if (said === '/quit') break;
    if (said === '/new') messages = [...opening];
    else if (said !== '') {
      answering = new AbortController();
      messages.push({ role: 'user', content: said });
      const answer = await answerOrExplain(model, messages, { ...options, signal: answering.signal });
      if (answer === null) messages.pop();
      else messages.push({ role: 'assistant', content: answer });
      answering = null;
    }
    terminal.prompt();
  }
  terminal.close();
}

/** The answer, or null when the conversation has grown too long to go on. */
async function answerOrExplain(
  model: LanguageModel,
  messages: readonly ChatMessage[],
  options: TextOptions,
): Promise<string | null> {
  try {
    const tokens = model.encode({ messages });
    return await writeAnswer(model.generate({ tokens, ...options }), opensReasoning(model, tokens));
  } catch (error) {
    if (!(error instanceof RequestTooLargeError)) throw error;
    console.log(`${error.message}. /new starts over.`);
    return null;
  }
}
