/**
 * Tales told with another cast: every animal becomes another animal, every named child another one or an animal (a friend
 * who is only called Tom may be called Fox), throughout. Who a tale is about can then not be remembered, only read in the request for it.
 */
import { randomBits } from '../src/train/random.ts';

/** Plurals that are not made with an s. */
const PLURALS: Readonly<Record<string, string>> = {
  mouse: 'mice',
  wolf: 'wolves',
  goose: 'geese',
  fish: 'fish',
  sheep: 'sheep',
  deer: 'deer',
  fox: 'foxes',
  butterfly: 'butterflies',
  puppy: 'puppies',
  bunny: 'bunnies',
  pony: 'ponies',
  princess: 'princesses',
  witch: 'witches',
  fairy: 'fairies',
};
const ANIMALS =
  'ant bear bee bird bunny butterfly camel cat chicken cow crab crocodile crow deer dog donkey dragon duck eagle elephant fish fox frog giraffe goat goose hedgehog hen horse kitten lamb lion lizard monkey mouse owl panda parrot peacock pig pigeon pony puppy rabbit rat sheep snail snake spider squirrel swan tiger turtle wolf worm zebra'.split(
    ' ',
  );
const GIRLS =
  'Lily Lucy Sarah Sue Jane Amy Sally Molly Mia Daisy Emma Anna Mary Rachel Lola Grace Ella Claire Ruby Nora Kate Jill Eva Emily Bella Rosa Zoe Nina Ivy Maya'.split(
    ' ',
  );
const BOYS =
  'Timmy Tim Tom Jack John Joe Sam Max Andy Ben Leo Finn Omar Raj Noah Paul Hugo Ali Luke Peter Bob Fred Billy Danny Oscar Adam'.split(
    ' ',
  );
const ROLES: Readonly<Record<string, readonly string[]>> = {
  girl: ['girl', 'girl', 'girl', 'princess', 'queen', 'fairy', 'witch'],
  boy: ['boy', 'boy', 'boy', 'prince', 'king', 'farmer', 'giant'],
};

const plural = (noun: string) => PLURALS[noun] ?? `${noun}s`;
const capital = (word: string) => word[0]!.toUpperCase() + word.slice(1);

export interface Recast {
  readonly text: string;
  /** Who the tale is about, most often mentioned first: "a fox", "a girl named Mia". */
  readonly about: readonly string[];
}

/** Tale `text` with a cast that is a function of (seed, index); about nobody where it has neither animals nor named children. */
export function recast(text: string, seed: number, index: number): Recast {
  let drawn = 0;
  const pick = <T>(from: readonly T[]): T => from[randomBits(seed, 11 + drawn++, index) % from.length]!;
  const mentions = (noun: string) => [...text.matchAll(new RegExp(`\\b(?:${noun}|${plural(noun)})\\b`, 'gi'))].length;
  const roles: { noun: string; becomes: string; count: number; said: string }[] = [];
  for (const noun of ANIMALS.filter((animal) => mentions(animal) > 0)) {
    const free = ANIMALS.filter((animal) => !roles.some(({ becomes }) => becomes === animal));
    const becomes = pick(free);
    roles.push({ noun, becomes, count: mentions(noun), said: withArticle(becomes) });
  }
  const names = new Map<string, string>();
  for (const [, child, name] of text.matchAll(/\b(girl|boy) (?:named|called) ([A-Z][a-z]+)/g)) {
    if (names.has(name!)) continue;
    const free = (child === 'girl' ? GIRLS : BOYS).filter((other) => ![...names.values()].includes(other));
    const animals = ANIMALS.filter((animal) => !roles.some(({ becomes }) => becomes === animal));
    const [renamed, becomes] = [pick(free), pick(pick([ROLES[child!]!, animals]))];
    names.set(name!, renamed);
    const known = roles.find(({ noun }) => noun === child);
    const said = `${withArticle(known?.becomes ?? becomes)}${pick(['', ` named ${renamed}`])}`;
    const count = text.split(name!).length;
    if (known) continue;
    roles.push({ noun: child!, becomes, count, said });
  }
  const friends: { count: number; said: string }[] = [];
  for (const name of [...GIRLS, ...BOYS]) {
    const count = [...text.matchAll(new RegExp(`\\b${name}\\b`, 'g'))].length;
    if (count < 2 || names.has(name)) continue;
    const taken = [...roles.map(({ becomes }) => becomes), ...[...names.values()].map((other) => other.toLowerCase())];
    const becomes = pick(ANIMALS.filter((animal) => !taken.includes(animal)));
    names.set(name, capital(becomes));
    friends.push({ count, said: withArticle(becomes) });
  }
  let told = text;
  // all at once, since what one becomes may be what another was
  const forms = new Map(
    roles.flatMap(({ noun, becomes }) => [[plural(noun), plural(becomes)] as const, [noun, becomes] as const]),
  );
  if (forms.size > 0) {
    told = told.replace(
      new RegExp(`\\b(?:(an?) )?(${[...forms.keys()].join('|')})\\b`, 'gi'),
      (_, an, noun: string) => {
        const becomes = forms.get(noun.toLowerCase())!;
        const word = noun[0] === noun[0]!.toLowerCase() ? becomes : capital(becomes);
        if (!an) return word;
        const article = withArticle(becomes).split(' ')[0]!;
        return `${an[0] === 'A' ? capital(article) : article} ${word}`;
      },
    );
  }
  if (names.size > 0)
    told = told.replace(new RegExp(`\\b(${[...names.keys()].join('|')})\\b`, 'g'), (name) => names.get(name)!);
  const about = [...roles, ...friends].filter(({ count }) => count >= 2).sort((a, b) => b.count - a.count);
  return { text: told, about: about.map(({ said }) => said) };
}

const WHOEVER = new Set(
  [...ANIMALS.flatMap((animal) => [animal, plural(animal)]), ...GIRLS, ...BOYS].map((name) => name.toLowerCase()),
);

/** The words of a tale, with one word for everybody who may have another name in another telling. */
export const wordsOf = (text: string) =>
  (text.toLowerCase().match(/[a-z]+/g) ?? []).map((word) => (WHOEVER.has(word) ? 'someone' : word));

function withArticle(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? 'an' : 'a'} ${noun}`;
}
