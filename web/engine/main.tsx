/** The live page of the engine. */
import { render } from 'preact';
import { stream } from './engine-events.ts';
import { EnginePage } from './engine-page.tsx';

stream.follow();
render(<EnginePage />, document.querySelector('#page')!);
