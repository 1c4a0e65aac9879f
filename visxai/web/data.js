// The page's data, its filters and its order. Nothing here changes the page itself.

const data = JSON.parse(document.getElementById("data").textContent);
const { rows, images, strings, failures, run } = data;
const ROWS = rows.image.length;
const TOTAL = ROWS + failures.length; // items: the explanations, then the failures
const failed = (item) => item >= ROWS;

const labels = strings.label ?? [];
const methods = strings.method ?? [];
const baseName = (path) => path.split(/[\\/]/).filter(Boolean).pop() ?? path;
const pathOf = (item) => (failed(item) ? failures[item - ROWS].path ?? "" : images.path[rows.image[item]]);
const nameOf = (item) => baseName(pathOf(item));
const labelOf = (item) => (failed(item) ? "Not explained" : labels[rows.label[item]]);

// The text that a search is matched against, made once.
const haystack = Array.from({ length: TOTAL }, (_, item) =>
  (failed(item)
    ? `${pathOf(item)}\n${failures[item - ROWS].reason}`
    : `${pathOf(item)}\n${labelOf(item)}\n${images.expected[rows.image[item]] ?? ""}\n${methods[rows.method[item]]}`
  ).toLowerCase());

const FLAGS = [
  { key: "degenerate", name: "Flat map", kind: "bad", about: "The map says nothing: it is flat or wasn’t finite.", has: (i) => rows.degenerate[i] === true },
  { key: "unconverged", name: "Not converged", kind: "", about: "The method stopped before its figures settled.", has: (i) => rows.converged[i] === false },
  { key: "converged", name: "Converged", kind: "good", about: "The method’s figures settled.", has: (i) => rows.converged[i] === true },
  { key: "unfaithful", name: "Unfaithful", kind: "bad", about: "Removing what the map points at matters no more than removing pixels by chance.", has: (i) => rows.faithful[i] === false },
  { key: "faithful", name: "Faithful", kind: "good", about: "Removing what the map points at matters more than removing pixels by chance.", has: (i) => rows.faithful[i] === true },
  { key: "gone", name: "No original", kind: "", about: "The original is gone or has changed.", has: (i) => images.photo[rows.image[i]] === null },
];

// The filters of labelled images.
const ANSWERS = [
  { key: "right", name: "Right", kind: "good", about: "The model’s answer is the image’s label.", has: (i) => images.right[rows.image[i]] === true },
  { key: "wrong", name: "Wrong", kind: "bad", about: "The model’s answer isn’t the image’s label.", has: (i) => images.right[rows.image[i]] === false },
];

const SCORES = finite(rows.score);
const SCORE_ENDS = SCORES.low >= 0 && SCORES.high <= 1 ? [0, 1] : [SCORES.low, SCORES.high];
const SPREAD_ENDS = [0, Math.max(0.5, finite(rows.spread).high)];

function finite(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
  return low <= high ? { low, high } : { low: 0, high: 1 };
}

const SORTS = {
  input: { name: "In order", by: null },
  high: { name: "Highest score", by: (i) => -(rows.score[i] ?? -Infinity) },
  low: { name: "Lowest score", by: (i) => rows.score[i] ?? Infinity },
  focus: { name: "Most focused", by: (i) => rows.spread[i] ?? Infinity },
  wide: { name: "Most spread", by: (i) => -(rows.spread[i] ?? -Infinity) },
  label: { name: "Class", text: labelOf },
  name: { name: "File name", text: nameOf },
  slow: { name: "Slowest", by: (i) => -rows.seconds[i] },
};

// Explanations of one image are adjacent in the table: [first, last] by image.
const spans = images.path.map(() => null);
rows.image.forEach((image, item) => { spans[image] = spans[image] ? [spans[image][0], item] : [item, item]; });
const alike = (item) => {
  if (failed(item)) return [item];
  const [first, last] = spans[rows.image[item]];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
};
const SEVERAL = spans.some((span) => span && span[1] > span[0]);

const fresh = () => ({
  query: "", kind: "all", classes: new Set(), methods: new Set(), flags: new Set(), answers: new Set(), tags: new Set(), picked: false,
  score: [...SCORE_ENDS], spread: [...SPREAD_ENDS],
});
const state = { ...fresh(), sort: "input", mix: 1, size: 190, together: SEVERAL, tab: "images" };

const narrowed = (range, ends) => range[0] > ends[0] || range[1] < ends[1];

/** Count the active filters, without the search. */
function filters() {
  return (state.kind !== "all") + (state.classes.size > 0) + (state.methods.size > 0) + (state.flags.size > 0) + (state.answers.size > 0)
    + (state.tags.size > 0 || state.picked) + narrowed(state.score, SCORE_ENDS) + narrowed(state.spread, SPREAD_ENDS);
}

/**
 * List the items that pass the search and the filters, in the chosen order, and count for each choice of a filter
 * the items that pass all the other filters.
 */
