/** The settings, kept as they are changed. An empty number leaves the choice to the server. */
import { useSignal } from '@preact/signals';
import { useId, useLayoutEffect, useRef } from 'preact/hooks';
import { CloseIcon } from '../style/icons.tsx';
import { storageRefused } from '../style/saved.ts';
import {
  apiKey,
  DEFAULT_SETTINGS,
  NUMBER_SETTINGS,
  type NumberSetting,
  readNumber,
  settings,
  settingsOpen,
} from './settings.ts';

export function SettingsDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = settingsOpen.value;
  // before the next paint: a dialog that is still open would swallow what is typed at once after it
  useLayoutEffect(() => {
    if (open) dialog.current!.showModal();
    else dialog.current!.close();
  }, [open]);
  const close = () => {
    settingsOpen.value = false;
  };
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape closes a dialog by itself
    <dialog
      ref={dialog}
      class="settings"
      aria-labelledby="settings-title"
      onClose={close}
      onClick={({ target, currentTarget }) => {
        // Of a dialog, only the backdrop is not covered by its content.
        if (target === currentTarget) close();
      }}
    >
      {open && <SettingsForm close={close} />}
    </dialog>
  );
}

function SettingsForm({ close }: { close: () => void }) {
  // Fields hold what is typed, so a reset makes them anew.
  const resets = useSignal(0);
  const reset = () => {
    settings.value = DEFAULT_SETTINGS;
    resets.value++;
  };
  return (
    <div class="settings-content">
      <div class="settings-head">
        <h2 id="settings-title">Settings</h2>
        <button type="button" class="icon-button" title="Close" onClick={close}>
          <span class="unseen">Close</span>
          <CloseIcon />
        </button>
      </div>
      <div class="settings-rows" key={resets.value}>
        {NUMBER_SETTINGS.map((setting) => (
          <NumberRow key={setting.name} setting={setting} />
        ))}
        <SystemPromptRow />
        <KeyRow />
      </div>
      {storageRefused.value && (
        <p class="settings-note">
          This browser keeps nothing for this page: settings and conversation go with the tab.
        </p>
      )}
      <footer class="settings-foot">
        <button type="button" class="text-button" onClick={reset}>
          Back to the model’s defaults
        </button>
        <button type="button" class="button primary" onClick={close}>
          Done
        </button>
      </footer>
    </div>
  );
}

function NumberRow({ setting }: { setting: NumberSetting }) {
  const id = useId();
  const { name, label, hint, least, greatest, step } = setting;
  const typed = useSignal(settings.value[name]?.toString() ?? '');
  const wrong = readNumber(typed.value, setting) === undefined;
  const expected = `Expected ${step === 1 ? 'a whole number' : 'a number'} ${
    greatest > 2 ? `from ${least} up` : `from ${least} to ${greatest}`
  }.`;
  return (
    <div class="setting">
      <label for={id}>{label}</label>
      <input
        id={id}
        class="field"
        inputmode={step === 1 ? 'numeric' : 'decimal'}
        autocomplete="off"
        placeholder="default"
        value={typed.value}
        aria-invalid={wrong}
        aria-describedby={`${id}-hint`}
        onInput={({ currentTarget }) => {
          typed.value = currentTarget.value;
          const value = readNumber(typed.value, setting);
          if (value !== undefined) settings.value = { ...settings.value, [name]: value };
        }}
      />
      <p id={`${id}-hint`} class={wrong ? 'hint wrong' : 'hint'}>
        {wrong ? expected : hint}
      </p>
    </div>
  );
}

function SystemPromptRow() {
  const id = useId();
  return (
    <div class="setting wide">
      <label for={id}>System prompt</label>
      <textarea
        id={id}
        class="field"
        rows={3}
        placeholder="None"
        value={settings.value.systemPrompt}
        onInput={({ currentTarget }) => {
          settings.value = { ...settings.value, systemPrompt: currentTarget.value };
        }}
      />
    </div>
  );
}

function KeyRow() {
  const id = useId();
  return (
    <div class="setting wide">
      <label for={id}>API key</label>
      <input
        id={id}
        class="field"
        type="password"
        autocomplete="off"
        placeholder="None"
        value={apiKey.value}
        aria-describedby={`${id}-hint`}
        onChange={({ currentTarget }) => {
          apiKey.value = currentTarget.value.trim();
        }}
      />
      <p id={`${id}-hint`} class="hint">
        Needed where the server was started with <code>--api-key</code>. It is kept in this browser.
      </p>
    </div>
  );
}
