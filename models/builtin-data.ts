/** What the built-in model is trained on: the shipped tales and generated arithmetic, in a fixed mixture. */
import path from 'node:path';
import { type CorpusDocument, readCorpus } from '../src/train/corpus.ts';
import { randomBits } from '../src/train/random.ts';
import { arithmeticProblem, type Split } from './arithmetic.ts';

export const here = import.meta.dirname;

/** How often each collection is read in one epoch; simple tales weigh most, since that is what the model should write. */
export const COLLECTIONS = {
  tinystories: 6,
  storybooks: 3,
  'fairy-tales': 2,
  fairytaleqa: 1,
  'standard-ebooks': 0.5,
  'classic-books': 0.05,
} as const;
export type Collection = keyof typeof COLLECTIONS;

const hash = (text: string) => [...text].reduce((h, c) => randomBits(h, 1, c.codePointAt(0)!), 0);

/** About one document in fifty is held out, by its title: validation is the same for every model. */
export const isHeldOut = ({ title, text }: CorpusDocument) => hash(`${title}|${text.slice(0, 80)}`) % 50 === 0;

export async function collection(name: Collection): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = [];
  for await (const document of readCorpus([path.join(here, 'corpus', `${name}.jsonl.gz`)])) documents.push(document);
  return documents;
}

export interface ChatExample {
  readonly prompt: string;
  readonly reply: string;
}

export function arithmeticChat(seed: number, index: number, split: Split): ChatExample {
  const { question, think, answer } = arithmeticProblem(seed, index, split);
  return { prompt: question, reply: `<think>${think}</think>${answer}` };
}

const SUBJECTS = new Set(
  `ant apple baby ball balloon bat bear bee bell bike bird boat book box boy branch bread bridge brother bug bunny bus butterfly
  cake camel car castle cat chick chicken child city cloud clown cow crab crocodile crow crown deer dog doll donkey door dragon
  dress drum duck eagle egg elephant fairy farmer father feather fire fish fisherman flower forest fox friend frog game garden
  ghost giant gift girl goat gold goose grandfather grandma grandmother grandpa grape grass hare hat hen hill horse house hunter
  ice insect island jar jungle key king kite kitten lake lamb lamp leaf lemon leopard lion lizard map market mirror monkey
  monster moon mother mountain mouse museum nest nurse nut ocean old-man owl ox panda park parrot peacock pear pen pig pigeon
  pirate pizza plane planet pond pony present prince princess puddle puppy queen rabbit rain rainbow rat ring river robot rock
  roof rope rose sailor sand school sea seed shadow sheep shell ship shoe shop sister sky sloth snail snake snow snowman soldier
  soup spider spoon squirrel star statue stick stone storm sun swan swing tailor teacher tiger toad tower toy train treasure
  tree truck turtle uncle umbrella village wagon wall watch water well whale wheel wind window wing witch wolf woman wood
  worm zebra zoo`.split(/\s+/),
);

const singular = (word: string) =>
  SUBJECTS.has(word) ? word : word.endsWith('s') && SUBJECTS.has(word.slice(0, -1)) ? word.slice(0, -1) : null;
const article = (noun: string) => `${/^[aeiou]/.test(noun) ? 'an' : 'a'} ${noun}`;

/** What a story is about: its one or two most frequent subjects, each named at least twice. */
export function subjectsOf(text: string): string[] {
  const counts = new Map<string, number>();
  for (const [word] of text.toLowerCase().matchAll(/[a-z]+/g)) {
    const noun = singular(word);
    if (noun) counts.set(noun, (counts.get(noun) ?? 0) + 1);
  }
  const frequent = [...counts].filter(([, count]) => count >= 2).sort((a, b) => b[1] - a[1]);
  return frequent.slice(0, 2).map(([noun]) => noun);
}

/** The story behind a request for one on its subjects; null where it is about none of the known ones. */
export function storyChat({ text }: CorpusDocument, seed: number, index: number): ChatExample | null {
  const subjects = subjectsOf(text);
  if (subjects.length === 0) return null;
  const draw = (n: number, stream: number) => randomBits(seed, stream, index) % n;
  const both = subjects.length === 2 && draw(3, 1) > 0;
  const about = both ? `${article(subjects[0]!)} and ${article(subjects[1]!)}` : article(subjects[0]!);
  const wordings = [
    `Tell me a story about ${about}.`,
    `Tell me a story about ${about}.`,
    `Tell me a short story about ${about}.`,
    `Write a story about ${about}.`,
    `Can you tell me a tale about ${about}?`,
  ];
  return { prompt: wordings[draw(wordings.length, 2)]!, reply: text };
}
