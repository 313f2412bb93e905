/** The whole page: masthead, conversation or opening, composer, settings. */
import { useSignalEffect } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { NewChatIcon, SettingsIcon } from '../style/icons.tsx';
import { Masthead } from '../style/masthead.tsx';
import { Composer, focusComposer } from './composer.tsx';
import { startNew, stop, turns, writing } from './conversation.ts';
import { Opening } from './opening.tsx';
import { settingsOpen } from './settings.ts';
import { SettingsDialog } from './settings-dialog.tsx';
import { SpokenAnswer } from './spoken-answer.tsx';
import { Transcript } from './transcript.tsx';

export function ChatPage() {
  useStopKey();
  useTitle();
  const begun = turns.value.length > 0;
  const startOver = () => {
    startNew();
    focusComposer();
  };
  return (
    <div class="chat-page">
      <Masthead page="">
        {begun && (
          <button type="button" class="icon-button" title="New chat" onClick={startOver}>
            <span class="unseen">New chat</span>
            <NewChatIcon />
          </button>
        )}
        <button
          type="button"
          class="icon-button"
          title="Settings"
          onClick={() => {
            settingsOpen.value = true;
          }}
        >
          <span class="unseen">Settings</span>
          <SettingsIcon />
        </button>
      </Masthead>
      <main class="chat-main">{begun ? <Transcript /> : <Opening />}</main>
      <Composer />
      <SettingsDialog />
      <SpokenAnswer />
    </div>
  );
}

/** Escape stops the answer, wherever the focus is; what has its own use for the key has it first. */
function useStopKey(): void {
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== 'Escape' || event.defaultPrevented || event.isComposing || settingsOpen.value) return;
      if (writing.value) stop();
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, []);
}

function useTitle(): void {
  useSignalEffect(() => {
    const first = turns.value[0]?.prompt.replace(/\s+/g, ' ').trim();
    document.title = first ? `${first.length > 50 ? `${first.slice(0, 49)}…` : first} · Farthing` : 'Farthing';
  });
}
