/** The chat page. */
import { render } from 'preact';
import { ChatPage } from './chat-page.tsx';
import { keepAskingModels } from './models.ts';

keepAskingModels();
render(<ChatPage />, document.querySelector('#page')!);
