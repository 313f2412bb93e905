/** Where the reader writes. Enter sends, Shift+Enter begins a line, Escape stops; the coin sends and stops. */
import { signal } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { SendIcon, StopIcon } from '../style/icons.tsx';
import { ask, stop, writing } from './conversation.ts';
import { fitToText } from './fit-to-text.ts';
import { chosenModel, model, models } from './models.ts';

const draft = signal('');

const FIELD = 'composer-field';

export function focusComposer(): void {
  document.getElementById(FIELD)?.focus();
}

export function Composer() {
  const area = useRef<HTMLTextAreaElement>(null);
  const text = draft.value;
  useLayoutEffect(() => fitToText(area.current!), [text]);
  // On a phone the keyboard would cover the page before it is read.
  useLayoutEffect(() => {
    if (matchMedia('(pointer: fine)').matches) area.current!.focus();
  }, []);

  const send = () => {
    if (writing.value || draft.value.trim() === '') return;
    ask(draft.value.trim());
    draft.value = '';
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  return (
    <form
      class="composer-band"
      aria-label="Ask"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div class="composer">
        <textarea
          ref={area}
          id={FIELD}
          aria-label="Your prompt"
          placeholder="Ask for a tale, or set a sum"
          rows={1}
          enterkeyhint="send"
          value={text}
          onInput={({ currentTarget }) => {
            draft.value = currentTarget.value;
          }}
          onKeyDown={onKeyDown}
        />
        <CoinButton empty={text.trim() === ''} />
      </div>
      <div class="composer-foot">
        <ModelName />
        <span class="keys">
          <kbd>Enter</kbd> sends, <kbd>Shift Enter</kbd> begins a line, <kbd>Esc</kbd> stops
        </span>
      </div>
    </form>
  );
}

function CoinButton({ empty }: { empty: boolean }) {
  const rim = (
    <svg class="coin-button-rim" viewBox="0 0 44 44" aria-hidden="true">
      <circle cx="22" cy="22" r="18.5" />
    </svg>
  );
  if (writing.value) {
    return (
      <button type="button" class="coin-button turning" title="Stop (Esc)" onClick={stop}>
        {rim}
        <span class="unseen">Stop</span>
        <StopIcon />
      </button>
    );
  }
  return (
    <button type="submit" class="coin-button" title="Send (Enter)" disabled={empty}>
      {rim}
      <span class="unseen">Send</span>
      <SendIcon />
    </button>
  );
}

function ModelName() {
  const { value } = models;
  if (value.state !== 'known') return <span class="model-name">{value.state === 'asking' ? '' : 'No model yet'}</span>;
  if (value.names.length === 1) return <span class="model-name">{model.value}</span>;
  return (
    <select
      class="model-name"
      aria-label="Model"
      value={model.value}
      onChange={({ currentTarget }) => {
        chosenModel.value = currentTarget.value;
      }}
    >
      {value.names.map((name) => (
        <option key={name}>{name}</option>
      ))}
    </select>
  );
}
