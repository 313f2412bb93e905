/** The models that come with the package: their published configs, with sources, as architectures. */
import { type Architecture, parseArchitecture } from './architecture.ts';
import catalogue from './data/models.json' with { type: 'json' };

export interface CatalogueModel {
  readonly id: string;
  readonly name: string;
  readonly architecture: Architecture;
  readonly date: string;
  readonly source: string;
  /** What its makers print, and to which unit the figure is rounded; null where nothing was found. */
  readonly published: PublishedSize | null;
}

interface PublishedSize {
  readonly total: number;
  readonly totalRounding: number;
  readonly active: number;
  readonly activeRounding: number;
  /** Whether the makers count the input table as active. */
  readonly activeWithEmbedding: boolean;
  readonly source: string;
}

export const MODELS: readonly CatalogueModel[] = catalogue.models.map(
  ({ id, name, config, date, source, ...rest }) => ({
    id,
    name,
    architecture: parseArchitecture(config, id),
    date,
    source,
    published: 'published' in rest && rest.published ? rest.published : null,
  }),
);

/** @throws Error naming the models there are */
export function modelById(id: string): CatalogueModel {
  const found = MODELS.find((model) => model.id === id);
  if (!found) throw new Error(`there is no model "${id}"; there are ${MODELS.map((m) => m.id).join(', ')}`);
  return found;
}
