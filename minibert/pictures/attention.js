"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { tokens, words, wordOf, first, rightToLeft } = data;
const [L, A, S] = data.shape;
const weights = decode(data.weights); // S x S weights for each layer and head, as whole numbers
const ROW = 22; // pixels, the height of a token in the style sheet
const WIDTH = 360;
const SMALLEST = 0.01; // weights that are drawn as lines
const MOST_LINES = 600;
// Twelve colours for colour-blind people, most of them Krzywinski's; further heads have dashed lines.
const COLOURS = ["#9F0162", "#009F81", "#FF5AAF", "#00C2F9", "#8400CD", "#008DF9", "#A40122", "#E20134",
  "#FF6E3A", "#B8860B", "#00735C", "#6B6B6B"];
const state = { view: "text", layer: L - 1, head: -1, word: first, token: wordOf.indexOf(first), every: false,
  drawn: new Set(Array(A).keys()) };
const at = (id) => document.getElementById(id);

function decode(text) {
  const bytes = atob(text);
  const found = new Uint16Array(bytes.length / 2);
  for (let i = 0; i < found.length; i++) found[i] = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
  return found;
}

function make(tag, text, parent) {
  const element = document.createElement(tag);
  if (text !== null) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function button(text, parent, action) {
  const element = make("button", text, parent);
  element.type = "button";
  element.addEventListener("click", () => { action(); update(); });
  return element;
}

const colourOf = (head) => COLOURS[head % COLOURS.length];
const shown = (weight) => weight.toFixed(4);
const layers = () => state.layer < 0 ? [...Array(L).keys()] : [state.layer];
const layerName = () => state.layer < 0 ? "mean over layers" : `layer ${state.layer}`;

// The weight between two tokens in one head, of the chosen layer or the mean over layers.
function weight(head, i, j) {
  let sum = 0;
  for (const layer of layers()) sum += weights[((layer * A + head) * S + i) * S + j];
  return sum / 65535 / layers().length;
}

// From a word: the mean over its tokens. To a word: the sum over its tokens.
function fromWord(word) {
  const heads = state.head < 0 ? [...Array(A).keys()] : [state.head];
  const sums = Array(words.length).fill(0);
  let count = 0;
  for (let i = 0; i < S; i++) {
    if (wordOf[i] !== word) continue;
    count++;
    for (const head of heads) for (let j = 0; j < S; j++) sums[wordOf[j]] += weight(head, i, j);
  }
  return sums.map((sum) => sum / count / heads.length);
}

function updateText() {
  const row = fromWord(state.word);
  [...at("words").children].forEach((element, word) => {
    const [label, number] = element.children;
    const shade = Math.sqrt(Math.min(1, row[word])); // the square root: most weights are small
    label.style.backgroundColor = `rgba(0, 114, 178, ${shade})`;
    label.style.color = shade > 0.75 ? "#fff" : "#222";
    number.textContent = shown(row[word]);
    element.title = `${words[state.word]} → ${words[word]}: ${shown(row[word])}`;
    element.setAttribute("aria-pressed", String(word === state.word));
  });
}

function linksToDraw() {
  const links = [];
  for (const head of state.drawn) for (let i = 0; i < S; i++) {
    if (!state.every && i !== state.token) continue;
    for (let j = 0; j < S; j++) {
      const value = weight(head, i, j);
      if (value >= SMALLEST) links.push({ head, i, j, value });
    }
  }
  links.sort((a, b) => a.value - b.value); // the strongest last, on top of the others
  return links.slice(-MOST_LINES);
}

function updateHeads() {
  const svg = at("lines");
  const links = linksToDraw();
  svg.replaceChildren(...links.map(({ head, i, j, value }) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const aside = ((head + 0.5) / A - 0.5) * (ROW - 6); // heads side by side, not one on top of another
    const place = { x1: 0, y1: (i + 0.5) * ROW + aside, x2: WIDTH, y2: (j + 0.5) * ROW + aside, stroke: colourOf(head),
      "stroke-width": 0.5 + 5 * value, "stroke-opacity": 0.2 + 0.8 * value, "data-weight": shown(value) };
    if (head >= COLOURS.length) place["stroke-dasharray"] = "6 3";
    for (const [name, setting] of Object.entries(place)) line.setAttribute(name, setting);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = `head ${head}: ${tokens[i]} → ${tokens[j]}: ${shown(value)}`;
    line.append(title);
    return line;
  }));
  svg.setAttribute("aria-label", `${links.length} lines; the table below has the numbers of the selected token`);
  at("left-out").textContent = state.every
    ? `Drawn are the ${links.length} strongest of all tokens. The table below has every weight of the selected token.`
    : `Weights below ${SMALLEST} are not drawn. The table below has every weight of the selected token.`;
  [...at("from").children].forEach((item, i) =>
    item.firstChild.setAttribute("aria-pressed", String(i === state.token)));
  [...at("toggles").children].forEach((element, head) =>
    element.setAttribute("aria-pressed", String(state.drawn.has(head))));
  at("every-token").setAttribute("aria-pressed", String(state.every));
  updateTable();
}

function updateTable() {
  const table = at("numbers");
  table.replaceChildren();
  make("caption", `From token ${state.token}, “${tokens[state.token]}”, ${layerName()}`, table);
  const top = make("tr", null, make("thead", null, table));
  make("th", "to", top).scope = "col";
  for (let head = 0; head < A; head++) {
    const cell = make("th", `head ${head}`, top);
    cell.scope = "col";
    cell.style.borderColor = colourOf(head);
  }
  const body = make("tbody", null, table);
  for (let j = 0; j < S; j++) {
    const row = make("tr", null, body);
    const name = make("th", tokens[j], row);
    name.scope = "row";
    name.dir = "auto";
    for (let head = 0; head < A; head++) make("td", shown(weight(head, state.token, j)), row);
  }
}

function update() {
  const text = state.view === "text";
  at("text").hidden = at("head-choice").hidden = !text;
  at("heads").hidden = text;
  at("show-text").setAttribute("aria-pressed", String(text));
  at("show-heads").setAttribute("aria-pressed", String(!text));
  if (text) updateText(); else updateHeads();
}

function choices(id, name, count) {
  const select = at(id);
  make("option", "mean", select).value = -1;
  for (let number = 0; number < count; number++) make("option", number, select).value = number;
  select.value = state[name];
  select.addEventListener("change", () => { state[name] = Number(select.value); update(); });
}

choices("layer", "layer", L);
choices("head", "head", A);
at("words").dir = rightToLeft ? "rtl" : "ltr";
words.forEach((word, number) => {
  const element = button(null, at("words"), () => {
    state.word = number;
    state.token = wordOf.indexOf(number);
  });
  const label = make("span", word, element);
  label.className = "word";
  label.dir = "auto";
  make("span", "", element).className = "number";
});
tokens.forEach((token, number) => {
  const element = button(token, make("li", null, at("from")), () => {
    state.token = number;
    state.word = wordOf[number];
    state.every = false;
  });
  element.dir = "auto";
  make("li", token, at("to")).dir = "auto";
});
for (let head = 0; head < A; head++) {
  const element = button(String(head), at("toggles"), () => {
    if (!state.drawn.delete(head)) state.drawn.add(head);
  });
  element.setAttribute("aria-label", `head ${head}`);
  element.style.borderColor = colourOf(head);
}
at("lines").setAttribute("height", S * ROW);
at("every-token").addEventListener("click", () => { state.every = !state.every; update(); });
for (const view of ["text", "heads"]) at(`show-${view}`).addEventListener("click", () => { state.view = view; update(); });
update();
