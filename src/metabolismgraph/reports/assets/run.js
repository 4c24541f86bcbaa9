// Figures of a run that answer to the pointer; text is set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const size = { width: 640, height: 420, left: 64, right: 16, top: 14, bottom: 44 };
  const frame = (place, x, y, titles) => {
    const svg = d3.select(place).append("svg").attr("viewBox", [0, 0, size.width, size.height]).attr("role", "img").attr("aria-label", `${titles[1]} against ${titles[0]}`);
    svg.append("g").attr("class", "axis").attr("transform", `translate(0,${size.height - size.bottom})`).call(d3.axisBottom(x).ticks(7));
    svg.append("g").attr("class", "axis").attr("transform", `translate(${size.left},0)`).call(d3.axisLeft(y).ticks(7));
    svg.append("text").attr("x", (size.left + size.width) / 2).attr("y", size.height - 6).attr("text-anchor", "middle").text(titles[0]);
    svg.append("text").attr("transform", `translate(14,${size.height / 2}) rotate(-90)`).attr("text-anchor", "middle").text(titles[1]);
    return svg;
  };
  const wide = ([low, high]) => { const pad = 0.04 * (high - low || Math.abs(high) || 1); return [low - pad, high + pad]; };
  const across = (values) => d3.scaleLinear(wide(d3.extent(values)), [size.left, size.width - size.right]);
  const up = (values) => d3.scaleLinear(wide(d3.extent(values)), [size.height - size.bottom, size.top]);
  const symbols = [d3.symbolCircle, d3.symbolTriangle, d3.symbolSquare, d3.symbolDiamond, d3.symbolCross, d3.symbolStar];
  // Okabe & Ito, without black and yellow: legible on light and on dark, and for the colour-blind.
  const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
  const note = (place, text, kind = "quiet") => {
    const line = document.createElement("p");
    line.className = kind;
    line.textContent = text;
    place.append(line);
    return line;
  };
  const answerBelow = (place, what) => note(place, `Point at the figure to see ${what}.`, "quiet answer");

  for (const place of document.querySelectorAll("[data-points]")) {
    const { x: across_, y: up_, diagonal, points: rows } = data[place.dataset.points];
    const points = rows.map(([name, x, y, error, group]) => ({ name, x, y, error, group }));
    if (!points.length) { note(place, "none"); continue; }
    const x = across(points.map((p) => p.x)), y = up(points.map((p) => p.y));
    const svg = frame(place, x, y, [across_, up_]);
    if (diagonal) svg.append("line").attr("class", "highest").attr("x1", x(x.domain()[0])).attr("y1", y(x.domain()[0])).attr("x2", x(x.domain()[1])).attr("y2", y(x.domain()[1]));
    const groups = [...new Set(points.map((p) => p.group))].sort();
    const whole = svg.append("g");
    whole.selectAll("line").data(points.filter((p) => p.error !== null)).join("line").attr("class", "error")
      .attr("x1", (p) => x(p.x)).attr("x2", (p) => x(p.x)).attr("y1", (p) => y(p.y - 1.96 * p.error)).attr("y2", (p) => y(p.y + 1.96 * p.error));
    whole.selectAll("path").data(points).join("path").attr("transform", (p) => `translate(${x(p.x)},${y(p.y)})`)
      .attr("d", (p) => d3.symbol(symbols[groups.indexOf(p.group) % symbols.length], 40)()).attr("fill", (p) => colours[groups.indexOf(p.group) % colours.length]);
    const ring = svg.append("circle").attr("class", "ring").attr("r", 8).attr("visibility", "hidden");
    const answer = answerBelow(place, "which point is which");
    const nearest = d3.Delaunay.from(points, (p) => x(p.x), (p) => y(p.y));
    svg.on("pointermove", (event) => {
      const p = points[nearest.find(...d3.pointer(event))];
      ring.attr("cx", x(p.x)).attr("cy", y(p.y)).attr("visibility", "visible");
      answer.textContent = `${p.name}: ${p.x}, ${p.y}${p.error === null ? "" : ` ± ${p.error}`}${p.group ? `, ${p.group}` : ""}`;
    });
  }

  for (const place of document.querySelectorAll("[data-lines]")) {
    const { names, time, run, values, model, dashed, shown, left_out } = data[place.dataset.lines];
    const label = document.createElement("label");
    label.className = "filter";
    label.textContent = "Species";
    const select = document.createElement("select");
    for (const name of names) select.append(new Option(name, name));
    label.append(select);
    place.append(label);
    const canvas = document.createElement("div");
    place.append(canvas);
    note(place, `Shown: ${shown}${left_out ? `; ${left_out} species that change less are left out here` : ""}.${model ? ` Dashed, in held-out frames: ${dashed}.` : ""}`);
    const answer = answerBelow(place, "values");
    const draw = () => {
      canvas.replaceChildren();
      const own = values[select.selectedIndex], expected = model?.[select.selectedIndex];
      const x = across(time), y = up([...own, ...(expected ?? [])].filter((v) => v !== null));
      const svg = frame(canvas, x, y, ["time", `concentration of ${names[select.selectedIndex]}`]);
      for (const r of new Set(run)) {
        const frames = d3.range(time.length).filter((i) => run[i] === r);
        const path = (of) => d3.line((i) => x(time[i]), (i) => y(of[i])).defined((i) => of[i] !== null)(frames);
        svg.append("path").attr("class", "trace").attr("stroke", colours[r % colours.length]).attr("d", path(own));
        if (expected) svg.append("path").attr("class", "trace model").attr("d", path(expected));
      }
      svg.on("pointermove", (event) => {
        const i = d3.leastIndex(time, (a, b) => Math.abs(x(a) - d3.pointer(event)[0]) - Math.abs(x(b) - d3.pointer(event)[0]));
        const there = expected?.[i] ?? null;
        answer.textContent = `time ${time[i]}: ${own[i] === null ? "not measured" : own[i]}${there === null ? "" : `, model ${there}`}`;
      });
    };
    select.addEventListener("change", draw);
    draw();
  }

  for (const place of document.querySelectorAll("[data-cells]")) {
    const { names, left_out, time, steps, values } = data[place.dataset.cells];
    const sizes = values.flat().filter((value) => value !== null).map(Math.abs).sort(d3.ascending);
    const limit = d3.quantileSorted(sizes, 0.98) || sizes.at(-1) || 1;
    const colour = d3.scaleDiverging([-limit, 0, limit], d3.interpolatePuOr).clamp(true);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [values.length, names.length];
    const pixels = canvas.getContext("2d");
    values.forEach((column, i) => column.forEach((value, j) => {
      if (value === null) return;
      pixels.fillStyle = colour(value);
      pixels.fillRect(i, j, 1, 1);
    }));
    const x = d3.scaleLinear([0, values.length], [size.left, size.width - size.right]);
    const y = d3.scaleLinear([0, names.length], [size.top, size.height - size.bottom]);
    const steps_ = d3.scaleLinear([0, steps], x.range());
    const svg = frame(place, steps_, y, ["step", "species, largest residual first"]);
    svg.append("image").attr("href", canvas.toDataURL()).attr("class", "cells").attr("preserveAspectRatio", "none")
      .attr("x", x.range()[0]).attr("y", y.range()[0]).attr("width", x.range()[1] - x.range()[0]).attr("height", y.range()[1] - y.range()[0]);
    note(place, `Relative to the root mean square of dc/dt of each species; full colour from ±${d3.format(".2~g")(limit)} on, orange below zero and violet above.${left_out ? ` ${left_out} species with smaller residuals are left out here.` : ""}`);
    const answer = answerBelow(place, "values");
    svg.on("pointermove", (event) => {
      const at = d3.pointer(event), i = Math.floor(x.invert(at[0])), j = Math.floor(y.invert(at[1]));
      if (values[i]?.[j] === undefined) return;
      answer.textContent = `${names[j]}, from time ${time[i]}: ${values[i][j] ?? "not measured"}`;
    });
  }
})();
