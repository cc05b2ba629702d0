// The look that explorables share. Colors are the custom properties of course.css, which reach into shadow roots.
const style = new CSSStyleSheet();
style.replaceSync(`
:host {
  display: block; margin: 2em 0; padding: 1em 1.2em; border: 1px solid var(--course-line); border-radius: 0.3rem;
  background: var(--course-card); color: var(--md-default-fg-color); font: inherit; line-height: 1.5; min-width: 0;
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
h3 { margin: 0 0 0.4em; font-size: 1.05em; font-weight: 650; }
p { margin: 0.5em 0; }
fieldset { margin: 0; padding: 0; border: 0; min-width: 0; }
legend { padding: 0; font-weight: 650; }
.controls { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)); gap: 0.7em 1.4em; margin: 0.8em 0; }
.controls[disabled] { opacity: 0.6; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: 1em 1.6em; }
.panels > * { min-width: 0; }
label { display: block; min-width: 0; }
label > .value { float: right; font-variant-numeric: tabular-nums; }
input, select, button, textarea { font: inherit; color: inherit; min-width: 0; max-width: 100%; }
input[type="range"] { display: block; width: 100%; margin: 0.25em 0; accent-color: var(--plot-blue); }
select, input[type="number"], textarea {
  width: 100%; padding: 0.25em 0.4em; border: 1px solid var(--md-default-fg-color--light); border-radius: 0.2rem;
  background: var(--md-default-bg-color);
}
.choice { display: inline-block; margin: 0 1.1em 0.3em 0; }
button {
  padding: 0.35em 0.9em; border: 1px solid currentColor; border-radius: 0.2rem; background: none;
  color: var(--md-typeset-a-color); cursor: pointer;
}
button:disabled { opacity: 0.6; cursor: default; }
button.quiet { padding: 0; border: 0; text-decoration: underline; }
:focus-visible { outline: 2px solid var(--md-accent-fg-color); outline-offset: 2px; }
.guess { margin: 0.6em 0; padding: 0.5em 0.9em; border-left: 0.25rem solid var(--md-accent-fg-color); background: var(--md-default-bg-color); }
.guess input[type="range"] { max-width: 24rem; }
.small { font-size: 0.9em; color: var(--md-default-fg-color--light); }
table { margin: 0.6em 0; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15em 0.8em 0.15em 0; text-align: left; font-weight: 400; vertical-align: top; }
td { text-align: right; white-space: nowrap; }
thead th { color: var(--md-default-fg-color--light); }
thead * + th { text-align: right; }
.scroll { overflow-x: auto; }
details { margin: 0.4em 0; font-size: 0.9em; }
summary { cursor: pointer; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: currentColor; font-size: 12px; font-family: inherit; }
svg .quiet { fill: var(--md-default-fg-color--light); }
canvas { display: block; max-width: 100%; image-rendering: pixelated; }
@media print { button, .controls, .guess form { display: none; } }
`);

export default style;
