// The page: one section a group (headline, table, charts, runs), then what spans groups.
const content = JSON.parse(document.getElementById("content").textContent);
const place = new Map(content.variants.map((variant, n) => [variant, n]));

const percent = (group) => (v) => (group.percent ? 100 * v : v);
function number(group, value, sign = false) {
  if (value === null || value === undefined) return "–";
  const shown = group.percent ? (100 * value).toFixed(2) : String(Number(value.toPrecision(4)));
  return sign && value >= 0 ? `+${shown}` : shown;
}
const range = (group, low, high, sign) =>
  low === null || low === undefined ? "" : `[${number(group, low, sign)}, ${number(group, high, sign)}]`;

// The columns of a group's table: title, a note below it, the value to sort by, what is shown.
function columns(group) {
  const base = () => group.entries[group.baseline];
  const unit = group.percent ? " %" : "";
  const difference = (e) => group.baseline === null ? null
    : group.differences[group.baseline][group.entries.indexOf(e)];
  const ratio = (e) => {
    const own = e.cost.flops_per_step, other = base()?.cost.flops_per_step;
    return own && other ? el("small", {}, ` ${short(own / other, 2)}×`) : null;
  };
  const measured = (title, note, name, of = "measured") =>
    ({ title, note, value: (e) => e[of][name], cell: (e) => short(e[of][name]) });
  const all = [
    { title: "#", value: (e) => e.rank, cell: (e) => e.rank ?? "–" },
    { title: "Algorithm", text: true, name: true, value: (e) => e.variant,
      cell: (e) => [key(place.get(e.variant)), e.variant,
        several(group, e) ? el("small", {}, ` ${settings(e.config)}`) : null] },
    { title: `${group.score}${unit}`, note: group.higher_is_better ? "higher is better" : "lower is better",
      value: (e) => e.mean, cell: (e) => el("b", {}, number(group, e.mean)) },
    { title: "95 % interval", text: true, value: (e) => e.low, cell: (e) => range(group, e.low, e.high) },
    { title: "", plain: true, cell: (e) => whisker(group, e) },
    { title: "Difference", note: base() ? `to ${base().variant}` : "", text: true, difference: true,
      value: (e) => difference(e)?.mean ?? null, cell: (e) => compared(group, difference(e)) },
    { title: "Seeds", note: "completed / asked", value: (e) => e.completed, cell: (e) => e.seeds },
    { title: "FLOP / step", note: base() ? `× ${base().variant}` : "", value: (e) => e.cost.flops_per_step,
      cell: (e) => [short(e.cost.flops_per_step), ratio(e)] },
    measured("Weight updates", "a run", "weight_updates", "cost"),
    measured("Step", "ms, alone", "step_ms", "cost"),
    measured("Run", "s", "wall_s", "cost"),
    measured("Trials", "of tuning", "trials", "cost"),
    measured("Energy", "relaxed", "energy_relaxed"),
    measured("Alignment", "with target", "target_alignment"),
  ];
  return all.filter((c) => c.plain || c.name || group.entries.some((e) => (c.value(e) ?? null) !== null)
    || c.difference);
}

const kind = (c) => [c.text && "text", c.name && "name"].filter(Boolean).join(" ") || null;

function compared(group, found) {
  if (!found) return "–";
  const mark = found.examples === null ? "*" : "";
  const verdict = found.verdict ?? "unknown";
  return [`${number(group, found.mean, true)} ${range(group, found.low, found.high, true)} `,
    el("span", { class: `verdict ${verdict}`,
      title: found.p_holm === null ? "one seed" : `p = ${short(found.p_holm)} after Holm` }, verdict), mark];
}

const several = (group, e) => Object.keys(e.config).length > 0
  && group.entries.filter((o) => o.variant === e.variant).length > 1;
const settings = (config) => Object.entries(config).map(([k, v]) => `${k}=${JSON.stringify(v)}`).join(" ");

