// One page, large, and why it was found: the patches that every word of the question is like.

import { explain } from "./client.js";
import { $, $$, announce, h, number, roving } from "./dom.js";
import { facts, sheet } from "./results.js";

const BESIDE = 20;
const KEPT = 40;
const OPACITY = 85;

// What a word matched is shown by colours of the server's making: frame 0 is the sum, then come the words.
async function filmOf(found) {
  const bytes = Uint8Array.from(atob(found.film), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

export class Viewer {
  constructor(dialog, app) {
    this.dialog = dialog;
    this.app = app;
    this.explained = new Map();
    this.forget();
    dialog.addEventListener("close", () => this.closed());
    dialog.addEventListener("keydown", (event) => this.key(event));
  }

  // The pages that can be looked at now. found: Map of id → document, of all models alike.
  offer(items, found, { query } = {}) {
    Object.assign(this, { items, found, query });
  }

  forget() {
    Object.assign(this, { items: [], found: new Map(), query: undefined, at: null });
    this.hide();
  }

  // Show what the address asks for.
  follow({ doc, with: model, word, opacity }) {
    const at = doc === undefined ? -1 : this.items.findIndex((item) => item.id === doc && (model === undefined || item.model === model));
    if (at < 0) return this.hide();
    this.opacity = Number(opacity) || OPACITY;
    this.word = Number(word) || 0;
    if (at !== this.at || !this.dialog.open) this.show(at);
    else this.paint();
  }

  hide() {
    this.quiet = true;
    if (this.dialog.open) this.dialog.close();
    this.quiet = false;
    this.at = null;
  }

  closed() {
    if (this.quiet) return;
    const item = this.items[this.at];
    this.at = null;
    this.app.look({ doc: undefined, with: undefined, word: undefined });
    const place = $$("#main [data-id]").find((one) => one.dataset.id === item?.id && (one.dataset.model ?? item.model) === item.model);
    place?.focus();
  }

  move(by) {
    const item = this.items[this.at + by];
    if (item) this.app.look({ doc: item.id, with: item.with });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") this.move(1);
    if (event.key === "k") this.move(-1);
    if (event.key === "0") this.choose(0, { focus: true });
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && !event.target.closest("[role=radio], input") && this.dialog.querySelector("[role=radio]")) {
      event.preventDefault();
      this.choose(this.word + step, { focus: true });
    }
  }

  async show(at) {
    this.at = at;
    const item = this.items[at];
    const document = this.found.get(item.id);
    this.current = null;
    this.canvas = h("canvas", { class: "heat", "aria-hidden": "true" });
    this.marks = h("div", { class: "marks", "aria-hidden": "true" });
    this.readout = h("p", { class: "readout", "aria-live": "polite" });
    this.why = h("section", { class: "why", "aria-label": "Why this page" });
    const ratio = document?.width ? document.width / document.height : undefined;
    this.paper = h("div", { class: document?.width ? "paper" : "paper text", vars: ratio ? { ratio } : {} }, sheet(item.model, document, 1280, { eager: true, alt: `Page ${item.id}` }), document?.width && [this.canvas, this.marks]);
    const arrow = (by, label, sign) => h("button", { type: "button", class: "quiet", "aria-label": label, disabled: !this.items[at + by], onclick: () => this.move(by) }, sign);
    const title = h("h2", { id: "viewer-title" }, item.id);
    this.dialog.setAttribute("aria-labelledby", "viewer-title");
    this.dialog.replaceChildren(
      h("div", { class: "stage" }, this.paper),
      h("aside", { class: "panel" },
        h("div", { class: "row bar" }, arrow(-1, "Previous page", "←"), h("span", {}, `${at + 1} of ${this.items.length}`), arrow(1, "Next page", "→"), h("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => this.dialog.close() }, "×")),
        item.rank && h("p", { class: "standing" }, h("b", {}, `Rank ${item.rank}`), h("span", {}, `score ${number(item.score)}`), item.elsewhere && h("span", {}, item.elsewhere)),
        title, item.model && this.items.some((one) => one.model !== item.model) && h("p", { class: "mono soft" }, item.model),
        facts(item.metadata ?? document?.metadata), this.why));
    if (!this.dialog.open) {
      this.dialog.showModal();
      $(".close", this.dialog).focus();
    }
    announce(`Page ${item.id}`);
    if (this.query && document) await this.explainIt(item, at);
    else if (document?.text && document.width) this.why.replaceChildren(h("p", { class: "soft" }, document.text));
  }

  async explainIt(item, at) {
    const alive = () => this.at === at && this.items[at] === item;
    this.why.replaceChildren(h("div", { class: "lines", "aria-hidden": "true" }, h("div", { class: "skeleton" })));
    try {
      const found = await this.ask(item);
      if (!alive()) return;
      if (found.kind === "whole") return this.why.replaceChildren(h("p", { class: "note" }, found.note));
      const film = await filmOf(found);
      if (!alive()) return;
      this.current = { ...found, film };
      this.compose();
    } catch (error) {
      if (alive()) this.why.replaceChildren(h("p", { class: "problem", role: "alert" }, error.message));
    }
  }

  ask(item) {
    const beside = this.items.filter((one) => one.model === item.model && one.id !== item.id).slice(0, BESIDE).map((one) => one.id);
    const body = { model: item.model, query: this.query, document_id: item.id, beside };
    const key = JSON.stringify(body);
    if (!this.explained.has(key)) {
      const found = explain(body);
      found.catch(() => this.explained.delete(key));
      this.explained.set(key, found);
      if (this.explained.size > KEPT) this.explained.delete(this.explained.keys().next().value);
    }
    return this.explained.get(key);
  }

  // The question, word by word.
  compose() {
    const { words, rows, columns } = this.current;
    this.sum = words.reduce((sum, word) => sum + (word.special ? 0 : word.score), 0);
    const most = Math.max(...words.map((word) => (word.special ? 0 : word.score)), 1e-9);
    const button = (word, index) => {
      const label = word === null ? "All words" : word.special ? `${word.text}${word.tokens > 1 && /^[<[]/.test(word.text) ? ` × ${word.tokens}` : ""}` : word.text;
      const share = word && !word.special ? Math.max(word.score, 0) / most : 0;
      const glued = word && !word.special && /^[^\p{L}\p{N}]+$/u.test(word.text);
      const shown = h("button", { type: "button", role: "radio", "aria-checked": index === 0, class: `word${word?.special ? " special" : ""}${word === null ? " all" : ""}${glued ? " glued" : ""}`, "data-index": index, "aria-label": `${label}, ${number(word ? word.score : this.sum)}`, vars: { share } }, label);
      shown.addEventListener("click", () => this.choose(index));
      shown.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && this.paint(index));
      shown.addEventListener("pointerleave", () => this.paint());
      return shown;
    };
    const special = words.map((word, index) => [word, index + 1]).filter(([word]) => word.special);
    const own = words.map((word, index) => [word, index + 1]).filter(([word]) => !word.special);
    const group = h("div", { class: "words", role: "radiogroup", "aria-label": "Word whose matches are shown" },
      button(null, 0), h("div", { class: "sentence" }, own.map(([word, index]) => button(word, index))),
      special.length ? h("div", { class: "others" }, h("span", {}, "Added by the model"), special.map(([word, index]) => button(word, index))) : null);
    const slider = h("input", { type: "range", min: 0, max: 100, step: 5, value: this.opacity, "aria-label": "Strength of the heat map" });
    slider.addEventListener("input", () => { this.opacity = Number(slider.value); this.paint(); });
    slider.addEventListener("change", () => this.app.look({ opacity: this.opacity === OPACITY ? undefined : this.opacity || 1 }));
    this.why.replaceChildren(h("h3", {}, "What matched"), group, this.readout,
      h("div", { class: "tune" }, h("label", {}, h("span", {}, "Heat map"), slider), h("span", { class: "ramp" }, "less", h("i", {}), "more")),
      h("p", { class: "soft small" }, `${rows} × ${columns} patches. Clear up to the median of the pages of this question, red at their highest: equal colours are equal similarities. A frame is around the patch that counted.`));
    roving(group, "[role=radio]", { choose: (element) => this.choose(Number(element.dataset.index)) });
    this.canvas.width = columns;
    this.canvas.height = rows;
    this.paper.addEventListener("pointermove", (event) => this.point(event));
    this.paper.addEventListener("pointerdown", (event) => this.point(event));
    this.paper.addEventListener("pointerleave", () => this.paint());
    this.word = Math.min(this.word, words.length);
    this.paint();
    // Arrow keys go from word to word at once; a button that was used meanwhile keeps the focus.
    if (document.activeElement?.matches(".close")) $(`[data-index="${this.word}"]`, group)?.focus();
  }

  choose(index, { focus = false } = {}) {
    if (!this.current) return;
    this.word = Math.min(Math.max(index, 0), this.current.words.length);
    this.app.look({ word: this.word || undefined });
    this.paint();
    if (focus) $(`[role=radio][data-index="${this.word}"]`, this.dialog)?.focus();
  }

  paint(index = this.word) {
    if (!this.current) return;
    const { words, rows, columns, film, total } = this.current;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, columns, rows);
    context.drawImage(film, 0, index * rows, columns, rows, 0, 0, columns, rows);
    this.canvas.style.opacity = this.opacity / 100;
    this.dialog.dataset.frame = index;
    for (const element of $$("[role=radio]", this.dialog)) {
      element.setAttribute("aria-checked", Number(element.dataset.index) === this.word);
      element.classList.toggle("seen", Number(element.dataset.index) === index);
    }
    const word = words[index - 1];
    const cells = word?.cells ?? [];
    this.marks.replaceChildren(...cells.map(([row, column]) => h("i", { vars: { x: `${(100 * column) / columns}%`, y: `${(100 * row) / rows}%`, w: `${100 / columns}%`, h: `${100 / rows}%` } })));
    if (!word) return this.say(`All words: ${number(this.sum)} of ${number(total)}`);
    const share = total > 0 ? ` of ${number(total)}` : "";
    const outside = word.tokens > cells.length ? (cells.length ? ", partly from outside the page’s patches" : ", from outside the page’s patches") : "";
    this.say(`“${word.text}” adds ${number(word.score)}${share}${outside}`);
  }

  // What the patch under the pointer is most like.
  point(event) {
    if (!this.current) return;
    const { rows, columns, similarities, words } = this.current;
    const box = this.paper.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
    if (row < 0 || column < 0 || row >= rows || column >= columns) return;
    if (this.word) return this.say(`Here “${words[this.word - 1].text}”: ${number(similarities[this.word - 1][row][column])}`);
    const own = words.map((word, index) => [word, similarities[index][row][column]]).filter(([word]) => !word.special);
    if (!own.length) return;
    const [word, value] = own.reduce((best, one) => (one[1] > best[1] ? one : best));
    this.say(`Most like “${word.text}” here: ${number(value)}`);
  }

  say(text) {
    if (this.readout.textContent !== text) this.readout.textContent = text;
  }
}
