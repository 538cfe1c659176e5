"use strict";
(() => {
  const WIDE = 700; // pixels; below it a legend beside a plot leaves no room for the plot
  const COLOURS = new Set(["color", "bgcolor", "paper_bgcolor", "bordercolor", "gridcolor", "linecolor", "activecolor"]);
  // The buttons are listed because Plotly's own set has one that uploads the chart to its maker's server.
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  const figures = JSON.parse(document.getElementById("plots").textContent);

  // Figures name their colours by role, "--accent"; put in what the style sheet says for the theme of the moment.
  function painted(value, style, key) {
    if (Array.isArray(value)) return value.map((item) => painted(item, style, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, painted(item, style, name)]));
    }
    const isRole = COLOURS.has(key) && typeof value === "string" && value.startsWith("--");
    return isRole ? style.getPropertyValue(value).trim() : value;
  }

  function layoutFor(element, layout) {
    const touch = matchMedia("(pointer: coarse)").matches; // there a drag must scroll the page
    const fitted = { ...layout, width: element.clientWidth, dragmode: touch ? false : "zoom" };
    if (element.id !== "plot-curves") return fitted;
    const beside = { orientation: "v", x: 1.02, xanchor: "left", y: 1, yanchor: "top" };
    const below = { yref: "container", orientation: "h", x: 0, y: 0, yanchor: "bottom", maxheight: 0.3 };
    return { ...fitted, legend: { ...layout.legend, ...(fitted.width < WIDE ? below : beside) } };
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const [id, figure] of Object.entries(figures)) {
      const element = document.getElementById(id);
      if (!element) continue; // nothing to plot: the page says so in its place
      const layout = layoutFor(element, painted(figure.layout, style));
      Plotly.react(element, painted(figure.data, style), layout, CONFIG);
    }
  }

  draw();
  for (const query of ["(prefers-color-scheme: dark)", "print", `(max-width: ${WIDE}px)`]) {
    matchMedia(query).addEventListener("change", draw);
  }

  // Sorting: by data-sort, numerically in columns of numbers; what is missing stays last in both directions.
  function sortBy(header) {
    const table = header.closest("table");
    const body = table.tBodies[0];
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    const numeric = header.classList.contains("number");
    const sortKey = (row) => {
      const text = row.cells[header.cellIndex].dataset.sort;
      return text === undefined ? undefined : numeric ? Number(text) : text;
    };
    const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, "en"));
    const keyed = [...body.rows].map((row) => [sortKey(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return ascending ? compare(a, b) : compare(b, a);
    });
    body.append(...keyed.map(([, row]) => row));
    for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  }

  for (const button of document.querySelectorAll("table.sortable thead button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }

  document.getElementById("copy").addEventListener("click", async () => {
    const command = document.getElementById("command");
    const status = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(command.textContent);
      status.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(command); // no access to the clipboard: one keystroke is left to do
      status.textContent = "Selected: press Ctrl+C";
    }
  });
})();
