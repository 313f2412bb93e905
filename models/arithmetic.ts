/**
 * Word problems of one and two steps with their solutions worked out. A problem is a function of (seed, index); the
 * split it may appear in is decided by its numbers, so that no test problem can have been in training.
 */
import { randomBits } from '../src/train/random.ts';

export type Split = 'train' | 'test';

export interface Problem {
  readonly question: string;
  /** The steps, as they stand between <think> and </think>. */
  readonly think: string;
  readonly answer: string;
  readonly value: number;
  readonly steps: 1 | 2;
}

type Draw = {
  /** An integer from low to high. */
  int(low: number, high: number): number;
  pick<T>(from: readonly T[]): T;
};

/** One problem before its wording: what is done to a first number, in order. */
interface Template {
  readonly steps: 1 | 2;
  make(draw: Draw): { numbers: number[]; question: string; think: string; answer: string; value: number };
}

const BOYS = [
  'Tom',
  'Ben',
  'Sam',
  'Max',
  'Leo',
  'Jack',
  'Tim',
  'Finn',
  'Omar',
  'Raj',
  'Noah',
  'Paul',
  'Hugo',
  'Ali',
  'Luke',
];
const GIRLS = [
  'Anna',
  'Lily',
  'Mia',
  'Sara',
  'Emma',
  'Zoe',
  'Ella',
  'Nina',
  'Rosa',
  'Ivy',
  'Lucy',
  'Maya',
  'Ruth',
  'Amy',
  'Kate',
];
const THINGS = [
  'apples',
  'pears',
  'books',
  'marbles',
  'stickers',
  'shells',
  'stones',
  'coins',
  'cards',
  'pens',
  'eggs',
  'cookies',
  'flowers',
  'nuts',
  'balls',
  'buttons',
  'plums',
  'stamps',
  'beads',
  'carrots',
  'candies',
  'cakes',
  'toys',
  'leaves',
] as const;
const BOXES = ['boxes', 'bags', 'baskets', 'jars', 'bowls', 'drawers'] as const;
const SHOPS = ['baker', 'farmer', 'teacher', 'gardener', 'shopkeeper', 'cook', 'painter', 'miller'] as const;

interface Person {
  name: string;
  he: string;
  his: string;
}
const person = (draw: Draw): Person =>
  draw.int(0, 1) === 0
    ? { name: draw.pick(BOYS), he: 'He', his: 'his' }
    : { name: draw.pick(GIRLS), he: 'She', his: 'her' };
const other = (draw: Draw, not: string): string => {
  const name = draw.pick(draw.int(0, 1) === 0 ? BOYS : GIRLS);
  return name === not ? other(draw, not) : name;
};

const plus = (a: number, b: number) => `${a} + ${b} = ${a + b}.`;
const minus = (a: number, b: number) => `${a} - ${b} = ${a - b}.`;
const times = (a: number, b: number) => `${a} * ${b} = ${a * b}.`;
const over = (a: number, b: number) => `${a} / ${b} = ${a / b}.`;

const GAINS = ['buys', 'finds', 'gets', 'picks', 'collects'] as const;
const LOSSES = ['gives away', 'loses', 'sells', 'uses', 'drops'] as const;

const gains = (draw: Draw, n: number) =>
  draw.pick(GAINS.map((verb) => `${verb} ${n} more`).concat(`is given ${n} more`));
const loses = (draw: Draw, n: number, name: string) =>
  draw.pick(LOSSES.map((verb) => `${verb} ${n}`).concat(`gives ${n} away`, `gives ${n} to ${other(draw, name)}`));
/** "Tom has 17 apples. He buys 5 more" or "Tom has 17 apples and buys 5 more". */
const then = (draw: Draw, { he }: Person, deed: string) =>
  draw.pick([`. ${he} ${deed}`, ` and ${deed}`, `. Then ${he.toLowerCase()} ${deed}`]);
const nowAsked = (draw: Draw, { name, he }: Person, things: string) =>
  draw.pick([
    `How many ${things} does ${name} have now?`,
    `How many ${things} does ${name} have now?`,
    `How many ${things} does ${he.toLowerCase()} have now?`,
    `How many ${things} does ${name} have?`,
    `How many does ${he.toLowerCase()} have now?`,
  ]);
const leftAsked = (draw: Draw, { name, he }: Person, things: string) =>
  draw.pick([
    `How many ${things} does ${name} have left?`,
    `How many ${things} does ${he.toLowerCase()} have left?`,
    `How many ${things} are left?`,
    `How many are left?`,
    `How many ${things} does ${name} have now?`,
  ]);

