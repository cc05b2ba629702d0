// Which keys a cache holds, and what share of the attention it loses; without a page, so that tests can import it.

/** Whether token t still finds key j in a cache of the first `sinks` tokens and the newest `window`, its own included. */
export function inCache(j, t, sinks, window) {
  return j <= t && (j < sinks || j > t - window);
}

/** Number of keys in the cache when token t is read. */
export function cached(t, sinks, window) {
  return Math.min(t + 1, Math.min(sinks, Math.max(0, t + 1 - window)) + window);
}

/** Attention of one text: codes of the lower triangle of each layer and head; head -1 is the mean of all heads. */
export class Maps {
  constructor(buffer, { tokens, layers, heads, levels }) {
    Object.assign(this, { codes: new Uint8Array(buffer), count: tokens.length, layers, heads, levels });
  }

  /** The share of its attention that token t gives to key j. */
  share(layer, head, t, j) {
    const triangle = (this.count * (this.count + 1)) / 2;
    const at = (own) => this.codes[(layer * this.heads + own) * triangle + (t * (t + 1)) / 2 + j];
    if (head >= 0) return at(head) / this.levels;
    let sum = 0;
    for (let own = 0; own < this.heads; own++) sum += at(own);
    return sum / (this.heads * this.levels);
  }

  /** The share of token t's attention that goes to keys outside of the cache. */
  lost(layer, head, t, sinks, window) {
    let sum = 0;
    for (let j = 0; j <= t; j++) if (!inCache(j, t, sinks, window)) sum += this.share(layer, head, t, j);
    return sum;
  }

  /** A mean over the tokens from `from` on of what `value` says of each. */
  mean(from, value) {
    let sum = 0;
    for (let t = from; t < this.count; t++) sum += value(t);
    return sum / (this.count - from);
  }
}

/** Bytes in the unit that a reader would choose. */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  const power = Math.min(3, Math.floor(Math.log10(Math.max(1, count)) / 3));
  const value = count / 1000 ** power;
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toPrecision(3)} ${units[power]}`;
}