function chosen() {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const flags = FLAGS.filter((flag) => state.flags.has(flag.key));
  const answers = ANSWERS.filter((answer) => state.answers.has(answer.key));
  const within = (value, [low, high]) => value !== null && value >= low && value <= high;
  const yours = (i) => (state.picked && kept.picked.has(keyOf(i))) || [...state.tags].some((tag) => kept.tagsOf(i).has(tag));
  const tests = [
    [state.classes.size, "classes", (i) => state.classes.has(rows.label[i])],
    [state.methods.size, "methods", (i) => state.methods.has(rows.method[i])],
    [flags.length, "flags", (i) => flags.some((flag) => flag.has(i))],
    [answers.length, "answers", (i) => answers.some((answer) => answer.has(i))],
    [narrowed(state.score, SCORE_ENDS), "score", (i) => within(rows.score[i], state.score)],
    [narrowed(state.spread, SPREAD_ENDS), "spread", (i) => within(rows.spread[i], state.spread)],
  ].filter(([active]) => active);
  const own = state.picked || state.tags.size > 0;
  const counts = { classes: new Map(), methods: new Map(), flags: new Map(), answers: new Map(), tags: new Map(), picked: new Map() };
  const count = (facet, key) => counts[facet].set(key, (counts[facet].get(key) ?? 0) + 1);
  const found = [];
  for (let item = 0; item < TOTAL; item++) {
    const bad = failed(item);
    if (state.kind === (bad ? "done" : "failed") || !words.every((word) => haystack[item].includes(word))) continue;
    let missed = null, misses = 0;
    if (bad && state.kind !== "failed") misses = tests.length ? 2 : 0;
    else if (!bad) for (const [, facet, passes] of tests) if (!passes(item)) { missed = facet; if (++misses > 1) break; }
    if (misses < 2 && own && !yours(item)) { missed = "yours"; misses++; }
    if (misses > 1) continue;
    if (!misses) found.push(item);
    const open = (facet) => !misses || missed === facet;
    if (open("yours")) {
      if (kept.picked.has(keyOf(item))) count("picked", "picked");
      for (const tag of kept.tagsOf(item)) count("tags", tag);
    }
    if (bad) continue;
    if (open("classes")) count("classes", rows.label[item]);
    if (open("methods")) count("methods", rows.method[item]);
    if (open("flags")) for (const flag of FLAGS) if (flag.has(item)) count("flags", flag.key);
    if (open("answers")) for (const answer of ANSWERS) if (answer.has(item)) count("answers", answer.key);
  }
  return { found: sorted(found), counts };
}

/** Gather the items of each image behind the first of them. */
function gathered(items) {
  const members = new Map(), leaders = new Map();
  for (const item of items) {
    const image = failed(item) ? -item : rows.image[item];
    if (leaders.has(image)) members.get(leaders.get(image)).push(item);
    else { leaders.set(image, item); members.set(item, [item]); }
  }
  return members;
}

function sorted(found) {
  const { by, text } = SORTS[state.sort];
  if (!by && !text) return found;
  // Failures can be sorted by their names only: they stay at the end.
  const done = found.filter((item) => !failed(item)), rest = found.filter(failed);
  if (by) {
    const keys = new Map(done.map((item) => [item, by(item)]));
    done.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
  } else {
    const keys = new Map(done.map((item) => [item, text(item)]));
    const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;
    done.sort((a, b) => order(keys.get(a), keys.get(b)) || a - b);
  }
  return done.concat(rest);
}

/** Count the `values` in each of `count` equal bins from ends[0] to ends[1]. */
function binned(values, [low, high], count) {
  const bins = new Array(count).fill(0);
  for (const value of values)
    if (value !== null) bins[Math.max(0, Math.min(count - 1, Math.floor(((value - low) / (high - low || 1)) * count)))]++;
  return bins;
}

const number = (value) => value.toLocaleString("en-US");
const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
const isShare = SCORE_ENDS[0] === 0 && SCORE_ENDS[1] === 1;
const scored = (value) => (value === null ? "–" : isShare ? percent(value) : value.toPrecision(3));
// Format a number of any magnitude: 1.03, 0.0041, 2.1 × 10⁻⁷.
const plainly = (value) => {
  if (value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 1e6)) return String(+value.toPrecision(3));
  const [digits, power] = value.toExponential(1).split("e");
  return `${digits} × 10${[...String(+power)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("")}`;
};
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const when = (iso) => (Number.isNaN(Date.parse(iso)) ? iso : moment.format(new Date(iso)));
const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const spent = (s) => (s < 1 ? `${Math.round(1000 * s)} ms` : s < 90 ? `${s.toFixed(1)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);
// Show a method's name without its options where the name alone is unambiguous.
const short = (spec) => {
  const [method, ...model] = spec.split(" · ");
  return [method.split("(", 1)[0], ...model].join(" · ");
};
const told = new Map();
for (const spec of new Set([...methods, ...(run.methods ?? [])])) told.set(short(spec), (told.get(short(spec)) ?? 0) + 1);
const brief = (spec) => (told.get(short(spec)) === 1 ? short(spec) : spec.replace("()", ""));

/** List the strongest classes of an explanation's image: [label, score], the strongest first. */
const topOf = (item) => (rows.top[item] === null ? [] : JSON.parse(strings.top[rows.top[item]]).map(([name, score]) => [strings.name[name], score]));

/** Return a picture's URL: a file beside the page, or data inside it. */
function source(name) {
  if (!name) return null;
  return run.single ? data.pictures[name] ?? null : `pictures/${name.slice(0, 2)}/${name}.webp`;
}

