// What a page does after it is shown: formulas are typeset with the KaTeX beside this file (pages without any load
// nothing), whatever scrolls sideways can be reached by keyboard, and an explorable <fourbit-NAME> is loaded when it
// comes near the viewport (pages without any load nothing).
const folder = new URL("katex/", document.currentScript.src);
const explorables = new URL("explorables/", document.currentScript.src);
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
  }
}

function reachable() {
  for (const box of document.querySelectorAll("div.arithmatex, figure.plot, .md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

const arriving = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    arriving.unobserve(target);
    import(new URL(`${target.localName.slice("fourbit-".length)}.js`, explorables)).then(() => target.arrive());
  }
}, { rootMargin: "600px" });

function explore() {
  arriving.disconnect(); // what it watched went with the page before
  for (const element of document.querySelectorAll("article *")) {
    if (element.localName.startsWith("fourbit-")) arriving.observe(element);
  }
}

document$.subscribe(async () => {
  explore();
  await typeset();
  await document.fonts.ready; // widths are not final before
  reachable();
});
addEventListener("resize", reachable);
