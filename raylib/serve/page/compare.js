// One question to two models, and which pages moved between their rankings.

import { documents, search } from "./client.js";
import { announce, failed, h, message, number, roving, skeletons, svg } from "./dom.js";
import { asked, modelsInto, questionForm } from "./question.js";
import { sheet } from "./results.js";

export async function compareView(app, main, params, signal) {
  const again = () => app.go("compare", params, { again: true });
  const served = await modelsInto(main, again, signal);
  if (!served) return;
  if (served.length < 2) return main.replaceChildren(message("Two models are needed", "This server searches with one model only. Start it with a second one to compare them.", h("a", { class: "button", href: "#/search" }, "Search with the one")));
  const name = (wanted, other) => served.find((one) => one.name === wanted)?.name ?? served.find((one) => one.name !== other).name;
  const a = name(params.a, params.b), b = name(params.b, a);
  const form = questionForm({ ...params, a, b }, served, [["a", "Left"], ["b", "Right"]], (next) => app.go("compare", next, { again: true }));
  const place = h("section", { class: "results", "aria-label": "Comparison" });
  main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "Two models, one question"), form), place);
  try {
    const [left, right] = [asked(params, a), asked(params, b)];
    if (!left) {
      place.replaceChildren(message(params.image ? "Choose the image again" : "Ask something", params.image ? "A link does not hold the image of a question." : "Both rankings will stand side by side, with lines between the places of a page."));
      return form.querySelector("#question").focus({ preventScroll: true });
    }
    place.setAttribute("aria-busy", "true");
    place.replaceChildren(h("div", { class: "sides" }, skeletons(5, "lines"), h("div"), skeletons(5, "lines")));
    const [hitsA, hitsB] = await Promise.all([search(left, signal), a === b ? search(left, signal) : search(right, signal)]);
    const ids = (hits) => hits.map((hit) => hit.id);
    const [ofA, ofB] = await Promise.all([documents(a, ids(hitsA), signal), documents(b, ids(hitsB), signal)]);
    if (signal.aborted) return;
    place.setAttribute("aria-busy", "false");
    show(app, place, [a, b], [hitsA, hitsB], new Map([...ofB, ...ofA]), left.query, signal);
    app.viewer.follow(app.params());
  } catch (error) {
    if (signal.aborted) return;
    place.setAttribute("aria-busy", "false");
    place.replaceChildren(failed(error, again));
  }
}

function show(app, place, names, rankings, found, query, signal) {
  const ranks = rankings.map((hits) => new Map(hits.map((hit) => [hit.id, hit.rank])));
  const items = rankings.map((hits, side) => hits.map((hit) => {
    const there = ranks[1 - side].get(hit.id);
    const elsewhere = `${there ? `rank ${there}` : `not in the first ${rankings[1 - side].length}`} with the other model`;
    return { ...hit, model: names[side], with: names[side], there, elsewhere, side };
  }));
  app.viewer.offer(items.flat(), found, { query });
  const shared = items[0].filter((item) => item.there);
  const same = shared.filter((item) => item.there === item.rank).length;
  const column = (side) => {
    const list = h("ol", { class: "ranking", "aria-label": `Ranking of ${names[side]}` }, items[side].map((item) => row(app, item, found.get(item.id))));
    roving(list, ".hit");
    return h("div", { class: "side" }, h("h2", { class: "mono" }, names[side]), list);
  };
  const lines = svg("svg", { class: "lines-between", "aria-hidden": "true" });
  const sides = h("div", { class: "sides" }, column(0), h("div", { class: "gutter" }, lines), column(1));
  place.replaceChildren(
    h("p", { class: "count" }, `${shared.length} pages are in both rankings, ${same} of them in the same place`,
      h("span", { class: "legend" }, h("i", { class: "up" }), "higher on the right", h("i", { class: "down" }), "lower on the right", h("i", {}), "same place")),
    sides);
  const draw = () => connect(sides, lines, shared);
  new ResizeObserver((_, observer) => (signal.aborted ? observer.disconnect() : draw())).observe(sides);
  draw();
  sides.addEventListener("pointerover", (event) => light(sides, event.target.closest(".hit")?.dataset.id));
  sides.addEventListener("pointerleave", () => light(sides));
  sides.addEventListener("focusin", (event) => light(sides, event.target.closest(".hit")?.dataset.id));
  // Left and right go to the same page, or the same place, of the other ranking.
  sides.addEventListener("keydown", (event) => {
    const hit = event.target.closest(".hit");
    const to = { ArrowLeft: 0, ArrowRight: 1 }[event.key];
    if (!hit || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const others = [...sides.querySelectorAll(".side")[to === 0 ? 0 : 1].querySelectorAll(".hit")];
    (others.find((other) => other.dataset.id === hit.dataset.id) ?? others[Math.min(Number(hit.dataset.rank) - 1, others.length - 1)])?.focus();
  }, { capture: true });
  announce(`${shared.length} pages are in both rankings, ${same} of them in the same place.`);
}

function row(app, item, document) {
  const [kind, sign, words] = moved(item);
  return h("li", {}, h("button", { type: "button", class: `hit ${kind}`, "data-id": item.id, "data-rank": item.rank, "data-model": item.model, "aria-label": `Rank ${item.rank}, ${item.id}, score ${number(item.score)}, ${words}`, onclick: () => app.look({ doc: item.id, with: item.model }, { replace: false }) },
    h("b", { class: "rank" }, String(item.rank)),
    h("span", { class: "mat" }, sheet(item.model, document, 320)),
    h("span", { class: "caption" }, h("span", { class: "id", title: item.id }, item.id), h("span", { class: "line" }, h("span", { class: "score" }, number(item.score)), h("span", { class: "moved" }, sign)))));
}

// On the left, where a page is on the right; there, how it moved: in the colour of its line.
function moved({ rank, there, side }) {
  if (!there) return ["only", "only here", "only in this ranking"];
  if (rank === there) return ["same", "=", "the same rank in the other"];
  if (side === 0) return ["", `→ ${there}`, `rank ${there} in the other`];
  const by = there - rank;
  return by > 0 ? ["up", `▲ ${by}`, `${by} higher than in the other`] : ["down", `▼ ${-by}`, `${-by} lower than in the other`];
}

function connect(sides, lines, shared) {
  const box = lines.parentElement.getBoundingClientRect();
  lines.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const [left, right] = sides.querySelectorAll(".side");
  const middle = (side, id) => {
    const hit = [...side.querySelectorAll(".hit")].find((one) => one.dataset.id === id).getBoundingClientRect();
    return hit.top + hit.height / 2 - box.top;
  };
  lines.replaceChildren(...shared.map((item) => {
    const [y, z] = [middle(left, item.id), middle(right, item.id)];
    const kind = item.there === item.rank ? "same" : item.there < item.rank ? "up" : "down";
    return svg("path", { d: `M0 ${y} C${box.width / 2} ${y} ${box.width / 2} ${z} ${box.width} ${z}`, class: kind, "data-id": item.id });
  }));
}

function light(sides, id) {
  sides.classList.toggle("lit", Boolean(id));
  for (const one of sides.querySelectorAll("[data-id]")) one.classList.toggle("lit", id !== undefined && one.dataset.id === id);
}
