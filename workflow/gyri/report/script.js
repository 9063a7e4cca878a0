"use strict";
// Comfort only: without this script the page shows the same content.
(() => {
  const root = document.documentElement;
  const store = { get: () => { try { return localStorage.getItem("gyri-theme"); } catch { return null; } }, set: (value) => { try { localStorage.setItem("gyri-theme", value); } catch { /* private window */ } } };
  const wanted = new URLSearchParams(location.search).get("theme") || store.get();
  if (wanted === "dark" || wanted === "light") root.dataset.theme = wanted;
  for (const button of document.querySelectorAll("[data-theme-button]")) {
    button.addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      store.set(root.dataset.theme);
    });
  }

  // sorting: a button in every heading
  const value = (cell) => {
    const data = cell.querySelector("data");
    const text = data ? data.value : cell.textContent.trim();
    const number = parseFloat(text.replace("\u2212", "-"));
    return Number.isNaN(number) ? text : number;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [value(row.cells[column]), row]);
        rows.sort(([a], [b]) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1) * (up ? 1 : -1));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // filtering
  for (const filter of document.querySelectorAll(".filter")) {
    filter.hidden = false;
    const rows = [...filter.nextElementSibling.querySelectorAll("tbody tr")];
    const said = filter.querySelector("span");
    filter.querySelector("input").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/);
      let count = 0;
      for (const row of rows) {
        row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
        count += row.hidden ? 0 : 1;
      }
      said.textContent = `${count} of ${rows.length} rows`;
    });
  }

  // values under the pointer, at once
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("svg *");
    const title = mark?.querySelector(":scope > title");
    if (title) { mark.dataset.tip = title.textContent; title.remove(); }
    tip.hidden = !mark?.dataset.tip;
    if (tip.hidden) return;
    tip.textContent = mark.dataset.tip;
    const width = tip.offsetWidth;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + 18}px`;
  });

  // saving a figure: its drawings below each other, with the colours they have now
  const names = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "font", "text-anchor", "paint-order"];
  const frozen = (drawing) => {
    const copy = drawing.cloneNode(true);
    const from = drawing.querySelectorAll("*");
    copy.querySelectorAll("*").forEach((node, index) => {
      const style = getComputedStyle(from[index]);
      node.setAttribute("style", names.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
    });
    return copy;
  };
  for (const button of document.querySelectorAll("[data-save]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const figure = button.closest("figure");
      const drawings = [...figure.querySelectorAll(".panels svg")].filter((drawing) => drawing.getClientRects().length);
      const space = "http://www.w3.org/2000/svg";
      const sheet = document.createElementNS(space, "svg");
      let y = 0, width = 0;
      for (const drawing of drawings) {
        const box = drawing.viewBox.baseVal;
        const copy = frozen(drawing);
        copy.setAttribute("y", y);
        copy.setAttribute("width", box.width);
        copy.setAttribute("height", box.height);
        copy.removeAttribute("style");
        sheet.append(copy);
        y += box.height + 16;
        width = Math.max(width, box.width);
      }
      sheet.setAttribute("viewBox", `0 0 ${width} ${y}`);
      sheet.setAttribute("width", width);
      sheet.setAttribute("height", y);
      sheet.style.background = getComputedStyle(document.body).backgroundColor;
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(sheet)], { type: "image/svg+xml" }));
      link.download = `${figure.dataset.name}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // where one is
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -75% 0px" });
  for (const id of links.keys()) { const part = document.getElementById(id); if (part) watch.observe(part); }
})();
