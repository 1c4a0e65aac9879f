// The page: for the chosen model its trends, explanations, gaps, drift, and the state of the audit.

const data = JSON.parse(document.getElementById("data").textContent);
const tag = (text, kind) => el("span", { class: `tag ${kind}` }, text);
const when = (iso) => (iso ?? "").slice(0, 16).replace("T", " ");
const head = (id, title, lead) => [el("h2", { id: `h-${id}` }, title), el("p", { class: "lead" }, lead)];
const none = (text) => el("div", { class: "panel" }, el("p", { class: "hint" }, text));
const fact = (value, word) => el("div", {}, el("b", {}, value), el("span", {}, word));

function table(name, columns, rows, cells) {
  return el("div", { class: "panel" },
    el("div", { class: "panel-head" }, el("h3", {}, name), csv(name, columns, () => rows)),
    el("div", { class: "wide" }, el("table", {},
      el("thead", {}, el("tr", {}, ...columns.map((one) => el("th", { scope: "col" }, one)))),
      el("tbody", {}, ...rows.map((row, at) => el("tr", {}, ...(cells ? cells(row, at) : row).map((one) => (one instanceof Node ? el("td", {}, one) : el("td", { dir: "auto", class: /^[-+0-9.e: ]{1,16}$/.test(String(one)) ? "n" : null }, one === null ? "–" : String(one))))))))));
}

function trends(model) {
  const host = $("trends");
  host.replaceChildren(...head("trends", "Trends", "Daily means of all explained items of the last 92 days, with their 95 % intervals; the numbers of items show on hover and in the CSV. A single item has no interval. Drag to zoom, double-click to go back."));
  const known = model.trends, labels = Object.keys(known);
  if (!labels.length) { host.append(none("Nothing has been measured yet.")); return; }
  const chosen = el("select", { class: "select", "aria-label": "Class" }, ...labels.map((one) => el("option", { value: one }, one === "" ? "All classes" : one)));
  const grid = el("div", { class: "charts" });
  const [seen, explained] = model.coverage;
  host.append(el("div", { class: "facts" },
    fact(model.n.toLocaleString("en-US"), `explained, ${model.first} to ${model.last}`),
    fact(seen ? `${(100 * explained / seen).toFixed(1)} %` : "–", `of ${seen.toLocaleString("en-US")} judged were explained, counted and so without an interval`),
    fact(model.card?.owner ?? "nobody", "answers for this model"),
    fact(model.card?.risk ?? "not said", "risk class")), el("div", { class: "tools" }, chosen), grid);
  const draw = () => {
    const figures = known[chosen.value];
    const days = [...new Set(Object.values(figures).flatMap((points) => points.map((p) => p[0])))].sort();
    const at = new Map(days.map((day, i) => [day, i]));
    const of = (name) => ({ name, points: figures[name].map(([day, n, mean, low, high]) => ({ at: at.get(day), n, mean, low, high })) });
    const panel = (title, names, ends = null) => { const there = names.filter((name) => figures[name]); return there.length ? chart(title, days, there.map(of), { ends }) : null; };
    const starting = (...prefixes) => Object.keys(figures).filter((name) => prefixes.some((one) => name.startsWith(one)));
    const mean = (name) => figures[name].reduce((sum, p) => sum + p[1] * p[2], 0) / figures[name].reduce((sum, p) => sum + p[1], 0);
    const strongest = (names, most) => names.sort((a, b) => mean(b) - mean(a)).slice(0, most);
    const shares = strongest(starting("share."), 6);
    grid.replaceChildren(...[
      panel("Score and error", ["score", "error"]),
      panel("What image and text add", ["image_adds", "text_adds", "interaction"]),
      panel("Concentration of the evidence", ["concentration", "entropy", "half_area"]),
      panel("Share of the evidence by feature", shares, [0, 1]),
      panel("Attribution by feature", shares.map((name) => name.replace("share.", "attribution."))),
      panel("Share of the evidence by region", strongest(starting("region:"), 6), [0, 1]),
      panel("Concentration of the evidence in the text", ["text_concentration", "text_entropy", "text_half_area"]),
      panel("Where the evidence lies", ["centre_x", "centre_y", "border"]),
      panel("Share of the evidence by part of the text", starting("third_"), [0, 1]),
      panel("Share of the evidence by kind of word", ["negation", "symbols", "capitals"], [0, 1]),
      panel("Evidence against, and flat maps", ["against", "flat"], [0, 1]),
      panel("Quality", ["completeness", "faithfulness", "miss"]),
      panel("Share of the evidence in the six strongest cells", strongest(starting("cell_"), 6), [0, 1]),
    ].filter(Boolean));
    const maps = model.mean[chosen.value] ?? [];
    if (maps.length) {
      const names = ["All days", "The earlier half", "The later half"];
      grid.append(el("div", { class: "panel" }, el("h3", {}, "Mean map"),
        el("div", { class: "maps" }, ...maps.map((one, at) => el("figure", {}, el("img", { class: "map", alt: `Mean share of the evidence in a 4 by 4 grid, ${names[at].toLowerCase()}`, src: one.src }), el("figcaption", {}, el("b", {}, names[at]), el("br"), `n = ${one.n.toLocaleString("en-US")}, ${one.first} to ${one.last}`)))),
        el("p", { class: "hint" }, "Mean share of the evidence in a 4 × 4 grid over the model’s view, each map from none to its own strongest cell.")));
    }
  };
  chosen.addEventListener("change", draw);
  draw();
}

