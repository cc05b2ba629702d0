// What a reader has worked through: chapters and labs can be ticked, here and on the pages that list them. The ticks stay
// in this browser; as JSON text they can be kept or carried to another one, with the guesses of the explorables.
const site = new URL("..", import.meta.url);
const KEY = "fourbit:done";
const GUESS = "fourbit:predict:";
const NAMES = { chapters: "Chapters", labs: "Labs" };
let course; // a promise of {chapters: [{id, title}], labs: [...]}; id is the page's address below the site
let done = recall();

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return new Set(Array.isArray(kept) ? kept.filter((id) => typeof id === "string") : []);
  } catch {
    return new Set(); // storage is forbidden or holds something else
  }
}

function keep() {
  try {
    localStorage.setItem(KEY, JSON.stringify([...done].sort()));
  } catch { /* the ticks then last as long as the page */ }
  show();
}

function guesses() {
  try {
    const names = Object.keys(localStorage).filter((key) => key.startsWith(GUESS)).sort();
    return Object.fromEntries(names.map((key) => [key.slice(GUESS.length), localStorage.getItem(key)]));
  } catch {
    return {};
  }
}

export function exported() {
  return JSON.stringify({ fourbit: 1, done: [...done].sort(), guesses: guesses() }, null, 1);
}

/** Add what `text` holds to what is here, and return how many ticks are new; an error says what is wrong with the text. */
export function imported(text) {
  let held;
  try {
    held = JSON.parse(text);
  } catch {
    throw new Error("This is not JSON. Paste the whole text that was exported.");
  }
  if (held?.fourbit !== 1 || !Array.isArray(held.done)) throw new Error("This is JSON, but not a progress of this course.");
  const before = done.size;
  for (const id of held.done) if (typeof id === "string") done.add(id);
  for (const [name, guess] of Object.entries(held.guesses ?? {})) {
    if (typeof guess === "string") {
      try { localStorage.setItem(GUESS + name, guess); } catch { /* see keep() */ }
    }
  }
  keep();
  return done.size - before;
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function tick(item, label) {
  const box = make("input", { type: "checkbox", className: "course-tick" });
  box.dataset.item = item.id;
  if (!label) box.setAttribute("aria-label", `Done: ${item.title}`);
  box.addEventListener("change", () => {
    if (box.checked) done.add(item.id); else done.delete(item.id);
    keep();
  });
  return label ? make("label", {}, box, ` ${label}`) : box;
}

function address(link) {
  return link.origin + link.pathname.replace(/index\.html$/, "");
}

function bar(kind, items) {
  const meter = make("progress", { max: items.length, value: 0 });
  meter.dataset.kind = kind;
  const label = make("label", {}, `${NAMES[kind]} `, meter);
  return make("p", { className: "course-bar" }, label, " ", make("span"));
}

function keeper() {
  const text = make("textarea", { rows: 4, spellcheck: false });
  const said = make("p", { className: "course-said" });
  said.setAttribute("role", "status");
  const button = (name, action) => {
    const made = make("button", { type: "button", textContent: name, className: "md-button" });
    made.addEventListener("click", () => {
      try { said.textContent = action(); } catch (error) { said.textContent = error.message; }
    });
    return made;
  };
  return make("details", { className: "course-keeper" },
    make("summary", { textContent: "Keep or carry your progress" }),
    make("p", { textContent: "Your progress stays in this browser and is sent nowhere. To keep it, export it as text; to carry it over, paste that text in another browser and import it." }),
    make("label", {}, "Progress as text ", text),
    make("p", {},
      button("Export", () => { text.value = exported(); text.select(); return "Copy the text above and keep it."; }), " ",
      button("Import", () => { const count = imported(text.value); return `Imported: ${count} new ${count === 1 ? "tick" : "ticks"}.`; }), " ",
      button("Forget", () => { done.clear(); keep(); return "All ticks are gone; the guesses are kept."; })),
    said);
}

/** The bars of a page that lists chapters or labs, and a box before each link to one in the first column. */
function fill(place, { chapters, labs }) {
  const items = { chapters, labs };
  const kinds = place.dataset.kind === "all" ? ["chapters", "labs"] : [place.dataset.kind];
  place.setAttribute("role", "region");
  place.setAttribute("aria-label", "Your progress");
  place.replaceChildren(...kinds.map((kind) => bar(kind, items[kind])), make("p", { className: "course-next" }), keeper());
  if (place.dataset.kind === "all") return;
  const known = new Map(items[place.dataset.kind].map((item) => [new URL(item.id, site).href, item]));
  const listed = new Set();
  for (const link of document.querySelectorAll("article td:first-child > a, article li > a:first-child")) {
    const item = known.get(address(link));
    if (!item || listed.has(item)) continue;
    listed.add(item);
    link.before(tick(item), " ");
  }
}

/** The box at the end of a chapter or a lab. */
function mark(article, { chapters, labs }) {
  const here = address(location);
  for (const [items, label] of [[chapters, "I have worked through this chapter"], [labs, "I have done this lab"]]) {
    const item = items.find(({ id }) => new URL(id, site).href === here);
    if (item) article.append(make("p", { className: "course-mark" }, tick(item, label)));
  }
}

async function show() {
  const { chapters, labs } = await course;
  for (const box of document.querySelectorAll(".course-tick")) box.checked = done.has(box.dataset.item);
  for (const meter of document.querySelectorAll(".course-progress progress")) {
    const items = meter.dataset.kind === "labs" ? labs : chapters;
    meter.value = items.filter(({ id }) => done.has(id)).length;
    meter.closest("p").querySelector("span").textContent = `${meter.value} of ${items.length}`;
  }
  for (const place of document.querySelectorAll(".course-next")) {
    const { kind } = place.closest(".course-progress").dataset;
    const listed = kind === "labs" ? labs : kind === "chapters" ? chapters : [...chapters, ...labs];
    const next = listed.find(({ id }) => !done.has(id));
    place.replaceChildren(...(next ? ["Next: ", make("a", { href: new URL(next.id, site).href, textContent: next.title })] : ["All done."]));
  }
}

document$.subscribe(async () => {
  const article = document.querySelector("article");
  if (!article) return;
  course ??= fetch(new URL("course.json", import.meta.url)).then((answer) => answer.json());
  const listed = await course;
  for (const place of document.querySelectorAll(".course-progress:empty")) fill(place, listed);
  if (!article.querySelector(".course-mark")) mark(article, listed);
  await show();
  document.documentElement.dataset.progress = String(done.size);
});
addEventListener("storage", ({ key }) => {
  if (key !== KEY) return;
  done = recall();
  show();
});
