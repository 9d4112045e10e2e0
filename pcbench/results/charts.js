// Charts as SVG. Every one has a title, axis labels and a table of its numbers behind it. Texts are
// set as text, never as markup.
"use strict";

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A number of a chart's axis or table: 0.0123, 1.2e-5, 3.4M.
function short(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) {
      const by = letter === "k" ? 1e3 : unit;
      return String(Number((value / by).toPrecision(digits))) + letter;
    }
  }
  if (size !== 0 && size < 1e-3) return value.toExponential(digits - 1).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(digits)));
}

// The look of a variant: colour, shape and dashes, the same in every chart of the page.
const SHAPES = [
  "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0Z", "M-4,-4H4V4H-4Z", "M0,-5.4L5,4H-5Z",
  "M0,-5.6L5.6,0L0,5.6L-5.6,0Z", "M0,5.4L5,-4H-5Z",
  "M-1.7,-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",
  "M-4.8,-2.9L-2.9,-4.8L0,-1.9L2.9,-4.8L4.8,-2.9L1.9,0L4.8,2.9L2.9,4.8L0,1.9L-2.9,4.8L-4.8,2.9L-1.9,0Z",
  "M0,-5.8L1.5,-1.7L5.6,-1.8L2.3,.8L3.5,4.8L0,2.4L-3.5,4.8L-2.3,.8L-5.6,-1.8L-1.5,-1.7Z",
];
function look(n) {
  const round = Math.floor(n / SHAPES.length);
  return {
    colour: `var(--c${n % 8})`,
    shape: SHAPES[(n + round) % SHAPES.length],
    dash: ["", "6 3", "2 3", "8 3 2 3"][round % 4],
  };
}
function marker(n, x, y, attributes = {}) {
  const { colour, shape } = look(n);
  return svg("path", { d: shape, fill: colour, transform: `translate(${x},${y})`, ...attributes });
}
function key(n) {
  return svg("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" },
    marker(n, 0, 0));
}

const known = (values, log) => values.filter((v) => v !== null && v !== undefined && (!log || v > 0));

// The range of means and their intervals, of which one that is far wider than all means lie apart
// (of a run that diverged) does not flatten the rest: it is cut off.
function bounds(means, edges, [least, most] = [-Infinity, Infinity]) {
  const low = Math.min(...known(means)), high = Math.max(...known(means)), span = high - low || Infinity;
  const cut = (v) => Math.min(Math.max(v, low - span, least), high + span, most);
  return [...known(means), ...known(edges).map(cut)];
}

function extent(values, log) {
  values = known(values, log);
  const low = Math.min(...values), high = Math.max(...values);
  if (!values.length) return log ? [1, 10] : [0, 1];
  if (log) return low === high ? [low / 2, high * 2] : [low / 1.15, high * 1.15];
  const pad = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.06;
  return [low - pad, high + pad];
}

function ticks([low, high], { log, whole }, count = 6) {
  if (log) {
    const found = [];
    const steps = high / low > 1000 ? [1] : high / low > 20 ? [1, 3] : [1, 2, 5];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++)
      for (const s of steps) if (s * 10 ** e >= low && s * 10 ** e <= high) found.push(s * 10 ** e);
    if (found.length > 1) {
      const every = Math.ceil(found.length / 7);
      return found.filter((_, n) => n % every === 0);
    }
    log = false;
  }
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].find((s) => s * power >= rough * 0.75) * power;
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return found;
}

// On a phone a chart is drawn as wide as the phone, so that its letters stay as they are.
const WIDTH = Math.max(300, Math.min(560, document.documentElement.clientWidth - 48));
const HEIGHT = 320, LEFT = 58, RIGHT = 14, TOP = 12, BOTTOM = 46;

