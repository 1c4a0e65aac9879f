// Rows of a table: one row's attributions, all rows, and how each feature counts.
const data = JSON.parse(document.getElementById("data").textContent);
const { run, features, rows } = data;
const $ = (id) => document.getElementById(id);
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toPrecision(3);
const cell = (x) => x === null ? "missing" : typeof x === "number" && !Number.isInteger(x) ? x.toPrecision(4) : String(x);
const short = (text, most) => text.length > most ? text.slice(0, most - 1) + "…" : text;
const words = (name) => name.replaceAll("_", " ");
const NS = "http://www.w3.org/2000/svg";
let current = Math.max(0, rows.findIndex((one) => one.outcome && one.outcome.startsWith("not ")));

function make(tag, attributes = {}, text = "") {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

// A drawing as wide as its place, in pixels, so that letters keep their size on narrow screens.
function canvas(place, height, label) {
  const width = Math.max(300, Math.round($(place).clientWidth));
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  $(place).replaceChildren(svg);
  const draw = (tag, attributes, text) => svg.appendChild(make(tag, attributes, text));
  const names = Math.min(200, Math.round(width * 0.36));
  return Object.assign(draw, { width, names, most: Math.floor(names / 6.8) });
}

function options(place, values, names = values) {
  $(place).replaceChildren(...values.map((value, at) => new Option(names[at], value)));
}

const order = features.map((_, at) => at).sort((a, b) => data.mean[b] - data.mean[a]);
const shown = order.slice(0, 15);

// ---- the mean of a cohort, and one row beside it ------------------------------------------------

function cohort() {
  const chosen = $("cohort").value;
  const some = chosen === "all" ? rows : rows.filter((one) => one.outcome === chosen);
  return features.map((_, at) => some.reduce((sum, one) => sum + one.values[at], 0) / (some.length || 1));
}

function drawRow() {
  const one = rows[current];
  const told = $("row-told");
  const name = document.createElement("b");
  name.textContent = `row ${one.row + 1}${one.id === null ? "" : ` (${one.id})`}`;
  const rest = `: ${run.target} ${one.score.toFixed(3)}` +
    (run.threshold === null ? "" : `, ${run.threshold} needed: ${one.outcome}`) +
    (one.expected === null ? "" : `; truly ${one.expected}`) +
    Object.entries(one.groups).map(([key, value]) => `; ${words(key)} ${cell(value)}`).join("");
  told.replaceChildren(name, rest);
  drawForce(one);
  drawWaterfall(one);
  for (const dot of document.querySelectorAll(".dot")) dot.classList.toggle("now", Number(dot.dataset.row) === current);
  for (const line of document.querySelectorAll("#list tr")) line.setAttribute("aria-current", Number(line.dataset.row) === current);
}

function drawForce(one) {
  const draw = canvas("force", 66, "What raised and what lowered the score");
  const up = one.values.reduce((sum, x) => sum + Math.max(x, 0), 0);
  const down = one.values.reduce((sum, x) => sum + Math.max(-x, 0), 0);
  const scale = (draw.width - 20) / (up + down || 1);
  const meet = 10 + up * scale;
  for (const side of [1, -1]) {
    let at = meet;
    for (const f of features.map((_, i) => i).filter((i) => side * one.values[i] > 0).sort((a, b) => Math.abs(one.values[b]) - Math.abs(one.values[a]))) {
      const size = Math.abs(one.values[f]) * scale;
      const left = side > 0 ? at - size : at;
      const bar = draw("rect", { x: left, y: 22, width: Math.max(0, size - 1.5), height: 18, class: side > 0 ? "up" : "down" });
      bar.appendChild(make("title", {}, `${words(features[f])} = ${cell(one.cells[f])}: ${signed(one.values[f])}`));
      const name = words(features[f]);
      if (size > 7 * name.length + 4) draw("text", { x: left + size / 2, y: 56, class: "quiet middle" }, name);
      at += side > 0 ? -size : size;
    }
  }
  draw("line", { x1: meet, x2: meet, y1: 14, y2: 46, class: "mean-mark" });
  draw("text", { x: Math.min(Math.max(meet, 90), draw.width - 90), y: 11, class: "middle" }, `${one.logit.toFixed(3)} ${run.scale}`);
}

function drawWaterfall(one) {
  const by = features.map((_, at) => at).sort((a, b) => Math.abs(one.values[b]) - Math.abs(one.values[a]));
  const kept = by.slice(0, 12), others = by.slice(12);
  const means = cohort();
  const lines = kept.map((at) => [words(features[at]), cell(one.cells[at]), one.values[at], means[at]]);
  if (others.length) lines.push([`${others.length} others`, "", others.reduce((sum, at) => sum + one.values[at], 0), others.reduce((sum, at) => sum + means[at], 0)]);
  const height = 26 * (lines.length + 2) + 8;
  const draw = canvas("waterfall", height, "From the base value to the score");
  let at = one.base;
  const reached = [at];
  for (const [, , value] of lines) reached.push(at += value);
  const starts = lines.map((_, i) => reached[i]);
  const marks = lines.map(([, , , mean], i) => starts[i] + mean);
  const low = Math.min(...reached, ...marks), high = Math.max(...reached, ...marks);
  const narrow = draw.width < 480, left = draw.names + (narrow ? 14 : 170), room = draw.width - left - 62;
  const x = (value) => left + (value - low) / (high - low || 1) * room;
  draw("text", { x: 0, y: 18, class: "quiet" }, "base value");
  draw("text", { x: x(one.base), y: 18, class: "quiet middle" }, one.base.toFixed(3));
  lines.forEach(([name, value, size, mean], i) => {
    const top = 26 * (i + 1);
    const label = draw("text", { x: 0, y: top + 17 }, short(name, draw.most));
    label.appendChild(make("title", {}, `${name} = ${value}`));
    if (!narrow) draw("text", { x: left - 16, y: top + 17, class: "quiet end" }, short(value, 24)).appendChild(make("title", {}, value));
    const a = x(starts[i]), b = x(starts[i] + size);
    draw("line", { x1: b, x2: b, y1: top + 6, y2: top + 30, class: "step" });
    draw("rect", { x: Math.min(a, b), y: top + 5, width: Math.max(1, Math.abs(b - a)), height: 16, class: size >= 0 ? "up" : "down" });
    const m = x(starts[i] + mean);
    draw("line", { x1: m, x2: m, y1: top + 3, y2: top + 23, class: "mean-mark" });
    draw("text", { x: Math.max(a, b, m) + 5, y: top + 17, class: "quiet" }, signed(size));
  });
  const end = 26 * (lines.length + 1);
  draw("text", { x: 0, y: end + 18, class: "quiet" }, run.scale);
  draw("text", { x: x(at), y: end + 18, class: "middle" }, one.logit.toFixed(3));
}

// ---- all rows -----------------------------------------------------------------------------------

function drawList() {
  const wanted = $("find").value.trim().toLowerCase(), outcome = $("outcome").value;
  const found = rows.map((one, at) => [one, at]).filter(([one]) =>
    (outcome === "all" || one.outcome === outcome) &&
    (!wanted || [`row ${one.row + 1}`, one.id, ...one.cells].some((x) => x !== null && String(x).toLowerCase().includes(wanted))));
  $("list").replaceChildren(...found.slice(0, 200).map(([one, at]) => {
    const line = document.createElement("tr");
    line.dataset.row = at;
    line.setAttribute("aria-current", at === current);
    const most = one.values.map((x, i) => [Math.abs(x), i]).sort((a, b) => b[0] - a[0]).slice(0, 2).map(([, i]) => `${words(features[i])} ${signed(one.values[i])}`);
    const button = document.createElement("button");
    button.textContent = one.id ?? `${one.row + 1}`;
    button.addEventListener("click", () => choose(at));
    for (const content of [button, one.score.toFixed(3), one.outcome ?? "", most.join(", ")]) {
      const place = document.createElement("td");
      place.append(content);
      line.append(place);
    }
    return line;
  }));
  $("listed").textContent = `${found.length} of ${rows.length} rows` + (found.length > 200 ? ", the first 200 listed" : "") +
    (rows.length < data.total ? `; the run has ${data.total}, of which this page holds one in ${data.step}` : "");
}

function choose(at) { current = at; drawRow(); }

function drawMeans() {
  const draw = canvas("means", 24 * shown.length + 4, "Mean size of attributions by feature");
  const most = data.mean[shown[0]] || 1;
  shown.forEach((at, i) => {
    draw("text", { x: draw.names - 10, y: 24 * i + 17, class: "end" }, short(words(features[at]), draw.most));
    const width = data.mean[at] / most * (draw.width - draw.names - 50);
    draw("rect", { x: draw.names, y: 24 * i + 5, width: Math.max(1, width), height: 15, class: "up" });
    draw("text", { x: draw.names + 6 + width, y: 24 * i + 17, class: "quiet" }, data.mean[at].toPrecision(3));
  });
  $("means-told").textContent = `Over all ${data.total} rows, in ${run.scale}.`;
}

// The place of a row's value within the feature, 0 to 1; null where it is missing.
const places = features.map((name, at) => {
  const levels = run.features[name] ?? [];
  if (levels.length) return rows.map((one) => { const i = levels.indexOf(String(one.cells[at])); return i < 0 ? null : i / Math.max(1, levels.length - 1); });
  const known = rows.map((one) => one.cells[at]).filter((x) => x !== null).map(Number).sort((a, b) => a - b);
  const low = known[Math.floor(known.length * 0.02)] ?? 0, high = known[Math.ceil(known.length * 0.98) - 1] ?? 1;
  return rows.map((one) => one.cells[at] === null ? null : Math.min(1, Math.max(0, (Number(one.cells[at]) - low) / (high - low || 1))));
});

function dot(draw, x, y, at, feature, r = 2.6) {
  const place = places[feature][at];
  const one = draw("circle", { cx: x, cy: y, r, class: "dot", "data-row": at });
  one.style.fill = place === null ? "none" : `color-mix(in srgb, var(--accent) ${Math.round(15 + 85 * place)}%, var(--raised))`;
  one.appendChild(make("title", {}, `row ${rows[at].row + 1}: ${words(features[feature])} = ${cell(rows[at].cells[feature])}, ${signed(rows[at].values[feature])}`));
  one.addEventListener("click", () => choose(at));
}

function drawSummary() {
  const top = shown.slice(0, 12), some = rows.map((_, at) => at).filter((at) => at % Math.ceil(rows.length / 250) === 0);
  const draw = canvas("summary", 30 * top.length + 24, "Attributions of all rows by feature");
  const all = top.flatMap((f) => some.map((at) => rows[at].values[f]));
  const low = Math.min(0, ...all), high = Math.max(0, ...all);
  const x = (value) => draw.names + 20 + (value - low) / (high - low || 1) * (draw.width - draw.names - 45);
  draw("line", { x1: x(0), x2: x(0), y1: 0, y2: 30 * top.length, class: "zero" });
  top.forEach((f, line) => {
    draw("text", { x: draw.names - 10, y: 30 * line + 19, class: "end" }, short(words(features[f]), draw.most));
    const taken = new Map();
    for (const at of some) {
      const cx = x(rows[at].values[f]), bin = Math.round(cx / 4), many = taken.get(bin) ?? 0;
      taken.set(bin, many + 1);
      const shift = Math.min(12, Math.ceil(many / 2) * 2.2) * (many % 2 ? 1 : -1);
      dot(draw, cx, 30 * line + 15 + shift, at, f);
    }
  });
  for (const value of [low, 0, high]) draw("text", { x: x(value), y: 30 * top.length + 18, class: "quiet middle" }, value ? signed(value) : "0");
}

function drawDependence() {
  const f = Number($("feature").value), levels = run.features[features[f]] ?? [];
  const draw = canvas("dependence", 250, `How ${words(features[f])} counts`);
  const values = rows.map((one) => one.values[f]);
  const low = Math.min(0, ...values), high = Math.max(0, ...values);
  const y = (value) => 205 - (value - low) / (high - low || 1) * 195;
  const room = draw.width - 90;
  draw("line", { x1: 50, x2: draw.width, y1: y(0), y2: y(0), class: "zero" });
  for (const value of [low, high]) draw("text", { x: 44, y: y(value) + 4, class: "quiet end" }, signed(value));
  draw("text", { x: 44, y: y(0) + 4, class: "quiet end" }, "0");
  const known = rows.map((one) => one.cells[f]).filter((cell) => cell !== null).map(Number);
  const from = Math.min(...known), to = Math.max(...known);
  const x = (at) => {
    const value = rows[at].cells[f];
    if (value === null) return draw.width - 8;
    const jitter = ((at * 7919) % 97) / 97 - 0.5;
    if (levels.length) return 70 + (levels.indexOf(String(value)) + 0.5 + jitter * 0.5) / levels.length * room;
    return 70 + (Number(value) - from) / (to - from || 1) * (room - 20);
  };
  rows.forEach((_, at) => dot(draw, x(at), y(values[at]), at, f, 2.4));
  if (levels.length) levels.forEach((level, i) => {
    const text = draw("text", { x: 70 + (i + 0.5) / levels.length * room, y: 226 + (i % 2) * 15, class: "quiet middle" }, short(level, Math.floor(room / 3.6 / levels.length)));
    text.appendChild(make("title", {}, level));
  });
  else for (const value of [from, to]) draw("text", { x: 70 + (value - from) / (to - from || 1) * (room - 20), y: 226, class: "quiet middle" }, cell(value));
}

$("name").textContent = run.name;
$("about").textContent = `${run.counts.maps} of ${run.counts.images} rows explained, ${run.counts.failures} failures · ${run.model} · ${run.methods.join(", ")} · compared with ${run.background.rule}` + (run.background.rows ? ` (${run.background.rows})` : "");
if (run.state !== "complete") { $("banner").hidden = false; $("banner").textContent = "The run isn't finished: this page shows what is."; }
const outcomes = [...new Set(rows.map((one) => one.outcome).filter((one) => one !== null))].sort();
options("outcome", ["all", ...outcomes], ["all outcomes", ...outcomes]);
options("cohort", ["all", ...outcomes], ["beside all rows", ...outcomes.map((one) => `beside ${one}`)]);
options("feature", order.map(String), order.map((at) => words(features[at])));
for (const [id, drawn] of [["outcome", drawList], ["find", drawList], ["cohort", drawRow], ["feature", () => { drawDependence(); drawRow(); }]]) $(id).addEventListener("input", drawn);
function drawAll() { drawMeans(); drawSummary(); drawDependence(); drawList(); drawRow(); }
if (rows.length) { drawAll(); addEventListener("resize", drawAll); }
