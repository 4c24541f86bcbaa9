// Fills the tables of a page from its data; text is set as text, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const number = (value) => value !== 0 && Math.abs(value) < 1e-3 ? value.toExponential() : String(value);
  const shown = (value) =>
    value === null ? "" : value === true ? "yes" : value === false ? "no" : typeof value === "number" ? number(value) : value;
  const plain = (cell) => document.createTextNode(shown(cell.getValue()));
  const bySize = (a, b) => {
    if (a === null || b === null) return (a !== null) - (b !== null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  // On paper nothing opens, either.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("section details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
  // On paper nothing scrolls: a plain table of the rows that are found, in their order, takes the place.
  const printed = (place, table, titles, fields) => {
    const most = 500;
    addEventListener("beforeprint", () => {
      const paper = document.createElement("table"), found = table.getData("active");
      paper.className = "paper";
      const add = (part, kind, texts) => {
        const row = part.insertRow();
        for (const text of texts) {
          const cell = row.appendChild(document.createElement(kind));
          cell.textContent = text;
          cell.classList.toggle("short", String(text).length < 28);
        }
      };
      add(paper.createTHead(), "th", titles.map((title) => title.replaceAll("_", " ")));
      const body = paper.createTBody();
      for (const values of found.slice(0, most)) add(body, "td", fields.map((field) => shown(values[field])));
      if (found.length > most) paper.createCaption().textContent = `The first ${most} of ${found.length} rows.`;
      place.after(paper);
    });
    addEventListener("afterprint", () => place.parentNode.querySelectorAll(":scope > .paper").forEach((paper) => paper.remove()));
  };
  for (const place of document.querySelectorAll("[data-table]")) {
    const { columns, rows } = data[place.dataset.table];
    if (!rows.length) {
      place.textContent = "none";
      continue;
    }
    const used = columns.map((_, i) => i).filter((i) => rows.some((row) => row[i] !== null && row[i] !== ""));
    const label = document.createElement("label");
    label.className = "filter";
    label.textContent = `Find in ${place.dataset.name}`;
    const words = document.createElement("input");
    words.type = "search";
    const count = document.createElement("span");
    count.className = "count";
    count.setAttribute("role", "status");
    label.append(words, count);
    place.before(label);
    const table = new Tabulator(place, {
      data: rows.map((row) => Object.fromEntries(used.map((i) => [`c${i}`, row[i]]))),
      columns: used.map((i) => ({
        title: columns[i].replaceAll("_", " ").replaceAll("&", "&amp;").replaceAll("<", "&lt;"),
        field: `c${i}`,
        formatter: plain,
        sorter: bySize,
        headerSortTristate: true,
        maxInitialWidth: i === used.at(-1) ? undefined : 320,
      })),
      layout: "fitDataFill",
      maxHeight: "28rem",
      placeholder: "none",
    });
    table.on("tableBuilt", () => {
      // A grid has groups of rows; the place that scrolls is the group.
      place.removeAttribute("aria-owns");
      place.querySelector(".tabulator-tableholder").setAttribute("role", "rowgroup");
      place.querySelector(".tabulator-table").setAttribute("role", "presentation");
      for (const column of table.getColumns()) {
        const heading = column.getElement();
        heading.tabIndex = 0;
        heading.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          heading.querySelector(".tabulator-col-content").click();
        });
      }
    });
    if (place.dataset.choose !== undefined) {
      table.on("rowClick", (_, row) => {
        document.dispatchEvent(new CustomEvent("choose", { detail: row.getData()[`c${place.dataset.choose}`] }));
      });
    }
    const say = (n) => { count.textContent = n === rows.length ? `${n}` : `${n} of ${rows.length}`; };
    say(rows.length);
    words.addEventListener("input", () => {
      const wanted = words.value.toLowerCase();
      table.setFilter((row) => Object.values(row).some((value) => shown(value).toLowerCase().includes(wanted)));
    });
    table.on("dataFiltered", (_, found) => say(found.length));
    printed(place, table, used.map((i) => columns[i]), used.map((i) => `c${i}`));
  }
})();
