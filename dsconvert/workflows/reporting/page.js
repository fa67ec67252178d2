"use strict";
(() => {
  const root = document.documentElement;
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const views = new Map();

  const dark = () => {
    const chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };

  const config = () => {
    const ink = dark() ? "#e8ecee" : "#1c2126";
    const soft = dark() ? "#a3aeb6" : "#56606a";
    const grid = dark() ? "#2b3338" : "#eceff1";
    const colours = dark()
      ? ["#8fa3b0", "#5cc8c0", "#f0a35e", "#b8a1f0", "#e8d06a", "#e58c9c"]
      : ["#71828f", "#0b7d7a", "#c8641b", "#6c55b8", "#a08a10", "#b6445a"];
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      view: { stroke: null },
      axis: {
        labelColor: soft, titleColor: soft, gridColor: grid, domainColor: grid, tickColor: grid,
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelLimit: 170,
      },
      legend: { labelColor: ink, labelFontSize: 12, orient: "top", columns: innerWidth < 640 ? 2 : 5, labelLimit: 260 },
      text: { color: ink, fontSize: 12 },
      line: { color: colours[1] },
      point: { color: colours[1] },
      range: { category: colours },
    };
  };

  const themed = (spec) =>
    JSON.parse(JSON.stringify(spec), (_, value) =>
      value === "ring" ? (dark() ? "#f0a35e" : "#c8641b") : value);

  const draw = async () => {
    for (const figure of document.querySelectorAll("[data-chart]")) {
      const spec = specs[figure.dataset.chart];
      if (!spec) continue;
      views.get(figure)?.finalize();
      const found = await vegaEmbed(figure, themed(spec), {
        actions: false, renderer: "svg", config: config(), tooltip: { theme: "custom" },
      });
      views.set(figure, found);
      const svg = figure.querySelector("svg");
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", spec.description);
      for (const inner of svg.querySelectorAll("[role]")) {
        inner.removeAttribute("role");  // one image to a screen reader: the tables hold the figures
        inner.removeAttribute("aria-label");
        inner.removeAttribute("aria-roledescription");
      }
    }
    root.dataset.drawn = "yes";
  };

  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy).textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }
  const opened = new Set();
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) { opened.add(one); one.open = true; }
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; opened.clear(); });
  draw();
})();
