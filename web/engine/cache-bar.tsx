/** The blocks of the cache by state, as parts of one bar. */
import type { EngineEvent } from './engine-events.ts';

export function CacheBar({
  blocks: { total, free, cached },
  cache,
  disk,
}: Pick<EngineEvent, 'blocks' | 'cache' | 'disk'>) {
  const parts = [
    { name: 'in use', blocks: total - free, kind: 'used' },
    { name: 'kept for later prompts', blocks: cached, kind: 'cached' },
    { name: 'empty', blocks: free - cached, kind: 'empty' },
  ];
  return (
    <section aria-labelledby="cache-title">
      <header class="section-head">
        <h2 id="cache-title">Cache</h2>
        <p class="panel-note">
          {total.toLocaleString('en')} blocks of {cache.blockTokens} tokens, {cache.bytesPerToken.toLocaleString('en')}{' '}
          bytes a token ({cache.dtype})
        </p>
      </header>
      <div class="cache-bar" aria-hidden="true">
        {parts.map(({ kind, blocks }) => (
          <i key={kind} class={kind} style={{ flexGrow: blocks }} />
        ))}
      </div>
      <ul class="cache-key">
        {parts.map(({ kind, name, blocks }) => (
          <li key={kind}>
            <i class={kind} aria-hidden="true" />
            {blocks.toLocaleString('en')} {name}
          </li>
        ))}
        {disk && <li>{onDisk(disk)}</li>}
      </ul>
    </section>
  );
}

function onDisk({ bytes, read, written, damaged }: NonNullable<EngineEvent['disk']>): string {
  const size = (bytes / 2 ** 20).toLocaleString('en', { maximumFractionDigits: 1 });
  const blocks = (count: number) => count.toLocaleString('en');
  return (
    `On disk: ${size} MiB; ${blocks(read)} blocks read, ${blocks(written)} written` +
    (damaged > 0 ? `, ${blocks(damaged)} damaged and not used` : '')
  );
}
