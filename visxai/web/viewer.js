// The viewer: a large image with all its data.

const viewer = $("viewer");

const looking = {
  at: 0, // the position of the card
  item: null, // what is looked at, null while the viewer is closed
  beside: false, // whether all of the image's maps are shown side by side

  open(at, item = wall.items[at]) {
    this.at = at;
    this.item = item;
    this.fill();
    if (!viewer.open) viewer.showModal();
  },

  step(by) {
    const to = this.at + by;
    if (to < 0 || to >= wall.items.length) return;
    this.open(to);
  },

  /** Show another explanation of the same image. */
  turn(item) {
    const at = wall.items.indexOf(item);
    if (at >= 0) this.at = at;
    this.item = item;
    this.fill();
  },

  fill() {
    const item = this.item, others = alike(item);
    const stage = this.beside && others.length > 1 ? this.sheet(item, others) : picture(item, true);
    stage.id = "stage";
    $("viewer-beside").hidden = others.length < 2;
    $("viewer-beside").setAttribute("aria-pressed", this.beside);
    $("stage").replaceWith(stage);
    $("before").disabled = this.at === 0;
    $("after").disabled = this.at === wall.items.length - 1;
    $("viewer-where").textContent = `${number(this.at + 1)} of ${number(wall.items.length)}`;
    $("viewer-title").textContent = labelOf(item);
    $("viewer-body").replaceChildren(...(failed(item) ? this.reason(item) : this.told(item)));
    document.querySelector(".viewer-mix").style.visibility = failed(item) ? "hidden" : "";
    $("viewer-key").replaceChildren(...keysOf(this.beside ? others : [item]));
    $("viewer-pick").setAttribute("aria-pressed", kept.picked.has(keyOf(item)));
    link();
    for (const next of [this.at + 1, this.at - 1]) this.fetch(wall.items[next]);
  },

  /** Show all maps of an image side by side. */
  sheet(item, others) {
    return el("div", { class: "frame sheet" }, ...others.map((other) => {
      const frame = picture(other, true), image = rows.image[other];
      frame.style.aspectRatio = `${images.width[image]} / ${images.height[image]}`;
      return el("button", { "aria-pressed": other === item, onclick: () => this.turn(other) }, frame,
        el("span", { dir: "auto" }, distinct(other, others), el("small", {}, scored(rows.score[other]))));
    }));
  },

  /** Preload a neighbour's pictures. */
  fetch(item) {
    if (item === undefined || failed(item) || run.single) return;
    for (const name of [images.photo[rows.image[item]], rows.overlay[item]])
      if (name) new Image().src = source(name);
  },

  reason(item) {
    const failure = failures[item - ROWS];
    return [marksOf(item, true), el("p", { class: "note", dir: "auto" }, failure.reason), this.tags(item), facts([["File", failure.path ?? "–"], ["Kind", failure.kind]])];
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
    found.push(this.tags(item));
    const others = alike(item);
    if (others.length > 1) found.push(el("h3", {}, "This image’s explanations"), this.chips(item, others));
    const top = topOf(item);
    if (top.length) found.push(el("h3", {}, "The model’s strongest classes"), this.ranking(top, labelOf(item)));
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

  /** Draw the strongest classes with their scores. */
  ranking(top, label) {
    const most = isShare ? 1 : Math.max(...top.map(([, score]) => Math.abs(score ?? 0)), 1e-9);
    return el("ol", { class: "ranking" }, ...top.map(([name, score]) => {
      const meter = el("span", { class: "meter", "aria-hidden": "true" }, el("i"));
      meter.style.setProperty("--part", Math.max(0, Math.min(1, (score ?? 0) / most)));
      return el("li", { class: name === label ? "own" : null }, el("span", { dir: "auto" }, name), el("span", {}, scored(score)), meter);
    }));
  },

  /** Show an image's tags, and take new ones. */
  tags(item) {
    const chips = [...kept.tagsOf(item)].map((tag) => el("button", { title: "Remove this tag", "aria-label": `Remove the tag ${tag}`, onclick: () => { kept.tag(item, tag, false); refresh({ keep: true }); this.fill(); } }, tag, el("span", {}, "×")));
    const known = el("datalist", { id: "known-tags" }, ...kept.all().map((tag) => el("option", { value: tag })));
    const input = el("input", { type: "text", maxlength: "60", placeholder: "Add a tag", "aria-label": "Add a tag", list: "known-tags", autocomplete: "off", spellcheck: "false" });
    const add = () => {
      const tag = input.value.trim();
      if (!tag) return;
      kept.tag(item, tag, true);
      refresh({ keep: true });
      this.fill();
      viewer.querySelector(".tagging input").focus();
    };
    input.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); add(); } });
    return el("div", { class: "tagging chips" }, ...chips, input, known, el("button", { class: "plain", onclick: add }, "Add"));
  },

  chips(item, others) {
    const several = new Set(others.map((other) => rows.method[other])).size > 1;
    const chips = others.map((other) => el("button", {
      "aria-pressed": other === item, dir: "auto",
      onclick: () => { this.turn(other); viewer.querySelector('.chips [aria-pressed="true"]').focus(); },
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

