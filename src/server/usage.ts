/** Token counts of an answer under OpenAI's names, with DeepSeek's split of the prompt into cache hits and misses. */
import type { Usage } from '../engine/engine.ts';

export function usageOf({ promptTokens, cachedTokens, completionTokens }: Usage, reasoningTokens?: number) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_cache_hit_tokens: cachedTokens,
    prompt_cache_miss_tokens: promptTokens - cachedTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
    ...(reasoningTokens !== undefined && { completion_tokens_details: { reasoning_tokens: reasoningTokens } }),
  };
}
