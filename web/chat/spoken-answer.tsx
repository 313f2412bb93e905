/** Tells a screen reader how the answer goes: that the model thinks, then its sentences as they are completed. */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { turns } from './conversation.ts';
import { spokenUpTo } from './spoken.ts';

export function SpokenAnswer() {
  const told = useRef(0);
  const now = useSignal('');
  const answer = turns.value.at(-1)?.answer;
  const content = answer?.content ?? '';
  const state = answer?.state;
  const thinking = state === 'writing' && content === '' && answer?.reasoning !== '';

  useEffect(() => {
    if (state !== 'writing') return;
    told.current = 0;
    now.value = '';
    // What was written before the page came is not told.
    return () => {
      const whole = turns.peek().at(-1)?.answer.content ?? '';
      now.value = whole.slice(told.current);
      told.current = whole.length;
    };
  }, [state]);

  useEffect(() => {
    if (state !== 'writing') return;
    const end = spokenUpTo(content, told.current, false);
    if (end > told.current) now.value = content.slice(told.current, end);
    told.current = end;
  }, [content, state]);

  return (
    <div class="unseen" role="status">
      {thinking ? 'The model is thinking.' : now.value}
    </div>
  );
}
