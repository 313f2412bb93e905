/** The scenario on screen and what it comes to; the address follows it, and it follows the address. */
import { computed, effect, signal } from '@preact/signals';
import { type Evaluation, evaluate } from './evaluation.ts';
import { fromAddress, type Scenario, toAddress } from './scenario.ts';
import { type CostsBySet, costsOneByOne } from './techniques.ts';

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

/** The prices that the waterfall takes apart, and whose they are; they follow when the sliders rest. */
export const takenApart = signal<{ readonly of: Evaluation; readonly costs: CostsBySet } | null>(null);

const REST_MS = 80;

let resting: ReturnType<typeof setTimeout> | undefined;
effect(() => {
  const now = evaluated.value;
  clearTimeout(resting);
  if (typeof now === 'string') return;
  const work = costsOneByOne(now);
  const go = () => {
    const { done, value } = work.next();
    if (done) takenApart.value = { of: now, costs: value };
    // Between two prices the page has its turn.
    else resting = setTimeout(go);
  };
  resting = setTimeout(go, takenApart.peek() ? REST_MS : 0);
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