// Axes with their labels; gives the drawing and the functions to its coordinates.
function frame(title, x, y, xs, ys, right = RIGHT) {
  const id = `chart-${++frame.count}`;
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-labelledby": id });
  const name = svg("title", { id });
  name.textContent = `${title}: ${y.label} against ${x.label}. The table below holds its numbers.`;
  const inside = svg("clipPath", { id: `${id}-inside` }, svg("rect", { x: LEFT - 8, y: TOP - 8,
    width: WIDTH - right - LEFT + 16, height: HEIGHT - BOTTOM - TOP + 8 }));
  root.append(name, inside);
  const place = (axis, range, from, to) => {
    const f = axis.log ? Math.log : Number;
    const [low, high] = range.map((v) => f(v));
    return (v) => from + ((f(v) - low) / (high - low)) * (to - from);
  };
  const xr = extent(xs, x.log), yr = extent(ys, y.log);
  const px = place(x, xr, LEFT, WIDTH - right), py = place(y, yr, HEIGHT - BOTTOM, TOP);
  const text = (content, attributes) => {
    const made = svg("text", attributes);
    made.textContent = content;
    root.append(made);
  };
  const step = (found) => Math.abs((found[1] ?? found[0]) - found[0]);
  const shown = (value, axis, gap) => axis.log ? short(value)
    : short(value, Math.min(8, Math.max(2, Math.ceil(Math.log10(Math.abs(value) / gap || 1)) + 1)));
  const xt = ticks(xr, x), yt = ticks(yr, y);
  for (const v of yt) {
    root.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - right, y1: py(v), y2: py(v) }));
    text(shown(v, y, step(yt)), { class: "tick", x: LEFT - 7, y: py(v) + 4, "text-anchor": "end" });
  }
  for (const v of xt) {
    root.append(svg("line", { class: "axis", x1: px(v), x2: px(v), y1: HEIGHT - BOTTOM,
      y2: HEIGHT - BOTTOM + 4 }));
    text(shown(v, x, step(xt)), { class: "tick", x: px(v), y: HEIGHT - BOTTOM + 17,
      "text-anchor": "middle" });
  }
  root.append(svg("line", { class: "axis", x1: LEFT, x2: WIDTH - right, y1: HEIGHT - BOTTOM,
    y2: HEIGHT - BOTTOM }));
  text(x.label, { x: (LEFT + WIDTH - right) / 2, y: HEIGHT - 8, "text-anchor": "middle" });
  text(y.label, { x: 0, y: 0, "text-anchor": "middle",
    transform: `translate(13,${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)` });
  const group = (s) => { // of one series; its name shows under the pointer
    const told = svg("title");
    told.textContent = s.name;
    const made = svg("g", { "data-variant": s.name, class: "series",
      "clip-path": `url(#${id}-inside)` }, told);
    root.append(made);
    return made;
  };
  return { root, px, py, group };
}
frame.count = 0;

// Labels beside their points that do not cover each other: pushed apart along y.
function spread(labels, gap = 13) {
  labels.sort((a, b) => a.y - b.y);
  for (let n = 1; n < labels.length; n++)
    labels[n].y = Math.max(labels[n].y, labels[n - 1].y + gap);
  const over = labels.length ? labels.at(-1).y - (HEIGHT - BOTTOM) : 0;
  if (over > 0) {
    labels.at(-1).y -= over;
    for (let n = labels.length - 2; n >= 0; n--)
      labels[n].y = Math.min(labels[n].y, labels[n + 1].y - gap);
  }
  return labels;
}

function label(root, series, x, y, anchor = "start") {
  const made = svg("text", { class: "halo", x, y, "text-anchor": anchor, "data-variant": series.name });
  made.textContent = series.name;
  root.append(made);
}

const DIRECT = 8; // so many lines are named at their ends; more are found by the legend alone

// series: [{name, n, x: [], y: [], low: [], high: []}]
function lineChart(title, x, y, series) {
  const edges = series.length > DIRECT ? [] : series.flatMap((s) => [...s.low, ...s.high]);
  const all = bounds(series.flatMap((s) => s.y), edges, y.range);
  const direct = series.length <= DIRECT;
  const longest = Math.max(...series.map((s) => s.name.length));
  const right = direct ? Math.min(150, 20 + 6.8 * longest) : RIGHT;
  const { root, px, py, group } = frame(title, x, y, series.flatMap((s) => s.x), all, right);
  const floor = HEIGHT - BOTTOM, at = (v) => (y.log && !(v > 0) ? floor : py(v));
  const labels = [];
  for (const s of series) {
    const { colour, dash } = look(s.n);
    const own = group(s);
    if (direct && s.x.length > 1 && s.low.every((v) => v !== null)) {
      const there = s.x.map((v, n) => `${px(v)},${at(s.high[n])}`);
      const back = s.x.map((v, n) => `${px(v)},${at(s.low[n])}`).reverse();
      own.append(svg("polygon", { class: "band", points: [...there, ...back].join(" "), fill: colour }));
    }
    const points = s.x.map((v, n) => `${px(v)},${at(s.y[n])}`).join(" ");
    own.append(svg("polyline", { class: "curve", points, stroke: colour, "stroke-dasharray": dash }));
    const every = Math.ceil(s.x.length / 12);
    s.x.forEach((v, n) => {
      if (n % every === 0 || n === s.x.length - 1) own.append(marker(s.n, px(v), at(s.y[n])));
    });
    labels.push({ s, x: px(s.x.at(-1)) + 9, y: at(s.y.at(-1)) + 4 });
  }
  if (direct) for (const { s, x, y } of spread(labels)) label(root, s, x, y);
  const rows = series.flatMap((s) => s.x.map((v, n) => [s.name, v, s.y[n], s.low[n], s.high[n]]));
  return figure(title, root, ["variant", x.label, y.label, "low", "high"], rows);
}

