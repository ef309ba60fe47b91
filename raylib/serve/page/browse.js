// The corpus, page by page.

import { browse, models } from "./client.js";
import { announce, failed, h, message, skeletons } from "./dom.js";
import { select } from "./question.js";
import { grid } from "./results.js";
import { pager } from "./worst.js";

const COUNT = 24;

export async function browseView(app, main, params, signal) {
  const place = h("section", { class: "results", "aria-busy": "true", "aria-label": "Corpus" }, skeletons(8, "grid"));
  const head = h("div", { class: "head" }, h("h1", {}, "Corpus"));
  main.replaceChildren(head, place);
  try {
    const served = await models();
    if (signal.aborted) return;
    if (!served.length) return place.replaceChildren(message("There is no corpus", "This server has models, but no pages to look at."));
    const model = served.find((one) => one.name === params.model) ?? served[0];
    const start = Number(params.start) || 0;
    const found = await browse(model.name, start, COUNT, signal);
    if (signal.aborted) return;
    if (served.length > 1) {
      const form = h("form", { class: "options" }, select("model", "Corpus of", served.map((one) => [one.name, one.name]), model.name));
      form.addEventListener("change", (event) => app.go("browse", { model: event.target.value }));
      head.append(form);
    }
    place.setAttribute("aria-busy", "false");
    if (!found.data.length) return place.replaceChildren(found.count ? message("There are no more pages", `The corpus has ${found.count}.`) : message("The corpus is empty", "Add documents with POST /v1/documents, or start the server with a task’s corpus."));
    const items = found.data.map((one) => ({ id: one.id, model: model.name, metadata: one.metadata }));
    const byId = new Map(found.data.map((one) => [one.id, one]));
    app.viewer.offer(items, byId);
    place.replaceChildren(h("p", { class: "count" }, `${found.count.toLocaleString("en")} documents in order of their ids`), grid(model.name, items, byId, (item) => app.look({ doc: item.id }, { replace: false })),
      pager(start, found.count, (next) => app.go("browse", { model: params.model, start: next || undefined }), COUNT));
    announce(`${found.data.length} of ${found.count} documents.`);
    app.viewer.follow(app.params());
  } catch (error) {
    if (signal.aborted) return;
    place.setAttribute("aria-busy", "false");
    place.replaceChildren(failed(error, () => app.go("browse", params, { again: true })));
  }
}