function items(model) {
  const host = $("items"), found = model.items;
  host.replaceChildren(...head("items", "Explanations", `Flagged items and those of highest risk: ${found.rule}. ${found.rows.length} of ${model.n.toLocaleString("en-US")} are on this page. A score is of one item, so it has no interval.`));
  if (!found.rows.length) { host.append(none("No item is flagged.")); return; }
  const search = el("input", { type: "search", placeholder: "Search", "aria-label": "Search sources, classes and groups", autocomplete: "off", spellcheck: "false" });
  const count = el("span", { class: "hint", role: "status" }), body = el("div");
  const hay = found.rows.map((row) => [row.source, named(row), row.label, row.truth, ...Object.entries(row.groups).map((one) => one.join("="))].join("\n").toLowerCase());
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = found.rows.filter((_, at) => words.every((word) => hay[at].includes(word)));
    count.textContent = `${chosen.length} of ${found.rows.length}`;
    body.replaceChildren(table("Flagged explanations", ["source", "class", "truth", "score", "time", "evidence"], chosen.slice(0, 100).map((row) => [row.source, row.label, row.truth, row.score, when(row.at), row.map ? "" : strongest(row)]), (row, at) => [
      el("button", { class: "open", type: "button", dir: "auto", onclick: () => open(chosen[at]) }, named(chosen[at])), row[1], row[2], figure(row[3]), row[4], chosen[at].map ? el("img", { class: "thumb", alt: "", src: chosen[at].map }) : row[5]]));
  };
  search.addEventListener("input", draw);
  host.append(el("div", { class: "tools" }, search, count), body);
  draw();
}

const said = (row) => row.record.text?.text ?? row.record.text; // a post's text is a record of its own
const named = (row) => (said(row) ? said(row).slice(0, 100) : row.source);
const strongest = (row) => row.parts.toSorted((a, b) => Math.abs(b.at(-1)) - Math.abs(a.at(-1))).slice(0, 3).map((one) => one[0]).join(", ");

function evidence(row) {
  const parts = row.parts;
  if (!parts.length) return "";
  const most = Math.max(...parts.map((one) => Math.abs(one.at(-1)))) || 1;
  if (parts[0].length === 3) {
    return el("table", {}, el("thead", {}, el("tr", {}, ...["feature", "value", "attribution"].map((one) => el("th", { scope: "col" }, one)))),
      el("tbody", {}, ...parts.map(([name, cell, value]) => el("tr", {}, el("td", { dir: "auto" }, name), el("td", { dir: "auto" }, String(cell ?? "–")), el("td", { class: "n" }, (value > 0 ? "+" : "") + figure(value))))));
  }
  return el("p", { class: "words", dir: "auto" }, ...parts.flatMap(([word, value]) => {
    const mark = el("mark", { title: figure(value) }, word);
    mark.style.setProperty("--share", `${Math.round((70 * Math.abs(value)) / most)}%`);
    mark.classList.toggle("against", value < 0);
    return [mark, " "];
  }));
}

function open(row) {
  const dialog = $("record"), line = (name, value) => el("tr", {}, el("td", {}, name), el("td", { dir: "auto" }, typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "–")));
  dialog.replaceChildren(
    row.map ? el("img", { class: "map", alt: "The map", src: row.map }) : "",
    el("h2", { id: "record-title", dir: "auto" }, named(row)), evidence(row),
    el("table", {}, el("tbody", {}, ...Object.entries(row.record).map(([name, value]) => line(name, value)), ...Object.entries(row.groups).map(([name, value]) => line(`group: ${name}`, value)), ...Object.entries(row.features).map(([name, value]) => line(name, figure(value))))),
    el("p", {}, el("button", { class: "plain", type: "button", onclick: () => dialog.close() }, "Close")));
  dialog.showModal();
}

