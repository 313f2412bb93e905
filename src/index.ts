/** The public API: load a model folder, look at its logits, let it write; train one; work out what one takes and costs. */
export { type Architecture, parseArchitecture } from './economics/architecture.ts';
export {
  type Explanation,
  type ExplanationSettings,
  explain,
  TECHNIQUES,
  type Technique,
} from './economics/explanation.ts';
export { MACHINES, type Machine, machineById, parseMachine } from './economics/machine.ts';
export { MODELS, modelById } from './economics/model-catalogue.ts';
export { type CountSettings, type ModelCounts, modelCounts } from './economics/model-counts.ts';
export {
  type Alias,
  PRICE_BOOK,
  type Price,
  type PriceBook,
  parsePriceBook,
  type Window,
} from './economics/price-book.ts';
export { moneyText } from './economics/price-book-money.ts';
export {
  type Call,
  type Cost,
  PriceError,
  type Quote,
  quote,
  type Rate,
  reprice,
} from './economics/price-book-quote.ts';
export * as units from './economics/quantity.ts';
export { type Serving, type ServingPlan, serve, type Workload, WorkloadError } from './economics/serving.ts';
export { type PlanChoice, suggestPlan, USUAL_CHOICE } from './economics/suggested-plan.ts';
export { type TrainingCost, type TrainingPlan, trainingCost } from './economics/training-cost.ts';
export type { SampledToken, Times, Usage } from './engine/engine.ts';
export { type LanguageModel, type LoadOptions, loadModel, type Prompt, PromptError } from './engine/language-model.ts';
export { QueueFullError, RequestTooLargeError } from './engine/scheduler.ts';
export type { TextGeneration, TextOptions, TextPiece } from './engine/text-generation.ts';
export { type ModelConfig, parseConfig } from './model/config.ts';
export { type ModelReport, modelReport } from './model/model-report.ts';
export { FormatError } from './numerics/format-error.ts';
export { type RunPlan, type RunReport, runConfig } from './train/configured-run.ts';
export { readTrainConfig, type TrainConfig } from './train/train-config.ts';
