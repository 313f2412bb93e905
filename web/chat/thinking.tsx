/** What the model thinks before it answers: open while it thinks, folded away once it answers. */
import { useSignal } from '@preact/signals';
import { useId } from 'preact/hooks';
import { OpenIcon } from '../style/icons.tsx';
import type { Answer } from './conversation.ts';
import { Markdown } from './markdown.tsx';

export function Thinking({ answer: { state, reasoning, content, firstMs, contentMs } }: { answer: Answer }) {
  const id = useId();
  const chosen = useSignal<boolean | null>(null);
  const underWay = state === 'writing' && content === '';
  const open = chosen.value ?? underWay;
  const took = firstMs !== null && contentMs !== null ? contentMs - firstMs : null;
  return (
    <section class={underWay ? 'thinking under-way' : 'thinking'}>
      <button
        type="button"
        class="thinking-head"
        aria-expanded={open}
        aria-controls={id}
        onClick={() => {
          chosen.value = !open;
        }}
      >
        <OpenIcon />
        {underWay ? 'Thinking' : took === null ? 'Thought' : `Thought for ${seconds(took)}`}
      </button>
      <div id={id} class="thinking-text" hidden={!open}>
        <Markdown text={reasoning} />
      </div>
    </section>
  );
}

/** As a reader would say it: tenths below ten seconds, minutes above sixty. */
function seconds(ms: number): string {
  const s = ms / 1000;
  if (s < 0.1) return 'a moment';
  if (s < 10) return `${s.toFixed(1)} s`;
  return s < 60 ? `${Math.round(s)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}