function fairness(model) {
  const host = $("fairness");
  host.replaceChildren(...head("fairness", "Fairness", "Groups come from the metadata that callers gave; nothing is inferred. A gap is a fact about these items and not yet a verdict. Intervals are 95 % bootstrap intervals; p is adjusted for all figures and groups of an attribute."));
  if (!model.gaps.length) { host.append(none("No groups were given with these items, so none were compared.")); return; }
  const several = new Set(model.gaps.map((one) => one.tenant)).size > 1;
  for (const one of model.gaps) {
    // Of two groups one is the other's opposite.
    const groups = [...new Set(one.gaps.map((gap) => gap.group))].sort(), left = groups.length === 2 ? groups.slice(0, 1) : groups;
    const seen = one.gaps.filter((gap) => left.includes(gap.group)).filter((gap) => gap.p <= one.level || ["score", "error"].includes(gap.figure)).slice(0, 40);
    host.append(table(`By ${one.attribute}, ${several ? `${one.tenant}, ` : ""}${one.n.toLocaleString("en-US")} newest items, ${one.unknown} without a group`,
      ["group", "figure", "n", "mean", "n of others", "mean of others", "gap", "low", "high", "p", "verdict"],
      seen.map((gap) => [gap.group, gap.figure, gap.n, gap.mean, gap.rest, gap.others, gap.gap, gap.low, gap.high, gap.p, gap.warning || (gap.p <= one.level ? "beyond chance" : "as by chance")]),
      (row) => [...row.slice(0, 3), figure(row[3]), row[4], ...row.slice(5, 10).map(figure), tag(row[10], row[10] === "beyond chance" ? "bad" : row[10] === "as by chance" ? "good" : "warn")]));
  }
}

const moved = (m) => `${m.name ?? m.figure} ${figure(m.before)} → ${figure(m.after)} (KS ${figure(m.statistic ?? m.ks)}, q ${figure(m.q)})`;

function drift(model) {
  const host = $("drift"), windows = model.windows;
  host.replaceChildren(...head("drift", "Drift", "Each window against the reference, on three sides: what came in, what the model answered, and why. A p-value at or below the line is an alarm; p-values are adjusted for the sides. A p-value has no interval: it says how often chance does as much."));
  if (!windows.length) { host.append(none("No window has been tested: a window is tested when it is full, after the reference.")); alerts(model); return; }
  const several = new Set(windows.map((one) => one.tenant)).size > 1, whose = (one) => (several ? `${one.tenant}: ` : "");
  const x = windows.map((one) => whose(one) + when(one.first).slice(0, 10)), level = data.level;
  const sides = ["input", "score", "explanation"].filter((side) => windows.some((one) => side in one.q));
  const of = (side) => ({ name: side, points: windows.map((one, at) => ({ at, mean: one.q[side] ?? null, n: one.n, marked: one.alarms.includes(side) })) });
  const unlike = { name: "unlike the reference", points: windows.map((one, at) => ({ at, mean: one.unlike, n: one.n })) };
  host.append(el("div", { class: "charts" }, chart("p-value of each side", x, sides.map(of), { ends: [0.002, 1], rule: level, log: true }),
    chart("Single items unlike the reference", x, [unlike])));
  const missing = [...new Set(windows.flatMap((one) => Object.entries(one.missing).map((pair) => pair.join(": "))))];
  for (const one of missing) host.append(el("p", { class: "hint" }, `Not tested: ${one}.`));
  host.append(table("Windows", ["from", "to", "n", "input", "score", "explanation", "alarms", "moved most", "single items unlike the reference"],
    windows.toReversed().map((one) => [whose(one) + when(one.first), when(one.last), one.n, one.q.input ?? null, one.q.score ?? null, one.q.explanation ?? null, one.alarms.join(", "), one.moved.map(moved).join("; "), `${one.unlike}${one.outliers.length ? `: ${one.outliers.map((o) => `${o.id.slice(-8)} (${o.side}, ${figure(o.distance)} ×)`).join(", ")}` : ""}`]),
    (row) => [...row.slice(0, 3), ...row.slice(3, 6).map((v) => figure(v)), row[6] ? tag(row[6], "bad") : tag("none", "good"), row[7], row[8]]));
  alerts(model);
}

