/** The whole page: the runs of the server's folder, their curves, expert loads and texts. */
import { FailureNote } from '../chat/failure-note.tsx';
import { Masthead } from '../style/masthead.tsx';
import { Curves } from './curves.tsx';
import { ExpertLoads } from './expert-loads.tsx';
import { RunTable } from './run-table.tsx';
import { runs, stream } from './runs.ts';
import { SampleTexts } from './sample-texts.tsx';

export function TrainPage() {
  return (
    <div class="train-page">
      <Masthead page="train/" />
      <main class="page-column train-main">
        <h1 class="page-title">Training</h1>
        {stream.failure.value && <FailureNote failure={stream.failure.value} again={stream.askAgain} />}
        {runs.value !== null && (runs.value.length > 0 ? <Shown /> : <NoRuns />)}
      </main>
    </div>
  );
}

function Shown() {
  return (
    <>
      <RunTable />
      <Curves />
      <ExpertLoads />
      <SampleTexts />
    </>
  );
}

function NoRuns() {
  return (
    <div class="no-runs">
      <p>No run yet in the folder that this server watches. This begins one, and it will show here by itself:</p>
      <pre>
        <code>farthing train --config examples/tales.toml</code>
      </pre>
      <p>
        Another folder is watched with <code>farthing serve --runs FOLDER</code>.
      </p>
    </div>
  );
}
