/** The whole page: figures of this moment, curves of the last two minutes, the cache, and the load of every expert. */
import { FailureNote } from '../chat/failure-note.tsx';
import { Masthead } from '../style/masthead.tsx';
import { CacheBar } from './cache-bar.tsx';
import { type EngineEvent, events, stream } from './engine-events.ts';
import { ExpertHeat } from './expert-heat.tsx';
import { TimeCurves } from './time-curves.tsx';

export function EnginePage() {
  const last = events.value.at(-1);
  return (
    <div class="engine-page">
      <Masthead page="engine/" />
      <main class="page-column engine-main">
        <header class="section-head">
          <h1 class="page-title">Engine</h1>
          {last && <p class="panel-note">{last.model}</p>}
        </header>
        {stream.failure.value && <FailureNote failure={stream.failure.value} again={stream.askAgain} />}
        {last && (
          <>
            <Figures now={last} before={events.value.at(-5) ?? events.value[0]!} />
            <TimeCurves />
            <CacheBar {...last} />
            <ExpertHeat />
          </>
        )}
      </main>
    </div>
  );
}

/** Rates are of the last two seconds, shares of all since the server started. */
function Figures({ now, before }: { now: EngineEvent; before: EngineEvent }) {
  const { counts, drafts } = now;
  const seconds = now.seconds - before.seconds;
  const written = counts.generatedTokens - before.counts.generatedTokens;
  const share = (part: number, all: number) => (all === 0 ? '–' : `${Math.round((100 * part) / all)} %`);
  const done = counts.finished.stop + counts.finished.length;
  const figures: [string, string, string][] = [
    ['running', String(now.running), `${now.waiting} waiting`],
    ['tokens/s', seconds > 0 ? Math.round(written / seconds).toLocaleString('en') : '–', 'written, all requests'],
    [
      'prefix hits',
      share(counts.cachedPromptTokens, counts.promptTokens),
      now.disk ? `${share(counts.fetchedPromptTokens, counts.promptTokens)} from disk` : 'of prompt tokens',
    ],
    ['drafts kept', share(drafts.accepted, drafts.drafted), `of ${drafts.drafted.toLocaleString('en')} drafted`],
    ['answered', done.toLocaleString('en'), `${counts.finished.cancelled} left, ${counts.preemptions} set back`],
  ];
  return (
    <dl class="engine-figures" aria-label="Now">
      {figures.map(([name, value, note]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
          <dd class="panel-note">{note}</dd>
        </div>
      ))}
    </dl>
  );
}
