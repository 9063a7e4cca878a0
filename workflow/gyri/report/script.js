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
        table.dispatchEvent(new Event("sorted"));
      });
    });
  }

  // models that the reader does not want to see: marks, panels and rows say which ones they are about
  for (const menu of document.querySelectorAll("[data-models]")) {
    const about = [...document.querySelectorAll("main [data-model]")];
    if (!about.length) continue;
    menu.hidden = false;
    const boxes = [...menu.querySelectorAll("input")];
    const said = menu.querySelector("[data-shown]");
    menu.addEventListener("change", () => {
      const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
      for (const part of about) {
        const gone = part.dataset.model.split(" ").some((name) => hidden.has(name));
        (part.tagName === "svg" ? part.closest(".panel") ?? part : part).classList.toggle("off", gone);
      }
      said.textContent = hidden.size ? `${boxes.length - hidden.size} of ${boxes.length}` : `all ${boxes.length}`;
    });
    menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); } });
    document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  }

  // long tables: a page of rows at first; whatever a filter finds is shown
  const PAGE = 50;
  for (const table of document.querySelectorAll("main table")) {
    const body = table.tBodies[0], rows = [...body.rows], scroll = table.closest(".scroll");
    const filter = scroll?.previousElementSibling?.matches(".filter") ? scroll.previousElementSibling : null;
    const said = filter?.querySelector("span");
    const input = filter?.querySelector("input");
    if (filter) filter.hidden = false;
    let most = rows.length > PAGE + 10 ? PAGE : Infinity;
    const more = document.createElement("button");
    const show = () => {
      const words = (input?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of body.rows) {
        const found = words.every((word) => row.textContent.toLowerCase().includes(word));
        count += found;
        row.hidden = !found || count > most;
      }
      if (words.length) said.textContent = `${count} of ${rows.length} rows`; else if (said) said.textContent = "";
      more.hidden = count <= most;
      more.textContent = `Show all ${count} rows`;
    };
    input?.addEventListener("input", show);
    table.addEventListener("sorted", show);
    if (most === Infinity) continue;
    more.type = "button";
    more.className = "more-rows";
    more.addEventListener("click", () => { most = Infinity; show(); scroll.focus(); });
    scroll.after(more);
    show();
    addEventListener("beforeprint", () => { more.click(); });
  }

  // on paper nothing is folded
  const folded = [];
  addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("main details:not([open])")) { folded.push(part); part.open = true; } });
  addEventListener("afterprint", () => { for (const part of folded.splice(0)) part.open = false; });

  // values under the pointer at once, and with the arrow keys where a figure has the focus
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const valueOf = (mark) => {
    const title = mark?.querySelector(":scope > title");
    if (title) { mark.dataset.tip = title.textContent; title.remove(); }
    return mark?.dataset.tip;
  };
  const showTip = (mark, x, y) => {
    tip.hidden = !valueOf(mark);
    if (tip.hidden) return;
    tip.textContent = valueOf(mark);
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + 18}px`;
  };
  document.addEventListener("pointermove", (event) => showTip(event.target.closest?.("svg *"), event.clientX, event.clientY));
  for (const panels of document.querySelectorAll(".panels")) {
    if (!panels.querySelector("title")) continue;
    let place = -1, mark = null;
    panels.tabIndex = 0;
    panels.setAttribute("aria-description", "Arrow keys read the values of the marks");
    panels.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") tip.hidden = true;
      if (!step) return;
      event.preventDefault();
      const marks = [...panels.querySelectorAll("svg *")].filter((part) => valueOf(part) && part.getClientRects().length);
      if (!marks.length) return;
      place = (place + step + marks.length) % marks.length;
      mark?.classList.remove("read");
      mark = marks[place];
      mark.classList.add("read");
      mark.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
      const box = mark.getBoundingClientRect();
      showTip(mark, box.right, Math.min(box.bottom, innerHeight - 60));
    });
    panels.addEventListener("blur", () => { mark?.classList.remove("read"); tip.hidden = true; });
  }

  // saving a figure: its drawings below each other, with the colours they have now
  const names = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "font", "text-anchor", "paint-order", "display"];
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
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
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
