/** The mark: a wren on a coin with a beaded rim, as the farthing bore it from 1937. */

/** @param legend whether the name is struck below the bird, for sizes at which it can be read */
export function Coin({ legend = false }: { legend?: boolean }) {
  return (
    <svg class="coin" viewBox="0 0 100 100" aria-hidden="true">
      <circle class="coin-face" cx="50" cy="50" r="48.5" />
      <circle class="coin-rim" cx="50" cy="50" r="48.5" />
      <circle class="coin-beads" cx="50" cy="50" r="43.5" />
      <g transform={legend ? 'translate(8.5 2.5) scale(0.83)' : undefined}>
        <Wren />
      </g>
      {legend && (
        <>
          <path id="coin-legend" d="M 13.5 50 A 36.5 36.5 0 0 0 86.5 50" fill="none" />
          <text class="coin-legend">
            <textPath href="#coin-legend" startOffset="50%" text-anchor="middle">
              FARTHING
            </textPath>
          </text>
        </>
      )}
    </svg>
  );
}

function Wren() {
  return (
    <>
      <path
        class="coin-relief"
        d="M15.5 41.2C19 39.4 22 38 24.6 37 26.8 32.4 31.8 29.9 37 30.6 43.6 31.5 46.6 35.6 50.4 38.6 54.8 42 59.8 43.4 64.2 42.4 67.2 36 70 28.6 72.6 21.2L80.6 23.9C80 33 77 42.4 72.6 49.6 70.6 58.6 65 66.8 56 69.8 46.6 72.6 36 69.2 31 60.6 28 55.2 27.4 50.4 26 45.8 24.2 43.6 20 42.2 15.5 41.2Z"
      />
      <path
        class="coin-legs"
        d="M46.5 70.5 45 79M45 79l-6.5 1.2M45 79l-3.6 3M45 79l4.5 2.2M56 69.5 56.5 79M56.5 79l-6 1.6M56.5 79l-3 3.2M56.5 79l5 2"
      />
      <path class="coin-cut" d="M27.5 36.2C31.5 34.6 37 34.8 41.5 37.4" />
      <path
        class="coin-cut"
        d="M41.5 49.5C47 46.2 58 47.6 69 54.4M41.5 49.5C41.2 55.5 45.5 61.4 53.5 61.4 59.5 61.4 65 58.6 69 54.4M49 53.4C53 52.8 57 53.6 60.6 55.4M51.6 57.4C54.6 57 57 57.4 59.6 58"
      />
      <path class="coin-cut" d="M70.6 33.6l6.8 2.4M68.6 39.2l6.6 2.6" />
      <circle class="coin-eye" cx="32.4" cy="38.8" r="1.7" />
    </>
  );
}