function alerts(model) {
  const host = $("drift");
  host.append(el("h3", { class: "history" }, `Alerts: ${model.alerts.filter((one) => one.state === "open").length} open, ${model.alerts.length} in all`));
  if (!model.alerts.length) host.append(none("No window has raised an alarm."));
  for (const one of model.alerts) {
    host.append(el("div", { class: `alert ${one.state}` }, el("b", {}, `Drift in ${one.alarms.join(", ")}`), " ", tag(one.state, one.state === "open" ? "bad" : "good"),
      el("p", { class: "hint" }, `${when(one.from)} to ${when(one.to)}, n = ${one.n}. Alert ${one.id}${one.delivered ? `, webhook: ${one.delivered}` : ""}`),
      el("ul", {}, ...one.moved.slice(0, 4).map((m) => el("li", {}, `${m.side}: ${moved(m)}`))),
      el("p", { class: "hint", dir: "auto" }, `Most unlike the reference: ${one.records.map((r) => r.source).join(", ") || "not shown here"}`),
      ...one.notes.map((note) => el("p", { dir: "auto" }, `${when(note.at)}, ${note.actor}: ${note.text}`)), answer(one)));
  }
}

/** What can be done about an alert: a form where a server takes it, else the command. */
function answer(alert) {
  if (data.act === null) return alert.state === "open" ? el("p", { class: "hint" }, "Acknowledge it: ", el("code", {}, `visxai govern acknowledge ${alert.id} --note "…" --by NAME`)) : "";
  const close = el("label", { class: "ack" }, el("input", { type: "checkbox", name: "close", value: "yes", checked: "" }), "acknowledge");
  return el("form", { class: "tools", method: "post", action: data.act }, el("input", { type: "hidden", name: "alert", value: alert.id }),
    el("input", { type: "text", name: "text", required: "", maxlength: "2000", "aria-label": "Note", placeholder: "What was found, or what is done", autocomplete: "off" }), alert.state === "open" ? close : "", el("button", { class: "plain", type: "submit" }, "Add note"));
}

function audit() {
  const host = $("audit"), found = data.audit;
  host.replaceChildren(...head("audit", "Audit", "The chain of entries over everything that was put on record, shown, held or erased."),
    el("div", { class: "facts" }, fact(found.entries.toLocaleString("en-US"), "entries in the chain"),
      fact(found.verified === null ? "not checked here" : found.verified ? "intact" : "NOT intact", found.verified === null ? "run visxai audit verify" : `checked ${when(found.at)}`),
      fact(found.checkpoint ? `entry ${found.checkpoint.sequence}` : "none", found.checkpoint ? `last of ${found.checkpoints} checkpoints, ${when(found.checkpoint.at)}, key ${found.checkpoint.key}` : "no checkpoint was signed")));
  for (const flaw of found.flaws) host.append(el("p", { class: "banner", dir: "auto" }, flaw));
  host.append(found.seen.length ? table("Who saw what, and what they did then", ["time", "who", "role", "event", "decision", "explanation shown"], found.seen.map(([at, ...rest]) => [when(at), ...rest]))
    : none("Nobody has acted on a case yet, so no explanation is on record as shown."));
  host.append(table("Who did what, lately", ["time", "event", "who", "what"], found.latest.map(([at, ...rest]) => [when(at), ...rest])));
}

function show() {
  const model = data.models[Math.max(0, $("model")?.selectedIndex ?? 0)];
  if (model && !model.trends) { location.search = `?model=${encodeURIComponent(model.id)}`; return; }
  $("about").textContent = model ? `${model.name} · weights ${model.weights.slice(0, 12)}` : "no explanations yet";
  if (model) for (const draw of [trends, items, fairness, drift]) draw(model);
  else $("trends").replaceChildren(...head("trends", "Trends", "Nothing is on record yet. Trends, flagged explanations, gaps between groups and drift appear here with the first explanations."));
  audit();
}

$("theme").addEventListener("click", () => {
  const now = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = now;
  $("theme").setAttribute("aria-pressed", String(now === "dark"));
});
$("model").replaceChildren(...data.models.map((one) => el("option", {}, `${one.name} (${one.weights.slice(0, 8)})`)));
$("model").selectedIndex = Math.max(0, data.models.findIndex((one) => one.trends));
$("model").addEventListener("change", show);
if (!data.models.length) $("model").closest(".pick").remove();
show();
