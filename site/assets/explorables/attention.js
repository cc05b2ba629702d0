// The pocket model reads a sentence: where its attention goes, and how much of it a bounded cache would lose.
import { Maps, bytes, cached, inCache } from "./attention-formulas.js";
import { chart, line, numbers, show, s, table, vertical } from "./chart.js";
import { Explorable, h, load, select, slider } from "./element.js";
import { predict } from "./predict.js";

const FAR = 100_000; // tokens of a long conversation
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const shown = (token) => token.trim() || "space";

const STYLE = `
.text { display: flex; flex-wrap: wrap; gap: 0.2em 0; margin: 0.6em 0; padding: 0; list-style: none; }
.text li { display: inline-flex; flex-direction: column; padding: 0 0.15em; cursor: pointer; }
.text span { white-space: pre; line-height: 1.3; }
.text i { display: block; height: 1.5em; border-bottom: 1px solid var(--course-line); position: relative; }
.text i::after { content: ""; position: absolute; inset: auto 0 0 0; height: var(--share, 0%); background: var(--plot-blue); }
.text .gone i::after { background: var(--plot-vermilion); }
.text .gone span { text-decoration: line-through; color: var(--md-default-fg-color--light); }
.text .later span { color: var(--md-default-fg-color--light); }
.text .later i { border-bottom-style: dotted; }
.text .reads span { font-weight: 700; text-decoration: underline; }
`;

class Attention extends Explorable {
  async build(root) {
    const [about, codes] = await Promise.all([load("attention.json"), load("attention.bin")]);
    this.about = about;
    this.maps = new Maps(codes, about);
    const last = about.tokens.length, redraw = () => this.draw();
    const start = about.layers.indexOf(15);
    this.layer = select("Layer", about.layers.map((layer, i) => [String(i), `layer ${layer}`]), { value: String(start), oninput: redraw });
    const heads = Array.from({ length: about.heads }, (_, i) => [String(i), `head ${i}`]);
    this.head = select("Head", [["-1", "mean of all nine"], ...heads], { value: "-1", oninput: redraw });
    this.policy = select("Cache", [["all", "all tokens"], ["window", "a window of the newest"], ["sinks", "first tokens and a window"]], { value: "window", oninput: redraw });
    this.window = slider("Window", { min: 4, max: last, value: 16, format: (n) => `${n} tokens`, oninput: redraw });
    this.sinks = slider("First tokens kept", { min: 1, max: 8, value: 1, oninput: redraw });
    this.model = select("Bytes of a cache of", Object.keys(about.models).map((name) => [name, name]), { value: "SmolLM2-135M", oninput: redraw });
    this.step = slider("Token that is read", { min: 2, max: last, value: 56, format: (n) => `${n} of ${last}`, oninput: redraw });
    this.controls = h("fieldset", { class: "controls" }, h("legend", {}, "Attention and cache"), this.layer, this.head, this.policy, this.window, this.sinks, this.step, this.model);
    this.text = h("ol", { class: "text" });
    this.picture = h("div");
    this.curve = h("div");
    this.most = h("div");
    const note = h("p", { class: "small" }, "Bars: how the token that is read (underlined) divides its attention; blue is in the cache, vermilion and struck through is no longer. Click a token to read it. Map: a row for each token that reads, a column for each that it looks at.");
    this.results = h("div", {}, this.live, this.text, note, h("div", { class: "panels" }, this.picture, h("div", {}, this.curve, this.most)));
    this.lock = predict(this, {
      name: "attention",
      question: `The model reads ${last} tokens of Persuasion. In layer 15, what share of their attention do the tokens from the ${about.from + 1}th on give to the very first token, “${shown(about.tokens[0])}”, on average over nine heads?`,
      range: { min: 0, max: 100, step: 1, value: 10, format: (n) => `${n} %` },
      locked: [this.controls, this.results],
      open: redraw,
    });
    root.append(h("style", {}, STYLE), h("h3", {}, "Where attention goes, and what a cache loses"), this.lock.element, this.controls, this.results);
    this.compare = () => this.lock.compare(`Measured: ${percent(this.first(start, -1))}.`);
  }

  /** The share of attention that a layer's head gives to the first token. */
  first(layer, head) {
    return this.maps.mean(this.about.from, (t) => this.maps.share(layer, head, t, 0));
  }

  /** What the controls say. */
  get choice() {
    const policy = this.policy.input.value, count = this.maps.count;
    const window = policy === "all" ? count : Number(this.window.input.value);
    const sinks = policy === "sinks" ? Number(this.sinks.input.value) : 0;
    return { layer: Number(this.layer.input.value), head: Number(this.head.input.value), policy, sinks, window, t: Number(this.step.input.value) - 1 };
  }

