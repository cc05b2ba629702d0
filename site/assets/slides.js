// A chapter as slides: one section at a time over the whole window, by button or by ?slides in the address.
// Right, Space, Page Down: on; Left, Page Up: back; Home, End; Escape: leave. The page itself is shown, not a copy, so
// that explorables, formulas and links go on working.
let slides = []; // arrays of the article's children, each beginning with a heading
let at = 0;
let stage; // the bar, while slides are shown

function sections(article) {
  const found = [];
  for (const child of article.children) {
    if (/^H[123]$/.test(child.tagName) || !found.length) found.push([]);
    found.at(-1).push(child);
  }
  return found;
}

function title(slide) {
  const heading = slide.find((child) => /^H[123]$/.test(child.tagName));
  return heading ? [...heading.childNodes].filter((node) => !node.classList?.contains("headerlink")).map((node) => node.textContent).join("").trim() : "";
}

function go(number) {
  at = Math.max(0, Math.min(number, slides.length - 1));
  slides.forEach((slide, index) => slide.forEach((child) => child.toggleAttribute("data-off", index !== at)));
  stage.querySelector("output").textContent = `${at + 1} of ${slides.length}: ${title(slides[at])}`;
  stage.querySelector("[data-step='-1']").disabled = at === 0;
  stage.querySelector("[data-step='1']").disabled = at === slides.length - 1;
  scrollTo(0, 0);
}

function button(text, step, action) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  if (step) made.dataset.step = step;
  made.addEventListener("click", action);
  return made;
}

function address(wanted) {
  const url = new URL(location.href);
  if (wanted) url.searchParams.set("slides", ""); else url.searchParams.delete("slides");
  url.search = url.search.replace("slides=", "slides");
  history.replaceState(history.state, "", url);
}

function enter(article) {
  slides = sections(article);
  stage = document.createElement("nav");
  stage.className = "slides-bar";
  stage.setAttribute("aria-label", "Slides");
  const told = document.createElement("output");
  stage.append(button("Back", "-1", () => go(at - 1)), told, button("On", "1", () => go(at + 1)), button("Leave", "", () => leave()));
  document.body.append(stage);
  document.documentElement.classList.add("slides");
  address(true);
  go(0);
}

function leave(stay = false) {
  if (!stage) return;
  const shown = slides[at]?.[0];
  stage.remove();
  stage = undefined;
  document.documentElement.classList.remove("slides");
  for (const child of document.querySelectorAll("[data-off]")) child.removeAttribute("data-off");
  if (document.fullscreenElement && !stay) document.exitFullscreen();
  address(false);
  shown?.scrollIntoView();
  document.querySelector(".chapter-tools button")?.focus({ preventScroll: true });
}

const STEPS = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1, Home: -Infinity, End: Infinity };

addEventListener("keydown", (event) => {
  if (!stage || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") leave();
  // A slider, a button or a summary that has the focus keeps its own keys.
  else if (event.key in STEPS && event.composedPath()[0].matches?.("body, html, a, article, article *:not(input, select, textarea, button, summary)")) {
    go(Math.max(-1, Math.min(at + STEPS[event.key], slides.length)));
  } else return;
  event.preventDefault();
  event.stopPropagation();
}, true);
addEventListener("fullscreenchange", () => { if (!document.fullscreenElement) leave(); });

function follow() { // to the slide that holds what the address points to
  const target = stage && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const number = target ? slides.findIndex((slide) => slide.some((child) => child.contains(target))) : -1;
  if (number < 0) return;
  go(number);
  target.scrollIntoView();
}
addEventListener("hashchange", follow);

document$.subscribe(() => {
  const wanted = new URLSearchParams(location.search).has("slides");
  leave(wanted); // a link within the page can make the theme fetch it anew
  const article = document.querySelector("article");
  const heading = article?.querySelector(":scope > h1");
  if (!heading || !/\/lecture_notes\/[a-z-]+\/(index\.html)?$/.test(location.pathname)) return;
  if (!article.querySelector(".chapter-tools")) {
    const tools = Object.assign(document.createElement("p"), { className: "chapter-tools" });
    tools.append(
      button("Slides", "", () => { document.documentElement.requestFullscreen?.().catch(() => {}); enter(article); }), " ",
      button("Print", "", () => print()));
    heading.after(tools);
  }
  if (!wanted) return;
  enter(article);
  follow();
});
