// One question to one model.

import { documents, search } from "./client.js";
import { announce, failed, h, message, skeletons } from "./dom.js";
import { asked, modelsInto, questionForm } from "./question.js";
import { grid } from "./results.js";

export async function searchView(app, main, params, signal) {
  const again = () => app.go("search", params, { again: true });
  const served = await modelsInto(main, again, signal);
  if (!served) return;
  if (!served.length) return main.replaceChildren(message("There is nothing to search", "This server has models, but no corpus of pages."));
  const model = served.find((one) => one.name === params.model) ?? served[0];
  const form = questionForm({ ...params, model: model.name }, served, [["model", "Model"]], (next) => app.go("search", next, { again: true }));
  const place = h("section", { class: "results", "aria-busy": "false", "aria-label": "Results" });
  const body = (() => { try { return asked(params, model.name); } catch (error) { place.replaceChildren(failed(error)); return undefined; } })();
  main.replaceChildren(h("div", { class: body || params.image ? "head" : "head hero" }, body ? null : hero(model), form), place);
  if (body === undefined) return;
  if (!body) {
    if (params.image) place.replaceChildren(message("Choose the image again", "A link does not hold the image of a question."));
    return form.querySelector("#question").focus({ preventScroll: true });
  }
  place.setAttribute("aria-busy", "true");
  place.replaceChildren(skeletons(Math.min(body.top_k, 8), "grid"));
  const began = performance.now();
  try {
    const hits = await search(body, signal);
    const took = performance.now() - began;
    const found = await documents(model.name, hits.map((hit) => hit.id), signal);
    if (signal.aborted) return;
    place.setAttribute("aria-busy", "false");
    if (!hits.length) {
      place.replaceChildren(message("No page fits", params.filters ? "No page of the corpus is as the filter asks. Loosen it." : "The corpus is empty."));
      return announce("No page fits");
    }
    const items = hits.map((hit) => ({ ...hit, model: model.name }));
    app.viewer.offer(items, found, { query: body.query, model: model.name });
    place.replaceChildren(
      h("p", { class: "count" }, `${hits.length} of ${model.documents.toLocaleString("en")} pages`, h("span", {}, `${took < 1000 ? `${Math.round(took)} ms` : `${(took / 1000).toFixed(1)} s`}`)),
      grid(model.name, items, found, (item) => app.look({ doc: item.id }, { replace: false })));
    announce(`${hits.length} pages found. The best is ${hits[0].id}.`);
    app.viewer.follow(app.params());
  } catch (error) {
    if (signal.aborted) return;
    place.setAttribute("aria-busy", "false");
    place.replaceChildren(failed(error, again));
  }
}

const hero = (model) => h("div", { class: "intro" },
  h("h1", {}, "Find a page, and see why"),
  h("p", {}, `${model.documents.toLocaleString("en")} pages, read by `, h("span", { class: "mono" }, model.name), model.similarity === "maxsim" ? ". Every page shows which of its patches matched which words." : "."));
