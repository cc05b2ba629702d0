// The chat page: asks this server for an answer and shows it as it comes. Nothing is stored but in this tab's session.

import { render } from "./markdown.js";

const at = (id) => document.getElementById(id);
const log = at("log"), main = document.querySelector("main"), question = at("question"), status = at("status");
const STORE = "fourbit-chat";

let model = null;
let talk = load(); // [{role, content, cost?}], without the system message
let dropped = 0; // messages at the beginning of `talk` that no longer fit into the context
let running = null; // AbortController of the answer in progress

// ---- the server

function headers() {
  const key = sessionStorage.getItem("fourbit-key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function connect() {
  let reply;
  try {
    reply = await fetch("/v1/models", { headers: headers() });
  } catch {
    at("model").textContent = "The server does not answer";
    setTimeout(connect, 3000);
    return;
  }
  at("key-form").hidden = reply.status !== 401;
  if (reply.status === 401) {
    at("model").textContent = "A key is needed";
    at("key").focus();
    return;
  }
  model = (await reply.json()).data[0];
  at("model").textContent = `${model.title} (${model.tier}), context of ${model.context_length.toLocaleString("en")} tokens`;
  document.title = `${model.id} · Fourbit chat`;
  question.focus();
}

/** Yield what the server sends of an answer: {waiting: text}, or an object of the stream. */
async function* stream(messages, signal) {
  const limit = parseInt(at("limit").value, 10);
  const temperature = parseFloat(at("temperature").value);
  const penalty = parseFloat(at("penalty").value);
  const body = {
    model: model.id, messages, stream: true, stream_options: { include_usage: true },
    ...(limit > 0 ? { max_tokens: limit } : {}), ...(temperature >= 0 ? { temperature } : {}),
    ...(penalty >= 1 ? { repetition_penalty: penalty } : {}),
  };
  const reply = await fetch("/v1/chat/completions", {
    method: "POST", headers: headers(), body: JSON.stringify(body), signal,
  });
  if (!reply.ok) {
    const { error } = await reply.json().catch(() => ({ error: { message: `HTTP status ${reply.status}` } }));
    if (reply.status === 401) connect();
    throw Object.assign(new Error(error.message), { code: error.code });
  }
  let held = "";
  for await (const part of chunks(reply.body.pipeThrough(new TextDecoderStream()))) {
    held += part;
    let end;
    while ((end = held.indexOf("\n\n")) >= 0) {
      const event = held.slice(0, end);
      held = held.slice(end + 2);
      if (event.startsWith(":")) yield { waiting: event.slice(1).trim() };
      else if (event === "data: [DONE]") return;
      else if (event.startsWith("data: ")) yield JSON.parse(event.slice(6));
    }
  }
  throw new Error("the server went away in the middle of the answer");
}

async function* chunks(readable) {
  const reader = readable.getReader(); // not every browser can iterate over a stream
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

// ---- the conversation

function load() {
  try {
    return JSON.parse(sessionStorage.getItem(STORE)) ?? [];
  } catch {
    return [];
  }
}

function keep() {
  try {
    sessionStorage.setItem(STORE, JSON.stringify(talk));
  } catch { /* the session's storage is full or switched off: the page works without */ }
}

function messages() {
  const system = at("system").value.trim();
  const kept = talk.slice(dropped).map(({ role, content }) => ({ role, content }));
  return system ? [{ role: "system", content: system }, ...kept] : kept;
}

function show({ role, content, cost }) {
  const article = document.createElement("article");
  article.className = role;
  const heading = document.createElement("h2");
  heading.textContent = role === "user" ? "You" : "Model";
  const text = document.createElement("div");
  text.className = "text";
  text.append(render(content));
  article.append(heading, text);
  if (cost) article.append(line(cost, "cost"));
  log.append(article);
  at("welcome").hidden = true;
  return { article, text };
}

function line(text, kind) {
  const found = document.createElement("p");
  found.className = kind;
  found.textContent = text;
  return found;
}

function follow(always = false) {
  if (always || main.scrollHeight - main.scrollTop - main.clientHeight < 120) main.scrollTop = main.scrollHeight;
}

function price({ usage, timings }) {
  const speed = timings.tokens_per_second ? `, ${timings.tokens_per_second.toFixed(1)} tokens/s` : "";
  return `${usage.completion_tokens} tokens, first after ${timings.first_token_seconds.toFixed(2)} s${speed}`;
}

async function ask(text) {
  const said = { role: "user", content: text };
  const { article } = show(said);
  const whose = talk;
  talk.push(said);
  const came = await answer();
  if (came || whose !== talk) return;
  talk.pop(); // without an answer the question is as if it had not been asked, and can be sent again
  article.remove();
  keep();
  if (!question.value) question.value = text;
  grow();
}

/** Show the model's next message as it comes; false if nothing of it came. */
async function answer() {
  const said = { role: "assistant", content: "" };
  const { article, text } = show(said);
  const whose = talk;
  running = new AbortController();
  busy(true);
  tell("Waiting for the model");
  follow(true);
  let ended = "", frame = 0;
  const draw = () => {
    frame = 0;
    text.replaceChildren(render(said.content));
    follow();
  };
  try {
    for await (const event of stream(messages(), running.signal)) {
      if (event.waiting !== undefined) {
        if (/ahead/.test(event.waiting)) tell(`Waiting: ${event.waiting}`);
        continue;
      }
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice?.delta?.content) {
        if (!said.content) tell("Answering");
        said.content += choice.delta.content;
        frame ||= requestAnimationFrame(draw); // a fast model has several tokens for each frame
      }
      if (choice?.finish_reason === "length") ended = ", ended by the limit or because the context is full";
      if (event.usage) said.cost = price(event) + ended;
    }
    tell(`Answer complete: ${said.cost}`);
  } catch (error) {
    if (error.code === "context_length_exceeded" && forget()) {
      article.remove();
      return answer();
    }
    const stopped = error.name === "AbortError";
    said.cost = stopped ? "stopped" : "broken off";
    tell(stopped ? "Stopped" : `No answer: ${error.message}`, !stopped);
  } finally {
    cancelAnimationFrame(frame);
    draw();
    busy(false);
  }
  if (whose !== talk) return false; // a new conversation has begun meanwhile
  if (!said.content) {
    article.remove();
    return false;
  }
  article.append(line(said.cost, "cost"));
  talk.push(said);
  keep();
  follow();
  return true;
}

function tell(text, bad = false) {
  status.textContent = text;
  status.className = bad ? "bad" : "quiet";
}

/** Leave out the oldest exchange, openly; false if only the last question is left. */
function forget() {
  const next = talk.findIndex((message, i) => i > dropped && message.role === "user");
  if (next < 0) return false;
  dropped = next;
  log.querySelector(".forgotten")?.remove();
  const note = line("The context is full: what is above this line no longer goes to the model.", "note forgotten");
  log.children[dropped].before(note);
  return true;
}

function busy(now) {
  at("send").hidden = now;
  at("stop").hidden = !now;
  log.setAttribute("aria-busy", String(now)); // a screen reader waits for the whole answer
  if (!now) {
    running = null;
    question.focus();
  }
}

// ---- what a person does

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (!text || running || !model) return;
  question.value = "";
  grow();
  ask(text);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
at("stop").addEventListener("click", () => running?.abort());
at("clear").addEventListener("click", () => {
  running?.abort();
  talk = [];
  dropped = 0;
  keep();
  log.replaceChildren();
  at("welcome").hidden = false;
  tell("A new conversation");
  question.focus();
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("fourbit-key", at("key").value.trim());
  at("key").value = "";
  connect();
});

function grow() {
  question.style.height = "auto"; // set by script, which the page's policy allows; attributes in HTML it does not
  question.style.height = `${question.scrollHeight + 2}px`;
}
question.addEventListener("input", grow);

talk.forEach(show);
follow(true);
connect();
