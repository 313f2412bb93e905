/** The head of every page: the coin, the pages, the page's own tools, and the switch between light and dark. */
import type { ComponentChildren } from 'preact';
import { Coin } from './coin.tsx';
import { MoonIcon, SunIcon } from './icons.tsx';
import { shownTheme, switchTheme } from './theme.ts';

const PAGES = [
  { path: '', name: 'Chat' },
  { path: 'engine/', name: 'Engine' },
  { path: 'train/', name: 'Train' },
  { path: 'cost/', name: 'Cost' },
] as const;

/** Where the pages lie: this code is in their folder `assets`. */
const root = import.meta.url.replace(/assets\/[^/]*$/, '');

/**
 * @param page path of the page it stands on, from where the pages lie
 * @param children buttons of this page, put before the theme switch
 */
export function Masthead({ page, children }: { page: (typeof PAGES)[number]['path']; children?: ComponentChildren }) {
  return (
    <header class="masthead-band">
      <div class="masthead">
        <a class="wordmark" href={root} aria-label="Farthing">
          <Coin />
          <span class="wordmark-name">Farthing</span>
        </a>
        <nav class="pages" aria-label="Pages">
          {PAGES.map(({ path, name }) => (
            <a key={path} href={root + path} aria-current={path === page ? 'page' : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <div class="masthead-tools">
          {children}
          <ThemeSwitch />
        </div>
      </div>
    </header>
  );
}

function ThemeSwitch() {
  const other = shownTheme.value === 'dark' ? 'light' : 'dark';
  return (
    <button type="button" class="icon-button" title={`Use the ${other} theme`} onClick={switchTheme}>
      <span class="unseen">Use the {other} theme</span>
      {other === 'light' ? <SunIcon /> : <MoonIcon />}
    </button>
  );
}
