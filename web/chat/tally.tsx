/** What an answer took: decode rate, tokens written and read, time to the first token. */
import type { Answer } from './conversation.ts';

export function Tally({ answer }: { answer: Answer }) {
  const { usage, firstMs, state } = answer;
  if (state === 'writing' || usage === null) return null;
  const rate = tokensPerSecond(answer);
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  return (
    <dl class="tally" aria-label="What this answer took">
      {rate !== null && <Entry name="tokens/s" value={rate < 100 ? rate.toFixed(1) : rate.toFixed(0)} />}
      <Entry name="tokens" value={usage.completion_tokens.toLocaleString('en')} />
      <Entry name="in prompt" value={usage.prompt_tokens.toLocaleString('en')} />
      {cached > 0 && <Entry name="cached" value={cached.toLocaleString('en')} />}
      {firstMs !== null && <Entry name="to first" value={`${(firstMs / 1000).toFixed(2)} s`} />}
    </dl>
  );
}

function Entry({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

/** Tokens behind the first over the time they took; null for an answer too short to tell. */
function tokensPerSecond({ usage, firstMs, lastMs }: Answer): number | null {
  if (usage === null || firstMs === null || lastMs === null) return null;
  const ms = lastMs - firstMs;
  return usage.completion_tokens > 4 && ms >= 10 ? ((usage.completion_tokens - 1) * 1000) / ms : null;
}
