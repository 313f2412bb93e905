/** Writes an answer to the terminal as it comes; reasoning is dim, and left out where there is no terminal. */
import { answerPieces } from '../engine/answer.ts';
import type { TextGeneration } from '../engine/text-generation.ts';

const DIM = '\x1b[2m';
const RESET = '\x1b[0m';

/** @returns the content, without the reasoning */
export async function writeAnswer(generation: TextGeneration, thinking: boolean): Promise<string> {
  const { stdout } = process;
  let content = '';
  let dim = false;
  for await (const piece of answerPieces(generation, thinking)) {
    if (piece.reasoning !== '' && stdout.isTTY) {
      stdout.write(`${dim ? '' : DIM}${piece.reasoning}`);
      dim = true;
    }
    if (piece.content !== '') {
      stdout.write(`${dim ? `${RESET}\n\n` : ''}${piece.content}`);
      dim = false;
      content += piece.content;
    }
  }
  stdout.write(dim ? `${RESET}\n` : '\n');
  return content;
}
