/** An answer in its two parts, as it is written: what the model thinks, and what it says. */
import type { LanguageModel } from './language-model.ts';
import { createReasoningSplitter } from './reasoning.ts';
import type { TextGeneration, TextPiece } from './text-generation.ts';

export interface AnswerPiece extends TextPiece {
  /** Text of each part that became certain with this token. */
  readonly reasoning: string;
  readonly content: string;
  /** Whether the token belongs to the reasoning. */
  readonly thinking: boolean;
}

/**
 * @param thinking whether the prompt left the reasoning open: see `opensReasoning`
 */
export async function* answerPieces(generation: TextGeneration, thinking: boolean): AsyncGenerator<AnswerPiece> {
  const splitter = createReasoningSplitter(thinking);
  for await (const piece of generation) {
    const now = splitter.push(piece.text);
    const rest = piece.finish ? splitter.flush() : { reasoning: '', content: '' };
    yield {
      ...piece,
      reasoning: now.reasoning + rest.reasoning,
      content: now.content + rest.content,
      thinking: splitter.inside,
    };
  }
}

/** Whether a prompt ends in `<think>`, as DeepSeek-R1's chat template makes it. */
export function opensReasoning(model: LanguageModel, prompt: readonly number[]): boolean {
  return /<think>\s*$/.test(model.tokenizer?.decode(prompt.slice(-8), { skipSpecialTokens: false }) ?? '');
}
