/** Tokens written, requests, and shares of hits and kept drafts over the last two minutes. */
import { Chart, type ChartOption, type ColourOf, plainOption } from '../train/chart.tsx';
import { type EngineEvent, events, KEPT } from './engine-events.ts';

interface Curve {
  readonly name: string;
  readonly colour: string;
  /** Null where there is nothing to tell. */
  of(now: EngineEvent, before: EngineEvent): number | null;
}

/** Events over which rates and shares are taken. */
const REACH = 4;
const share = (part: number, all: number) => (all > 0 ? (100 * part) / all : null);

const PANELS: { title: string; note: string; percent: boolean; curves: Curve[] }[] = [
  {
    title: 'Tokens',
    note: 'written a second, all requests',
    percent: false,
    curves: [
      {
        name: 'tokens/s',
        colour: '--bronze',
        of: (now, before) =>
          (now.counts.generatedTokens - before.counts.generatedTokens) / Math.max(0.1, now.seconds - before.seconds),
      },
    ],
  },
  {
    title: 'Requests',
    note: 'green: running · red: waiting',
    percent: false,
    curves: [
      { name: 'running', colour: '--patina', of: ({ running }) => running },
      { name: 'waiting', colour: '--danger', of: ({ waiting }) => waiting },
    ],
  },
  {
    title: 'Prefix hits',
    note: '% of prompt tokens · bronze: from disk',
    percent: true,
    curves: [
      {
        name: 'found',
        colour: '--patina',
        of: ({ counts }, { counts: before }) =>
          share(counts.cachedPromptTokens - before.cachedPromptTokens, counts.promptTokens - before.promptTokens),
      },
      {
        name: 'from disk',
        colour: '--bronze',
        of: ({ counts }, { counts: before }) =>
          share(counts.fetchedPromptTokens - before.fetchedPromptTokens, counts.promptTokens - before.promptTokens),
      },
    ],
  },
  {
    title: 'Drafts kept',
    note: '% of drafted tokens',
    percent: true,
    curves: [
      {
        name: 'kept',
        colour: '--bronze',
        of: ({ drafts }, { drafts: before }) =>
          share(drafts.accepted - before.accepted, drafts.drafted - before.drafted),
      },
    ],
  },
];

export function TimeCurves() {
  return (
    <section class="engine-curves" aria-label="The last two minutes">
      {PANELS.map((panel) => (
        <figure class="panel" key={panel.title}>
          <figcaption>
            <span class="panel-title">{panel.title}</span> <span class="panel-note">{panel.note}</span>
          </figcaption>
          <Chart label={described(panel)} height={170} option={(colour) => lines(panel, colour)} />
        </figure>
      ))}
    </section>
  );
}

function lines({ curves, percent }: (typeof PANELS)[0], colour: ColourOf): ChartOption {
  const all = events.value;
  const end = all.at(-1)!.seconds;
  const plain = plainOption(colour);
  const tick = { color: colour('--ink-faint'), fontSize: 11 };
  return {
    ...plain,
    grid: { left: 44, right: 14, top: 12, bottom: 24 },
    xAxis: {
      type: 'value',
      min: -KEPT / 2,
      max: 0,
      interval: 30,
      axisLabel: { ...tick, formatter: (seconds: number) => (seconds === 0 ? 'now' : `${seconds} s`) },
      splitLine: { show: false },
      axisLine: { lineStyle: { color: colour('--rule-strong') } },
    },
    yAxis: {
      type: 'value',
      min: 0,
      ...(percent ? { max: 100, interval: 25 } : { minInterval: 1 }),
      splitNumber: 3,
      axisLabel: tick,
      splitLine: { lineStyle: { color: colour('--rule') } },
    },
    tooltip: { ...plain.tooltip, trigger: 'axis', valueFormatter: (value) => String(Math.round(Number(value))) },
    series: curves.map(({ name, colour: token, of }) => ({
      name,
      type: 'line',
      color: colour(token),
      showSymbol: false,
      lineStyle: { width: 2 },
      areaStyle: { opacity: 0.1 },
      data: all.map((event, i) => [event.seconds - end, of(event, all[Math.max(0, i - REACH)]!)] as [number, number]),
    })),
  };
}

function described({ title, note, curves }: (typeof PANELS)[0]): string {
  const all = events.value;
  const now = curves.map(({ name, of }) => {
    const value = of(all.at(-1)!, all[Math.max(0, all.length - 1 - REACH)]!);
    return `${name} ${value === null ? 'nothing' : Math.round(value)}`;
  });
  return `${title}, ${note}, over the last two minutes. Now: ${now.join(', ')}.`;
}
