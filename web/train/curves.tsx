/** Figures of the shown runs over steps, tokens or time: one colour a run. */
import { signal } from '@preact/signals';
import { Chart, type ChartOption, type ColourOf, plainOption } from './chart.tsx';
import { duration, short, significant } from './figures.ts';
import { type Step, smoothed } from './run-data.ts';
import { type ShownRun, shownRuns } from './runs.ts';

const AXES = { step: 'Steps', tokens: 'Tokens', seconds: 'Time' } as const;
type Axis = keyof typeof AXES;
const axis = signal<Axis>('step');

/** The drawn loss is a mean over this many steps on either side. */
const REACH = 10;
const COLOURS = 6;
export const colourOf = ({ place }: { place: number }) => `--run-${(place % COLOURS) + 1}`;

export function Curves() {
  const shown = shownRuns.value.filter(({ steps }) => steps.length > 0);
  if (shown.length === 0) return null;
  const hasExperts = shown.some(({ steps }) => steps.some(({ imbalance }) => imbalance !== null));
  const curves = (title: string, of: (step: Step) => number | null, note?: string) => (
    <Panel title={title} note={note}>
      <Chart
        label={described(title, shown, of)}
        height={190}
        option={(colour) => lines(shown, colour, (run) => [curve(run, colour, of)])}
      />
    </Panel>
  );
  return (
    <section class="curves" aria-labelledby="curves-title">
      <header class="section-head">
        <h2 id="curves-title">Curves</h2>
        <AxisChoice />
      </header>
      <Panel title="Loss" note={`nats per token · line: mean of ${2 * REACH + 1} steps · dots: held out`} wide>
        <Chart
          label={`${described('Training loss', shown, ({ loss }) => loss)} ${described('Held out', shown, ({ validation }) => validation ?? null)}`}
          height={340}
          option={(colour) => lines(shown, colour, (run) => lossCurves(run, colour))}
        />
      </Panel>
      {curves('Rate', ({ tokens, seconds }) => tokens / seconds, 'tokens per second')}
      {curves('Learning rate', ({ learningRate }) => learningRate)}
      {curves('Gradient norm', ({ gradientNorm }) => gradientNorm, 'before clipping')}
      {hasExperts && curves('Busiest expert', ({ imbalance }) => imbalance, 'load over the mean, worst layer')}
    </section>
  );
}

function Panel({
  title,
  note,
  wide,
  children,
}: {
  title: string;
  note?: string | undefined;
  wide?: boolean;
  children: preact.ComponentChild;
}) {
  return (
    <figure class={wide ? 'panel wide' : 'panel'}>
      <figcaption>
        <span class="panel-title">{title}</span> {note && <span class="panel-note">{note}</span>}
      </figcaption>
      {children}
    </figure>
  );
}

function AxisChoice() {
  return (
    <fieldset class="choice">
      <legend class="unseen">Drawn over</legend>
      {(Object.keys(AXES) as Axis[]).map((name) => (
        <label key={name}>
          <input
            type="radio"
            name="axis"
            checked={axis.value === name}
            onChange={() => {
              axis.value = name;
            }}
          />
          <span>{AXES[name]}</span>
        </label>
      ))}
    </fieldset>
  );
}

/** Where each step stands on the axis. */
function positions(steps: readonly Step[]): number[] {
  if (axis.value === 'step') return steps.map(({ step }) => step);
  const name = axis.value;
  let sum = 0;
  return steps.map((step) => {
    sum += step[name];
    return sum;
  });
}

type Line = Extract<ChartOption['series'], unknown[]>[number];

function curve(run: ShownRun, colour: ColourOf, of: (step: Step) => number | null): Line {
  const at = positions(run.steps);
  const data = run.steps.flatMap((step, i) => {
    const value = of(step);
    return value === null ? [] : [[at[i]!, value]];
  });
  return { ...thin(run, colour), data };
}

function lossCurves(run: ShownRun, colour: ColourOf): Line[] {
  const at = positions(run.steps);
  const losses = run.steps.map(({ loss }) => loss);
  const held = run.steps.flatMap(({ validation }, i) => (validation === undefined ? [] : [[at[i]!, validation]]));
  const plain = thin(run, colour);
  return [
    {
      ...plain,
      data: losses.map((loss, i) => [at[i]!, loss]),
      lineStyle: { width: 1, opacity: 0.28 },
      tooltip: { show: false },
      z: 1,
    },
    { ...plain, data: smoothed(losses, REACH).map((loss, i) => [at[i]!, loss]), lineStyle: { width: 2 } },
    {
      ...plain,
      name: `${run.name}, held out`,
      data: held,
      showSymbol: true,
      symbol: 'circle',
      symbolSize: 8,
      itemStyle: { color: colour('--surface'), borderColor: colour(colourOf(run)), borderWidth: 2 },
      lineStyle: { width: 1.5, type: [2, 4] },
      z: 4,
    },
  ];
}

const thin = (run: ShownRun, colour: ColourOf) => ({
  type: 'line' as const,
  name: run.name,
  color: colour(colourOf(run)),
  showSymbol: false,
  sampling: 'lttb' as const,
  lineStyle: { width: 1.5 },
  emphasis: { disabled: true },
  z: 3,
});

function lines(shown: readonly ShownRun[], colour: ColourOf, series: (run: ShownRun) => Line[]): ChartOption {
  const plain = plainOption(colour);
  const label = (value: number) => (axis.value === 'seconds' ? duration(value) : short(value));
  const tick = { color: colour('--ink-faint'), fontSize: 11 };
  return {
    ...plain,
    grid: { left: 4, right: 18, top: 14, bottom: 4, containLabel: true },
    xAxis: {
      type: 'value',
      max: 'dataMax',
      min: 0,
      axisLabel: { ...tick, formatter: label, hideOverlap: true, showMaxLabel: false },
      axisLine: { lineStyle: { color: colour('--rule-strong') } },
      axisTick: { show: false },
      splitLine: { show: false },
      axisPointer: { label: { formatter: ({ value }) => label(Number(value)) } },
    },
    yAxis: {
      type: 'value',
      scale: true,
      splitNumber: 4,
      axisLabel: { ...tick, formatter: significant },
      splitLine: { lineStyle: { color: colour('--rule') } },
    },
    tooltip: {
      ...plain.tooltip,
      trigger: 'axis',
      axisPointer: { lineStyle: { color: colour('--ink-faint') } },
      valueFormatter: (value) => (typeof value === 'number' ? significant(value) : String(value)),
    },
    series: shown.flatMap(series),
  };
}

/** "Loss. tales: 8.34 at step 1, 3.51 at step 324." */
function described(title: string, shown: readonly ShownRun[], of: (step: Step) => number | null): string {
  const told = shown.flatMap(({ name, steps }) => {
    const having = steps.filter((step) => of(step) !== null);
    const [first, last] = [having[0], having.at(-1)];
    if (!first || !last) return [];
    const told = [first, ...(last === first ? [] : [last])];
    return [`${name}: ${told.map((step) => `${significant(of(step)!)} at step ${step.step}`).join(', ')}.`];
  });
  return `${title}. ${told.join(' ')}`;
}
