/** The cost explorer. */
import { render } from 'preact';
import { CostPage } from './cost-page.tsx';
import { followAddress } from './state.ts';

followAddress();
render(<CostPage />, document.querySelector('#page')!);
