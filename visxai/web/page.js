// The page: controls change the state, and the state is drawn.

const TABS = ["images", "classes", "run"];
let plain = []; // the chosen items

function refresh({ keep = false } = {}) {
  const current = keep ? wall.items[wall.active] : undefined;
  const { found, counts } = chosen();
  plain = found;
  const members = state.together ? gathered(plain) : new Map(), shown = state.together ? [...members.keys()] : plain;
  wall.show(shown, members, current === undefined ? 0 : Math.max(0, shown.indexOf(current)));
  if (looking.item !== null) looking.at = Math.max(0, shown.findIndex((item) => membersOf(item).includes(looking.item)));
  const done = plain.filter((item) => !failed(item));
  scoreFilter.draw(done.map((item) => rows.score[item]));
  spreadFilter.draw(done.map((item) => rows.spread[item]));
  const of = state.together ? ` of ${counted(new Set(done.map((item) => rows.image[item])).size, "image")}` : "";
  $("count").textContent = plain.length === TOTAL ? counted(done.length, "explanation") + of + (done.length < TOTAL ? `, ${counted(TOTAL - done.length, "failure")}` : "") : `${number(plain.length)} of ${number(TOTAL)}`;
  $("keys-shown").replaceChildren(...keysOf(plain));
  $("empty").hidden = plain.length > 0;
  const count = filters();
  $("side-count").hidden = !count;
  $("side-count").textContent = count;
  $("clear").hidden = !count && !state.query;
  tally("answer", counts.answers);
  tally("flag", counts.flags);
  tally("method", counts.methods);
  classCounts = counts.classes;
  classList();
  yours(counts);
  exporting();
  link();
}

/** Write the present counts on the buttons of a filter. */
function tally(key, counts) {
  $(`${key}s`).querySelectorAll("button").forEach((button) => {
    const value = button.dataset[key], count = counts.get(key === "method" ? +value : value) ?? 0;
    button.lastChild.textContent = number(count);
    button.classList.toggle("none", !count);
  });
}

