// Typeset formulas with the KaTeX beside this file; pages without any load nothing.
const folder = new URL("katex/", document.currentScript.src);
let katex;

function load() {
  katex ??= new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("katex.min.css", folder) });
    const script = Object.assign(document.createElement("script"), { src: new URL("katex.min.js", folder) });
    script.onload = () => resolve(window.katex);
    script.onerror = () => reject(new Error(`cannot load ${script.src}`));
    document.head.append(style, script);
  });
  return katex;
}

async function typeset() {
  const formulas = document.querySelectorAll(".arithmatex:not([data-typeset])");
  if (!formulas.length) return;
  const { render } = await load();
  for (const formula of formulas) {
    const text = formula.textContent.trim(); // \( ... \) in a line, \[ ... \] on its own
    formula.dataset.typeset = "";
    render(text.slice(2, -2), formula, { displayMode: text.startsWith("\\["), throwOnError: false });
    if (text.startsWith("\\[")) formula.tabIndex = 0; // a long formula scrolls, by keyboard too
  }
}

document$.subscribe(typeset);
