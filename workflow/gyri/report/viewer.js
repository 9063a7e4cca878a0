"use strict";
// Stepping through volumes. Without this script (or without DecompressionStream) the page says so and shows its still pictures.
(() => {
  const PLANES = [["sagittal", 0, 1, 2, "P", "A"], ["coronal", 1, 0, 2, "L", "R"], ["axial", 2, 0, 1, "L", "R"]];
  const COLOURS = { truth: "#56b4e9", prediction: "#ffa53d" };
  const LONGEST = 480; // px of the longest edge of a canvas
  const bytes = async (text) => {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const numbers = (text) => text.split(" ").map(Number);
  const unpack = async (element) => {
    const data = element.dataset;
    const found = { size: numbers(data.size), spacing: numbers(data.spacing), middle: numbers(data.middle), oriented: data.oriented, layers: {} };
    found.image = await bytes(data.image);
    for (let at = 1; at < found.image.length; at++) found.image[at] += found.image[at - 1]; // modulo 256
    for (const name of ["truth", "prediction"]) if (data[name]) found.layers[name] = await bytes(data[name]);
    return found;
  };

  for (const viewer of document.querySelectorAll("[data-viewer]")) {
    if (!window.DecompressionStream) continue;
    viewer.hidden = false;
    viewer.parentElement.querySelector("[data-without]").hidden = true;
    const elements = [...viewer.querySelectorAll(".volume")];
    const loaded = new Map();
    const choice = viewer.querySelector("[data-case]");
    const at = [0, 0, 0];
    let volume = null;

    const views = PLANES.map(([name, axis, across, up, before, after]) => {
      const box = document.createElement("div");
      box.className = "plane";
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      const label = document.createElement("label");
      const range = document.createElement("input");
      range.type = "range";
      range.min = 0;
      const said = document.createElement("span");
      label.append(`${name} `, range, said);
      box.append(canvas, label);
      viewer.querySelector(".planes").append(box);
      range.addEventListener("input", () => { at[axis] = Number(range.value); draw(); });
      const point = (event) => {
        if (event.type === "pointermove" && !event.buttons) return;
        const frame = canvas.getBoundingClientRect();
        const part = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value * size)));
        at[across] = part((event.clientX - frame.left) / frame.width, volume.size[across]);
        at[up] = part(1 - (event.clientY - frame.top) / frame.height, volume.size[up]);
        draw();
      };
      canvas.addEventListener("pointerdown", point);
      canvas.addEventListener("pointermove", point);
      return { name, axis, across, up, before, after, box, canvas, range, said };
    });

    const cut = (view, values) => { // one slice, rows from top to bottom
      const { size } = volume, width = size[view.across], height = size[view.up];
      const steps = [1, size[0], size[0] * size[1]];
      const slice = new Uint8Array(width * height);
      for (let row = 0; row < height; row++)
        for (let column = 0; column < width; column++)
          slice[row * width + column] = values[at[view.axis] * steps[view.axis] + column * steps[view.across] + (height - 1 - row) * steps[view.up]];
      return { slice, width, height };
    };
    const layer = (pen, view, name, off) => {
      const { slice, width, height } = cut(view, volume.layers[name]);
      const across = pen.canvas.width / width, up = pen.canvas.height / height;
      const filled = viewer.querySelector("[data-style]").value === "filled";
      const label = (column, row) => {
        const value = column < 0 || row < 0 || column >= width || row >= height ? 0 : slice[row * width + column];
        return off.has(value) ? 0 : value;
      };
      pen.globalAlpha = viewer.querySelector("[data-opacity]").value / 100 * (filled ? 0.6 : 1);
      pen.strokeStyle = pen.fillStyle = COLOURS[name];
      pen.lineWidth = 2.5;
      pen.setLineDash(name === "prediction" ? [5, 4] : []);
      pen.beginPath();
      for (let row = 0; row <= height; row++)
        for (let column = 0; column <= width; column++) {
          const here = label(column, row), x = column * across, y = row * up;
          if (filled) { if (here) pen.rect(x, y, across, up); continue; }
          if (here !== label(column - 1, row)) { pen.moveTo(x, y); pen.lineTo(x, y + up); }
          if (here !== label(column, row - 1)) { pen.moveTo(x, y); pen.lineTo(x + across, y); }
        }
      if (filled) pen.fill(); else pen.stroke();
      pen.globalAlpha = 1;
      pen.setLineDash([]);
    };
    const letters = (pen, view) => {
      if (!volume.oriented) return;
      pen.font = "bold 20px sans-serif";
      pen.fillStyle = "#fff";
      pen.strokeStyle = "#000";
      pen.lineWidth = 4;
      for (const [text, x] of [[view.before, 6], [view.after, pen.canvas.width - 22]]) {
        pen.strokeText(text, x, pen.canvas.height / 2);
        pen.fillText(text, x, pen.canvas.height / 2);
      }
    };
    const plane = (view, off) => {
      const { canvas } = view, pen = canvas.getContext("2d");
      const { slice, width, height } = cut(view, volume.image);
      const small = new OffscreenCanvas(width, height), picture = new ImageData(width, height);
      slice.forEach((grey, index) => picture.data.set([grey, grey, grey, 255], index * 4));
      small.getContext("2d").putImageData(picture, 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small, 0, 0, canvas.width, canvas.height);
      for (const name of Object.keys(volume.layers)) if (viewer.querySelector(`[data-layer="${name}"]`).checked) layer(pen, view, name, off);
      pen.fillStyle = "rgba(255, 255, 255, .3)"; // where the other planes cut
      pen.fillRect((at[view.across] + 0.5) / width * canvas.width, 0, 1, canvas.height);
      pen.fillRect(0, (1 - (at[view.up] + 0.5) / height) * canvas.height, canvas.width, 1);
      letters(pen, view);
      const words = `slice ${at[view.axis] + 1} of ${volume.size[view.axis]}`;
      view.range.value = at[view.axis];
      view.range.setAttribute("aria-valuetext", words);
      view.said.textContent = ` ${at[view.axis] + 1}/${volume.size[view.axis]}`;
      canvas.setAttribute("aria-label", `${view.name} ${words}, ${choice.value}`);
    };
    const draw = () => {
      const off = new Set([...viewer.querySelectorAll("[data-structures] input:not(:checked)")].map((box) => Number(box.value)));
      for (const view of views) if (!view.box.hidden) plane(view, off);
    };
    const show = async () => {
      const element = elements[choice.selectedIndex];
      if (!loaded.has(element)) loaded.set(element, unpack(element));
      volume = await loaded.get(element);
      at.splice(0, 3, ...volume.middle);
      const edges = volume.size.map((size, axis) => size * volume.spacing[axis]);
      for (const view of views) {
        view.box.hidden = Math.min(...volume.size) === 1 && volume.size[view.axis] > 1; // a plane has one view
        view.canvas.width = Math.max(1, Math.round(edges[view.across] / Math.max(...edges) * LONGEST));
        view.canvas.height = Math.max(1, Math.round(edges[view.up] / Math.max(...edges) * LONGEST));
        view.box.style.flexGrow = edges[view.across];
        view.range.max = volume.size[view.axis] - 1;
      }
      draw();
      viewer.dataset.ready = "yes";
    };
    viewer.addEventListener("change", (event) => { if (volume && event.target !== choice) draw(); });
    viewer.querySelector("[data-opacity]")?.addEventListener("input", draw);
    choice.addEventListener("change", show);
    // volumes are unpacked when they come near the window, so that the page opens fast
    new IntersectionObserver((entries, watch) => {
      if (entries.some((entry) => entry.isIntersecting)) { watch.disconnect(); show(); }
    }, { rootMargin: "400px" }).observe(viewer);
  }
})();
