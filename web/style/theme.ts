/** Light or dark: what the system prefers, until the reader chooses otherwise; kept across pages and visits. */
import { computed, effect, signal } from '@preact/signals';
import * as z from 'zod/mini';
import { saved } from './saved.ts';

const choice = saved('farthing.theme', z.enum(['system', 'light', 'dark']), 'system');

const systemDark = matchMedia('(prefers-color-scheme: dark)');
const systemTheme = signal<'light' | 'dark'>(systemDark.matches ? 'dark' : 'light');
systemDark.addEventListener('change', ({ matches }) => {
  systemTheme.value = matches ? 'dark' : 'light';
});

/** The theme on screen. */
export const shownTheme = computed(() => (choice.value === 'system' ? systemTheme.value : choice.value));

/** To the other theme; back to what the system prefers means following the system again. */
export function switchTheme(): void {
  const other = shownTheme.value === 'dark' ? 'light' : 'dark';
  choice.value = other === systemTheme.value ? 'system' : other;
}

effect(() => {
  document.documentElement.dataset.theme = choice.value;
});
