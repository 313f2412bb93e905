/** The live page of the engine. */
import { render } from 'preact';
import { followEngine } from './engine-events.ts';
import { EnginePage } from './engine-page.tsx';

followEngine();
render(<EnginePage />, document.querySelector('#page')!);
