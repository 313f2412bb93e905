/** The training page. */
import { render } from 'preact';
import { stream } from './runs.ts';
import { TrainPage } from './train-page.tsx';

stream.follow();
render(<TrainPage />, document.querySelector('#page')!);
