/** A batch of documents of random tokens, a sequence each, for benchmarks of training. */
import type { ModelConfig } from '../src/model/config.ts';
import { packDocuments } from '../src/train/packed-documents.ts';
import { randomBits } from '../src/train/random.ts';

export function randomBatch(config: ModelConfig, { sequence, rows }: { sequence: number; rows: number }) {
  const modules = config.family === 'deepseek' ? config.numNextnPredictLayers : 0;
  const documents = Array.from({ length: (2 * rows) / sequence }, (_, d) => ({
    ids: Array.from({ length: sequence }, (_, i) => randomBits(1, d, i) % config.vocabSize),
  }));
  return packDocuments(documents, { sequence, rows, seed: 1, modules }).batch(0);
}