function press(host, key, on) { host.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", on(b.dataset[key]))); }

/** Redraw after a filter changed, and scroll to the top. */
function changed() {
  const top = document.querySelector(".stream").getBoundingClientRect().top;
  if (top < 0) window.scrollBy(0, top);
  press($("kinds"), "kind", (key) => key === state.kind);
  press($("flags"), "flag", (key) => state.flags.has(key));
  press($("answers"), "answer", (key) => state.answers.has(key));
  press($("methods"), "method", (key) => state.methods.has(+key));
  refresh();
}

function clear() {
  Object.assign(state, fresh());
  $("search").value = $("class-search").value = "";
  scoreFilter.set(state.score);
  spreadFilter.set(state.spread);
  changed();
}

const toggle = (set, value) => { if (!set.delete(value)) set.add(value); changed(); };

const scoreFilter = rangeFilter($("score"), "score", SCORE_ENDS, rows.score, scored, (range) => { state.score = range; changed(); });
const spreadFilter = rangeFilter($("spread"), "spread", SPREAD_ENDS, rows.spread, percent, (range) => { state.spread = range; changed(); });

// ---- filters ---------------------------------------------------------------------------------------

for (const [key, name] of failures.length ? [["all", "All"], ["done", "Explained"], ["failed", "Failed"]] : [])
  $("kinds").append(el("button", { "data-kind": key, "aria-pressed": key === "all", onclick: () => { state.kind = key; changed(); } }, name));
$("kinds").hidden = !failures.length;

for (const [key, several] of [["answer", ANSWERS], ["flag", FLAGS]]) {
  const host = $(`${key}s`);
  for (const flag of several) {
    let count = 0;
    for (let item = 0; item < ROWS; item++) count += flag.has(item);
    if (count) host.append(el("button", { [`data-${key}`]: flag.key, "aria-pressed": "false", title: flag.about, onclick: () => toggle(state[`${key}s`], flag.key) }, flag.name, el("span", {}, number(count))));
  }
  $(`${key}s-group`).hidden = !host.childElementCount;
}

methods.forEach((spec, i) => $("methods").append(el("button", { "data-method": i, "aria-pressed": "false", title: spec, onclick: () => toggle(state.methods, i) }, brief(spec), el("span", {}))));
$("methods-group").hidden = methods.length < 2;

const numbers = new Map(labels.map((label, i) => [label, i]));

let classCounts = new Map();

/** List the classes that match the search, those with the most images first, and all chosen classes. */
function classList() {
  const query = $("class-search").value.toLowerCase(), focused = document.activeElement?.closest("#class-list button")?.dataset.label;
  const count = (one) => classCounts.get(numbers.get(one.label)) ?? 0, on = (one) => state.classes.has(numbers.get(one.label));
  const found = data.classes.filter((one) => numbers.has(one.label) && ((count(one) && one.label.toLowerCase().includes(query)) || on(one)));
  found.sort((a, b) => count(b) - count(a));
  $("class-list").replaceChildren(...found.slice(0, 200).map((one) => el("button",
    { "data-label": numbers.get(one.label), "aria-pressed": on(one), title: one.label, onclick: () => toggle(state.classes, numbers.get(one.label)) },
    el("span", { dir: "auto" }, one.label), el("span", {}, number(count(one))))));
  if (focused !== undefined) $("class-list").querySelector(`[data-label="${focused}"]`)?.focus();
}

/** List the reader's own tags, and the selection, as filters. */
function yours(counts) {
  const tags = [...new Set([...kept.all(), ...state.tags])].map((tag) => el("button", { "aria-pressed": state.tags.has(tag), dir: "auto", onclick: () => toggle(state.tags, tag) }, tag, el("span", {}, number(counts.tags.get(tag) ?? 0))));
  const picked = kept.picked.size || state.picked ? [el("button", { "data-picked": "", "aria-pressed": state.picked, onclick: () => { state.picked = !state.picked; changed(); } }, "Selected", el("span", {}, number(counts.picked.get("picked") ?? 0)))] : [];
  $("yours").replaceChildren(...picked, ...tags);
  $("yours-group").hidden = !picked.length && !tags.length;
}

$("class-search").addEventListener("input", classList);
$("search").addEventListener("input", (event) => { state.query = event.target.value; changed(); });
for (const id of ["clear", "empty-clear"]) $(id).addEventListener("click", () => { clear(); $("search").focus(); });

for (const [key, { name }] of Object.entries(SORTS)) $("sort").append(el("option", { value: key }, name));
$("sort").addEventListener("change", (event) => { state.sort = event.target.value; changed(); });

function sized() { press(document.querySelector(".sizes"), "size", (size) => +size === state.size); }
document.querySelectorAll(".sizes button").forEach((button) => button.addEventListener("click", () => { state.size = +button.dataset.size; sized(); wall.layout(); link(); }));

$("together").hidden = !SEVERAL;
const gather = () => $("together").setAttribute("aria-pressed", state.together);
$("together").addEventListener("click", () => { state.together = !state.together; gather(); refresh({ keep: true }); });

// ---- selection, tags and files of them -------------------------------------------------------------

/** Select an image, or no longer. */
function pick(item) {
  kept.pick([item], !kept.picked.has(keyOf(item)));
  refresh({ keep: true });
  if (looking.item !== null) $("viewer-pick").setAttribute("aria-pressed", kept.picked.has(keyOf(looking.item)));
}
$("viewer-pick").addEventListener("click", () => pick(looking.item));
$("viewer-beside").addEventListener("click", () => { looking.beside = !looking.beside; looking.fill(); });

/** List what a file would hold: the selection, or all that is shown where nothing is selected. */
const exported = () => (kept.picked.size ? Array.from({ length: TOTAL }, (_, item) => item).filter((item) => kept.picked.has(keyOf(item))) : plain);

function exporting() {
  const count = new Set(exported().map(keyOf)).size;
  $("export-what").textContent = kept.picked.size ? `${counted(count, "selected image")}.` : `All that is shown: ${counted(count, "image")}.`;
  $("pick-none").disabled = !kept.picked.size;
  $("export-count").hidden = !kept.picked.size;
  $("export-count").textContent = count;
}
$("export-csv").addEventListener("click", () => download("selection.csv", asCsv(exported()), "text/csv"));
$("export-list").addEventListener("click", () => download("paths.txt", asList(exported()), "text/plain"));
$("pick-all").addEventListener("click", () => { kept.pick(plain, true); refresh({ keep: true }); });
$("pick-none").addEventListener("click", () => { kept.picked.clear(); kept.save(); refresh({ keep: true }); });
document.addEventListener("pointerdown", (event) => { if (!$("export").contains(event.target)) $("export").open = false; });

function side(open) {
  $("side").classList.toggle("open", open);
  $("side-open").setAttribute("aria-expanded", open);
  $(open ? "side-close" : "side-open").focus();
}
$("side-open").addEventListener("click", () => side(true));
$("side-close").addEventListener("click", () => side(false));
document.addEventListener("pointerdown", (event) => {
  if ($("side").classList.contains("open") && !$("side").contains(event.target)) { event.preventDefault(); side(false); }
});

// ---- photograph, overlay, map ----------------------------------------------------------------------

function mix(value) {
  state.mix = Math.max(0, Math.min(2, value));
  // The overlay is the middle stop: near a stop the slider snaps to it.
  const stop = Math.round(state.mix);
  if (Math.abs(state.mix - stop) < 0.04) state.mix = stop;
  document.documentElement.style.setProperty("--mix", state.mix);
  const words = ["photograph", "overlay", "map"][stop];
  for (const id of ["mix", "viewer-mix"]) { $(id).value = state.mix; $(id).setAttribute("aria-valuetext", words); }
  viewer.querySelectorAll("[data-mix]").forEach((b) => b.classList.toggle("on", +b.dataset.mix === stop));
  link();
}
for (const id of ["mix", "viewer-mix"]) $(id).addEventListener("input", (event) => mix(+event.target.value));
viewer.querySelectorAll("[data-mix]").forEach((b) => b.addEventListener("click", () => mix(+b.dataset.mix)));

// ---- viewer, help, theme ---------------------------------------------------------------------------

wall.opened = (at) => looking.open(at);
$("before").addEventListener("click", () => looking.step(-1));
$("after").addEventListener("click", () => looking.step(1));
$("viewer-close").addEventListener("click", () => viewer.close());
$("keys-close").addEventListener("click", () => $("keys").close());
$("help").addEventListener("click", () => $("keys").showModal());
for (const dialog of [viewer, $("keys")]) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
viewer.addEventListener("close", () => { looking.item = null; link(); wall.focus(looking.at); });

const dusk = window.matchMedia("(prefers-color-scheme: dark)");
const dark = () => (document.documentElement.dataset.theme ?? (dusk.matches ? "dark" : "light")) === "dark";
const themed = () => $("theme").setAttribute("aria-pressed", dark());
function theme(to) {
  document.documentElement.dataset.theme = to;
  try { localStorage.setItem("visxai-theme", to); } catch { /* a page from disk may have no storage */ }
  themed();
}
try { const kept = localStorage.getItem("visxai-theme"); if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept; } catch { /* see above */ }
dusk.addEventListener("change", themed);
themed();
$("theme").addEventListener("click", () => theme(dark() ? "light" : "dark"));

// ---- tabs ------------------------------------------------------------------------------------------

const made = new Set(["images"]);
function tab(name) {
  state.tab = name;
  link();
  for (const one of TABS) {
    $(`tab-${one}`).setAttribute("aria-selected", one === name);
    $(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    $(`panel-${one}`).hidden = one !== name;
  }
  if (!made.has(name)) { made.add(name); ({ classes: classesPage, run: runPage })[name]($(`panel-${name}`)); }
  window.scrollTo(0, 0);
  if (name === "images") wall.layout();
}
TABS.forEach((name, i) => {
  $(`tab-${name}`).addEventListener("click", () => tab(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.stopPropagation();
    const next = TABS[(i + by + TABS.length) % TABS.length];
    tab(next);
    $(`tab-${next}`).focus();
  });
});

/** Draw the distributions of all items and, for each class, its mean map, scores and spread. */
function classesPage(host) {
  const whole = (name, about, values, ends, told) => {
    const shape = histogram(48, name, 0.06);
    shape.draw(binned(values, ends, 48));
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((at) => el("span", {}, told(ends[0] + at * (ends[1] - ends[0]))));
    return el("div", { class: "panel" }, el("h3", {}, name), el("p", {}, about), shape.plot, el("div", { class: "ends" }, ...ticks));
  };
  const items = labels.map(() => []);
  for (let item = 0; item < ROWS; item++) items[rows.label[item]].push(item);
  const grid = el("div", { class: "tiles" }), more = el("button", { class: "strong more" }, "Show more classes");
  const pick = el("select", { class: "select", "aria-label": "Method of the mean maps", onchange: () => again() }, ...methods.map((spec) => el("option", { value: spec }, brief(spec))));
  let count = 0;
  function tile(one) {
    const index = numbers.get(one.label), own = index === undefined ? [] : items[index];
    const mean = one.means[pick.value], score = histogram(14, "Scores"), spread = histogram(14, "Spread");
    score.draw(binned(own.map((item) => rows.score[item]), SCORE_ENDS, 14));
    spread.draw(binned(own.map((item) => rows.spread[item]), SPREAD_ENDS, 14));
    const middle = median(own.map((item) => rows.score[item]));
    return el("button", { class: "tile", title: `Show the images of ${one.label}`, onclick: () => { clear(); if (index !== undefined) state.classes.add(index); changed(); tab("images"); } },
      mean ? el("img", { src: mean, alt: `Mean map of ${one.label}`, loading: "lazy" }) : el("span", { class: "none" }, "No map"),
      el("span", { class: "told" }, el("b", { dir: "auto" }, one.label),
        el("small", {}, counted(one.count, "map") + (middle === null ? "" : ` · median ${scored(middle)}`)),
        el("span", { class: "pair" }, el("span", {}, score.plot, el("small", {}, "Score")), el("span", {}, spread.plot, el("small", {}, "Spread")))));
  }
  function next() {
    grid.append(...data.classes.slice(count, count + 60).map(tile));
    count += 60;
    more.hidden = count >= data.classes.length;
  }
  const key = el("div", { class: "keys-shown" });
  function again() {
    grid.replaceChildren();
    key.replaceChildren(...keysOf([rows.method.indexOf(methods.indexOf(pick.value))].filter((item) => item >= 0)));
    count = 0;
    next();
  }
  more.addEventListener("click", next);
  host.append(
    el("div", { class: "plots" },
      whole("Score", "Explanations by how sure the model is of what they explain.", rows.score, SCORE_ENDS, scored),
      whole("Spread", "Explanations by the part of the view that holds half of the evidence: left, maps that point at something.", rows.spread, SPREAD_ENDS, percent)),
    el("div", { class: "page-head" },
      el("h2", {}, counted(data.classes.length, "class").replace("classs", "classes"), el("p", {}, "Where the evidence lies on average, in the model’s view; each map counts alike.")),
      key, methods.length > 1 ? pick : null),
    grid, more);
  again();
}

function median(values) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  return known.length ? known[known.length >> 1] : null;
}

/** Show the settings of the run, and the time of each stage. */
function runPage(host) {
  const counts = run.counts ?? {}, seconds = Object.entries(run.seconds ?? {}).filter(([name]) => name !== "wall");
  const most = Math.max(...seconds.map(([, value]) => value), 1e-9);
  const stages = seconds.map(([name, value]) => {
    const meter = el("span", { class: "meter" }, el("i"));
    meter.style.setProperty("--part", value / most);
    return el("div", { class: "stage-row" }, el("span", {}, name), meter, el("span", {}, spent(value)));
  });
  const wall = run.seconds?.wall;
  host.append(el("div", { class: "plots" },
    el("div", { class: "panel" }, el("h3", {}, "Run"), el("p", {}), facts([
      ["Command", run.command || "–"], ["State", run.state], ["Started", run.started && when(run.started)], ["Updated", run.updated && when(run.updated)],
      ["Images", number(counts.images ?? 0)], ["Finished", number(counts.finished ?? 0)], ["Explanations", number(counts.maps ?? 0)], ["Failures", number(counts.failures ?? 0)],
      ...(counts.labelled ? [["Top-1 accuracy", `${(100 * counts.right / counts.labelled).toFixed(1)} %: ${number(counts.right)} of ${number(counts.labelled)} right`]] : []),
      ["Model", run.model], ...(run.beside.length ? [["Beside", run.beside.join(", ")]] : []), ["Weights", run.weights], ["Methods", (run.methods ?? []).map(brief).join(", ")], ["Target", run.target], ["Device", run.device],
    ].map(([name, value]) => [name, value ?? "–"]))),
    el("div", { class: "panel" }, el("h3", {}, "Seconds by stage"), el("p", {}, wall ? `Stages overlap: the whole took ${spent(wall)}.` : "Stages overlap."), el("div", { class: "stages" }, ...stages))));
}

// ---- keyboard --------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const typing = event.target.matches?.("input[type=search], input[type=text], select, textarea");
  const sliding = event.target.matches?.("input[type=range]");
  if (event.key === "Escape") {
    if ($("side").classList.contains("open")) side(false);
    else if (event.target === $("search")) {
      event.preventDefault();
      if (state.query) { $("search").value = state.query = ""; changed(); } else wall.focus(wall.active);
    }
    return;
  }
  if (typing) {
    if (event.target === $("search") && ["Enter", "ArrowDown"].includes(event.key)) { event.preventDefault(); wall.focus(wall.active); }
    return;
  }
  if ($("keys").open) return;
  const shortcut = {
    "/": () => { if (viewer.open) viewer.close(); tab("images"); $("search").focus(); $("search").select(); },
    "?": () => $("keys").showModal(),
    d: () => theme(dark() ? "light" : "dark"),
    x: () => {
      const item = viewer.open ? looking.item : grid.contains(event.target) ? wall.items[wall.active] : undefined;
      if (item === undefined) return;
      pick(item);
      if (!viewer.open) wall.focus(wall.active);
    },
    b: () => { if (viewer.open && !$("viewer-beside").hidden) $("viewer-beside").click(); },
    1: () => mix(0), 2: () => mix(1), 3: () => mix(2),
    "[": () => mix(state.mix - 0.1), "]": () => mix(state.mix + 0.1),
  }[event.key];
  if (shortcut) { event.preventDefault(); shortcut(); return; }
  if (sliding || $("panel-images").hidden) return;
  if (viewer.open) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); looking.step(by); }
    return;
  }
  const inGrid = grid.contains(event.target);
  if (!inGrid && event.target !== document.body) return;
  const to = wall.towards(event.key);
  // Without a focused card an arrow focuses the images first; Home and End scroll the page.
  if (to === null || (!inGrid && !event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  wall.focus(inGrid ? to : wall.active);
});

