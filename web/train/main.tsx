/** The training page. */
import { render } from 'preact';
import { followShownRuns } from './runs.ts';
import { TrainPage } from './train-page.tsx';

followShownRuns();
render(<TrainPage />, document.querySelector('#page')!);