// Dot and whiskers on one scale for the whole table.
function whisker(group, entry) {
  const values = bounds(group.entries.map((e) => e.mean), group.entries.flatMap((e) => [e.low, e.high]));
  const low = Math.min(...values), high = Math.max(...values), w = 120;
  const x = (v) => 7 + ((v - low) / (high - low || 1)) * (w - 14);
  const root = svg("svg", { width: w, height: 16, viewBox: `0 0 ${w} 16`, "aria-hidden": "true" });
  root.append(svg("line", { class: "grid", x1: 0, x2: w, y1: 8, y2: 8 }));
  if (entry.mean === null) return root;
  const n = place.get(entry.variant);
  if (entry.low !== null)
    root.append(svg("line", { x1: x(entry.low), x2: x(entry.high), y1: 8, y2: 8, stroke: look(n).colour,
      "stroke-width": 2 }));
  root.append(marker(n, x(entry.mean), 8));
  return root;
}

function board(group) {
  const head = el("tr"), body = el("tbody");
  const root = el("table", { class: "board" }, el("caption", { class: "hidden" }, group.title),
    el("thead", {}, head), body);
  let sorted = 0, down = false, cols = [];
  function draw() {
    cols = columns(group);
    const value = cols[sorted].value;
    const missing = (v) => v === null || v === undefined;
    const entries = [...group.entries].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y); // last, whichever way
      const order = typeof x === "string" ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    });
    head.replaceChildren(...cols.map((c, n) => el("th", { scope: "col",
      class: kind(c),
      "aria-sort": n === sorted ? (down ? "descending" : "ascending") : c.value ? "none" : null },
    c.value ? el("button", { type: "button", onclick: () => {
      const again = n === sorted;
      down = again ? !down : n > 1 && !c.text; // numbers: the largest first
      sorted = n;
      draw();
      head.children[n].firstElementChild.focus();
    } }, c.title, c.note ? el("small", {}, c.note) : null) : null)));
    body.replaceChildren(...entries.map((e) => el("tr", { "data-variant": e.variant,
      class: e.rank === 1 ? "first" : null },
    cols.map((c) => el("td", { class: kind(c) }, [c.cell(e)].flat())))));
    filter();
  }
  group.redraw = draw;
  return root;
}

function baseline(group) {
  const select = el("select", { onchange: () => {
    group.baseline = select.value === "" ? null : Number(select.value);
    group.redraw();
  } }, group.entries.map((e, n) => e.mean === null ? null : el("option", { value: n,
    selected: n === group.baseline }, several(group, e) ? `${e.variant} ${settings(e.config)}` : e.variant)));
  if (group.baseline === null) select.prepend(el("option", { value: "", selected: true }, "nothing"));
  return el("label", {}, "Compare with ", select);
}

function charts(group) {
  const named = new Map(); // the best entry of a variant stands for it
  for (const e of group.entries) if (!named.has(e.variant)) named.set(e.variant, e);
  const entries = [...named.values()], score = group.score + (group.percent ? " (%)" : "");
  const limits = group.percent ? [0, 100] : undefined;
  const scale = percent(group), own = (e) => ({ name: e.variant, n: place.get(e.variant) });
  const lines = (kind, chosen = entries, by = (v) => v) => chosen.filter((e) => e.curves[kind]).map((e) => {
    const c = e.curves[kind], to = (v) => (v === null ? null : by(v));
    return { ...own(e), x: c.x, y: c.mean.map(to), low: c.low.map(to), high: c.high.map(to) };
  });
  const found = [];
  const costly = entries.filter((e) => e.mean !== null && e.cost.flops_per_step);
  if (costly.length)
    found.push(scatterChart(`${group.score} against cost`, { label: "counted FLOP a step", log: true },
      { label: score, range: limits }, costly.map((e) => ({ ...own(e), x: e.cost.flops_per_step, y: scale(e.mean),
        low: e.low === null ? null : scale(e.low), high: e.high === null ? null : scale(e.high) }))));
  const learning = lines("learning", entries, scale);
  if (learning.length)
    found.push(lineChart("Learning curves", { label: "epoch", whole: true }, { label: `test ${score}`, range: limits }, learning));
  for (const kind of new Set(entries.filter((e) => e.curves.energy).map((e) => e.energy))) {
    const of = entries.filter((e) => e.energy === kind);
    const energies = lines("energy", of), changes = lines("energy_change", of);
    const log = energies.every((s) => s.y.every((v) => v > 0));
    // of energies of any sign only what inference changes, which the seeds' offsets would hide
    const title = `Energy over inference steps${kind ? ` (${kind})` : ""}`, x = { label: "inference step", whole: true };
    found.push(log ? lineChart(title, x, { label: "energy a sample", log }, energies)
      : lineChart(title, x, { label: "energy minus that before inference" }, changes));
  }
  const aligned = lines("alignment");
  if (aligned.length)
    found.push(lineChart("Target alignment over training", { label: "epoch", whole: true },
      { label: "cosine with the target" }, aligned));
  return found;
}

