// Speculative decoding: what a round yields and costs (Leviathan et al. 2023, section 3), and rounds by chance.

/** Tokens of a round of n guesses on average: 1 + alpha + ... + alpha^n, which is (1 - alpha^(n+1)) / (1 - alpha). */
export function expectedTokens(alpha, guesses) {
  let total = 0;
  for (let i = 0; i <= guesses; i++) total += alpha ** i;
  return total;
}

/** Times as fast as one token a pass, for 0, 1, ... guesses; judging[n] is the pass over n guesses, in passes over none. */
export const speedups = (alpha, cost, judging) => judging.map((pass, n) => expectedTokens(alpha, n) / (n * cost + pass));

/** The number of guesses with the largest speed-up, the smallest of several. */
export const best = (values) => values.indexOf(Math.max(...values));

/** Numbers in [0, 1) that are the same for the same seed (mulberry32). */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Accepted guesses of one round: each with probability alpha, until the first that is not. */
export function round(draw, alpha, guesses) {
  let kept = 0;
  while (kept < guesses && draw() < alpha) kept++;
  return kept;
}

/** Mean of values and half its 95 % interval, by the normal distribution. */
export function interval(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const spread = values.reduce((total, value) => total + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
  return { mean, half: 1.96 * Math.sqrt(spread / values.length) };
}
