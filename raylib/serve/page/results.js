// Pages in a grid.

import { pageImage } from "./client.js";
import { h, number, roving } from "./dom.js";

export function facts(metadata) {
  const entries = Object.entries(metadata ?? {});
  return entries.length ? h("p", { class: "facts" }, entries.map(([name, value]) => h("span", {}, h("i", {}, name), ` ${value}`))) : null;
}

// What stands for a document: its page, the start of its text, or that it is gone.
export function sheet(model, document, width, options) {
  if (!document) return h("p", { class: "problem" }, "This document is not in the corpus any more.");
  if (document.width) return pageImage(model, document, width, options);
  return h("p", { class: "excerpt" }, document.text || "An empty document.");
}

// items: {id, rank?, score?, metadata}; found: Map of id → document.
export function grid(model, items, found, open) {
  const best = Math.max(...items.map((item) => item.score ?? 0));
  const low = Math.min(...items.map((item) => item.score ?? 0), best);
  const card = (item) => {
    const label = `${item.rank ? `Rank ${item.rank}, ` : ""}${item.id}${item.score === undefined ? "" : `, score ${number(item.score)}`}`;
    const share = best > low ? 0.12 + (0.88 * (item.score - low)) / (best - low) : 1;
    return h("li", {}, h("button", { type: "button", class: "card", "aria-label": label, "data-id": item.id, onclick: () => open(item) },
      h("span", { class: "mat" }, sheet(model, found.get(item.id), 640)),
      h("span", { class: "caption" },
        item.rank && h("span", { class: "line" }, h("b", { class: "rank" }, String(item.rank)), h("span", { class: "meter", vars: { share } }), h("span", { class: "score" }, number(item.score))),
        h("span", { class: "id", title: item.id }, item.id),
        facts(item.metadata))));
  };
  const list = h("ol", { class: "grid", "aria-label": "Pages" }, items.map(card));
  roving(list, ".card");
  return list;
}