function legend(group, drawn) {
  const names = [...new Set(group.entries.map((e) => e.variant))];
  return el("ul", { class: "legend", "aria-label": "Shown in the charts" }, names.map((name) => {
    const button = el("button", { type: "button", "aria-pressed": "true", onclick: () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const part of drawn.querySelectorAll("svg [data-variant]"))
        if (part.dataset.variant === name) part.classList.toggle("hidden", !shown);
    } }, key(place.get(name)), name);
    return el("li", {}, button);
  }));
}

function pairs(rows) {
  return el("table", {}, el("tbody", {}, rows.map(([k, v]) =>
    el("tr", {}, el("th", { scope: "row" }, k), el("td", {}, v)))));
}

function run(group, e) {
  const chosen = e.configs > 1 && e.validation !== null
    ? el("p", { class: "quiet" }, `Chosen from ${e.configs} configs by its mean validation score, `
      + `${number(group, e.validation)}.`) : null;
  const scores = e.run_ids.map((id, n) => [`seed ${e.run_seeds[n]}`, `${number(group, e.scores[n])}  ${id}`]);
  return el("details", { class: "run", "data-variant": e.variant },
    el("summary", {}, el("b", {}, e.variant), ` ${number(group, e.mean)}${group.percent ? " %" : ""}, seeds: ${e.seeds}`),
    chosen,
    el("h4", {}, "Command"),
    el("pre", {}, e.command ?? (e.run_ids.length === 0 ? "No run of it has a score."
      : "No command of this version makes these runs: a choice has changed "
      + "since, or comes from a package that is not installed.")),
    el("h4", {}, "Settings that differ within the group"),
    e.differing.length ? pairs(e.differing.map((n) => [n, e.leaves[n]]))
      : el("p", { class: "quiet" }, "None."),
    el("h4", {}, "Provenance"),
    pairs(Object.entries(e.provenance).map(([k, v]) => [k, v.join(", ")])),
    el("details", {}, el("summary", {}, "Scores by seed"),
      pairs([...scores, ["interquartile mean", number(group, e.iqm)]])),
    el("details", {}, el("summary", {}, "The whole config"), pairs(Object.entries(e.leaves))));
}

function section(group) {
  const drawn = el("div", { class: "charts" }, charts(group));
  const [, leader, rest] = group.headline.match(/^(.* leads:)?(.*)$/s);
  const table = board(group);
  const made = el("section", { id: group.id, "aria-label": group.title },
    el("h2", {}, group.title, " ", el("small", {}, group.rest)),
    el("p", { class: "lead" }, leader ? el("b", {}, leader) : null, rest),
    group.flags.map((flag) => el("p", { class: "flag" }, flag)),
    el("div", { class: "bar" }, baseline(group), el("span", { class: "quiet", title: group.meaning },
      `${group.metric}${group.chance === null ? "" : `; chance ${number(group, group.chance)}${group.percent ? " %" : ""}`}`)),
    el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Ranking" }, table),
    drawn.childElementCount ? [el("h3", {}, "Charts"), legend(group, drawn), drawn] : null,
    el("h3", {}, "Configs, commands, provenance"),
    group.entries.map((e) => run(group, e)));
  return made;
}

