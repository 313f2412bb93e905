/** What the shown runs wrote at a step: the reader moves through the steps and sees the texts improve. */
import { signal } from '@preact/signals';
import { useId } from 'preact/hooks';
import { colourOf } from './curves.tsx';
import { whole } from './figures.ts';
import { type ShownRun, shownRuns } from './runs.ts';

/** Null follows the newest. */
const wanted = signal<number | null>(null);

export function SampleTexts() {
  const id = useId();
  const shown = shownRuns.value.filter(({ samples }) => samples.size > 0);
  const steps = [...new Set(shown.flatMap(({ samples }) => [...samples.keys()]))].sort((a, b) => a - b);
  if (steps.length === 0) return null;
  const place = wanted.value === null ? steps.length - 1 : steps.findLastIndex((step) => step <= wanted.value!);
  const step = steps[Math.max(0, place)]!;
  const prompts = [
    ...new Set(shown.flatMap(({ samples }) => [...samples.values()].flatMap((texts) => [...texts.keys()]))),
  ];
  return (
    <section class="samples" aria-labelledby="samples-title">
      <header class="section-head">
        <h2 id="samples-title">What it writes</h2>
        <div class="step-choice">
          <label for={id}>
            at step <output for={id}>{whole(step)}</output>
          </label>
          <input
            id={id}
            type="range"
            min={0}
            max={steps.length - 1}
            value={Math.max(0, place)}
            aria-valuetext={`step ${step}`}
            disabled={steps.length === 1}
            onInput={({ currentTarget }) => {
              const chosen = Number(currentTarget.value);
              wanted.value = chosen === steps.length - 1 ? null : steps[chosen]!;
            }}
          />
        </div>
      </header>
      {prompts.map((prompt) => (
        <article class="sample" key={prompt}>
          {shown.map((run) => (
            <SampleText key={run.name} run={run} prompt={prompt} step={step} named={shown.length > 1} />
          ))}
        </article>
      ))}
    </section>
  );
}

/** The text of the run at the step, or at the last before it. */
function SampleText({ run, prompt, step, named }: { run: ShownRun; prompt: string; step: number; named: boolean }) {
  const at = [...run.samples.keys()].filter((each) => each <= step && run.samples.get(each)!.has(prompt)).at(-1);
  return (
    <div class="sample-text">
      {named && (
        <p class="sample-run">
          <i class="swatch" style={{ background: `var(${colourOf(run)})` }} />
          {run.name}
        </p>
      )}
      <p>
        <b>{prompt}</b>
        {at === undefined ? (
          <span class="none"> nothing yet</span>
        ) : (
          run.samples
            .get(at)!
            .get(prompt)!
            .replace(/\n{2,}/g, '\n')
        )}
      </p>
    </div>
  );
}