// ---- start -----------------------------------------------------------------------------------------

$("name").textContent = run.name;
$("about").textContent = [run.model, (run.methods ?? []).map(brief).join(", "), run.target].filter(Boolean).join(" · ");
const counts = run.counts ?? {}, news = [];
if (run.state !== "complete") news.push(`This run isn’t finished: ${number(counts.finished ?? 0)} of ${counted(counts.images ?? 0, "image")} so far.`);
if (ROWS < data.total) news.push(`This file carries the first ${number(ROWS)} of ${counted(data.total, "explanation")}; mean maps are of all.`);
$("banner").textContent = news.join(" ");
$("banner").hidden = !news.length;

let waiting = false;
const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; wall.draw(); }); } };
window.addEventListener("scroll", later, { passive: true });
let seen = 0;
new ResizeObserver(() => { if (grid.clientWidth && grid.clientWidth !== seen) { seen = grid.clientWidth; wall.layout(); } else later(); }).observe(grid);

// The fragment of the address holds the view: a link to it, and the browser's own history of visits.
let linking = 0, adopted = false;
function link() {
  clearTimeout(linking);
  linking = setTimeout(() => {
    if (!adopted) return;
    const told = written();
    // A browser may refuse changes that come too fast.
    try { if (location.hash.slice(1) !== told) history.replaceState(null, "", `#${told}`); } catch { /* the next one is taken */ }
  }, 150);
}
function arrive() {
  const item = adopt(location.hash.slice(1));
  $("search").value = state.query;
  $("sort").value = state.sort;
  scoreFilter.set(state.score);
  spreadFilter.set(state.spread);
  gather();
  sized();
  changed();
  tab(state.tab);
  mix(state.mix);
  adopted = true;
  if (viewer.open && item === null) viewer.close();
  if (item !== null) looking.open(Math.max(0, wall.items.findIndex((one) => membersOf(one).includes(item))), item);
}
window.addEventListener("hashchange", arrive);
kept.load();
arrive();
