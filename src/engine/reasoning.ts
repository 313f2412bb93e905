/**
 * Parts the reasoning of an R1-style answer from the answer itself: what stands inside a leading
 * `<think>…</think>` is reasoning, the rest is content. Works on text that arrives in pieces.
 */
import { beginningAtEnd } from './stop-strings.ts';

interface AnswerPart {
  readonly reasoning: string;
  readonly content: string;
}

export interface ReasoningSplitter {
  /** Whether what came last belongs to the reasoning. */
  readonly inside: boolean;
  push(piece: string): AnswerPart;
  /** What was held back, at the end of the text. */
  flush(): AnswerPart;
}

const OPEN = '<think>';
const CLOSE = '</think>';

/**
 * @param inside whether the prompt already ended in `<think>`, as DeepSeek-R1's chat template does
 */
export function createReasoningSplitter(inside: boolean): ReasoningSplitter {
  let place: 'start' | 'reasoning' | 'content' = inside ? 'reasoning' : 'start';
  let held = '';
  // White space around the two parts belongs to neither.
  let partStarted = false;

  const part = (reasoning: string, content: string): AnswerPart => ({ reasoning, content });
  const begin = (text: string): string => {
    const trimmed = partStarted ? text : text.trimStart();
    if (trimmed !== '') partStarted = true;
    return trimmed;
  };

  function advance(atEnd: boolean): AnswerPart {
    if (place === 'start') {
      const text = held.trimStart();
      if (!atEnd && OPEN.startsWith(text) && text.length < OPEN.length) return part('', '');
      place = text.startsWith(OPEN) ? 'reasoning' : 'content';
      if (place === 'reasoning') held = text.slice(OPEN.length);
      else partStarted = true;
    }
    if (place === 'reasoning') {
      const end = held.indexOf(CLOSE);
      if (end === -1) {
        const open = atEnd ? 0 : beginningAtEnd(held, CLOSE);
        const closed = held.slice(0, held.length - open).trimEnd();
        const reasoning = begin(closed);
        held = atEnd ? '' : held.slice(closed.length);
        return part(reasoning, '');
      }
      const reasoning = begin(held.slice(0, end).trimEnd());
      held = held.slice(end + CLOSE.length);
      place = 'content';
      partStarted = false;
      return part(reasoning, begin(take()));
    }
    return part('', begin(take()));
  }

  function take(): string {
    const text = held;
    held = '';
    return text;
  }

  return {
    get inside() {
      return place === 'reasoning';
    },
    push(piece) {
      held += piece;
      return advance(false);
    },
    flush: () => advance(true),
  };
}
