import { readFileSync } from 'node:fs';
import preact from '@preact/preset-vite';
import { defineConfig, type Plugin } from 'vite';

/** What the heads of all pages have in common. */
const sharedHead: Plugin = {
  name: 'shared-head',
  transformIndexHtml: {
    order: 'pre',
    handler: (html) => html.replace('<!-- style/head.html -->', readFileSync('web/style/head.html', 'utf8').trim()),
  },
};

/**
 * The browser pages: sources in web/, built into dist/web/, served by the HTTP server. One entry a page. And the
 * `farthing` command in few files: opening two hundred takes longer than `farthing run` does otherwise.
 */
export default defineConfig({
  root: 'web',
  // Pages find each other and their assets wherever the folder is put, under a server or as plain files of a site.
  base: './',
  plugins: [sharedHead, preact()],
  build: { outDir: '../dist/web', emptyOutDir: true },
  builder: {},
  // The cost explorer is bundled for itself: what it needs of zod would otherwise weigh on the chat page.
  environments: {
    client: {
      build: {
        rolldownOptions: {
          input: { chat: 'web/index.html', engine: 'web/engine/index.html', train: 'web/train/index.html' },
        },
      },
    },
    cost: {
      consumer: 'client',
      build: {
        emptyOutDir: false,
        chunkSizeWarningLimit: 1000,
        rolldownOptions: { input: { cost: 'web/cost/index.html' } },
      },
    },
    command: {
      consumer: 'server',
      // what every run opens; the rest stays in node_modules
      resolve: { noExternal: ['commander', 'zod', '@huggingface/jinja', '@huggingface/tokenizers'] },
      build: {
        // two levels down as the sources are: they find models/ and native/ from where they stand
        outDir: '../dist/cli',
        emptyOutDir: true,
        target: 'node20',
        rolldownOptions: {
          input: { main: 'src/cli/main.ts' },
          output: { entryFileNames: '[name].js', chunkFileNames: '[name]-[hash].js' },
        },
      },
    },
  },
});
