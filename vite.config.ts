import preact from '@preact/preset-vite';
import { defineConfig } from 'vite';

/** The browser pages: sources in web/, built into dist/web/, served by the HTTP server. One entry a page. */
export default defineConfig({
  root: 'web',
  plugins: [preact()],
  build: {
    outDir: '../dist/web',
    emptyOutDir: true,
    rolldownOptions: {
      input: {
        chat: 'web/index.html',
        train: 'web/train/index.html',
      },
    },
  },
});
