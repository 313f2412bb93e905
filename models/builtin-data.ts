/** What the built-in model is trained on: the shipped tales and generated arithmetic, in a fixed mixture. */
import path from 'node:path';
import { type CorpusDocument, readCorpus } from '../src/train/corpus.ts';
import { randomBits } from '../src/train/random.ts';
import { arithmeticProblem, type Split } from './arithmetic.ts';
import { recast } from './recast.ts';

export const here = import.meta.dirname;

/** How often each collection is read in an epoch of the first phase; simple tales weigh most: the model should write such. */
export const COLLECTIONS = {
  tinystories: 4,
  storybooks: 2,
  fables: 2,
  fairytaleqa: 1,
  'fairy-tales': 1,
  'standard-ebooks': 1,
  'classic-books': 0.25,
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

const MANNERS =
  'angry beautiful big blue brave careful clever curious friendly funny gentle greedy happy helpful honest hungry kind lazy little lonely lost magic naughty old poor proud red rich sad shy silly small smart strong tiny tired wise young'.split(
    ' ',
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

/** The subject with an article, and as the story describes it where `described`: "a brave mouse". */
function named(subject: string, text: string, described: boolean): string {
  const manner = new RegExp(`\\b(${MANNERS.join('|')}) ${subject}\\b`, 'i').exec(text)?.[1]?.toLowerCase();
  return article(described && manner ? `${manner} ${subject}` : subject);
}

/** The story behind a request for one on its subjects; null where it is about none of the known ones. */
export function storyChat({ text }: CorpusDocument, seed: number, index: number): ChatExample | null {
  const subjects = subjectsOf(text);
  if (subjects.length === 0) return null;
  const draw = (n: number, stream: number) => randomBits(seed, stream, index) % n;
  const both = subjects.length === 2 && draw(3, 1) > 0;
  const about = subjects
    .slice(0, both ? 2 : 1)
    .map((subject, s) => named(subject, text, draw(3, 3 + s) === 0))
    .join(' and ');
  return { prompt: request(about, draw(REQUESTS.length, 2)), reply: text };
}

/**
 * The tale with another cast behind a request for one on them; null where none of the cast is in its opening.
 * `both`: null as well unless two of them are, who are then asked for in the order in which they come.
 */
export function recastChat({ text }: CorpusDocument, seed: number, index: number, asked?: 'both'): ChatExample | null {
  const { text: reply, about } = recast(text, seed, index);
  const draw = (n: number, stream: number) => randomBits(seed, stream, index) % n;
  const opening = openingOf(reply).toLowerCase();
  const at = (who: string) => opening.indexOf(who.split(' ')[1]!.toLowerCase());
  const early = about.filter((who) => at(who) >= 0);
  if (early.length < (asked === 'both' ? 2 : 1)) return null;
  const cast =
    asked === 'both'
      ? early.slice(0, 2).sort((a, b) => at(a) - at(b))
      : [early[0]!, ...about.filter((who) => who !== early[0])].slice(0, draw(3, 1) > 0 ? 2 : 1);
  const wanted = cast.map((who, s) => {
    const noun = /^an? (\w+)$/.exec(who)?.[1];
    return noun ? named(noun, reply, draw(2, 3 + s) === 0) : who;
  });
  return { prompt: request(wanted.join(' and '), draw(REQUESTS.length, 2)), reply };
}

/** The first sentences of a tale, where it says whom it is about. */
export const openingOf = (text: string) => /^.{120,}?[.!?]"?(?=\s)/s.exec(text)?.[0] ?? text;

const REQUESTS = [
  'Tell me a story about #.',
  'Tell me a story about #.',
  'Tell me a short story about #.',
  'Write a story about #.',
  'Can you tell me a tale about #?',
] as const;
const request = (about: string, wording: number) => REQUESTS[wording]!.replace('#', about);