// series: [{name, n, x, y, low, high}]
function scatterChart(title, x, y, series) {
  const ys = bounds(series.map((s) => s.y), series.flatMap((s) => [s.low, s.high]), y.range);
  const { root, px, py, group } = frame(title, x, y, series.map((s) => s.x), ys, 60);
  for (const s of series) {
    const own = group(s);
    if (s.low !== null)
      own.append(svg("line", { class: "whisker", x1: px(s.x), x2: px(s.x), y1: py(s.low), y2: py(s.high),
        stroke: look(s.n).colour }));
    own.append(marker(s.n, px(s.x), py(s.y)));
  }
  const labels = series.map((s) => ({ s, x: px(s.x) + 9, y: py(s.y) + 4 }));
  if (series.length <= 2 * DIRECT) {
    const columns = new Map(); // labels are in each other's way only where they are near along x
    for (const own of labels) {
      const place = Math.round(own.x / 70);
      columns.set(place, [...(columns.get(place) ?? []), own]);
    }
    for (const column of columns.values())
      for (const { s, x, y } of spread(column)) label(root, s, x, y);
  }
  const rows = series.map((s) => [s.name, s.x, s.y, s.low, s.high]);
  return figure(title, root, ["variant", x.label, y.label, "low", "high"], rows);
}

// Cividis (Nuñez et al. 2018): the same to all who see colours differently.
const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102],
  [254, 232, 56]];
function shade(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const n = Math.min(Math.floor(at), CIVIDIS.length - 2);
  return CIVIDIS[n].map((c, k) => Math.round(c + (CIVIDIS[n + 1][k] - c) * (at - n)));
}

// cells[row][column]: {mean, runs} or null; the range is shared by the maps of a section
function heatMap(title, xs, ys, cells, [low, high], higher, shown) {
  const w = 62, h = 30, left = 62, width = left + w * xs.length + 4, height = h * ys.length + 44;
  const id = `chart-${++frame.count}`;
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-labelledby": id, style: `width:${width}px;max-width:100%` });
  const name = svg("title", { id });
  name.textContent = `${title}: score by learning rate and width. The table below holds its numbers.`;
  root.append(name);
  const text = (content, attributes) => {
    const made = svg("text", { "text-anchor": "middle", ...attributes });
    made.textContent = content;
    root.append(made);
  };
  ys.forEach((v, r) => text(short(v), { class: "tick", x: left - 8, y: h * r + h / 2 + 4,
    "text-anchor": "end" }));
  xs.forEach((v, c) => text(short(v), { class: "tick", x: left + w * (c + 0.5), y: h * ys.length + 15 }));
  text("learning rate", { x: left + (w * xs.length) / 2, y: height - 8 });
  text("width", { x: 0, y: 0, transform: `translate(12,${(h * ys.length) / 2}) rotate(-90)` });
  cells.forEach((line, r) => line.forEach((cell, c) => {
    const share = high > low ? ((cell?.mean ?? low) - low) / (high - low) : 1;
    const [red, green, blue] = shade(higher ? share : 1 - share);
    const light = 0.299 * red + 0.587 * green + 0.114 * blue > 120;
    const box = { x: left + w * c + 1, y: h * r + 1, width: w - 2, height: h - 2, rx: 3, class: "cell" };
    root.append(svg("rect", cell ? { ...box, fill: `rgb(${red},${green},${blue})` }
      : { ...box, fill: "none", stroke: "var(--line)", "stroke-dasharray": "3 3" }));
    text(cell ? shown(cell.mean) : "–", { x: left + w * (c + 0.5), y: h * r + h / 2 + 4,
      style: cell ? `fill:${light ? "#000" : "#fff"}` : "" });
  }));
  const rows = ys.flatMap((y, r) => xs.map((x, c) => [x, y, cells[r][c]?.mean, cells[r][c]?.runs]));
  return figure(title, root, ["learning rate", "width", "score", "runs"], rows);
}

function figure(title, drawing, columns, rows) {
  const body = el("div", { class: "scroll" });
  const behind = el("details", {}, el("summary", {}, "Table"), body);
  behind.addEventListener("toggle", () => {
    if (body.childElementCount) return; // made when it is asked for
    const head = columns.map((c) => el("th", { scope: "col" }, c));
    body.append(el("table", {}, el("thead", {}, el("tr", {}, head)),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map((v, n) =>
        el("td", { class: n === 0 && typeof v === "string" ? "text" : null },
          typeof v === "string" ? v : short(v, 5))))))));
  });
  return el("figure", {}, el("figcaption", {}, el("h4", {}, title)), drawing, behind);
}
