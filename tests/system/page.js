// What the tests ask of a report's page.

// Each chart: its traces, what it shows, the number of shapes drawn for them, and its size.
function chartsOf() {
  return Object.fromEntries(Object.keys(charts).filter(name => $(name)).map(name => [name, {
    traces: ($(name).data || []).length,
    data: JSON.stringify($(name).data),
    shapes: $(name).querySelectorAll(".scatterlayer path, .barlayer path, .heatmaplayer image").length,
    height: $(name).clientHeight,
  }]));
}

// What the hovers over all charts say: over the first point of each trace, and of each row of a map.
async function hovers() {
  const said = [];
  for (const box of Object.keys(charts).map($).filter(box => box && box.data)) {
    for (const [curveNumber, trace] of box.data.entries()) {
      const points = trace.type === "heatmap" ? trace.z.map((_, row) => [row, 0]) : trace.x.length ? [0] : [];
      for (const pointNumber of points) {
        Plotly.Fx.hover(box, [{curveNumber, pointNumber}], (trace.xaxis || "x") + (trace.yaxis || "y"));
        await new Promise(next => setTimeout(next, 60));  // Plotly takes one hover in 50 ms
        said.push(...[...box.querySelectorAll(".hovertext text")].map(text => text.textContent));
      }
    }
  }
  return said;
}

// Plotly reads %{...} in what is put into a template.
function templates() {
  const traces = Object.keys(charts).map($).flatMap(box => box && box.data || []);
  return [...new Set(traces.flatMap(trace => [trace.texttemplate, trace.hovertemplate]).filter(one => one))];
}

// Which rule of the page's policy refuses what a function asks of an address; nothing if none does.
function refused(ask) {
  return new Promise(tell => {
    addEventListener("securitypolicyviolation", said => tell(said.effectiveDirective), {once: true});
    ask("http://127.0.0.1:9/");
    setTimeout(() => tell(""), 2000);
  });
}

// Controls in the order of the page; each remembers its place.
function controlsOf() {
  const all = [...document.querySelectorAll("a[href], button, select, summary, [tabindex='0']")];
  all.forEach((node, place) => node.place = place);
  return all.filter(node => node.checkVisibility()).map(node => node.place);
}

// Which control has the focus, and the width of its outline.
function focused() {
  const style = getComputedStyle(document.activeElement);
  return [document.activeElement.place, style.outlineStyle === "solid" ? parseFloat(style.outlineWidth) : 0];
}

// Texts whose contrast with what is behind them is below 4.5, by the formula of WCAG 2.
function faintTexts() {
  const read = text => (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const linear = value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const contrast = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + .05) / (dark + .05);
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = read(getComputedStyle(node).backgroundColor);
      if (colour.length === 3) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const judge = (name, one, other) => contrast(one, other) < 4.5 && found.push([name, contrast(one, other)]);
  for (const node of document.querySelectorAll("body *:not(script, style, option)")) {
    const speaks = [...node.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.data.trim());
    if (!speaks || !node.checkVisibility()) continue;
    const drawn = node.closest("svg"), style = getComputedStyle(node);
    judge(node.textContent.slice(0, 30), read(drawn ? style.fill : style.color), behind(drawn ? node.closest("section") : node));
  }
  // Figures in heat maps stand on any colour between these.
  const probe = document.body.appendChild(document.createElement("i"));
  const colour = name => { probe.style.color = `var(${name})`; return read(getComputedStyle(probe).color); };
  for (const name of ["--high", "--low", "--none", "--card"]) judge(name, colour("--text"), colour(name));
  judge("not decomposed", colour("--soft"), colour("--none"));
  probe.remove();
  return found;
}
