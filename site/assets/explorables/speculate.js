// Speculative decoding: what a draft brings, by the formula and by rounds that are drawn.
import { chart, horizontal, line, numbers, points, vertical } from "./chart.js";
import { Explorable, h, load, select, slider } from "./element.js";
import { predict } from "./predict.js";
import { best, expectedTokens, generator, interval, round, speedups } from "./speculate-formulas.js";

const MANY = 200, SHOWN = 8, A_FRAME = 4; // rounds: of a run, that are drawn, for each frame of the animation
const STYLE = `
.rounds { margin: 0.5em 0; padding: 0; list-style: none; font-variant-numeric: tabular-nums; }
.rounds li { display: flex; flex-wrap: wrap; gap: 3px; margin: 3px 0; }
.rounds span { width: 1.5em; text-align: center; border: 1px solid currentColor; border-radius: 0.2rem; line-height: 1.4; }
.kept { color: var(--plot-green); } .refused { color: var(--plot-vermilion); text-decoration: line-through; }
.unread { color: var(--plot-gray); border-style: dashed !important; } .own { color: var(--plot-blue); }
`;

class Speculate extends Explorable {
  async build(root) {
    this.data = await load("speculate.json");
    const changed = () => { this.restart(); this.draw(); };
    const most = this.data.judging.length - 1;
    this.alpha = slider("Accepted, α", { min: 0, max: 1, step: 0.05, value: 0.8, format: (v) => v.toFixed(2), oninput: changed });
    this.guesses = slider("Guesses in a round, n", { min: 0, max: most, value: 4, oninput: changed });
    this.cost = slider("Cost of a guess, c", { min: 0, max: 0.5, step: 0.05, value: 0.05, format: (v) => `${Math.round(100 * v)} % of a step`, oninput: () => this.draw() });
    this.judging = select("Judging n guesses costs", [["free", "as much as one step"], ["measured", "what it cost on our CPU"]], { value: "free", oninput: () => this.draw() });
    this.controls = h("fieldset", { class: "controls" }, h("legend", {}, "Draft and machine"), this.alpha, this.guesses, this.cost, this.judging);
    this.seed = h("input", { type: "number", min: 0, max: 2 ** 32 - 1, step: 1, value: 1, oninput: changed });
    const button = (text, onclick) => h("button", { type: "button", onclick }, text);
    this.simulation = h("fieldset", { class: "controls" }, h("legend", {}, "Draw rounds"), h("label", {}, "Seed", this.seed), h("div", {}, button("One round", () => this.run(1)), " ", button(`${MANY} rounds`, () => this.run(MANY))));
    this.picture = h("div");
    this.told = h("div");
    const results = h("div", {}, this.picture, this.live);
    this.lock = predict(this, {
      name: "speculate",
      question: "A draft is accepted at 8 of 10 places. It guesses 4 tokens a round, each for 5 % of a step of the large model; judging them all costs as much as one step. How many times as fast is the whole?",
      range: { min: 0.5, max: 5, step: 0.1, value: 2, format: (v) => `${v.toFixed(1)} times` },
      locked: [this.controls, this.simulation, results, this.told], open: () => this.draw(),
    });
    this.restart();
    root.append(h("style", {}, STYLE), h("h3", {}, "Guess, judge, keep"), this.lock.element, this.controls, results, this.simulation, this.told);
  }

  get settings() {
    const costs = this.judging.input.value === "free" ? this.data.judging.map(() => 1) : this.data.judging;
    return { alpha: Number(this.alpha.input.value), guesses: Number(this.guesses.input.value), cost: Number(this.cost.input.value), costs };
  }

  /** Forget the rounds that were drawn for other settings. */
  restart() {
    this.leave();
    this.next = generator(Number(this.seed.value));
    this.rounds = [];
    this.draws();
  }

  /** Draw rounds, a few for each frame, or at once where motion is not wanted. */
  run(count) {
    this.leave();
    const { alpha, guesses } = this.settings, end = this.rounds.length + count;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = () => {
      const until = still ? end : Math.min(end, this.rounds.length + A_FRAME);
      while (this.rounds.length < until) this.rounds.push(round(this.next, alpha, guesses));
      this.draws();
      if (this.rounds.length < end) this.frame = requestAnimationFrame(step);
      else this.say(`${this.rounds.length} rounds: ${this.summary}`);
    };
    step();
  }

  leave() {
    cancelAnimationFrame(this.frame);
  }

  draws() {
    const { alpha, guesses } = this.settings, tokens = this.rounds.map((kept) => kept + 1);
    this.reflect({ rounds: tokens.length, total: tokens.reduce((a, b) => a + b, 0) });
    if (!tokens.length) return this.told.replaceChildren();
    const { mean, half } = interval(tokens);
    this.summary = `${mean.toFixed(2)} ± ${half.toFixed(2)} tokens a round, expected ${expectedTokens(alpha, guesses).toFixed(2)}.`;
    const last = this.rounds.slice(-SHOWN).map((kept) => h("li", {}, ...boxes(kept, guesses)));
    const legend = "The last rounds: ✓ a guess that was kept, × the refused one, · not looked at, + the token of the large model itself.";
    this.told.replaceChildren(h("p", {}, h("strong", {}, `${tokens.length} ${tokens.length === 1 ? "round" : "rounds"}: `), this.summary), h("p", { class: "small" }, legend), h("ul", { class: "rounds" }, ...last));
  }

  draw() {
    if (this.lock.guess === null) return;
    const { alpha, guesses, cost, costs } = this.settings, gains = speedups(alpha, cost, costs), top = best(gains);
    const tokens = expectedTokens(alpha, guesses), gain = gains[guesses], guess = this.lock.guess;
    const text = `Speed-up by the number of guesses; best ${top} guesses, ${gains[top].toFixed(2)} times as fast.`;
    const y = { min: 0, max: Math.max(1.5, guess, ...gains) * 1.12, label: "times as fast" };
    const x = { min: 0, max: gains.length - 1, label: "guesses in a round", ticks: [0, 2, 4, 6, 8, 10, 12] };
    const curve = gains.map((value, n) => [n, value]);
    this.picture.replaceChildren(
      chart({ width: this.width, x, y, text }, horizontal(1, "no speculation", { stroke: "gray" }), horizontal(guess, "your guess"), vertical(guesses, "", { stroke: "gray", dashed: false }),
        line(curve), points(curve), points([[top, gains[top]]], { fill: "green", radius: 6 })),
      numbers("Numbers of this chart", ["guesses", "tokens a round", "times as fast"], gains.map((value, n) => [String(n), expectedTokens(alpha, n).toFixed(2), value.toFixed(2)])),
    );
    this.reflect({ tokens, speedup: gain, best: top, bestSpeedup: gains[top] });
    this.lock.compare(`It is ${speedups(0.8, 0.05, [1, 1, 1, 1, 1])[4].toFixed(2)} times.`);
    this.say(`${tokens.toFixed(2)} tokens a round, ${gain.toFixed(2)} times as fast. Best: ${top} guesses, ${gains[top].toFixed(2)} times.`);
  }
}

function boxes(kept, guesses) {
  const box = (name, sign, said) => h("span", { class: name, role: "img", "aria-label": said }, sign);
  const found = Array.from({ length: kept }, () => box("kept", "✓", "kept"));
  if (kept < guesses) found.push(box("refused", "×", "refused"));
  for (let i = kept + 1; i < guesses; i++) found.push(box("unread", "·", "not looked at"));
  return [...found, box("own", "+", "own token")];
}

customElements.define("fourbit-speculate", Speculate);