const ONE_STEP: Template['make'][] = [
  (d) => {
    const [p, x, a, b] = [person(d), d.pick(THINGS), d.int(2, 99), d.int(2, 60)];
    const question = `${p.name} has ${a} ${x}${then(d, p, gains(d, b))}. ${nowAsked(d, p, x)}`;
    return { numbers: [a, b], question, think: plus(a, b), answer: `${p.name} has ${a + b} ${x} now.`, value: a + b };
  },
  (d) => {
    const [p, x, a] = [person(d), d.pick(THINGS), d.int(5, 99)];
    const b = d.int(1, a - 1);
    const question = `${p.name} has ${a} ${x}${then(d, p, loses(d, b, p.name))}. ${leftAsked(d, p, x)}`;
    return { numbers: [a, b], question, think: minus(a, b), answer: `${p.name} has ${a - b} ${x} left.`, value: a - b };
  },
  (d) => {
    const [p, x, a] = [person(d), d.pick(THINGS), d.int(5, 99)];
    const [b, friend] = [d.int(1, a - 1), other(d, p.name)];
    const question = `${p.name} has ${a} ${x}${then(d, p, `gives ${b} to ${friend}`)}. ${leftAsked(d, p, x)}`;
    return { numbers: [a, b], question, think: minus(a, b), answer: `${p.name} has ${a - b} ${x} now.`, value: a - b };
  },
  (d) => {
    const [x, box, a, b] = [d.pick(THINGS), d.pick(BOXES), d.int(2, 12), d.int(2, 12)];
    const question = `There are ${a} ${box} with ${b} ${x} in each. How many ${x} are there in all?`;
    return { numbers: [a, b], question, think: times(a, b), answer: `There are ${a * b} ${x} in all.`, value: a * b };
  },
  (d) => {
    const [p, x, a, b] = [person(d), d.pick(THINGS), d.int(2, 12), d.int(2, 12)];
    const question = `${p.name} shares ${a * b} ${x} equally among ${a} friends. How many ${x} does each friend get?`;
    return { numbers: [a, b], question, think: over(a * b, a), answer: `Each friend gets ${b} ${x}.`, value: b };
  },
  (d) => {
    const [p, x, a, b] = [person(d), d.pick(THINGS), d.int(2, 90), d.int(2, 90)];
    const friend = other(d, p.name);
    const question = `${p.name} has ${a} ${x} and ${friend} has ${b} ${x}. How many ${x} do they have together?`;
    return { numbers: [a, b], question, think: plus(a, b), answer: `They have ${a + b} ${x} together.`, value: a + b };
  },
  (d) => {
    const [p, x, a] = [person(d), d.pick(THINGS), d.int(5, 99)];
    const [b, friend] = [d.int(1, a - 1), other(d, p.name)];
    const question = `${p.name} has ${a} ${x}. ${friend} has ${b} ${x}. How many more ${x} does ${p.name} have than ${friend}?`;
    return { numbers: [a, b], question, think: minus(a, b), answer: `${p.name} has ${a - b} more ${x}.`, value: a - b };
  },
  (d) => {
    const [s, x, a, b] = [d.pick(SHOPS), d.pick(THINGS), d.int(2, 12), d.int(2, 12)];
    const question = `A ${s} packs ${b} ${x} every hour. How many ${x} does the ${s} pack in ${a} hours?`;
    return { numbers: [a, b], question, think: times(b, a), answer: `The ${s} packs ${a * b} ${x}.`, value: a * b };
  },
  (d) => {
    const [x, box, a, b] = [d.pick(THINGS), d.pick(BOXES), d.int(2, 12), d.int(2, 12)];
    const question = `${a * b} ${x} are put into ${a} ${box}, the same number in each. How many ${x} are in each?`;
    return { numbers: [a, b], question, think: over(a * b, a), answer: `There are ${b} ${x} in each.`, value: b };
  },
  (d) => {
    const [p, a, b] = [person(d), d.int(2, 90), d.int(2, 60)];
    const question = `${p.name} read ${a} pages yesterday and ${b} pages today. How many pages did ${p.name} read in all?`;
    return {
      numbers: [a, b],
      question,
      think: plus(a, b),
      answer: `${p.name} read ${a + b} pages in all.`,
      value: a + b,
    };
  },
  (d) => {
    const [x, a] = [d.pick(THINGS), d.int(5, 99)];
    const b = d.int(1, a - 1);
    const question = `There were ${a} ${x} on the table. Now there are ${b}. How many ${x} were taken?`;
    return { numbers: [a, b], question, think: minus(a, b), answer: `${a - b} ${x} were taken.`, value: a - b };
  },
  (d) => {
    const [p, x, a, b] = [person(d), d.pick(THINGS), d.int(2, 12), d.int(2, 12)];
    const question = `${p.name} buys ${a} ${x}. Each one costs ${b} coins. How many coins does ${p.name} pay?`;
    return { numbers: [a, b], question, think: times(a, b), answer: `${p.name} pays ${a * b} coins.`, value: a * b };
  },
];

