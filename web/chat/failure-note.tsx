/** A failure in words, with what the reader can do about it. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Failure } from './failure.ts';
import { apiKey } from './settings.ts';

export interface FailureActions {
  /** Tries again what failed. */
  readonly again?: (() => void) | undefined;
  readonly startNew?: (() => void) | undefined;
}

export function FailureNote({ failure, again, startNew }: { failure: Failure } & FailureActions) {
  return (
    <div class="failure" role="alert">
      <p class="failure-title">{TITLES[failure.kind]}</p>
      {failure.kind === 'unreachable' ? (
        <p>
          Nothing answers at <span class="nobreak">{location.host}</span>. If the server has stopped, start it again
          with <code class="nobreak">farthing serve</code>.
        </p>
      ) : (
        <p>{failure.message}</p>
      )}
      {failure.kind === 'unauthorized' && <KeyForm again={again} />}
      {failure.kind === 'busy' && again && <Countdown until={failure.retryAt} again={again} />}
      {(failure.kind === 'unreachable' || failure.kind === 'broken') && again && (
        <button type="button" class="button" onClick={again}>
          Try again
        </button>
      )}
      {failure.kind === 'refused' && (again || startNew) && (
        <div class="failure-actions">
          {again && (
            <button type="button" class="button" onClick={again}>
              Try again
            </button>
          )}
          {startNew && (
            <button type="button" class="button" onClick={startNew}>
              New chat
            </button>
          )}
        </div>
      )}
    </div>
  );
}

const TITLES: Record<Failure['kind'], string> = {
  unreachable: 'The server does not answer',
  unauthorized: 'This server asks for a key',
  busy: 'The server is busy',
  refused: 'The server declined this request',
  broken: 'The answer broke off',
};

function KeyForm({ again }: FailureActions) {
  const draft = useSignal('');
  return (
    <form
      class="key-form"
      onSubmit={(event) => {
        event.preventDefault();
        apiKey.value = draft.value.trim();
        again?.();
      }}
    >
      <input
        class="field"
        type="password"
        autocomplete="off"
        aria-label="API key"
        placeholder="API key"
        value={draft.value}
        onInput={({ currentTarget }) => {
          draft.value = currentTarget.value;
        }}
      />
      <button type="submit" class="button primary" disabled={draft.value.trim() === ''}>
        Use key
      </button>
    </form>
  );
}

function Countdown({ until, again }: { until: number; again: () => void }) {
  const now = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      now.value = Date.now();
      if (now.value >= until) clearInterval(timer);
    }, 250);
    return () => clearInterval(timer);
  }, [until]);
  const left = Math.ceil((until - now.value) / 1000);
  return (
    <button type="button" class="button" disabled={left > 0} onClick={again}>
      {left > 0 ? `Try again in ${left} s` : 'Try again'}
    </button>
  );
}
