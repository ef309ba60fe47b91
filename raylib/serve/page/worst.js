// The queries of an evaluation run that went worst.

import { models, runs, worst } from "./client.js";
import { announce, failed, h, measureTitle, message, number, percent, skeletons } from "./dom.js";
import { select } from "./question.js";

const COUNT = 10;

export async function worstView(app, main, params, signal) {
  const again = () => app.go("worst", params, { again: true });
  const place = h("section", { class: "results", "aria-busy": "true", "aria-label": "Worst queries" }, skeletons(4, "lines"));
  const head = h("div", { class: "head" }, h("h1", {}, "Worst queries"), h("p", { class: "soft" }, "What an evaluation run got wrong: the question, the page that was expected, and what came instead."));
  main.replaceChildren(head, place);
  try {
    const listed = await runs(signal);
    if (signal.aborted) return;
    if (!listed.available) return place.replaceChildren(message("No runs to look at", listed.note));
    const run = listed.data.find((one) => one.run === params.run) ?? listed.data[0];
    const task = run.tasks.includes(params.task) ? params.task : run.tasks[0];
    const start = Number(params.start) || 0;
    const { split, subset, measure } = params;
    const found = await worst({ run: run.run, task, measure, split, subset, start, count: COUNT }, signal);
    const served = await models();
    if (signal.aborted) return;
    const go = (change) => app.go("worst", { run: run.run, task, measure, split, subset, ...change });
    head.append(choices(listed.data, run, task, found, params, go));
    place.setAttribute("aria-busy", "false");
    place.replaceChildren(summary(found), ...found.notes.map((note) => h("p", { class: "note" }, note)),
      h("ol", { class: "queries", start: start + 1 }, found.data.map((one, index) => question(one, start + index + 1, found, params.run ?? run.run, served, app))),
      pager(start, found.count, (next) => go({ start: next || undefined })));
    announce(`${found.data.length} queries, worst first.`);
  } catch (error) {
    if (signal.aborted) return;
    place.setAttribute("aria-busy", "false");
    place.replaceChildren(failed(error, again));
  }
}

function choices(listed, run, task, found, params, go) {
  const titles = listed.map((one) => one.title);
  const titleOf = (one) => (titles.filter((title) => title === one.title).length > 1 ? one.run : one.title);
  const part = params.split ? `${params.split}\n${params.subset}` : "";
  const form = h("form", { class: "options" },
    select("run", "Run", listed.map((one) => [one.run, titleOf(one)]), run.run),
    select("task", "Task", run.tasks.map((one) => [one, one]), task),
    select("measure", "Measure", found.measures.map((one) => [one, measureTitle(one)]), found.measure),
    found.parts.length > 1 && select("part", "Part", [["", "all"], ...found.parts.map(([split, subset]) => [`${split}\n${subset}`, `${split} / ${subset}`])], part));
  form.addEventListener("change", (event) => {
    const { name, value } = event.target;
    const [split, subset] = value.split("\n");
    if (name === "run") go({ run: value, task: undefined, measure: undefined, split: undefined, subset: undefined });
    if (name === "task") go({ task: value, measure: undefined, split: undefined, subset: undefined });
    if (name === "measure") go({ measure: value });
    if (name === "part") go(value ? { split, subset } : { split: undefined, subset: undefined });
  });
  return form;
}

function summary({ mean, median, count, bins, measure }) {
  const most = Math.max(...bins, 1);
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  return h("div", { class: "summary" },
    h("dl", {}, fact(`Mean ${measureTitle(measure)}`, percent(mean)), fact("Median", percent(median)), fact("Queries", count.toLocaleString("en"))),
    h("figure", {}, h("div", { class: "bins", role: "img", "aria-label": `Queries by ${measureTitle(measure)} in steps of 10: ${bins.join(", ")}` }, bins.map((n, i) => h("span", { title: `${10 * i} to ${10 * i + 10}: ${n} queries`, vars: { share: n / most } }))),
      h("figcaption", {}, h("span", {}, "0"), h("span", {}, measureTitle(measure)), h("span", {}, "100"))));
}

function question(one, place, found, run, served, app) {
  // A corpus in the vectors of the run's model shows best what went wrong.
  const model = served.find((each) => run.startsWith(each.name))?.name;
  const text = one.text ?? `Query ${one.id}`;
  const first = one.found[0];
  return h("li", { class: "query" },
    h("div", { class: "asked" },
      h("p", { class: "value" }, h("b", {}, percent(one.value)), h("span", {}, measureTitle(found.measure))),
      h("div", {},
        one.text && served.length ? h("a", { class: "question", href: app.address("search", { q: one.text, model }) }, text) : h("p", { class: "question" }, text),
        h("p", { class: "soft small" }, [`${place} of ${found.count}`, `${one.n_relevant} relevant`, one.id].join(" · ")))),
    h("div", { class: "versus" },
      group("Expected", [...one.found.filter((card) => card.relevance > 0), ...one.expected], found.pages, "Not among the kept rankings."),
      group(first?.relevance > 0 ? "What came" : "What came instead", one.found, found.pages, "Nothing was retrieved.")));
}

function group(title, cards, pages, none) {
  return h("section", {}, h("h3", {}, title), cards.length ? h("ol", { class: "strip" }, cards.map((card) => h("li", { class: card.relevance > 0 ? "good" : "" },
    h("span", { class: "mat" }, card.page ? h("img", { src: pages[card.page], alt: "" }) : h("span", { class: "excerpt" }, card.text ?? "no picture")),
    h("span", { class: "line" }, h("b", {}, card.rank ? `Rank ${card.rank}` : "not found"), card.score !== null && h("span", { class: "score" }, number(card.score))),
    h("span", { class: "id", title: card.id }, card.id)))) : h("p", { class: "soft" }, none));
}

export function pager(start, count, go, size = COUNT) {
  if (count <= size && !start) return "";
  const button = (to, text) => h("button", { type: "button", class: "quiet", disabled: to < 0 && start === 0 ? true : to >= count, onclick: () => go(Math.max(to, 0)) }, text);
  return h("nav", { class: "row pager", "aria-label": "More" }, button(start - size, "← Previous"), h("span", {}, `${start + 1} to ${Math.min(start + size, count)} of ${count.toLocaleString("en")}`), button(start + size, "Next →"));
}
