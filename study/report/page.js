"use strict";
const D = JSON.parse(document.getElementById("data").textContent), T = D.trials;
const $ = id => document.getElementById(id);
const narrow = matchMedia("(max-width: 700px)"), dark = matchMedia("(prefers-color-scheme: dark)"), paper = matchMedia("print");
const state = {outcome: D.outcomes.length ? D.outcomes[0].key : "", metric: "recall"};
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star", "cross"];
const SEQUENCE = ["#b3400e", "#e08a3c", "#b9a58c", "#7fb0c9", "#3f8fc9", "#1664a8"];  // worst to best

// Plotly reads some HTML in its texts (<b>, <br>, links), so names are escaped; long ones are cut on axes and
// broken into lines in hovers. Names never go into templates, where %{...} would be read.
const esc = text => String(text).replace(/[&<>]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;"})[c]);
const cut = (text, n) => { const all = [...String(text)]; return esc(all.length > n ? all.slice(0, n - 1).join("") + "…" : text); };
const broken = text => ([...String(text)].join("").match(/[\s\S]{1,60}/gu) || [""]).map(esc).join("<br>");
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colourOf = g => css("--c" + (g % 7 + 1));
const mean = values => values.reduce((a, b) => a + b, 0) / values.length;
const range = n => [...Array(n).keys()];
const round = (value, digits = 1) => value === null ? "" : value.toFixed(digits);
const small = p => p < .0001 ? "< 0.0001" : p.toPrecision(2);
const signed = value => (value > 0 ? "+" : "") + round(value).replace("-", "−");
const points = ([at, low, high]) => `${signed(at)} [${signed(low)}, ${signed(high)}]`;
const lines = (parts, n) => parts.map(part => cut(part, n)).join("<br>");
const named = ([name, level], n) => cut(name, Math.max(n - level.length, 5)) + "=" + cut(level, n);  // the level matters most
const setting = i => broken(T.settings[T.setting[i]].map(pair => pair.join("=")).join(", "));
const labelWidth = () => narrow.matches ? 15 : 36;
const outcome = () => D.outcomes.find(one => one.key === state.outcome);
const values = () => T.values[state.outcome][+$("class").value] || [];
const found = () => D.attributions[state.outcome][+$("class").value];

function interval(sample) {  // of a mean over replicates; null where one replicate says nothing of others
  const m = mean(sample), n = sample.length;
  if (n < 2) return [m, null];
  const sd = Math.sqrt(sample.reduce((sum, x) => sum + (x - m) ** 2, 0) / (n - 1));
  return [m, D.t95[Math.min(n - 2, D.t95.length - 1)] * sd / Math.sqrt(n)];
}
function byReplicate(rows) {  // a replicate's mean over some trials
  const y = values(), sums = new Map();
  for (const i of rows) if (y[i] !== null) sums.set(T.replicate[i], [...(sums.get(T.replicate[i]) || []), y[i]]);
  return [...sums].sort((a, b) => a[0] - b[0]).map(([, sample]) => mean(sample));
}
function axis(labels, extra = {}) {
  return {tickvals: range(labels.length), ticktext: labels.map(text => cut(text, labelWidth())), automargin: true, zeroline: false, ...extra};
}
function layout(extra) {
  const text = css("--text"), line = css("--line"), base = {color: text, gridcolor: line, zerolinecolor: line, linecolor: line};
  const out = {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {family: "system-ui, sans-serif", size: narrow.matches ? 11 : 13, color: text},
    margin: {l: 8, r: 12, t: 12, b: 44}, hovermode: "closest", hoverlabel: {align: "left", namelength: -1}, showlegend: false,
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, dragmode: false, ...extra};
  for (const key of ["xaxis", "yaxis", "xaxis2"]) if (key !== "xaxis2" || extra[key]) out[key] = {...base, fixedrange: true, ...extra[key]};
  return out;
}
// The text of the page is legible on every colour of these.
const ramp = () => [[0, css("--none")], [1, css("--high")]];
const figures = () => ({texttemplate: "%{text}", textfont: {color: css("--text")}});
const percentAxis = extra => ({title: {text: esc(outcome().label) + " (%)"}, ...extra});

const charts = {
  shares() {
    const all = D.attributions[state.outcome], known = range(all.length).filter(i => all[i]), some = known.filter(i => all[i].shares.length);
    const rows = known.length > 16 && some.length ? some : known, at = rows.map((_, i) => i), left = known.length - rows.length;
    $("shares-note").textContent = left ? `${left} of ${known.length} rows are not decomposed and left out here; the numbers below say why.` : "";
    const names = rows.map(i => D.classes[i]), parts = new Map();
    const add = (name, colour, i, value, hover) => {
      if (!parts.has(name)) parts.set(name, {type: "bar", orientation: "h", x: [], y: [], hovertext: [], hoverinfo: "text", marker: {color: colour, line: {width: 1, color: css("--card")}}});
      const part = parts.get(name); part.x.push(value); part.y.push(i); part.hovertext.push(hover);
    };
    const said = (name, [, share, low, high]) => `${esc(name)}: <b>${round(100 * share, 0)}%</b> [${round(100 * low, 0)}, ${round(100 * high, 0)}]`;
    const colour = {data: css("--data"), parameter: css("--parameter"), "data x parameter": css("--mixed"), "other repeatable": css("--other")};
    rows.forEach((c, i) => {
      const one = all[c], name = broken(D.classes[c]) + "<br>";
      if (!one.shares.length) return add("none", css("--none"), i, 1, name + "not decomposed: " + broken(one.reason));
      for (const share of one.shares) if (colour[share[0]]) add(share[0], colour[share[0]], i, share[1], name + said({parameter: "settings", "data x parameter": "data x settings", "other repeatable": "settings in no simple form"}[share[0]] || share[0], share));
      one.chance.forEach((part, k) => add("chance " + k, css("--chance" + Math.min(k + 1, 4)), i, part[1], name + said("chance, " + part[0], part) + (part[4] ? "<br>" + broken(part[4]) : "")));
    });
    const blocks = at.filter(i => all[rows[i]].block !== null), top = Math.max(1, ...blocks.map(i => Math.min(all[rows[i]].block, 2)));
    const traces = [...parts.values(), {type: "scatter", mode: "markers", xaxis: "x2", y: blocks, x: blocks.map(i => Math.max(Math.min(all[rows[i]].block, top), 0)),
      marker: {symbol: "diamond", size: 10, color: css("--text")}, hoverinfo: "text",
      hovertext: blocks.map(i => broken(names[i]) + `<br>held-out cells and seed: ${round(100 * all[rows[i]].block, 0)}% of all four shares together`)}];
    const notes = at.filter(i => !all[rows[i]].shares.length).map(i => ({x: .01, y: i, xanchor: "left", showarrow: false, text: cut("not decomposed: " + all[rows[i]].reason, narrow.matches ? 24 : printing ? 60 : 92), font: {size: 11, color: css("--soft")}}));
    return [traces, layout({barmode: "stack", bargap: .3, height: 26 * rows.length + 90, annotations: notes, yaxis: axis(names, {range: [rows.length - .5, -.5], showgrid: false}),
      xaxis: {range: [0, 1], domain: [0, narrow.matches ? .68 : .78], tickformat: ".0%", dtick: narrow.matches ? .5 : .2, title: {text: narrow.matches ? "share" : "share of the differences between runs"}},
      xaxis2: {domain: [narrow.matches ? .84 : .82, 1], range: [-.08 * top, 1.08 * top], tickformat: ".0%", tickangle: 0, ...(narrow.matches ? {tickvals: [0, top]} : {nticks: 3}), anchor: "y", zeroline: true, title: {text: narrow.matches ? "beside" : "◆ held-out cells, seed", font: {size: 11}}}})];
  },
  recall() {
    const y = values(), [kind, at] = $("rows").value.split(":"), rowOf = kind === "setting" ? T.setting : T.levels[at];
    const rowNames = kind === "setting" ? T.settings : D.factors[at].levels, groups = grouping($("split").value);
    const cells = new Map();
    y.forEach((value, i) => { if (value !== null) { const key = rowOf[i]; if (!cells.has(key)) cells.set(key, groups.names.map(() => [])); cells.get(key)[groups.of(i)].push(i); } });
    const worst = key => Math.min(...cells.get(key).filter(rows => rows.length).map(rows => mean(rows.map(i => y[i]))));
    let order = [...cells.keys()].sort((a, b) => kind === "setting" ? worst(b) - worst(a) : a - b);
    const cutOff = order.length > 30; if (cutOff) order = [...order.slice(0, 15), ...order.slice(-15)];
    const n = groups.names.length, traces = [], means = found() ? found().means : [];
    const table = kind === "factor" && n === 1 && means.length;
    groups.names.forEach((name, g) => {
      const dots = {x: [], y: [], hovertext: []}, bars = {x: [], y: [], e: [], less: [], hovertext: []}, step = .8 / n;
      order.forEach((key, r) => {
        const rows = cells.get(key)[g], middle = r - .4 + step * (g + .5);
        if (!rows.length) return;
        const of = byReplicate(rows), many = Math.max(...T.replicate) + 1;
        for (const i of rows) { dots.x.push(y[i]); dots.y.push(middle + (many > 1 ? (T.replicate[i] / (many - 1) - .5) * step * .5 : 0)); dots.hovertext.push(`${round(y[i])}%, replicate ${T.replicate[i]}<br>${setting(i)}<br>${broken(D.conditions[T.condition[i]].label)}`); }
        const known = table && means.find(one => one[0] === D.factors[at].short && one[1] === rowNames[key]), [m, half] = interval(of);
        const low = known ? known[3] : Math.max(m - half, 0), high = known ? known[4] : Math.min(m + half, 100), centre = known ? known[2] : m;
        bars.x.push(centre); bars.y.push(middle); bars.e.push(half === null && !known ? 0 : high - centre); bars.less.push(half === null && !known ? 0 : centre - low);
        bars.hovertext.push(`mean ${round(centre)}%` + (half === null && !known ? "" : ` [${round(low)}, ${round(high)}]`) + `<br>${broken(name)}`);
      });
      const colour = colourOf(g);
      traces.push({type: "scatter", mode: "markers", ...dots, hoverinfo: "text", showlegend: false, marker: {color: colour, opacity: .6, size: 7, symbol: SYMBOLS[g % 7]}});
      traces.push({type: "scatter", mode: "markers", x: bars.x, y: bars.y, hovertext: bars.hovertext, hoverinfo: "text", name: cut(name, 60), showlegend: n > 1,
        error_x: {type: "data", array: bars.e, arrayminus: bars.less, color: colour, thickness: 2, width: 4}, marker: {color: colour, size: 11, symbol: SYMBOLS[g % 7], line: {color: css("--card"), width: 1.5}}});
    });
    $("recall-note").textContent = (cutOff ? "The 15 settings with the best and the 15 with the worst condition are shown. " : "")
      + (table ? "Means and intervals: means.csv. Dots: trials.csv." : "Intervals: a t interval over the replicates' means, so wide with few of them; to compare settings use the effects, which compare within replicates. Dots: trials.csv.");
    const tall = Math.max(24, 14 * n, kind === "setting" ? 16 * T.settings[0].length + 8 : 0) * order.length;
    return [traces, layout({height: tall + 130, showlegend: n > 1, xaxis: percentAxis(), yaxis: {...axis([]), tickvals: range(order.length), range: [order.length - .5, -.5],
      ticktext: order.map(key => kind === "setting" ? T.settings[key].map(pair => named(pair, labelWidth() + 4)).join("<br>") : cut(rowNames[key], labelWidth()))}})];
  },
  size() {
    const queries = [...new Set(D.conditions.map(one => one.query))], sizes = [...new Set(D.conditions.map(one => one.cells).filter(n => n))];
    const traces = queries.flatMap((query, q) => {
      const here = range(D.conditions.length).filter(c => D.conditions[c].query === query && D.conditions[c].cells).sort((a, b) => D.conditions[a].cells - D.conditions[b].cells);
      const samples = here.map(c => byReplicate(range(T.condition.length).filter(i => T.condition[i] === c))), colour = colourOf(q);
      const kept = here.map((c, k) => [D.conditions[c].cells, samples[k]]).filter(([, sample]) => sample.length);
      return [{type: "scatter", mode: "markers", x: kept.flatMap(([x, s]) => s.map(() => x)), y: kept.flatMap(([, s]) => s), showlegend: false, hoverinfo: "x+y", marker: {color: colour, opacity: .6, size: 7, symbol: SYMBOLS[q % 7]}},
        {type: "scatter", mode: "lines+markers", x: kept.map(([x]) => x), y: kept.map(([, s]) => mean(s)), name: cut(query, 60), hoverinfo: "x+y", line: {color: colour}, marker: {size: 10, symbol: SYMBOLS[q % 7]}}];
    });
    return [traces, layout({height: 340, showlegend: true, xaxis: {type: "log", title: {text: "query cells"}, ...(sizes.length < 9 ? {tickvals: sizes, ticktext: sizes.map(n => n.toLocaleString("en"))} : {dtick: 1})}, yaxis: percentAxis({automargin: true})})];
  },
  effects() {
    const one = found(), all = one ? one.effects.filter(effect => !effect.at) : [];
    effectTable(one);
    if (!all.length) return empty(one ? "Not decomposed: " + one.reason : "No effects: the study is not decomposed.");
    const traces = ["data", "parameter"].map(role => {
      const rows = range(all.length).filter(i => all[i].role === role), of = rows.map(i => all[i]), colour = css("--" + role);
      return {type: "scatter", mode: "markers", x: of.map(e => e.points[0]), y: rows, hoverinfo: "text", name: role === "data" ? "data" : "settings",
        hovertext: of.map(e => `${broken(e.factor + ": " + e.change)}<br><b>${points(e.points)}</b> points, adjusted p ${small(e.p)}<br>error from ${esc(e.stratum)}`),
        error_x: {type: "data", color: colour, thickness: 2.5, width: 0, array: of.map(e => e.points[2] - e.points[0]), arrayminus: of.map(e => e.points[0] - e.points[1])},
        marker: {size: 12, color: of.map(e => e.real ? colour : css("--card")), line: {color: colour, width: 2.5}}};
    });
    return [traces, layout({height: 40 * all.length + 90, xaxis: {title: {text: "percentage points"}, zeroline: true, zerolinewidth: 2, zerolinecolor: css("--soft")},
      yaxis: {...axis([]), tickvals: range(all.length), ticktext: all.map(e => lines([e.factor, e.change], labelWidth() + 6)), range: [all.length - .5, -.5]}})];
  },
  gains() {
    const all = D.attributions[state.outcome], rows = range(all.length).filter(i => all[i] && all[i].effects.length);
    const of = one => new Map(one.effects.filter(e => !e.at).map(e => [e.factor + ": " + e.change, e]));
    if (!rows.length) return empty("No class is decomposed.");
    const place = e => D.factors.findIndex(factor => factor.short === e.factor), some = [...of(all[rows[0]])];
    const columns = some.sort((a, b) => place(a[1]) - place(b[1])).map(([key]) => key), table = rows.map(i => columns.map(key => of(all[i]).get(key)));
    $("gains").style.minWidth = `${150 + (columns.length > 7 ? 58 : 120) * columns.length}px`;
    const top = Math.max(1, ...table.flat().map(e => Math.abs(e.points[0])));
    return [[{type: "heatmap", x: range(columns.length), y: range(rows.length), z: table.map(row => row.map(e => e.points[0])), zmin: -top, zmax: top, xgap: 2, ygap: 2, showscale: false,
      colorscale: [[0, css("--low")], [.5, css("--card")], [1, css("--high")]], text: table.map(row => row.map(e => signed(e.points[0]) + (e.real ? "*" : ""))), ...figures(), hoverinfo: "text",
      hovertext: table.map((row, r) => row.map((e, k) => `${broken(D.classes[rows[r]])}<br>${broken(columns[k])}<br>${points(e.points)} points`))}],
      layout({height: 30 * rows.length + (columns.length > 7 ? 190 : 64), margin: {l: 8, r: 12, t: 8, b: 8}, yaxis: axis(rows.map(i => D.classes[i]), {range: [rows.length - .5, -.5], showgrid: false}),
        xaxis: {...axis([]), tickvals: range(columns.length), ticktext: columns.map(text => text.split(": ").map(part => cut(part, columns.length > 7 ? 26 : Math.max(8, Math.min(26, Math.floor((printing || narrow.matches ? 75 : 125) / columns.length))))).join("<br>")), showgrid: false, side: "top", tickangle: columns.length > 7 ? -60 : 0}})];
  },
  interaction() {
    const a = +$("factor-a").value, b = +$("factor-b").value, groups = a === b ? grouping("none") : grouping("factor:" + b);
    const traces = groups.names.flatMap((name, g) => {
      const samples = D.factors[a].levels.map((_, level) => byReplicate(range(T.condition.length).filter(i => T.levels[a][i] === level && groups.of(i) === g)));
      const x = range(samples.length).filter(level => samples[level].length), colour = colourOf(g), shift = (g - (groups.names.length - 1) / 2) * .03;
      return [{type: "scatter", mode: "markers", showlegend: false, hoverinfo: "y", x: x.flatMap(l => samples[l].map(() => l + shift)), y: x.flatMap(l => samples[l]), marker: {color: colour, opacity: .6, size: 7, symbol: SYMBOLS[g % 7]}},
        {type: "scatter", mode: "lines+markers", name: cut(D.factors[b].short + " = " + name, 60), x: x.map(l => l + shift), y: x.map(l => mean(samples[l])), hoverinfo: "y+name", line: {color: colour, width: 2.5}, marker: {size: 11, symbol: SYMBOLS[g % 7]}}];
    });
    const list = found() ? found().effects.filter(e => e.factor === D.factors[a].short && e.at.startsWith(D.factors[b].short + "=")) : [];
    $("simple").replaceChildren(...list.map(e => element("li", `${e.factor} ${e.change}, at ${e.at}: ${points(e.points)} points${e.real ? " (real)" : ""}`)));
    return [traces, layout({height: 380, showlegend: a !== b, xaxis: {...axis(D.factors[a].levels), title: {text: esc(D.factors[a].short)}, range: [-.4, D.factors[a].levels.length - .6]}, yaxis: percentAxis({automargin: true})})];
  },
  confusion() {
    const recall = state.metric === "recall", part = $("part").value, one = (D.confusion[part] || []).find(m => m.condition === +$("condition").value);
    $("confusion-text").textContent = recall ? "Rows add up to 100%: of the cells truly of a class, how many are called what. The diagonal is recall."
      : "Columns add up to 100%: of the cells called a class, how many truly are what. The diagonal is precision.";
    if (!one) return empty("No trial of this condition is finished.");
    const across = one.counts.map(row => row.reduce((a, b) => a + b, 0)), down = one.columns.map((_, c) => one.counts.reduce((sum, row) => sum + row[c], 0));
    const z = one.counts.map((row, r) => row.map((count, c) => { const whole = recall ? across[r] : down[c]; return whole ? 100 * count / whole : null; }));
    const n = one.columns.length, few = n <= 16, most = narrow.matches ? 12 : 26, beside = (few ? 7 : 6) * Math.min(most, Math.max(...one.rows.map(name => name.length))) + (few ? 130 : 95);
    const box = $("confusion"), room = (printing ? 700 : box.parentElement.clientWidth) - beside;
    const size = Math.max(printing ? 4 : few ? 34 : 12, Math.min(few ? 76 : 40, Math.floor(room / n)));
    box.style.minWidth = `${size * n + beside}px`;
    return [[{type: "heatmap", z, x: range(one.columns.length), y: range(one.rows.length), zmin: 0, zmax: 100, xgap: 1, ygap: 1, colorscale: ramp(),
      text: z.map(row => row.map(value => value === null || value < .5 || !few ? "" : round(value, 0))), ...figures(), hoverinfo: "text", colorbar: {title: {text: "%"}, thickness: 12, outlinewidth: 0},
      hovertext: z.map((row, r) => row.map((value, c) => `truly ${broken(one.rows[r])}<br>called ${broken(one.columns[c])}<br>${value === null ? "no cell" : round(value) + "%"}, ${round(one.counts[r][c] / one.trials)} cells per trial`))}],
      layout({width: size * n + beside, height: size * (few ? .62 : 1) * one.rows.length + 60 + 7 * Math.min(most, Math.max(...one.columns.map(name => name.length))) * (few ? .77 : 1), font: {size: size < 10 ? 6 : size < 16 ? 10 : narrow.matches ? 11 : 13, color: css("--text"), family: "system-ui, sans-serif"}, yaxis: {...axis([]), tickvals: range(one.rows.length), ticktext: one.rows.map(text => cut(text, most)), range: [one.rows.length - .5, -.5], showgrid: false, title: {text: "true"}},
        xaxis: {...axis([]), tickvals: range(one.columns.length), ticktext: one.columns.map(text => cut(text, most)), showgrid: false, title: {text: "called"}, tickangle: few ? -50 : -90}})];
  },
  parallel() {
    const points = new Map(), y = values();
    y.forEach((value, i) => { if (value === null) return; const key = T.levels.map(level => level[i]).join("|"); if (!points.has(key)) points.set(key, []); points.get(key).push(i); });
    let lines = [...points.values()].map(rows => ({first: rows[0], value: mean(rows.map(i => y[i]))})).sort((a, b) => a.value - b.value);
    const low = lines.length ? lines[0].value : 0, high = lines.length ? lines.at(-1).value : 1, scale = v => high > low ? (v - low) / (high - low) : .5;
    const fifth = Math.max(1, Math.ceil(lines.length / 5));
    if ($("which").value === "best") lines = lines.slice(-fifth); else if ($("which").value === "worst") lines = lines.slice(0, fifth);
    const marks = [], places = D.factors.map((factor, f) => {
      const level = lines.map(line => T.levels[f][line.first]), n = factor.levels.length;
      if (!n) { const ends = [Math.min(...T.levels[f]), Math.max(...T.levels[f])]; ends.forEach((v, k) => marks.push([f, k, String(+v.toPrecision(3))])); return level.map(v => (v - ends[0]) / (ends[1] - ends[0] || 1)); }
      factor.levels.forEach((name, l) => marks.push([f, n > 1 ? l / (n - 1) * .84 + .08 : .5, name]));
      const size = level.reduce((sum, l) => (sum[l] = (sum[l] || 0) + 1, sum), {}), seen = {};
      return level.map(l => { seen[l] = (seen[l] || 0) + 1; return (n > 1 ? l / (n - 1) * .84 + .08 : .5) + ((seen[l] - .5) / size[l] - .5) * Math.min(.5 / n, .16); });
    });
    const bins = SEQUENCE.map(colour => ({type: "scatter", mode: "lines", x: [], y: [], hovertext: [], hoverinfo: "text", line: {color: colour, width: lines.length > 200 ? 1 : 2}, opacity: lines.length > 200 ? .5 : .85}));
    lines.forEach((line, k) => {
      const bin = bins[Math.min(Math.floor(scale(line.value) * SEQUENCE.length), SEQUENCE.length - 1)], end = D.factors.length;
      const text = `${round(line.value)}%<br>${setting(line.first)}<br>${broken(D.conditions[T.condition[line.first]].label)}`;
      bin.x.push(...range(end + 1), null); bin.y.push(...places.map(place => place[k]), scale(line.value), null); bin.hovertext.push(...range(end + 2).map(() => text));
    });
    [0, .5, 1].forEach(v => marks.push([D.factors.length, v, round(low + v * (high - low)) + "%"]));
    return [bins, layout({height: 410, margin: {l: 50, r: 50, t: 16, b: narrow.matches || printing ? 70 : 36}, yaxis: {visible: false, range: [-.06, 1.06]},
      xaxis: {tickvals: range(D.factors.length + 1), ticktext: [...D.factors.map(f => cut(f.short, 20)), esc(outcome().label)], showgrid: true, zeroline: false, range: [-.25, D.factors.length + .25]},
      annotations: marks.map(([x, y, text]) => ({x, y, text: cut(text, 14), showarrow: false, bgcolor: css("--card"), borderpad: 2, font: {size: 12}}))})];
  },
  draws() {
    const one = D.draws, n = one.values.length ? one.values[0].length : 0;
    if (!n) return empty("Not recorded.");
    return [[{type: "heatmap", z: one.values, x: range(n).map(i => i + 1), y: range(one.classes.length), xgap: 1, ygap: 1, colorscale: ramp(), zmin: 0, hoverinfo: "text", colorbar: {thickness: 12},
      text: one.values.map(row => row.map(v => v === null || n > 20 ? "" : round(v))), ...figures(), hovertext: one.values.map((row, r) => row.map((v, c) => `${broken(one.classes[r])}<br>schedule ${c + 1}: ${round(v)} draws of each labelled cell`))}],
      layout({height: 24 * one.classes.length + 90, yaxis: axis(one.classes, {range: [one.classes.length - .5, -.5], showgrid: false}), xaxis: {title: {text: "schedule"}, dtick: n > 20 ? 5 : 1, showgrid: false}})];
  },
  depth() {
    const {parts, depth} = D.data, n = parts.length;
    if (!n) return empty("The data could not be described.");
    const side = (what, xaxis) => {
      const rows = range(n).filter(k => depth[what][k][1] !== null), of = rows.map(k => depth[what][k]);
      return {type: "scatter", mode: "markers", xaxis, y: rows, x: of.map(q => q[1]), hoverinfo: "text", hovertext: of.map((q, k) => `${broken(parts[rows[k]])}<br>${what} of a cell: ${q[1]} [${q[0]}, ${q[2]}]`),
        error_x: {type: "data", array: of.map(q => q[2] - q[1]), arrayminus: of.map(q => q[1] - q[0]), thickness: 4, width: 0, color: css("--data")}, marker: {size: 11, color: css("--data"), symbol: "diamond", line: {width: 1.5, color: css("--card")}}};
    };
    return [[side("counts", "x"), side("genes", "x2")], layout({height: 34 * n + 80, yaxis: axis(parts, {range: [n - .5, -.5]}),
      xaxis: {domain: [0, .48], rangemode: "tozero", title: {text: "counts per cell"}, nticks: narrow.matches ? 3 : 6}, xaxis2: {domain: [.52, 1], rangemode: "tozero", anchor: "y", title: {text: "genes per cell"}, nticks: narrow.matches ? 3 : 6}})];
  },
  makeup() {
    const {labelled: parts, classes, shares} = D.data, top = Math.max(1, ...shares.flat());
    if (!classes.length) return empty("The data could not be described.");
    $("makeup").style.minWidth = `${170 + 60 * parts.length}px`;
    return [[{type: "heatmap", z: shares, x: range(parts.length), y: range(classes.length), zmin: 0, zmax: top, xgap: 2, ygap: 1, showscale: false, colorscale: ramp(),
      text: shares.map(row => row.map(value => round(value))), ...figures(), hoverinfo: "text", hovertext: shares.map((row, r) => row.map((value, c) => `${broken(classes[r])}<br>${broken(parts[c])}: ${round(value)}%`))}],
      layout({height: 24 * classes.length + (parts.length > 7 ? 170 : 50), margin: {l: 8, r: 12, t: 8, b: 8}, yaxis: axis(classes, {range: [classes.length - .5, -.5], showgrid: false}),
        xaxis: {...axis([]), tickvals: range(parts.length), ticktext: parts.map(name => cut(name, parts.length > 7 ? 20 : Math.max(7, Math.floor((narrow.matches ? 30 : 100) / parts.length)))), showgrid: false, side: "top", tickangle: parts.length > 7 ? -60 : 0}})];
  },
  genes() {
    const rows = D.data.genes, n = rows.length;
    if (!n) return empty("The data could not be described.");
    const parts = [["in the reference too", "--data"], ["here alone", "--parameter"], ["without counts here", "--chance3"]];
    return [parts.map(([name, colour], k) => ({type: "bar", orientation: "h", name, y: range(n), x: rows.map(row => row[k + 1]), marker: {color: css(colour)}, hoverinfo: "text",
      hovertext: rows.map(row => `${broken(row[0])}<br>${row[k + 1].toLocaleString("en")} genes ${name}`)})),
      layout({barmode: "stack", bargap: .35, height: 30 * n + 100, showlegend: true, yaxis: axis(rows.map(row => row[0]), {range: [n - .5, -.5], showgrid: false}), xaxis: {rangemode: "tozero", nticks: narrow.matches ? 4 : 8, title: {text: "genes"}}})];
  },
  flips() {
    const {names, series} = D.flips, n = names.length;
    if (!n) return empty("No two finished trials differ in their condition alone.");
    return [series.map((one, k) => ({type: "bar", orientation: "h", name: one.name, y: range(n), x: one.values, marker: {color: colourOf(k)}, hoverinfo: "text",
      hovertext: one.values.map((v, i) => `${broken(names[i])}<br>${one.name}: ${v === null ? "none compared" : round(v) + "% ever flip"}`)})),
      layout({barmode: "group", bargap: .3, height: 34 * n + 110, showlegend: true, yaxis: axis(names, {range: [n - .5, -.5], showgrid: false}),
        xaxis: {rangemode: "tozero", ticksuffix: "%", title: {text: "cells that ever flip"}}})];
  },
  map() {
    const {points, status} = D.map, names = ["not run", "failed", "finished"];
    return [[{type: "heatmap", z: status, x: range(points.length), y: range(status.length), zmin: 0, zmax: 2, showscale: false, xgap: points.length > 100 ? 0 : 1, ygap: 2, hoverinfo: "text",
      colorscale: [[0, css("--chance4")], [.33, css("--chance4")], [.34, css("--c2")], [.66, css("--c2")], [.67, css("--data")], [1, css("--data")]],
      hovertext: status.map((row, r) => row.map((s, c) => `${names[s]}: replicate ${r}<br>${broken(points[c])}`))}],
      layout({height: 30 * status.length + 70, yaxis: {title: {text: "replicate"}, tickvals: range(status.length), range: [status.length - .5, -.5], automargin: true, showgrid: false}, xaxis: {title: {text: "design point"}, showticklabels: false, showgrid: false}})];
  },
};

charts.embedding = () => {
  const one = D.embedding[+$("embedded").value], by = $("coloured").value, first = +$("axes").value, n = one.reference;
  const x = one.at[first], y = one.at[first + 1] || x.map(() => 0), rows = range(x.length), classOf = i => one.classes[one.label[i]] || "no label";
  const points = (some, marker, name, shown, hover) => ({type: "scatter", mode: "markers", x: some.map(i => x[i] / 100), y: some.map(i => y[i] / 100), name: cut(name, 40), showlegend: shown, hoverinfo: "text", hovertext: some.map(hover), marker: {size: 5, ...marker}});
  const counted = i => one.counts ? `<br>${one.counts[i].toLocaleString("en")} counts` : "", known = i => `reference: ${broken(classOf(i))}${counted(i)}`;
  const told = i => one.trust ? `${broken(classOf(i))}<br>trust: ${["high", "check", "none"][one.trust[i - n]]}, agreement ${one.agreement[i - n]}%, novelty ${one.novelty[i - n]}%` : `${broken(one.query)}: ${broken(classOf(i))}${counted(i)}`;
  const reference = rows.slice(0, n), query = rows.slice(n), traces = [];
  $("embedding-note").textContent = (one.trust ? `Principal components of log-normalised counts. Hollow or grey: reference; full: ${one.query}, with what all trainings call a cell together.` : `Principal components of log-normalised counts, the same for all queries.${by === "query" ? "" : " Hollow: reference; full: " + one.query + "."}`) + (one.shown < one.of ? ` ${one.shown.toLocaleString("en")} of ${one.of.toLocaleString("en")} cells, at random.` : "");
  if (by === "label") [...one.classes, ...(one.counts && one.label.includes(-1) ? [null] : [])].forEach((name, c) => {
    if (name === null) { name = "no label"; c = -1; }
    const look = c < 0 ? {color: css("--soft"), symbol: "circle"} : {color: colourOf(c), symbol: SYMBOLS[Math.floor(c / 7) % 7]};
    traces.push(points(reference.filter(i => one.label[i] === c), {...look, symbol: look.symbol + "-open", opacity: .45}, name, false, known));
    traces.push(points(query.filter(i => one.label[i] === c), look, name, true, told));
  });
  else if (by === "counts") {
    const top = [...one.counts].sort((a, b) => a - b)[Math.floor(.98 * (x.length - 1))], scale = {cmin: 0, cmax: top, colorscale: SEQUENCE.map((c, k) => [k / (SEQUENCE.length - 1), c])};
    traces.push(points(reference, {color: reference.map(i => one.counts[i]), symbol: "circle-open", opacity: .6, ...scale}, "reference", true, known));
    traces.push(points(query, {color: query.map(i => one.counts[i]), showscale: true, colorbar: {thickness: 12, title: {text: "counts"}}, ...scale}, one.query, true, told));
  }
  else if (by === "query") traces.push(points(reference, {color: css("--parameter"), opacity: .35}, "reference", true, known), points(query, {color: css("--data"), opacity: .6}, one.query, true, told));
  else {
    traces.push(points(reference, {color: css("--soft"), opacity: .25}, "reference", true, known));
    if (by === "trust") ["high", "check", "none"].forEach((name, t) => traces.push(points(query.filter(i => one.trust[i - n] === t), {color: [css("--data"), css("--parameter"), css("--c2")][t]}, name, true, told)));
    else traces.push(points(query, {color: query.map(i => one[by][i - n]), cmin: 0, cmax: 100, colorscale: (by === "novelty" ? [...SEQUENCE].reverse() : SEQUENCE).map((c, k) => [k / (SEQUENCE.length - 1), c]), showscale: true, colorbar: {ticksuffix: "%", thickness: 12, title: {text: by}}}, one.query, false, told));
  }
  return [traces, layout({height: narrow.matches ? 380 : 520, showlegend: by !== "agreement" && by !== "novelty", xaxis: {title: {text: `component ${first + 1}`}, zeroline: false}, yaxis: {title: {text: `component ${first + 2}`}, automargin: true, zeroline: false}})];
};
function empty(text) {
  return [[], layout({height: 90, margin: {l: 8, r: 8, t: 8, b: 8}, xaxis: {visible: false}, yaxis: {visible: false}, annotations: [{text: cut(text, narrow.matches ? 50 : 130), showarrow: false, x: 0, xanchor: "left", y: .5, xref: "paper", yref: "paper", font: {color: css("--soft")}}]})];
}
function grouping(choice) {  // the names of groups, and each trial's group
  const [kind, at] = choice.split(":");
  if (kind === "condition") return {names: D.conditions.map(one => one.label), of: i => T.condition[i]};
  if (kind === "factor") return {names: D.factors[at].levels, of: i => T.levels[at][i]};
  return {names: ["all trials"], of: () => 0};
}
function element(tag, text, name = "") { const made = document.createElement(tag); made.textContent = text; if (name) made.className = name; return made; }
function effectTable(one) {
  const all = one ? one.effects : [], box = $("effect-table"), shown = state.everyEffect ? all : all.slice(0, 12);
  const line = (cells, tag, name) => { const row = element("tr", "", name); row.append(...cells.map(text => element(tag, text))); return row; };
  const table = element("table", "", "effects"), head = element("thead", ""), body = element("tbody", "");
  head.append(line(["difference", "points [95%]", "where", "adjusted p", "error from", "real"], "th"));
  body.append(...shown.map(e => line([`${e.factor}: ${e.change}`, points(e.points), e.at || "on average", small(e.p), e.stratum, e.real ? "yes" : "no"], "td", e.real ? "real" : "")));
  table.append(head, body); box.replaceChildren(...(all.length ? [table] : []));
  $("effect-note").replaceChildren(all.length ? "Largest first. Table: effects.csv. " + (one.moreEffects ? `${one.moreEffects} smaller effects are there only. ` : "") : "");
  if (all.length > 12) {
    const more = element("button", state.everyEffect ? "Show the largest only" : `Show all ${all.length}`);
    more.dataset.more = ""; more.onclick = () => { state.everyEffect = !state.everyEffect; effectTable(found()); $("effect-note").querySelector("button").focus(); };
    $("effect-note").append(more);
  }
}

let printing = false;
function onPaper(on) {  // charts take their colours from the page, which is light on paper, and their width from here
  if (printing === on) return;
  printing = on;
  document.documentElement.classList.toggle("printing", on);
  drawAll();
}
function draw(...names) {
  for (const name of names) {
    const box = $(name);
    if (!box) continue;
    const [traces, how] = charts[name](), width = printing ? 700 : box.clientWidth;
    // With its size given: Plotly's own way of following the window forgets the height.
    if (width) Plotly.react(box, traces, {width, ...how}, {displaylogo: false, typesetMath: false, modeBarButtons: [["toImage"]], displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false});
  }
}
const drawAll = () => draw(...Object.keys(charts));
const FOLLOW = ["shares", "recall", "size", "effects", "gains", "interaction", "parallel"];
function choices(id, options, redraw) {
  const box = $(id);
  if (!box) return;
  box.append(...options.map(([value, text]) => { const option = element("option", [...text].slice(0, 80).join("")); option.value = value; return option; }));
  box.onchange = () => draw(...redraw);
}
function buttons(id, options, chosen, pressed) {
  const box = $(id);
  if (!box) return;
  const made = options.map(([value, text, hint = ""]) => { const one = element("button", text); one.title = hint; one.type = "button"; one.ariaPressed = String(value === chosen); one.onclick = () => { made.forEach(b => b.ariaPressed = String(b === one)); pressed(value); }; return one; });
  box.append(...made);
}
function show(key) {
  state.outcome = key;
  document.querySelectorAll("[data-outcome]").forEach(part => part.hidden = part.dataset.outcome !== key);
}
const crossed = D.factors.map((factor, f) => [String(f), factor.short]).filter(([f]) => D.factors[f].levels.length);
buttons("outcome", D.outcomes.map(one => [one.key, one.label, one.hint]), state.outcome, key => { show(key); draw(...FOLLOW); });
buttons("metric", [["recall", "Recall"], ["precision", "Precision"]], state.metric, key => { state.metric = key; draw("confusion"); });
choices("class", D.classes.map((name, i) => [String(i), name]), FOLLOW.slice(1));
choices("rows", [...(T.settings.length > 1 ? [["setting", "each setting"]] : []), ...crossed.map(([f, text]) => ["factor:" + f, text])], ["recall"]);
choices("split", [...(D.conditions.length <= 7 ? [["condition", "condition"]] : []), ...crossed.filter(([f]) => D.factors[f].levels.length <= 7).map(([f, text]) => ["factor:" + f, text]), ["none", "none"]], ["recall"]);
choices("factor-a", crossed, ["interaction"]);
choices("factor-b", crossed, ["interaction"]);
choices("condition", D.conditions.map((one, i) => [String(i), one.label]), ["confusion"]);
choices("part", Object.keys(D.confusion).map(part => [part, {heldout: "held-out", train: "training", query: "query (true labels)"}[part] || part]), ["confusion"]);
choices("embedded", D.embedding.map((one, i) => [String(i), one.query]), ["embedding"]);
choices("coloured", (D.embedding.length && D.embedding[0].counts ? ["query", "label", "counts"] : ["trust", "label", "agreement", "novelty"]).map(name => [name, name]), ["embedding"]);
choices("axes", [["0", "1 and 2"], ...(D.embedding.length && D.embedding[0].at.length > 3 ? [["2", "3 and 4"]] : [])], ["embedding"]);
choices("which", [["all", "all"], ["best", "best fifth"], ["worst", "worst fifth"]], ["parallel"]);
if (crossed.length > 1) $("factor-b") && ($("factor-b").value = crossed[1][0]);
show(state.outcome);
drawAll();
dark.addEventListener("change", drawAll);
let later;
addEventListener("resize", () => { clearTimeout(later); later = setTimeout(drawAll, 150); });
document.querySelectorAll("details").forEach(part => part.addEventListener("toggle", () => part.open && part.querySelector("#draws") && draw("draws")));
addEventListener("beforeprint", () => onPaper(true));
addEventListener("afterprint", () => onPaper(false));
paper.addEventListener("change", () => onPaper(paper.matches));
