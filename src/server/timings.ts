/** Where the time of an answer went, for clients that ask with `timings: true` and for the log. */
import type { TextGeneration } from '../engine/text-generation.ts';

/** Of an answer that has ended; times in milliseconds, `tpot_ms` null for an answer of one token. */
export function timingsOf({ times, usage }: TextGeneration) {
  const { arrived, started, firstToken, finished } = times;
  const { completionTokens, draftedTokens, acceptedTokens } = usage;
  const ms = (from: number, to: number) => Math.round(Math.max(0, to - from) * 1000) / 1000;
  const decode = ms(firstToken, finished);
  return {
    queue_ms: ms(arrived, started),
    prefill_ms: ms(started, firstToken),
    decode_ms: decode,
    ttft_ms: ms(arrived, firstToken),
    tpot_ms: completionTokens > 1 ? decode / (completionTokens - 1) : null,
    drafted_tokens: draftedTokens,
    accepted_tokens: acceptedTokens,
  };
}
