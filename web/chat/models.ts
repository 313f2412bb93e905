/** The models that the server offers; asks again by itself while the server cannot be reached. */
import { computed, effect, signal } from '@preact/signals';
import * as z from 'zod/mini';
import { saved } from '../style/saved.ts';
import { ChatError, type Failure, request } from './failure.ts';
import { apiKey } from './settings.ts';

const listSchema = z.object({ data: z.array(z.object({ id: z.string() })) });

type Models =
  | { readonly state: 'asking' }
  | { readonly state: 'known'; readonly names: readonly string[] }
  | { readonly state: 'failed'; readonly failure: Failure };

export const models = signal<Models>({ state: 'asking' });

/** The reader's choice among several; one that the server no longer offers counts for nothing. */
export const chosenModel = saved('farthing.model', z.string(), '');

/** The model that answers: the chosen one, or the first. */
export const model = computed(() => {
  if (models.value.state !== 'known') return undefined;
  const { names } = models.value;
  return names.find((name) => name === chosenModel.value) ?? names[0];
});

const ASK_AGAIN_MS = 3000;

/** @throws ChatError when the server cannot be asked or offers no model */
export async function askModels(): Promise<string> {
  try {
    const response = await request('/v1/models', apiKey.peek());
    const list = listSchema.safeParse(await response.json().catch(() => undefined)).data;
    if (!list || list.data.length === 0) {
      throw new ChatError({ kind: 'broken', message: 'The server offers no model at /v1/models' });
    }
    models.value = { state: 'known', names: list.data.map(({ id }) => id) };
    return model.value!;
  } catch (error) {
    if (!(error instanceof ChatError)) throw error;
    models.value = { state: 'failed', failure: error.failure };
    throw error;
  }
}

/** Asks now, whenever the key changes, and every few seconds while there is no server. */
export function keepAskingModels(): void {
  // The failure is in `models`, for the page to show.
  const ask = () => void askModels().catch(() => {});
  effect(() => {
    apiKey.value;
    ask();
  });
  effect(() => {
    const { value } = models;
    if (value.state !== 'failed' || value.failure.kind !== 'unreachable') return;
    const timer = setTimeout(ask, ASK_AGAIN_MS);
    return () => clearTimeout(timer);
  });
}
