/** The conversation, oldest first; keeps its end in view while the reader is there. */
import { useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks';
import { DownIcon } from '../style/icons.tsx';
import { Answer } from './answer.tsx';
import { turns } from './conversation.ts';
import { Prompt } from './prompt.tsx';

export function Transcript() {
  const { following, follow } = useFollowedEnd();
  const list = turns.value;
  return (
    <>
      <h1 class="unseen">Conversation</h1>
      <ol class="transcript">
        {list.map(({ prompt, answer }, i) => (
          <li key={i} class="turn">
            <Prompt text={prompt} last={i === list.length - 1} />
            <Answer answer={answer} last={i === list.length - 1} />
          </li>
        ))}
      </ol>
      {!following.value && (
        <div class="to-end">
          <button type="button" class="icon-button" title="To the end" onClick={follow}>
            <span class="unseen">To the end of the conversation</span>
            <DownIcon />
          </button>
        </div>
      )}
    </>
  );
}

/** Scrolls the page to its end after each change, until the reader scrolls up; again once they are back at the end. */
function useFollowedEnd() {
  const following = useSignal(true);
  const count = useRef(0);
  const toEnd = () => window.scrollTo({ top: document.documentElement.scrollHeight });

  useEffect(() => {
    let before = window.scrollY;
    const onScroll = () => {
      const { scrollHeight } = document.documentElement;
      const atEnd = window.innerHeight + window.scrollY >= scrollHeight - 8;
      if (atEnd) following.value = true;
      else if (window.scrollY < before) following.value = false;
      before = window.scrollY;
    };
    addEventListener('scroll', onScroll, { passive: true });
    return () => removeEventListener('scroll', onScroll);
  }, []);

  useLayoutEffect(() => {
    // One's own new prompt is always brought into view.
    if (turns.value.length > count.current) following.value = true;
    count.current = turns.value.length;
    if (following.value) toEnd();
  });

  return {
    following,
    follow: () => {
      following.value = true;
      toEnd();
    },
  };
}
