// What a reader adds to the images: a selection and tags, which the browser keeps, and files of them.

/** Name an image across runs of the command that made the page. */
const keyOf = (item) => (failed(item) ? `failed ${pathOf(item)}` : images.sha256[rows.image[item]]);
const givenOf = (item) => (failed(item) ? failures[item - ROWS].path : images.given[rows.image[item]] ?? images.path[rows.image[item]]);

const kept = {
  place: `visxai-kept ${run.name} ${run.started}`,
  picked: new Set(),
  tags: new Map(), // an image's key -> the set of its tags
  none: new Set(),

  load() {
    try {
      const { picked, tags } = JSON.parse(localStorage.getItem(this.place) ?? "{}");
      this.picked = new Set((picked ?? []).map(String));
      this.tags = new Map((tags ?? []).map(([key, several]) => [String(key), new Set(several.map(String))]));
    } catch { /* a page from disk may have no storage, or another page's */ }
  },

  save() {
    const tags = [...this.tags].map(([key, several]) => [key, [...several]]);
    try { localStorage.setItem(this.place, JSON.stringify({ picked: [...this.picked], tags })); } catch { /* kept until the page closes */ }
  },

  tagsOf(item) { return (this.tags.size && this.tags.get(keyOf(item))) || this.none; },

  /** List all tags, in the order of the alphabet. */
  all() { return [...new Set([...this.tags.values()].flatMap((several) => [...several]))].sort(); },

  pick(items, on) {
    for (const item of items) this.picked[on ? "add" : "delete"](keyOf(item));
    this.save();
  },

  tag(item, name, on) {
    const several = new Set(this.tagsOf(item));
    several[on ? "add" : "delete"](name);
    if (several.size) this.tags.set(keyOf(item), several); else this.tags.delete(keyOf(item));
    this.save();
  },
};

/** Write a cell of a CSV file; a label that a spreadsheet would take for a formula is marked as text. */
function cell(value, foreign = false) {
  let text = value === null || value === undefined ? "" : String(value);
  if (foreign && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Write the items as CSV, a line for each explanation and failure. */
function asCsv(items) {
  const lines = [["path", "label", "score", "method", "layer", "expected", "selected", "tags", "reason", "sha256"].join(",")];
  for (const item of items) {
    const bad = failed(item), image = rows.image[item];
    lines.push([
      cell(givenOf(item)), cell(bad ? "" : labelOf(item), true), cell(bad ? null : rows.score[item]), cell(bad ? "" : methods[rows.method[item]], true),
      cell(bad ? "" : strings.layer[rows.layer[item]], true), cell(bad ? null : images.expected[image], true), kept.picked.has(keyOf(item)) ? "yes" : "",
      cell([...kept.tagsOf(item)].join(";"), true), cell(bad ? failures[item - ROWS].reason : "", true), bad ? "" : images.sha256[image],
    ].join(","));
  }
  return `${lines.join("\r\n")}\r\n`;
}

/** Write the images' paths as `visxai explain -` reads them: one a line, or NUL behind each where a path holds a line break. */
function asList(items) {
  const paths = [...new Set(items.map(givenOf))].filter(Boolean), end = paths.some((path) => /[\r\n]/.test(path)) ? "\0" : "\n";
  return paths.map((path) => path + end).join("");
}

function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// ---- the address of what is shown ------------------------------------------------------------------

/** Write the state as a fragment, so that the page's address leads to the same view. */
function written() {
  const told = new URLSearchParams(), start = fresh();
  const set = (name, value, usual) => { if (value !== usual) told.append(name, value); };
  set("tab", state.tab, "images");
  set("q", state.query, "");
  set("kind", state.kind, start.kind);
  for (const label of state.classes) told.append("class", labels[label]);
  for (const method of state.methods) told.append("method", methods[method]);
  for (const [name, several] of [["flag", state.flags], ["answer", state.answers], ["tag", state.tags]]) for (const one of several) told.append(name, one);
  set("selected", state.picked ? "1" : "0", "0");
  if (narrowed(state.score, SCORE_ENDS)) told.append("score", state.score.join());
  if (narrowed(state.spread, SPREAD_ENDS)) told.append("spread", state.spread.join());
  set("sort", state.sort, "input");
  set("size", String(state.size), "190");
  set("mix", String(+state.mix.toFixed(2)), "1");
  set("together", state.together ? "1" : "0", SEVERAL ? "1" : "0");
  if (looking.item !== null) {
    told.append("open", failed(looking.item) ? `failure.${looking.item - ROWS}` : `${keyOf(looking.item)}.${alike(looking.item).indexOf(looking.item)}`);
    set("beside", looking.beside ? "1" : "0", "0");
  }
  return told.toString();
}

/** Set the state from a fragment; what names nothing on this page is left out. Returns the item to open, or null. */
function adopt(fragment) {
  const told = new URLSearchParams(fragment), one = (name, known, usual) => (known.includes(told.get(name)) ? told.get(name) : usual);
  const span = (name, ends) => {
    const [low, high] = (told.get(name) ?? "").split(",").map(Number);
    return told.has(name) && low <= high ? [Math.max(ends[0], low), Math.min(ends[1], high)] : [...ends];
  };
  const several = (name, known) => new Set(told.getAll(name).map((text) => known.indexOf(text)).filter((at) => at >= 0));
  const keys = (name, known) => new Set(told.getAll(name).filter((key) => known.some((flag) => flag.key === key)));
  const mix = parseFloat(told.get("mix") ?? "1");
  Object.assign(state, {
    tab: one("tab", TABS, "images"), query: told.get("q") ?? "", kind: one("kind", ["all", "done", "failed"], "all"),
    classes: several("class", labels), methods: several("method", methods), flags: keys("flag", FLAGS), answers: keys("answer", ANSWERS),
    tags: new Set(told.getAll("tag")), picked: told.get("selected") === "1", score: span("score", SCORE_ENDS), spread: span("spread", SPREAD_ENDS),
    sort: one("sort", Object.keys(SORTS), "input"), size: +one("size", ["120", "190", "300"], "190"), mix: mix >= 0 && mix <= 2 ? mix : 1,
    together: SEVERAL && told.get("together") !== "0",
  });
  looking.beside = told.get("beside") === "1";
  const [key, at] = (told.get("open") ?? "").split(".");
  if (key === "failure") return +at >= 0 && +at < failures.length ? ROWS + Number(at) : null;
  const image = images.sha256.indexOf(key);
  if (image < 0 || !spans[image]) return null;
  return alike(spans[image][0])[+at] ?? spans[image][0];
}
