// What explorables have in common. page.js imports an explorable's module when its tag comes near the viewport and
// then calls arrive(), so that nothing is loaded or computed for a reader who never scrolls there.
import style from "./style.js";

const files = new Map();

/** Parsed JSON or an ArrayBuffer (names that end in .bin) from the folder data/ beside this module, fetched once. */
export function load(name) {
  if (!files.has(name)) files.set(name, read(name).catch((error) => { files.delete(name); throw error; }));
  return files.get(name);
}

async function read(name) {
  const answer = await fetch(new URL(`data/${name}`, import.meta.url));
  if (!answer.ok) throw new Error(`${answer.url} answered ${answer.status}`);
  return name.endsWith(".bin") ? answer.arrayBuffer() : answer.json();
}

/** Make an element: h("p", {class: "small"}, "text", child). Properties that start with "on" are listeners. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A labeled slider that shows its value as `format` writes it; the input itself is `.input`. */
export function slider(label, { min, max, step = 1, value, format = String, oninput = () => {} }) {
  const shown = h("span", { class: "value", "aria-hidden": "true" }, format(value)); // an output would take the label
  const input = h("input", { type: "range", min, max, step, value, "aria-valuetext": format(value) });
  input.addEventListener("input", () => {
    shown.textContent = format(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
    oninput(Number(input.value));
  });
  return Object.assign(h("label", {}, shown, label, input), { input });
}

/** A labeled list of options [[value, text], ...]; the select itself is `.input`. */
export function select(label, options, { value, oninput = () => {} } = {}) {
  const input = h("select", {}, ...options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  input.addEventListener("input", () => oninput(input.value));
  return Object.assign(h("label", {}, label, input), { input });
}

/** Base of the explorables: subclasses write build(), and change() for what follows each change of a control. */
export class Explorable extends HTMLElement {
  #spoken = null;
  #schemes = new MutationObserver(() => this.draw?.()); // a canvas has no custom properties

  /** Called by page.js once; shows the element instead of its fallback text. */
  async arrive() {
    if (this.shadowRoot) return;
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [style];
    this.live = h("p", { "aria-live": "polite", class: "live" });
    try {
      await this.build(root);
      this.dataset.ready = "";
    } catch (error) {
      root.replaceChildren(h("p", { role: "alert" }, `This explorable could not be loaded (${error.message}). Reload the page to try again.`));
      throw error;
    }
    new ResizeObserver(() => this.#resized()).observe(this);
    this.#schemes.observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
  }

  #resized() {
    if (this.width !== this.drawn) this.draw?.();
    this.drawn = this.width;
  }

  /** Pixels that a chart may be wide. */
  get width() {
    const { paddingLeft, paddingRight } = getComputedStyle(this);
    return Math.max(240, Math.floor(this.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight)));
  }

  /** Show numbers to tests and styles: reflect({accuracy: 0.9}) sets data-accuracy="0.9". */
  reflect(values) {
    for (const [name, value] of Object.entries(values)) this.dataset[name] = String(value);
  }

  /** Say a sentence in the live region, at most twice a second so that a moved slider does not flood a screen reader. */
  say(text) {
    clearTimeout(this.#spoken);
    this.#spoken = setTimeout(() => { this.live.textContent = text; }, 500);
  }

  disconnectedCallback() {
    clearTimeout(this.#spoken);
    this.#schemes.disconnect();
    this.leave?.();
  }
}
