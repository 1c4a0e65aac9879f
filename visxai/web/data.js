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

const fresh = () => ({
  query: "", kind: "all", classes: new Set(), methods: new Set(), flags: new Set(), answers: new Set(),
  score: [...SCORE_ENDS], spread: [...SPREAD_ENDS],
});
const state = { ...fresh(), sort: "input", mix: 1, size: 190 };

const narrowed = (range, ends) => range[0] > ends[0] || range[1] < ends[1];

/** Count the active filters, without the search. */
function filters() {
  return (state.kind !== "all") + (state.classes.size > 0) + (state.methods.size > 0)
    + (state.flags.size > 0) + (state.answers.size > 0) + narrowed(state.score, SCORE_ENDS) + narrowed(state.spread, SPREAD_ENDS);
}

/** List the items that pass the filters, in the chosen order. */
function chosen() {
  const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const flags = FLAGS.filter((flag) => state.flags.has(flag.key));
  const answers = ANSWERS.filter((answer) => state.answers.has(answer.key));
  const byScore = narrowed(state.score, SCORE_ENDS), bySpread = narrowed(state.spread, SPREAD_ENDS);
  const only = state.classes.size || state.methods.size || flags.length || answers.length || byScore || bySpread;
  const within = (value, [low, high]) => value !== null && value >= low && value <= high;
  const found = [];
  for (let item = 0; item < TOTAL; item++) {
    if (failed(item)) {
      if (state.kind === "done" || (only && state.kind !== "failed")) continue;
    } else {
      if (state.kind === "failed") continue;
      if (state.classes.size && !state.classes.has(rows.label[item])) continue;
      if (state.methods.size && !state.methods.has(rows.method[item])) continue;
      if (flags.length && !flags.some((flag) => flag.has(item))) continue;
      if (answers.length && !answers.some((answer) => answer.has(item))) continue;
      if (byScore && !within(rows.score[item], state.score)) continue;
      if (bySpread && !within(rows.spread[item], state.spread)) continue;
    }
    if (words.every((word) => haystack[item].includes(word))) found.push(item);
  }
  return sorted(found);
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
const short = (spec) => spec.split("(", 1)[0];
const told = new Map();
for (const spec of new Set([...methods, ...(run.methods ?? [])])) told.set(short(spec), (told.get(short(spec)) ?? 0) + 1);
const brief = (spec) => (told.get(short(spec)) === 1 ? short(spec) : spec.replace(/\(\)$/, ""));

/** Return a picture's URL: a file beside the page, or data inside it. */
function source(name) {
  if (!name) return null;
  return run.single ? data.pictures[name] ?? null : `pictures/${name.slice(0, 2)}/${name}.webp`;
}

