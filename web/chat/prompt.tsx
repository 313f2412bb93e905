/** What the reader asked; the last prompt can be put differently. */
import { useSignal } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { EditIcon } from '../style/icons.tsx';
import { focusComposer } from './composer.tsx';
import { replaceLast } from './conversation.ts';
import { fitToText } from './fit-to-text.ts';

export function Prompt({ text, last }: { text: string; last: boolean }) {
  const editing = useSignal(false);
  const close = () => {
    editing.value = false;
    focusComposer();
  };
  return (
    <>
      <div class="margin">
        <span class="who">You</span>
      </div>
      <div class="prompt">
        {editing.value && last ? (
          <PromptEditor text={text} close={close} />
        ) : (
          <p class="prompt-text">
            {text}
            {last && (
              <button
                type="button"
                class="icon-button prompt-edit"
                title="Edit this prompt"
                onClick={() => {
                  editing.value = true;
                }}
              >
                <span class="unseen">Edit this prompt</span>
                <EditIcon />
              </button>
            )}
          </p>
        )}
      </div>
    </>
  );
}

function PromptEditor({ text, close }: { text: string; close: () => void }) {
  const area = useRef<HTMLTextAreaElement>(null);
  const draft = useSignal(text);
  useLayoutEffect(() => {
    const field = area.current!;
    fitToText(field);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }, []);

  const send = () => {
    if (draft.value.trim() === '') return;
    close();
    replaceLast(draft.value.trim());
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) send();
    else if (event.key === 'Escape') close();
    else return;
    event.preventDefault();
  };
  return (
    <form
      class="prompt-editor"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <textarea
        ref={area}
        class="field"
        aria-label="Your prompt"
        rows={1}
        value={draft.value}
        onInput={({ currentTarget }) => {
          draft.value = currentTarget.value;
          fitToText(currentTarget);
        }}
        onKeyDown={onKeyDown}
      />
      <div class="prompt-editor-actions">
        <button type="button" class="button" onClick={close}>
          Cancel
        </button>
        <button type="submit" class="button primary" disabled={draft.value.trim() === ''}>
          Ask again
        </button>
      </div>
    </form>
  );
}
