// Paper opens nothing: before printing, every answer is opened and each explorable replaced by its text for readers
// without JavaScript. Afterwards the page is as it was.
let restore = [];

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("article details:not([open])")) {
    details.open = true;
    restore.push(() => { details.open = false; });
  }
  for (const element of document.querySelectorAll("article *")) {
    if (!element.localName.startsWith("fourbit-") || !element.shadowRoot) continue;
    const text = Object.assign(document.createElement("div"), { className: "explorable-on-paper" });
    text.append(...[...element.childNodes].map((node) => node.cloneNode(true)));
    element.after(text);
    element.classList.add("not-on-paper");
    restore.push(() => { text.remove(); element.classList.remove("not-on-paper"); });
  }
});
addEventListener("afterprint", () => {
  for (const undo of restore) undo();
  restore = [];
});