  draw() {
    if (this.lock.guess === null) return;
    const { layer, head, policy, sinks, window, t } = this.choice;
    this.window.input.disabled = policy === "all";
    this.sinks.input.disabled = policy !== "sinks";
    const lost = Array.from({ length: this.maps.count }, (_, i) => this.maps.lost(layer, head, i, sinks, window));
    const mean = this.maps.mean(this.about.from, (i) => lost[i]);
    this.drawText(layer, head, t, sinks, window);
    this.drawMap(layer, head, t, sinks, window);
    this.drawLost(lost, mean, t);
    this.drawMost(layer, head, t, sinks, window);
    this.compare();
    const each = this.about.models[this.model.input.value];
    const held = cached(t, sinks, window), far = policy === "all" ? FAR : Math.min(FAR, sinks + window);
    const first = this.first(layer, head);
    this.reflect({ lost: mean, step: lost[t], first, held, bytes: held * each, far: far * each });
    this.say(
      `Layer ${this.about.layers[layer]}, ${head < 0 ? "mean of all heads" : `head ${head}`}: ${percent(first)} of the attention goes to the first token. ` +
      `This cache loses ${percent(mean)} of all attention on average, and ${percent(lost[t])} of that of token ${t + 1}. ` +
      `It holds ${held} tokens, ${bytes(held * each)} in 16 bits; after ${FAR.toLocaleString("en")} tokens ${bytes(far * each)}, and ${bytes(FAR * each)} if all were kept.`);
  }

  /** Pixels that a chart in one of the columns may be wide. */
  get panel() {
    return Math.max(240, Math.min(400, this.picture.clientWidth || this.width));
  }

  drawText(layer, head, t, sinks, window) {
    const items = this.about.tokens.map((token, j) => {
      const kind = j > t ? "later" : inCache(j, t, sinks, window) ? "here" : "gone";
      const share = j > t ? 0 : this.maps.share(layer, head, t, j);
      const bar = h("i", { style: `--share: ${(100 * share).toFixed(1)}%` });
      return h("li", { class: j === t ? `${kind} reads` : kind, onclick: () => this.read(j) }, h("span", {}, token), bar);
    });
    this.text.replaceChildren(...items);
  }

  /** Make token j the one that is read. */
  read(j) {
    this.step.input.value = j + 1;
    this.step.input.dispatchEvent(new Event("input"));
  }

  drawMap(layer, head, t, sinks, window) {
    const count = this.maps.count, width = this.panel;
    const axis = { ticks: [1, 24, 48, 72].filter((n) => n <= count) };
    const cells = (at) => {
      const side = at.x(2) - at.x(1), found = [];
      for (let i = 0; i < count; i++) {
        for (let j = 0; j <= i; j++) {
          const share = this.maps.share(layer, head, i, j);
          if (share < 0.004) continue;
          const fill = inCache(j, i, sinks, window) ? "var(--plot-blue)" : "var(--plot-vermilion)";
          found.push(s("rect", { x: at.x(j + 0.5), y: at.y(i + 0.5), width: side, height: side, fill, "fill-opacity": Math.sqrt(share).toFixed(2) }));
        }
      }
      return found;
    };
    const row = (at) => [s("rect", { x: at.left, y: at.y(t + 0.5), width: at.x(t + 1.5) - at.left, height: at.y(t + 1.5) - at.y(t + 0.5), fill: "none", stroke: "currentColor" })];
    const text = `Attention of each of ${count} tokens to itself and to those before it. The column of the first token holds ${percent(this.first(layer, head))} of it.`;
    this.picture.replaceChildren(chart({
      width, height: width, text,
      x: { min: 0.5, max: count + 0.5, label: "key", ...axis },
      y: { min: count + 0.5, max: 0.5, label: "", ...axis },
    }, cells, row));
  }

  drawLost(lost, mean, t) {
    const values = lost.map((share, i) => [i + 1, 100 * share]);
    const text = `Attention lost by token, in percent; ${percent(mean)} on average from token ${this.about.from + 1} on.`;
    const width = this.panel;
    show(this.curve,
      chart({ width, height: 190, text, x: { min: 1, max: lost.length, label: "token" }, y: { min: 0, max: 100, ticks: [0, 50, 100], label: "attention lost, %" } },
        line(values, { stroke: "vermilion" }), vertical(t + 1, "", { stroke: "gray" })),
      numbers("Attention lost, by token", ["token", "text", "lost"], values.map(([place, value], i) => [String(place), shown(this.about.tokens[i]), `${value.toFixed(1)} %`])));
  }

  drawMost(layer, head, t, sinks, window) {
    const rows = Array.from({ length: t + 1 }, (_, j) => [j, this.maps.share(layer, head, t, j)]).sort((a, b) => b[1] - a[1]).slice(0, 4);
    this.most.replaceChildren(
      h("p", { class: "small" }, `Token ${t + 1}, “${shown(this.about.tokens[t])}”, attends most to:`),
      table(["token", "text", "share", "cached"], rows.map(([j, share]) => [String(j + 1), shown(this.about.tokens[j]), percent(share), inCache(j, t, sinks, window) ? "yes" : "no"])));
  }
}

customElements.define("fourbit-attention", Attention);
