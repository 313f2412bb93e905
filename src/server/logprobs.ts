/** Log-probabilities of tokens in the two forms the completion endpoints use. */
import type { LanguageModel } from '../engine/language-model.ts';
import type { TokenLogprob } from '../engine/sampler.ts';
import type { TextPiece } from '../engine/text-generation.ts';

/** Tokens are shown as they are, those included that steer the model. */
const WHOLE = { skipSpecialTokens: false };

/** The entry of a token in a chat completion's `logprobs.content`; null where there is none. */
export function chatLogprob(model: LanguageModel, { token, logprobs, finish }: TextPiece): object | null {
  if (!logprobs || finish === 'stop') return null;
  const entry = ({ token, logprob }: TokenLogprob) => {
    const bytes = model.tokenizer?.bytes(token, WHOLE) ?? [];
    return { token: tokenText(model, token), logprob, bytes: [...bytes] };
  };
  return { ...entry({ token, logprob: logprobs.logprob }), top_logprobs: logprobs.top.map(entry) };
}

/** Gathers the four parallel lists of a text completion's `logprobs`. */
export function completionLogprobs(model: LanguageModel, pieces: readonly TextPiece[], textBefore: number) {
  const known = pieces.flatMap(({ token, text, logprobs, finish }) =>
    logprobs && finish !== 'stop' ? [{ token, text, logprobs }] : [],
  );
  let offset = textBefore;
  const offsets: number[] = [];
  for (const { text } of known) {
    offsets.push(offset);
    offset += text.length;
  }
  return {
    tokens: known.map(({ token }) => tokenText(model, token)),
    token_logprobs: known.map(({ logprobs }) => logprobs.logprob),
    top_logprobs: known.map(({ logprobs }) =>
      Object.fromEntries(logprobs.top.map(({ token, logprob }) => [tokenText(model, token), logprob])),
    ),
    text_offset: offsets,
  };
}

function tokenText(model: LanguageModel, token: number): string {
  return model.tokenizer?.decode([token], WHOLE) ?? '';
}
