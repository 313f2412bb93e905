/** Words for the stand-in server, of the kinds that the built-in model writes. */

export const TALE = `Once upon a time, a hungry fox was walking through the wood. High up on a branch sat a crow, and in her beak she held a fine piece of cheese.

“Good morning, dear Crow,” said the fox. “How black and bright your feathers are! I am sure that your voice must be lovelier still. Will you not sing me one little song?”

The crow was so pleased that she opened her beak to sing. Down fell the cheese, and the fox snapped it up before it touched the grass.

“Thank you,” said the fox. “Your voice is well enough, but you should mind who praises it.” And from that day on the crow ate her breakfast *first*, and sang afterwards.`;

export const SUM_THINKING = `Tom starts with 17 apples.
He buys 5 more: 17 + 5 = 22.
He gives 3 to Anna: 22 - 3 = 19.`;

export const SUM = 'Tom has **19** apples now.';
