// The viewer: a large image with all its data.

const viewer = $("viewer");

const looking = {
  at: 0,

  open(at) {
    this.at = at;
    this.fill();
    if (!viewer.open) viewer.showModal();
  },

  step(by) {
    const to = this.at + by;
    if (to < 0 || to >= wall.items.length) return;
    this.at = to;
    this.fill();
  },

  fill() {
    const item = wall.items[this.at];
    const stage = picture(item, true);
    stage.id = "stage";
    $("stage").replaceWith(stage);
    $("before").disabled = this.at === 0;
    $("after").disabled = this.at === wall.items.length - 1;
    $("viewer-where").textContent = `${number(this.at + 1)} of ${number(wall.items.length)}`;
    $("viewer-title").textContent = labelOf(item);
    $("viewer-body").replaceChildren(...(failed(item) ? this.reason(item) : this.told(item)));
    document.querySelector(".viewer-mix").style.visibility = failed(item) ? "hidden" : "";
    $("viewer-key").replaceChildren(...keysOf([item]));
    for (const next of [this.at + 1, this.at - 1]) this.fetch(wall.items[next]);
  },

  /** Preload a neighbour's pictures. */
  fetch(item) {
    if (item === undefined || failed(item) || run.single) return;
    for (const name of [images.photo[rows.image[item]], rows.overlay[item]])
      if (name) new Image().src = source(name);
  },

  reason(item) {
    const failure = failures[item - ROWS];
    return [marksOf(item, true), el("p", { class: "note", dir: "auto" }, failure.reason), facts([["File", failure.path ?? "–"], ["Kind", failure.kind]])];
  },

  told(item) {
    const image = rows.image[item], score = rows.score[item];
    const found = [];
    const part = isShare ? Math.max(0, Math.min(1, score ?? 0)) : null;
    const meter = el("span", { class: "meter", "aria-hidden": "true" }, el("i"));
    meter.style.setProperty("--part", part ?? 0);
    found.push(el("div", { class: "big" }, el("b", {}, scored(score)), part === null ? null : meter), marksOf(item, true));
    if (images.expected[image]) found.push(el("p", { class: "expected" }, "Labelled ", el("b", { dir: "auto" }, images.expected[image])));
    if (images.note[image]) found.push(el("p", { class: "note" }, images.note[image]));
    const others = this.others(item);
    if (others.length > 1) found.push(el("h3", {}, "This image’s explanations"), this.chips(item, others));
    found.push(el("h3", {}, "Explanation"), facts([
      ["Method", methods[rows.method[item]]],
      ["Layer", strings.layer[rows.layer[item]] || "–"],
      ["Target", run.target ?? "–"],
      ["Logit", rows.logit[item] === null ? "–" : rows.logit[item].toFixed(3)],
      ["Spread", rows.spread[item] === null ? "–" : `half the evidence in ${percent(rows.spread[item])} of the view`],
      ["Against", percent(rows.against[item])],
      ["Peak", rows.peak[item] === null ? "–" : plainly(rows.peak[item])],
      ["Took", spent(rows.seconds[item])],
      ...Object.entries(rows.quality[item]).map(([name, value]) => [name.replaceAll("_", " "), shown(value)]),
    ]));
    found.push(el("h3", {}, "Image"), facts([
      ["File", images.path[image]], ["Size", `${images.width[image]} × ${images.height[image]}`], ["SHA-256", images.sha256[image]],
    ]));
    const file = rows.file[item];
    if (file && !run.single) found.push(el("a", { class: "link", href: `../overlays/${file.split("/").map(encodeURIComponent).join("/")}`, target: "_blank", rel: "noopener" }, "Open the overlay at full size"));
    return found;
  },

  /** Find the explanations of the same image, which are adjacent. */
  others(item) {
    let first = item, last = item;
    while (first > 0 && rows.image[first - 1] === rows.image[item]) first--;
    while (last < ROWS - 1 && rows.image[last + 1] === rows.image[item]) last++;
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  },

  chips(item, others) {
    const several = new Set(others.map((other) => rows.method[other])).size > 1;
    const chips = others.map((other) => el("button", {
      "aria-pressed": other === item, dir: "auto",
      onclick: () => {
        let at = wall.items.indexOf(other);
        if (at < 0) { wall.items.splice(this.at + 1, 0, other); wall.layout(); at = this.at + 1; }
        this.at = at;
        this.fill();
        viewer.querySelector('.chips [aria-pressed="true"]').focus();
      },
    }, several ? `${labelOf(other)} · ${brief(methods[rows.method[other]])}` : labelOf(other)));
    return el("div", { class: "chips" }, ...chips);
  },
};

function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", { dir: "auto" }, String(value))]));
}

function shown(value) {
  if (value === true) return "yes";
  if (value === false) return "no";
  if (value === null) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? number(value) : plainly(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

