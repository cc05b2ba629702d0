// A little Markdown, for text that nobody has checked: it becomes elements and text nodes, never HTML.

const FENCE = /^ {0,3}```\s*([\w+#.-]*)\s*$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const INLINE = /`([^`\n]+)`|\*\*(?=\S)([^\n]*?\S)\*\*/g;

/** Return a fragment for a text, which may still be growing: an open code block ends with the text. */
export function render(text) {
  const fragment = document.createDocumentFragment();
  let lines = [];
  let code = null;
  const flush = () => {
    const plain = lines.join("\n").trim();
    if (plain) fragment.append(paragraph(plain));
    lines = [];
  };
  for (const line of text.split("\n")) {
    const fence = FENCE.exec(line);
    if (code !== null) {
      if (fence && !fence[1]) {
        fragment.append(block(code));
        code = null;
      } else {
        code.push(line);
      }
    } else if (fence) {
      flush();
      code = [];
    } else if (line.trim() === "") {
      flush();
    } else if (HEADING.test(line)) {
      flush();
      const heading = paragraph(HEADING.exec(line)[1]);
      heading.className = "heading";
      fragment.append(heading);
    } else {
      lines.push(line);
    }
  }
  if (code !== null) fragment.append(block(code));
  flush();
  return fragment;
}

function paragraph(text) {
  const found = document.createElement("p");
  let last = 0;
  for (const match of text.matchAll(INLINE)) {
    const part = document.createElement(match[1] === undefined ? "strong" : "code");
    part.textContent = match[1] ?? match[2];
    found.append(text.slice(last, match.index), part);
    last = match.index + match[0].length;
  }
  found.append(text.slice(last));
  return found;
}

function block(lines) {
  const pre = document.createElement("pre");
  const code = document.createElement("code");
  code.textContent = lines.join("\n");
  pre.tabIndex = 0; // so that the keyboard can scroll it
  pre.append(code);
  return pre;
}
