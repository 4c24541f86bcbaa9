// The tree of an exploration, the panel of a node, and the course of the rewards; text is set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const by = (id) => document.getElementById(id);
  const shapes = { converged: d3.symbolCircle, partial: d3.symbolTriangle, failed: d3.symbolX, "in flight": d3.symbolSquare, lost: d3.symbolCross };
  const symbol = (status) => d3.symbol(shapes[status] ?? d3.symbolCircle, 90)();
  const kind = (status) => `mark ${status.replaceAll(" ", "-")}`;
  const nodes = new Map(data.nodes.map((node) => [node.id, node]));
  const element = (name, text, parent) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    parent?.append(made);
    return made;
  };

  for (const status of Object.keys(shapes)) {
    const item = element("span", undefined, by("legend"));
    d3.select(item).append("svg").attr("width", 16).attr("height", 16).attr("viewBox", "-8 -8 16 16").attr("aria-hidden", true)
      .append("path").attr("d", symbol(status)).attr("class", kind(status));
    item.append(` ${status}`);
  }

  // The tree: a root for the exploration, one for each block, and every node below its parent.
  const blocks = [...new Set(data.nodes.map((node) => node.block))];
  const entries = [
    { key: "all", above: null, label: "" },
    ...blocks.map((block) => ({ key: `b${block}`, above: "all", label: `block ${block}` })),
    ...data.nodes.map((node) => ({ key: `n${node.id}`, above: node.parent !== null && nodes.has(node.parent) ? `n${node.parent}` : `b${node.block}`, node })),
  ];
  const root = d3.tree().nodeSize([24, 250])(d3.stratify().id((e) => e.key).parentId((e) => e.above)(entries));
  const placed = root.descendants();
  for (const d of placed) d.y = d.depth < 2 ? 60 * d.depth : 140 + 250 * (d.depth - 2);
  const [top, bottom] = d3.extent(placed, (d) => d.x);
  const right = d3.max(placed, (d) => d.y) + 240;
  const width = by("canvas").clientWidth || 900, height = Math.max(220, Math.min(640, bottom - top + 60));
  const svg = d3.select("#canvas").append("svg").attr("viewBox", [0, 0, width, height]).attr("role", "group").attr("aria-label", "Tree of nodes");
  const layer = svg.append("g");
  layer.append("g").attr("class", "links").selectAll("path").data(root.links()).join("path")
    .attr("d", d3.linkHorizontal().x((d) => d.y).y((d) => d.x));
  const drawn = layer.selectAll("g.node").data(placed).join("g").attr("class", "node").attr("transform", (d) => `translate(${d.y},${d.x})`);
  const chosen = drawn.filter((d) => d.data.node);
  const order = placed.filter((d) => d.data.node).sort((a, b) => a.x - b.x || a.y - b.y).map((d) => d.data.node.id);
  const label = (node) => `node ${node.id}: ${node.label}, ${node.status}${node.reward === null ? "" : `, reward ${node.reward}`}`;
  drawn.filter((d) => !d.data.node).append("text").attr("dy", "0.32em").attr("x", 4).text((d) => d.data.label);
  chosen.attr("role", "button").attr("tabindex", -1).attr("data-node", (d) => d.data.node.id);
  chosen.append("path").attr("d", (d) => symbol(d.data.node.status)).attr("class", (d) => kind(d.data.node.status));
  chosen.append("text").attr("dy", "0.32em").attr("x", 11)
    .text(({ data: { node } }) => `${node.id}${node.id === data.best ? " ★" : ""} ${node.reward === null ? "" : node.reward.toFixed(3)} ${node.label.length > 24 ? `${node.label.slice(0, 23)}…` : node.label}`);
  chosen.append("title").text((d) => label(d.data.node));

  const zoom = d3.zoom().scaleExtent([0.05, 4]).on("zoom", (event) => layer.attr("transform", event.transform));
  // The wheel scrolls the page; with the control key it zooms.
  zoom.filter((event) => (event.type === "wheel" ? event.ctrlKey : !event.button));
  svg.call(zoom).on("dblclick.zoom", null);
  const whole = Math.min(1, width / (right + 20), height / (bottom - top + 40));
  const fit = (k = whole) => {
    svg.call(zoom.transform, d3.zoomIdentity.translate(10, height / 2 - (k * (top + bottom)) / 2).scale(k));
  };
  fit(Math.max(0.7, whole)); // readable, even if it does not show all
  by("whole").addEventListener("click", () => fit());
  by("closer").addEventListener("click", () => svg.call(zoom.scaleBy, 1.5));
  by("farther").addEventListener("click", () => svg.call(zoom.scaleBy, 1 / 1.5));

  const table = (titles, rows, parent) => {
    const made = element("table", undefined, parent);
    const head = element("tr", undefined, element("thead", undefined, made));
    for (const title of titles) element("th", title, head).scope = "col";
    const body = element("tbody", undefined, made);
    for (const row of rows) {
      const line = element("tr", undefined, body);
      for (const value of row) element("td", value ?? "", line);
    }
  };
  const fill = (node) => {
    const panel = by("panel");
    panel.replaceChildren();
    element("h3", `Node ${node.id}`, panel);
    const list = element("dl", undefined, panel);
    for (const [name, value] of node.facts) {
      element("dt", name, list);
      element("dd", value || "-", list);
    }
    table(["iteration", "seed", "reward", "verdict", "s", "remark"], node.runs, panel);
    for (const reading of node.readings) element("p", reading, panel);
    for (const [name, source] of node.files) {
      const file = element("details", undefined, panel);
      element("summary", `strategy ${name}`, file);
      element("pre", source, file);
    }
    if (node.figures.length) {
      const figures = element("details", undefined, panel);
      element("summary", `figures, beside this page: ${node.figures.length}`, figures);
      const names = element("ul", undefined, figures);
      for (const [name, address] of node.figures) element("a", name, element("li", undefined, names)).href = address;
    }
  };
  const choose = (id, { focus = false, centre = false } = {}) => {
    if (!nodes.has(id)) return;
    fill(nodes.get(id));
    chosen.classed("chosen", (d) => d.data.node.id === id).attr("tabindex", (d) => (d.data.node.id === id ? 0 : -1))
      .attr("aria-pressed", (d) => d.data.node.id === id);
    points.classed("chosen", (d) => d[1] === id);
    const own = chosen.filter((d) => d.data.node.id === id);
    const at = own.datum();
    const [x, y] = d3.zoomTransform(svg.node()).apply([at.y, at.x]);
    if (centre || x < 0 || y < 0 || x > width || y > height) svg.call(zoom.translateTo, at.y + 150, at.x);
    if (focus) own.node().focus({ preventScroll: true });
    history.replaceState(null, "", `#node-${id}`);
  };
  chosen.on("click", (_, d) => choose(d.data.node.id)).on("keydown", (event, d) => {
    const at = order.indexOf(d.data.node.id);
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: order.length - 1, Enter: at, " ": at };
    const next = { ArrowLeft: d.data.node.parent, ArrowRight: d.children?.[0]?.data.node.id }[event.key] ?? order[moves[event.key]];
    if (next === undefined || next === null) return;
    event.preventDefault();
    choose(next, { focus: true });
  });

  by("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    const text = (node) => [`node ${node.id}`, node.label, node.status, ...node.facts.flat(), ...node.runs.flat(), ...node.readings].join(" ").toLowerCase();
    const hit = new Set(data.nodes.filter((node) => wanted && text(node).includes(wanted)).map((node) => node.id));
    chosen.classed("faint", (d) => wanted && !hit.has(d.data.node.id));
    by("found").textContent = wanted ? `${hit.size} of ${nodes.size}` : "";
  });
  by("find").addEventListener("keydown", (event) => {
    const first = order.find((id) => !chosen.filter((d) => d.data.node.id === id).classed("faint"));
    if (event.key === "Enter" && first !== undefined) choose(first, { centre: true });
  });
  document.addEventListener("choose", (event) => {
    choose(event.detail, { centre: true });
    by("tree").scrollIntoView();
  });

  // Rewards by iteration.
  const runs = data.iterations.filter((run) => run[2] !== null);
  const plot = { width: 900, height: 260, left: 60, right: 20, top: 12, bottom: 40 };
  const x = d3.scaleLinear([0, Math.max(1, data.iterations.length) + 1], [plot.left, plot.width - plot.right]);
  const y = d3.scaleLinear([Math.min(0, d3.min(runs, (run) => run[2]) ?? 0), Math.max(1, d3.max(runs, (run) => run[2]) ?? 1)], [plot.height - plot.bottom, plot.top]);
  const course = d3.select("#course").append("svg").attr("viewBox", [0, 0, plot.width, plot.height]).attr("role", "group").attr("aria-label", "Reward of every run by iteration");
  course.append("g").attr("class", "axis").attr("transform", `translate(0,${plot.height - plot.bottom})`).call(d3.axisBottom(x).tickFormat(d3.format("d")));
  course.append("g").attr("class", "axis").attr("transform", `translate(${plot.left},0)`).call(d3.axisLeft(y).ticks(6));
  course.append("text").attr("x", plot.width / 2).attr("y", plot.height - 4).attr("text-anchor", "middle").text("iteration");
  course.append("text").attr("transform", `translate(16,${plot.height / 2}) rotate(-90)`).attr("text-anchor", "middle").text("reward");
  let highest = -Infinity;
  const steps = runs.map((run) => [run[0], (highest = Math.max(highest, run[2]))]);
  course.append("path").attr("class", "highest").attr("d", d3.line((s) => x(s[0]), (s) => y(s[1])).curve(d3.curveStepAfter)(steps));
  const points = course.append("g").selectAll("path").data(runs).join("path").attr("d", (run) => symbol(run[3])).attr("class", (run) => kind(run[3]))
    .attr("transform", (run) => `translate(${x(run[0])},${y(run[2])})`).on("click", (_, run) => choose(run[1], { centre: true }));
  points.append("title").text((run) => `iteration ${run[0]}, node ${run[1]}: ${run[2]}, ${run[3]}`);

  const asked = Number(/^#node-(\d+)$/.exec(location.hash)?.[1] ?? data.best);
  if (nodes.has(asked)) choose(asked);
  else chosen.filter((d) => d.data.node.id === order[0]).attr("tabindex", 0);

  // While somebody reads a panel or types, the page waits.
  if (data.reload) {
    setInterval(() => {
      const busy = document.activeElement?.matches("input") || String(getSelection()) || document.querySelector("details[open]");
      if (!busy) location.reload();
    }, 1000 * data.reload);
  }
})();
