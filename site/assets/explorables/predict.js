// Predict, then reveal: controls stay locked and results hidden until the reader has committed a guess, which is kept
// in this browser and stays beside the measured value.
import { h, slider } from "./element.js";

const PREFIX = "fourbit:predict:";

function recall(name) {
  try { return localStorage.getItem(PREFIX + name); } catch { return null; } // storage can be forbidden
}

function keep(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, value);
  } catch { /* the guess then lasts as long as the page */ }
}

/**
 * Lock an explorable behind a guess.
 *
 * @param host the Explorable; gets data-locked and data-guess
 * @param name key in localStorage
 * @param question what the reader is asked, a sentence
 * @param range {min, max, step, value, format}: the guess is a number
 * @param choices [[value, text], ...] instead of range: the guess is one of the values
 * @param locked elements that a guess opens: fieldsets are disabled until then, all others hidden
 * @param open called with the guess (a number for a range) when there is one, also at once for a guess of an earlier visit
 * @param close called when the reader forgets the guess
 * @returns {element, guess, compare(text)}: the box to insert; the guess or null; compare writes what was measured beside it
 */
export function predict(host, { name, question, range, choices, locked, open = () => {}, close = () => {} }) {
  const read = (text) => (range ? Number(text) : text);
  const say = (guess) => (range ? (range.format ?? String)(guess) : choices.find(([value]) => value === guess)?.[1] ?? guess);
  const field = range ? slider("Your guess", range) : radios(name, choices);
  const form = h("form", {}, field, h("button", {}, "Commit my guess"));
  const given = h("span");
  const beside = h("span", { "aria-live": "polite" });
  const forget = h("button", { type: "button", class: "quiet" }, "forget my guess");
  const told = h("p", { tabindex: -1 }, given, " ", beside, " ", forget);
  const lock = { element: h("section", { class: "guess", "aria-label": "Predict, then reveal" }, h("p", {}, h("strong", {}, "Predict. "), question), form, told), guess: null };
  lock.compare = (text) => { beside.textContent = text; };

  function show(guess) {
    lock.guess = guess;
    host.dataset.locked = String(guess === null);
    if (guess === null) delete host.dataset.guess; else host.dataset.guess = String(guess);
    form.hidden = guess !== null;
    told.hidden = guess === null;
    given.textContent = guess === null ? "" : `You guessed ${say(guess)}.`;
    beside.textContent = "";
    for (const part of locked) {
      if (part instanceof HTMLFieldSetElement) part.disabled = guess === null; else part.hidden = guess === null;
    }
  }

  function settle(guess) {
    show(guess);
    if (guess === null) close(); else open(guess);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = range ? field.input.value : field.querySelector(":checked")?.value;
    if (text === undefined) return;
    keep(name, text);
    settle(read(text));
    told.focus(); // the pressed button is gone
  });
  forget.addEventListener("click", () => {
    keep(name, null);
    settle(null);
    form.querySelector("input").focus();
  });
  const earlier = recall(name);
  const valid = earlier !== null && (range ? earlier.trim() !== "" && Number.isFinite(Number(earlier)) : choices.some(([value]) => value === earlier));
  show(null);
  if (valid) queueMicrotask(() => settle(read(earlier))); // open() may use the lock that this call returns
  return lock;
}

function radios(name, choices) {
  const options = choices.map(([value, text]) => h("label", { class: "choice" }, h("input", { type: "radio", name, value, required: true }), ` ${text}`));
  return h("fieldset", {}, h("legend", {}, "Your guess"), ...options);
}
