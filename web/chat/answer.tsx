/** An answer as it is written and when it is done: thinking, text, what it took, what can be done with it. */
import { useSignal } from '@preact/signals';
import { Coin } from '../style/coin.tsx';
import { AgainIcon, CopyIcon, DoneIcon } from '../style/icons.tsx';
import { copyText } from './clipboard.ts';
import { type Answer as AnswerRecord, regenerate, startNew } from './conversation.ts';
import { FailureNote } from './failure-note.tsx';
import { Markdown } from './markdown.tsx';
import { Tally } from './tally.tsx';
import { Thinking } from './thinking.tsx';

export function Answer({ answer, last }: { answer: AnswerRecord; last: boolean }) {
  const { state, reasoning, content, failure } = answer;
  const isWriting = state === 'writing';
  const nothingYet = isWriting && reasoning === '' && content === '';
  return (
    <>
      <div class="margin">
        <span class={isWriting ? 'who-coin writing' : 'who-coin'}>
          <Coin />
        </span>
        <Tally answer={answer} />
      </div>
      <div class="answer" data-state={state} aria-busy={isWriting}>
        {nothingYet && (
          <p class="waiting">
            <span class="bead" />
            <span class="unseen">Waiting for the first word</span>
          </p>
        )}
        {reasoning !== '' && <Thinking answer={answer} />}
        {content !== '' && <Markdown text={content} />}
        {state === 'stopped' && <p class="aside">Stopped{content === '' ? ' before the answer' : ''}.</p>}
        {answer.finish === 'length' && (
          <p class="aside">Cut off at the token limit. “Max tokens” in the settings moves it.</p>
        )}
        {failure && (
          <FailureNote failure={failure} again={last ? regenerate : undefined} startNew={last ? startNew : undefined} />
        )}
        {!isWriting && (content !== '' || (last && !failure)) && (
          <div class="answer-actions">
            {content !== '' && <CopyButton text={content} />}
            {last && !failure && (
              <button type="button" class="text-button" onClick={regenerate}>
                <AgainIcon /> Regenerate
              </button>
            )}
          </div>
        )}
      </div>
    </>
  );
}

const SHOW_COPIED_MS = 1800;

function CopyButton({ text }: { text: string }) {
  const outcome = useSignal<'copied' | 'refused' | null>(null);
  const copy = async () => {
    outcome.value = (await copyText(text)) ? 'copied' : 'refused';
    setTimeout(() => {
      outcome.value = null;
    }, SHOW_COPIED_MS);
  };
  return (
    <button type="button" class="text-button" onClick={copy}>
      {outcome.value === 'copied' ? <DoneIcon /> : <CopyIcon />}
      <span aria-live="polite">
        {outcome.value === 'copied' ? 'Copied' : outcome.value === 'refused' ? 'The browser refused' : 'Copy'}
      </span>
    </button>
  );
}
