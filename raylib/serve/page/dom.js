// Elements, numbers and announcements. Text always goes in as text: nothing a corpus holds can become markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, v] of Object.entries(value)) element.style.setProperty(`--${key}`, v);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, props, ...children) => filled(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => filled(document.createElementNS(SVG, tag), props, children);
export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

export const number = (value) => Number(value).toPrecision(4).replace("-", "−");
export const percent = (value) => (100 * value).toFixed(1);

// nDCG@10 for ndcg_at_10, as the field writes it.
export function measureTitle(name) {
  const [base, k] = name.split("_at_");
  const title = { ndcg: "nDCG", map: "MAP", mrr: "MRR" }[base] ?? base[0].toUpperCase() + base.slice(1).replaceAll("_", " ");
  return k ? `${title}@${k}` : title;
}

export function announce(text) {
  $("#live").textContent = text;
}

export function message(title, text, ...more) {
  return h("div", { class: "message" }, h("h2", {}, title), text && h("p", {}, text), ...more);
}

export function failed(error, again) {
  const box = message("That did not work", error.message, again && h("button", { type: "button", class: "quiet", onclick: again }, "Try again"));
  box.setAttribute("role", "alert");
  return box;
}

export const skeletons = (count, kind) =>
  h("div", { class: kind, "aria-hidden": "true" }, Array.from({ length: count }, () => h("div", { class: "skeleton" })));

// Arrow keys, Home and End among elements that lie in rows; only one of them is a stop of the Tab key.
export function roving(container, selector, { choose } = {}) {
  const all = () => $$(selector, container);
  const stop = (element) => all().forEach((other) => (other.tabIndex = other === element ? 0 : -1));
  stop(all().find((element) => element.getAttribute("aria-checked") === "true") ?? all()[0]);
  container.addEventListener("focusin", (event) => {
    const element = event.target.closest(selector);
    if (element) stop(element);
  });
  container.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    const elements = all();
    const at = elements.indexOf(event.target.closest(selector));
    if (at < 0) return;
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: elements.length - 1, ArrowDown: inRow(elements, at, 1), ArrowUp: inRow(elements, at, -1) }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const element = elements[Math.min(Math.max(next, 0), elements.length - 1)];
    element.focus();
    choose?.(element);
  });
}

// The element above or below: of the next row, the one whose middle is nearest.
function inRow(elements, at, direction) {
  const middle = (element) => { const box = element.getBoundingClientRect(); return [box.left + box.width / 2, box.top]; };
  const [x, y] = middle(elements[at]);
  const others = elements.map((element, index) => ({ index, place: middle(element) })).filter(({ place }) => (place[1] - y) * direction > 4);
  if (!others.length) return at;
  const row = Math.min(...others.map(({ place }) => (place[1] - y) * direction));
  const near = others.filter(({ place }) => (place[1] - y) * direction < row + 4);
  return near.reduce((best, other) => (Math.abs(other.place[0] - x) < Math.abs(best.place[0] - x) ? other : best)).index;
}
