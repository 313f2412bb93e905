/** The scenario on screen and what it comes to; the address follows it, and it follows the address. */
import { computed, effect, signal } from '@preact/signals';
import { type Evaluation, evaluate } from './evaluation.ts';
import { fromAddress, type Scenario, toAddress } from './scenario.ts';

export const scenario = signal<Scenario>(fromAddress(location.search));

export function change(fields: Partial<Scenario>): void {
  scenario.value = { ...scenario.value, ...fields };
}

/** Or the words of what does not fit. */
export const evaluated = computed<Evaluation | string>(() => evaluate(scenario.value));

/** The same for the figures, which follow once a frame however fast a slider moves. */
export const drawn = signal<Evaluation | null>(null);

let asked = 0;
effect(() => {
  const now = evaluated.value;
  cancelAnimationFrame(asked);
  asked = requestAnimationFrame(() => {
    if (typeof now !== 'string') drawn.value = now;
  });
});

const WRITE_DELAY_MS = 150;

/** Browsers allow so many changes of the address a second, sliders make more. */
export function followAddress(): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  effect(() => {
    const query = toAddress(scenario.value);
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (query !== location.search.slice(1))
        history.replaceState(null, '', `${location.pathname}${query && `?${query}`}`);
    }, WRITE_DELAY_MS);
  });
  addEventListener('popstate', () => {
    scenario.value = fromAddress(location.search);
  });
}