const TWO_STEP: Template['make'][] = [
  (d) => {
    const [p, x, a, b] = [person(d), d.pick(THINGS), d.int(2, 80), d.int(2, 60)];
    const [c, friend] = [d.int(1, a + b - 1), other(d, p.name)];
    const deeds = `${gains(d, b)} and ${d.pick([`gives ${c} to ${friend}`, loses(d, c, p.name)])}`;
    const question = `${p.name} has ${a} ${x}${then(d, p, deeds)}. ${nowAsked(d, p, x)}`;
    return {
      numbers: [a, b, c],
      question,
      think: `${plus(a, b)} ${minus(a + b, c)}`,
      answer: `${p.name} has ${a + b - c} ${x} now.`,
      value: a + b - c,
    };
  },
  (d) => {
    const [p, x, a] = [person(d), d.pick(THINGS), d.int(5, 99)];
    const [b, c] = [d.int(1, a - 1), d.int(2, 60)];
    const deeds = `${loses(d, b, p.name)} and then ${d.pick([`${d.pick(GAINS)} ${c}`, gains(d, c)])}`;
    const question = `${p.name} has ${a} ${x}${then(d, p, deeds)}. ${nowAsked(d, p, x)}`;
    return {
      numbers: [a, b, c],
      question,
      think: `${minus(a, b)} ${plus(a - b, c)}`,
      answer: `${p.name} has ${a - b + c} ${x} now.`,
      value: a - b + c,
    };
  },
  (d) => {
    const [x, box, a, b, c] = [d.pick(THINGS), d.pick(BOXES), d.int(2, 12), d.int(2, 12), d.int(2, 50)];
    const question = `There are ${a} ${box} with ${b} ${x} in each, and ${c} more ${x} on the table. How many ${x} are there in all?`;
    return {
      numbers: [a, b, c],
      question,
      think: `${times(a, b)} ${plus(a * b, c)}`,
      answer: `There are ${a * b + c} ${x} in all.`,
      value: a * b + c,
    };
  },
  (d) => {
    const [p, x, box, a, b] = [person(d), d.pick(THINGS), d.pick(BOXES), d.int(2, 12), d.int(2, 12)];
    const c = d.int(1, a * b - 1);
    const question = `${p.name} has ${a} ${box} with ${b} ${x} in each. ${p.he} ${d.pick(LOSSES)} ${c} ${x}. How many ${x} are left?`;
    return {
      numbers: [a, b, c],
      question,
      think: `${times(a, b)} ${minus(a * b, c)}`,
      answer: `There are ${a * b - c} ${x} left.`,
      value: a * b - c,
    };
  },
  (d) => {
    const [p, x, a] = [person(d), d.pick(THINGS), d.int(10, 99)];
    const b = d.int(1, a - 2);
    const [c, friend, third] = [d.int(1, a - b - 1), other(d, p.name), d.pick(SHOPS)];
    const question = `${p.name} has ${a} ${x}. ${p.he} gives ${b} to ${friend} and ${c} to the ${third}. ${leftAsked(d, p, x)}`;
    return {
      numbers: [a, b, c],
      question,
      think: `${minus(a, b)} ${minus(a - b, c)}`,
      answer: `${p.name} has ${a - b - c} ${x} left.`,
      value: a - b - c,
    };
  },
  (d) => {
    const [p, a, b, c] = [person(d), d.int(2, 60), d.int(2, 60), d.int(2, 60)];
    const x = d.pick(THINGS);
    const question = `${p.name} finds ${a} ${x} on Monday, ${b} on Tuesday and ${c} on Sunday. How many ${x} does ${p.name} find in all?`;
    return {
      numbers: [a, b, c],
      question,
      think: `${plus(a, b)} ${plus(a + b, c)}`,
      answer: `${p.name} finds ${a + b + c} ${x} in all.`,
      value: a + b + c,
    };
  },
  (d) => {
    const [p, x, n, each] = [person(d), d.pick(THINGS), d.int(2, 10), d.int(2, 12)];
    const b = d.int(1, n * each - 1);
    const a = n * each - b;
    const question = `${p.name} has ${a} ${x} and ${d.pick(GAINS)} ${b} more. ${p.he} shares them equally among ${n} friends. How many ${x} does each friend get?`;
    return {
      numbers: [a, b, n],
      question,
      think: `${plus(a, b)} ${over(a + b, n)}`,
      answer: `Each friend gets ${each} ${x}.`,
      value: each,
    };
  },
  (d) => {
    const [p, x, n, each, b] = [person(d), d.pick(THINGS), d.int(2, 10), d.int(2, 12), d.int(1, 30)];
    const a = n * each + b;
    const question = `${p.name} has ${a} ${x}. ${p.he} keeps ${b} and puts the rest into ${n} ${d.pick(BOXES)}, the same number in each. How many ${x} are in each?`;
    return {
      numbers: [a, b, n],
      question,
      think: `${minus(a, b)} ${over(a - b, n)}`,
      answer: `There are ${each} ${x} in each.`,
      value: each,
    };
  },
  (d) => {
    const [p, x, a, more] = [person(d), d.pick(THINGS), d.int(2, 60), d.int(1, 40)];
    const friend = other(d, p.name);
    const question = `${p.name} has ${a} ${x}. ${friend} has ${more} more than ${p.name}. How many ${x} do they have together?`;
    return {
      numbers: [a, more],
      question,
      think: `${plus(a, more)} ${plus(a, a + more)}`,
      answer: `They have ${2 * a + more} ${x} together.`,
      value: 2 * a + more,
    };
  },
  (d) => {
    const [p, x, a] = [person(d), d.pick(THINGS), d.int(5, 80)];
    const [fewer, friend] = [d.int(1, a - 1), other(d, p.name)];
    const question = `${p.name} has ${a} ${x}. ${friend} has ${fewer} fewer than ${p.name}. How many ${x} do they have together?`;
    return {
      numbers: [a, fewer],
      question,
      think: `${minus(a, fewer)} ${plus(a, a - fewer)}`,
      answer: `They have ${2 * a - fewer} ${x} together.`,
      value: 2 * a - fewer,
    };
  },
  (d) => {
    const [p, x, a, b] = [person(d), d.pick(THINGS), d.int(2, 10), d.int(2, 9)];
    const c = d.int(1, 40);
    const question = `${p.name} buys ${a} ${x} for ${b} coins each. ${p.he} pays and has ${c} coins left. How many coins did ${p.name} have at first?`;
    return {
      numbers: [a, b, c],
      question,
      think: `${times(a, b)} ${plus(a * b, c)}`,
      answer: `${p.name} had ${a * b + c} coins at first.`,
      value: a * b + c,
    };
  },
  (d) => {
    const [s, x, a, b, c] = [d.pick(SHOPS), d.pick(THINGS), d.int(2, 12), d.int(2, 12), d.int(2, 40)];
    const question = `A ${s} makes ${a} ${x} a day. After ${b} days the ${s} gets ${c} more. How many ${x} does the ${s} have?`;
    return {
      numbers: [a, b, c],
      question,
      think: `${times(a, b)} ${plus(a * b, c)}`,
      answer: `The ${s} has ${a * b + c} ${x}.`,
      value: a * b + c,
    };
  },
];

/** One number triple in eight is kept for testing, whatever the story around it. */
function splitOf(numbers: readonly number[]): Split {
  const hash = numbers.reduce((h, n) => (Math.imul(h ^ n, 0x01000193) + n) >>> 0, 0x811c9dc5);
  return (randomBits(hash, 7, 0) & 7) === 0 ? 'test' : 'train';
}

/** Problem `index` of a stream; its numbers belong to `split`. */
export function arithmeticProblem(seed: number, index: number, split: Split): Problem {
  for (let attempt = 0; ; attempt++) {
    let drawn = 0;
    const bits = () => randomBits(seed + attempt * 7919, index, drawn++);
    const draw: Draw = {
      int: (low, high) => low + Math.floor((bits() / 2 ** 32) * (high - low + 1)),
      pick: (from) => from[Math.floor((bits() / 2 ** 32) * from.length)]!,
    };
    const steps = draw.int(0, 1) === 0 ? 1 : 2;
    const { numbers, ...problem } = draw.pick(steps === 1 ? ONE_STEP : TWO_STEP)(draw);
    if (splitOf(numbers) === split) return { ...problem, steps };
  }
}
