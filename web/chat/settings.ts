/** What the reader sets: sampling, the system prompt, the key of the server. Null leaves a choice to the server. */
import { signal } from '@preact/signals';
import * as z from 'zod/mini';
import { saved } from '../style/saved.ts';

/** Number settings under the names of the API, with the bounds it accepts. */
export const NUMBER_SETTINGS = [
  {
    name: 'temperature',
    label: 'Temperature',
    hint: '0 always takes the likeliest word; higher is freer.',
    least: 0,
    greatest: 2,
    step: 0.1,
  },
  {
    name: 'top_p',
    label: 'Top p',
    hint: 'Choose among the likeliest tokens that together reach this share.',
    least: 0,
    greatest: 1,
    step: 0.05,
  },
  {
    name: 'top_k',
    label: 'Top k',
    hint: 'Choose among this many likeliest tokens; 0 is no limit.',
    least: 0,
    greatest: 2 ** 31,
    step: 1,
  },
  {
    name: 'max_tokens',
    label: 'Max tokens',
    hint: 'Where an answer is cut off.',
    least: 1,
    greatest: 2 ** 31,
    step: 1,
  },
  {
    name: 'seed',
    label: 'Seed',
    hint: 'The same seed and settings give the same answer, to the letter.',
    least: 0,
    greatest: Number.MAX_SAFE_INTEGER,
    step: 1,
  },
] as const;

export type NumberSetting = (typeof NUMBER_SETTINGS)[number];

/** What `text` sets: null when empty; undefined when it is no number that the setting accepts. */
export function readNumber(text: string, { least, greatest, step }: NumberSetting): number | null | undefined {
  if (text.trim() === '') return null;
  const value = Number(text.trim().replace(',', '.'));
  const whole = step === 1;
  return value >= least && value <= greatest && (!whole || Number.isSafeInteger(value)) ? value : undefined;
}

const settingsSchema = z.object({
  temperature: z.nullable(z.number()),
  top_p: z.nullable(z.number()),
  top_k: z.nullable(z.number()),
  max_tokens: z.nullable(z.number()),
  seed: z.nullable(z.number()),
  systemPrompt: z.string(),
});
export type Settings = z.infer<typeof settingsSchema>;

export const DEFAULT_SETTINGS: Settings = {
  temperature: null,
  top_p: null,
  top_k: null,
  max_tokens: null,
  seed: null,
  systemPrompt: '',
};

export const settings = saved('farthing.settings', settingsSchema, DEFAULT_SETTINGS);
export const apiKey = saved('farthing.api-key', z.string(), '');

export const settingsOpen = signal(false);
