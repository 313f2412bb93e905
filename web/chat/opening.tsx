/** What stands on the page before the first prompt: the coin, what this is, and prompts to begin with. */
import { Coin } from '../style/coin.tsx';
import { OpenIcon } from '../style/icons.tsx';
import { focusComposer } from './composer.tsx';
import { ask, earlier, goBack } from './conversation.ts';
import { FailureNote } from './failure-note.tsx';
import { askModels, models } from './models.ts';

/** Suited to the small built-in model: tales, and sums in one or two steps. */
const EXAMPLES = [
  { kind: 'Tale', prompt: 'Tell me a story about a fox and a crow.' },
  {
    kind: 'Sum',
    prompt: 'Tom has 17 apples. He buys 5 more and gives 3 to Anna. How many apples does Tom have now?',
  },
  { kind: 'Tale', prompt: 'Tell me a story about a little boat that was afraid of the sea.' },
  { kind: 'Sum', prompt: 'A baker bakes 6 trays with 8 buns on each tray. He sells 29 buns. How many buns are left?' },
] as const;

export function Opening() {
  const { value } = models;
  return (
    <div class="opening">
      <Coin legend />
      <h1>A tale, or a sum?</h1>
      <p class="opening-line">A small language model that runs on this very server.</p>
      {value.state === 'failed' && (
        <FailureNote failure={value.failure} again={() => void askModels().catch(() => {})} />
      )}
      <ul class="examples">
        {EXAMPLES.map(({ kind, prompt }) => (
          <li key={prompt}>
            <button type="button" class="example" onClick={() => begin(prompt)}>
              <span class="example-kind">{kind}</span>
              <span class="example-prompt">{prompt}</span>
              <OpenIcon />
            </button>
          </li>
        ))}
      </ul>
      {earlier.value.length > 0 && (
        <button type="button" class="text-button" onClick={goBack}>
          Back to “{shortened(earlier.value[0]!.prompt)}”
        </button>
      )}
    </div>
  );
}

function begin(prompt: string): void {
  ask(prompt);
  focusComposer();
}

function shortened(prompt: string): string {
  return prompt.length > 40 ? `${prompt.slice(0, 40).replace(/\s+\S*$/, '')}…` : prompt;
}