// Who leads in each group, and what there is to know about that.
function glance(groups) {
  const rows = groups.filter((group) => group.glance);
  if (rows.length < 2) return null;
  const named = rows[0].glance.map(([title]) => title);
  const shared = rows.every((group) => group.glance.every(([title], n) => title === named[n]));
  const heads = shared ? named : named.map((title, n) => (n === 2 ? "score" : title));
  return el("section", { class: "glance", "aria-label": "At a glance" }, el("h2", {}, "At a glance"),
    el("table", {},
      el("thead", {}, el("tr", {}, heads.map((title) => el("th", { scope: "col", class: "text" }, title)))),
      el("tbody", {}, rows.map((group) => el("tr", {}, group.glance.map(([title, text], n) =>
        el("td", { class: "text", "data-title": title },
          n === 0 ? el("a", { href: `#${group.id}` }, text) : n === 1 ? el("b", {}, text) : text)))))));
}

function across(found) {
  return found.map((family) => el("section", { class: "across" },
    el("h2", {}, `Across ${family.datasets.join(", ")}`),
    el("p", { class: "quiet" }, `${family.metric}, normalised: 0 is chance, 1 the mean of `
      + `${content.baseline} in the same group. Interquartile mean over all seeds, with its 95 % `
      + "interval from resampling within each group."),
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ["variant", "score", "95 % interval", "groups"].map((c, n) =>
        el("th", { scope: "col", class: n ? null : "text" }, c)))),
      el("tbody", {}, family.entries.map((e) => el("tr", { "data-variant": e.variant },
        el("td", { class: "text" }, e.variant), el("td", {}, e.iqm.toFixed(3)),
        el("td", {}, e.low === null ? "–" : `[${e.low.toFixed(3)}, ${e.high.toFixed(3)}]`),
        el("td", {}, e.groups < e.of ? `${e.groups} of ${e.of}: not comparable` : String(e.of)))))))));
}

function heat(found) {
  return found.map((part) => {
    const values = part.maps.flatMap((m) => m.cells.flat()).filter(Boolean).map((c) => c.mean);
    const bounds = [Math.min(...values), Math.max(...values)];
    const shown = (v) => (part.percent ? (100 * v).toFixed(1) : short(v));
    return el("section", { class: "heats" },
      el("h2", {}, `Learning rate × width: ${part.title}`, " ", el("small", {}, part.rest)),
      el("p", { class: "quiet" }, `${part.score}${part.percent ? ", %" : ""}; yellow is better; `
        + "mean over seeds of the best config in each cell."),
      el("div", { class: "heat" }, part.maps.map((m) => {
        const made = heatMap(m.variant, m.lr, m.width, m.cells, bounds, part.higher_is_better, shown);
        made.dataset.variant = m.variant;
        return made;
      })));
  });
}

// Rows and runs whose name or settings hold every word.
function filter() {
  const words = document.getElementById("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const group of content.groups) {
    const holds = (e) => {
      const text = `${e.variant} ${group.title} ${group.rest} ${settings(e.config)}`.toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const names = new Set(group.entries.filter(holds).map((e) => e.variant));
    const own = document.getElementById(group.id);
    if (!own) continue;
    for (const part of own.querySelectorAll("tr[data-variant], .run"))
      part.classList.toggle("hidden", !names.has(part.dataset.variant));
    own.classList.toggle("hidden", words.length > 0 && names.size === 0);
    shown += names.size;
  }
  document.getElementById("matches").textContent = words.length ? `${shown} match` : "";
}

const where = Object.entries(content.where).map(([k, v]) => `${k}=${v}`).join(" ");
document.getElementById("about").textContent =
  `${content.rows.ranked} runs${where ? ` with ${where}` : ""}`
  + (content.latest && `, the latest of ${content.latest.slice(0, 16).replace("T", " ")} UTC`);
const main = document.getElementById("main");
if (content.empty) main.append(el("section", {}, el("p", { class: "lead" }, content.empty)));
main.append(...[glance(content.groups)].filter(Boolean));
for (const group of content.groups) main.append(section(group));
main.append(...across(content.across), ...heat(content.heat));
for (const group of content.groups) group.redraw();
if (content.groups.length > 1)
  document.getElementById("jump").append(...content.groups.map((group) =>
    el("li", {}, el("a", { href: `#${group.id}` }, group.title))));
document.getElementById("notes").append(el("h2", {}, "How to read this"),
  ...content.notes.map((note) => el("p", {}, note)));
document.getElementById("filter").addEventListener("input", filter);
if (!content.groups.length) document.getElementById("tools").classList.add("hidden");
