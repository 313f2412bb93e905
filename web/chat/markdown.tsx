/**
 * A model's Markdown as sanitized HTML, one element a block, so that while text streams in only the last block changes
 * (a selection in the others survives). What a model writes fetches nothing and runs nothing.
 */
import DOMPurify from 'dompurify';
import { Marked } from 'marked';
import { useMemo } from 'preact/hooks';

const marked = new Marked({
  gfm: true,
  breaks: true,
  // Tags that a model writes are text to be read.
  renderer: { html: ({ text }) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;') },
});

DOMPurify.addHook('afterSanitizeAttributes', (node) => {
  if (node.tagName !== 'A') return;
  node.setAttribute('target', '_blank');
  node.setAttribute('rel', 'noopener noreferrer');
});

export function Markdown({ text }: { text: string }) {
  const blocks = useMemo(() => {
    const tokens = marked.lexer(text);
    return tokens.filter(({ type }) => type !== 'space').map((token) => marked.parser([token]));
  }, [text]);
  return (
    <div class="prose">
      {blocks.map((html, i) => (
        <Block key={i} html={html} />
      ))}
    </div>
  );
}

function Block({ html }: { html: string }) {
  const clean = useMemo(
    () => DOMPurify.sanitize(html, { USE_PROFILES: { html: true }, FORBID_TAGS: FORBIDDEN, FORBID_ATTR: ['style'] }),
    [html],
  );
  return <div class="block" dangerouslySetInnerHTML={{ __html: clean }} />;
}

const FORBIDDEN = ['img', 'picture', 'video', 'audio', 'source', 'style', 'form', 'input', 'button'];
