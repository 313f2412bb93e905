/** The runs of the folder, each with a box to show it and, while shown, where it stands. */
import { colourOf } from './curves.tsx';
import { duration, significant, whole } from './figures.ts';
import type { RunSummary, Step } from './run-data.ts';
import { runs, type ShownRun, shownRuns, toggleRun } from './runs.ts';

const COLUMNS: readonly { readonly name: string; value(run: ShownRun, last: Step): string | null }[] = [
  {
    name: 'Loss',
    value: ({ steps }) => meanOf(steps.slice(-20).map(({ loss }) => loss)).toFixed(3),
  },
  {
    name: 'Held out',
    value: ({ steps }) => steps.findLast(({ validation }) => validation !== undefined)?.validation?.toFixed(3) ?? null,
  },
  {
    name: 'Bits per byte',
    value: ({ steps }) =>
      steps.findLast(({ bitsPerByte }) => bitsPerByte !== undefined)?.bitsPerByte?.toFixed(3) ?? null,
  },
  { name: 'Busiest expert', value: (_, { imbalance }) => (imbalance === null ? null : `${imbalance.toFixed(2)}×`) },
  { name: 'Gradient norm', value: (_, { gradientNorm }) => significant(gradientNorm) },
  { name: 'Tokens/s', value: ({ steps }) => whole(rateOf(steps.slice(-50))) },
  { name: 'Time', value: ({ steps }) => duration(steps.reduce((sum, { seconds }) => sum + seconds, 0)) },
];

export function RunTable() {
  const shown = new Map(shownRuns.value.map((run) => [run.name, run]));
  return (
    <table class="runs">
      <thead>
        <tr>
          <th scope="col">Run</th>
          <th scope="col">Step</th>
          {COLUMNS.map(({ name }) => (
            <th scope="col" key={name}>
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {runs.value!.map((run, place) => (
          <Row key={run.name} run={run} place={place} shown={shown.get(run.name)} />
        ))}
      </tbody>
    </table>
  );
}

function Row({ run, place, shown }: { run: RunSummary; place: number; shown: ShownRun | undefined }) {
  const last = shown?.steps.at(-1);
  const { name, state, plan, lastStep } = run;
  return (
    <tr data-shown={shown !== undefined}>
      <th scope="row">
        <label>
          <input
            type="checkbox"
            checked={shown !== undefined}
            style={{ '--swatch': `var(${colourOf({ place })})` }}
            onClick={(event) => {
              event.preventDefault();
              toggleRun(name);
            }}
          />
          <span class="run-name">{name === '.' ? 'this run' : name}</span>
        </label>
        <Stand state={state} plan={plan} steps={shown?.steps ?? []} lastStep={lastStep} />
      </th>
      <td data-name="Step">
        {whole(lastStep)}
        {plan && <span class="of"> / {whole(plan.steps)}</span>}
      </td>
      {COLUMNS.map((column) => (
        <td key={column.name} data-name={column.name}>
          {(shown && last && column.value(shown, last)) ?? ''}
        </td>
      ))}
    </tr>
  );
}

/** Running, with the time left; stopped; or done. */
function Stand({
  state,
  plan,
  steps,
  lastStep,
}: Pick<RunSummary, 'state' | 'plan' | 'lastStep'> & { steps: readonly Step[] }) {
  if (state !== 'running') return <span class="stand">{state === 'finished' ? 'done' : 'stopped'}</span>;
  const recent = steps.slice(-50);
  const each = meanOf(recent.map(({ seconds }) => seconds));
  return (
    <span class="stand running">
      {plan && recent.length > 0 ? `${duration((plan.steps - lastStep) * each)} left` : 'running'}
    </span>
  );
}

function rateOf(steps: readonly Step[]): number {
  const [tokens, seconds] = steps.reduce(([t, s], step) => [t + step.tokens, s + step.seconds], [0, 0]);
  return tokens / seconds;
}

const meanOf = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
