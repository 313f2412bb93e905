/** The sampling fields that both completion endpoints share, in the engine's words. */
import type { TextOptions } from '../engine/text-generation.ts';
import type { ChatBody, CompletionBody } from './request-bodies.ts';

export function textOptions(body: ChatBody | CompletionBody, signal: AbortSignal): TextOptions {
  return {
    signal,
    temperature: body.temperature ?? undefined,
    topP: body.top_p ?? undefined,
    // −1 asks for no limit in vLLM's API, as 0 does here.
    topK: body.top_k == null ? undefined : Math.max(0, body.top_k),
    seed: body.seed ?? undefined,
    stop: body.stop ?? undefined,
    priority: body.priority ? 'low' : 'normal',
    tenant: body.cache_salt ?? undefined,
  };
}
