"use strict";
// A map of places that look alike. Everything is in this file: facts as JSON (#head), numbers as one block (#numbers).
(() => {
  const $ = (id) => document.getElementById(id);
  const head = JSON.parse($("head").textContent);
  const { count, dims, width_px: width, height_px: height } = head;

  // ---- What the page holds -------------------------------------------------------------------------------------------

  const bytesOf = (base64) => {
    const text = atob(base64.trim());
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  };
  const block = bytesOf($("numbers").textContent).buffer;
  let offset = 0;
  const take = (Kind, length) => {
    const array = new Kind(block, offset, length);
    offset += array.byteLength;
    return array;
  };
  const corners = take(Float64Array, 8 * count); // lon, lat: upper left, lower left, lower right, upper right
  const scales = take(Float32Array, count);
  const windows = take(Int32Array, 4 * count); // x, y, width, height in pixels of the scene
  const shown = take(Int32Array, 4 * count); // the part that is painted
  const colours = take(Uint8Array, 3 * count);
  const levels = take(Int8Array, dims * count);
  const heat = bytesOf(head.heat);
  $("numbers").remove();

  const windowOf = (cell) => windows.subarray(4 * cell, 4 * cell + 4);
  const idOf = (cell) => head.id_prefix + head.ids[cell];
  const centreOf = (cell) => {
    const [x, y, w, h] = windowOf(cell);
    return [x + w / 2, y + h / 2];
  };

  // ---- Which places are alike ----------------------------------------------------------------------------------------

  const similarities = new Float64Array(count);

  // Cosines: whole numbers first, then the scales, so that nothing depends on the order of sums.
  const compare = (query) => {
    const own = levels.slice(query * dims, (query + 1) * dims);
    const ownScale = scales[query];
    for (let cell = 0, at = 0; cell < count; cell++) {
      let sum = 0;
      for (let d = 0; d < dims; d++, at++) sum += own[d] * levels[at];
      similarities[cell] = sum * scales[cell] * ownScale;
    }
  };

  // Whether two places share a border, a corner or more.
  const touches = (a, b) => {
    const [ax, ay, aw, ah] = windowOf(a);
    const [bx, by, bw, bh] = windowOf(b);
    return ax <= bx + bw && bx <= ax + aw && ay <= by + bh && by <= ay + ah;
  };

  // The best `wanted`, best first; the first of equals.
  const best = (query, wanted, apart) => {
    const found = [];
    for (let cell = 0; cell < count; cell++) {
      const score = similarities[cell];
      if (cell === query || (found.length === wanted && score <= similarities[found[wanted - 1]])) continue;
      if (apart && touches(query, cell)) continue;
      let place = found.length;
      while (place > 0 && similarities[found[place - 1]] < score) place--;
      found.splice(place, 0, cell);
      if (found.length > wanted) found.pop();
    }
    return found;
  };

  // ---- Words ---------------------------------------------------------------------------------------------------------

  const lonLatOf = (cell) => {
    const c = corners.subarray(8 * cell, 8 * cell + 8);
    let lon = 0, lat = 0;
    for (let i = 0; i < 4; i++) {
      // On one side of the antimeridian.
      lon += c[0] + ((c[2 * i] - c[0] + 540) % 360) - 180;
      lat += c[2 * i + 1];
    }
    lon = ((lon / 4 + 540) % 360) - 180;
    return [lon, lat / 4];
  };
  // Enough digits for half a pixel.
  const degreeDigits = head.gsd_metres ? Math.min(7, Math.max(3, Math.ceil(-Math.log10(head.gsd_metres / 2.2e5)))) : 5;
  const placeText = (cell, between) => {
    const [lon, lat] = lonLatOf(cell);
    if (!Number.isFinite(lon)) return "outside the projection";
    const degrees = (value, plus, minus) => `${Math.abs(value).toFixed(degreeDigits)}° ${value < 0 ? minus : plus}`;
    return degrees(lat, "N", "S") + between + degrees(lon, "E", "W");
  };
  const number = (value) => value.toLocaleString("en-US").replaceAll(",", "\u202f");
  const metres = (value) => (value >= 1000 ? `${+(value / 1000).toPrecision(3)} km` : `${+value.toPrecision(3)} m`);
  const plural = { chip: "chips", patch: "patches" }[head.place] || "places";
  const one = head.place || "place";

  $("scene").textContent = head.scene.split(/[\\/]/).pop() || head.scene;
  $("scene").title = head.scene;
  const gsd = head.gsd_metres ? `${+head.gsd_metres.toPrecision(3)} m` : "";
  $("summary").textContent = [
    `${number(width)} × ${number(height)} px` + (gsd && ` of ${gsd}`), `${number(count)} ${plural}`, head.model, head.datetime,
  ].filter(Boolean).join(" · ");
  const recall = head.recall;
  const facts = [
    ["Scene", head.scene], ["Acquired", head.datetime], ["Size", `${number(width)} × ${number(height)} px`],
    ["Pixel on the ground", gsd], ["Reference system", head.crs], ["Bands", head.bands], ["Scale", head.scale],
    ["Model", head.model], ["Weights", head.weights], ["Precision", head.precision], [head.place === "patch" ? "Vectors" : "Pooling", head.pooling],
    ["Places", `${number(count)} ${plural}, ${head.full_dims} dimensions` +
      (dims < head.full_dims ? `, here ${dims}` : "") + ", 8 bits"],
    // One place is like no other.
    [`Recall@${recall.at}`, recall.at > 0 && `${recall.mean.toFixed(3)} against float32, over ${recall.places} ${plural}`],
    ["Vectors by", head.made_by], ["Page by", `dinov3 ${head.version}`],
  ];
  for (const [name, value] of facts) {
    if (!value) continue;
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    $("facts").append(dt, dd);
  }

  // ---- Layers --------------------------------------------------------------------------------------------------------

  const world = $("world"), stage = $("stage"), page = document.querySelector(".page"), overview = $("overview");
  // Painted at the size of the smallest part, within reason.
  const paintScale = (() => {
    let smallest = Math.min(width, height);
    for (let cell = 0; cell < count; cell++) smallest = Math.min(smallest, Math.max(shown[4 * cell + 2], shown[4 * cell + 3]));
    return Math.min(1, 1024 / Math.max(width, height), 4 / Math.max(1, smallest)) || 1;
  })();
  const paintWidth = Math.max(1, Math.round(width * paintScale)), paintHeight = Math.max(1, Math.round(height * paintScale));
  const spans = new Int32Array(4 * count); // painted part: left, top, right, bottom
  for (let cell = 0; cell < count; cell++) {
    const [x, y, w, h] = shown.subarray(4 * cell, 4 * cell + 4);
    const edge = (value, size, most) => Math.min(most, Math.max(0, Math.round((value / size) * most)));
    const left = edge(x, width, paintWidth), top = edge(y, height, paintHeight);
    spans[4 * cell] = left;
    spans[4 * cell + 1] = top;
    spans[4 * cell + 2] = Math.max(left + 1, edge(x + w, width, paintWidth));
    spans[4 * cell + 3] = Math.max(top + 1, edge(y + h, height, paintHeight));
  }
  const layer = (id) => {
    const canvas = $(id);
    canvas.width = paintWidth;
    canvas.height = paintHeight;
    const context = canvas.getContext("2d");
    const image = context.createImageData(paintWidth, paintHeight);
    return { canvas, context, image, pixels: new Uint32Array(image.data.buffer) };
  };
  const rgba = (r, g, b, a) => (a << 24) | (b << 16) | (g << 8) | r;
  const paint = ({ context, image, pixels }, colourOf) => {
    for (let cell = 0; cell < count; cell++) {
      const colour = colourOf(cell);
      const left = spans[4 * cell], right = spans[4 * cell + 2], bottom = spans[4 * cell + 3];
      for (let y = spans[4 * cell + 1]; y < bottom; y++) pixels.fill(colour, y * paintWidth + left, y * paintWidth + right);
    }
    context.putImageData(image, 0, 0);
  };
  const features = layer("features"), heatLayer = layer("heat"), veil = layer("veil");
  paint(features, (cell) => rgba(colours[3 * cell], colours[3 * cell + 1], colours[3 * cell + 2], 255));

  $("ramp").style.background = "linear-gradient(90deg," +
    Array.from({ length: 17 }, (_, i) => `rgb(${heat.subarray(3 * Math.round(i * 255 / 16)).slice(0, 3).join()})`).join() + ")";

  // ---- What is shown -------------------------------------------------------------------------------------------------

  let chosen = -1, cursor = -1, near = -1, similar = [], range = [0, 1];
  let divider = 0.5; // of the stage's width
  let scale = 1, panX = 0, panY = 0, fitted = true; // scene pixels to the stage's
  const size = () => [stage.clientWidth, stage.clientHeight];
  const fitScale = () => Math.min(...[[width, 0], [height, 1]].map(([side, axis]) => size()[axis] / side));
  const toScene = (x, y) => [(x - panX) / scale, (y - panY) / scale];

  const fit = () => {
    const [w, h] = size();
    scale = fitScale();
    panX = (w - width * scale) / 2;
    panY = (h - height * scale) / 2;
    fitted = true;
    arrange();
  };
  const zoomBy = (factor, x = size()[0] / 2, y = size()[1] / 2) => {
    const [sceneX, sceneY] = toScene(x, y);
    const least = fitScale();
    scale = Math.min(Math.max(scale * factor, least), Math.max(least * 4, 24));
    if (scale === least) return fit();
    panX = x - sceneX * scale;
    panY = y - sceneY * scale;
    fitted = false;
    clampPan();
    arrange();
  };
  const clampPan = () => {
    const [w, h] = size();
    const clamp = (pan, side, whole) => (whole <= side ? (side - whole) / 2 : Math.min(0, Math.max(side - whole, pan)));
    panX = clamp(panX, w, width * scale);
    panY = clamp(panY, h, height * scale);
  };
  const bringIntoView = (cell) => {
    const [x, y] = centreOf(cell), [w, h] = size();
    const atX = x * scale + panX, atY = y * scale + panY;
    if (atX < 30 || atX > w - 30) panX = w / 2 - x * scale;
    if (atY < 30 || atY > h - 30) panY = h / 2 - y * scale;
    clampPan();
    arrange();
  };

  // Transform, divider and clips; then the marks, which are drawn in the stage's own pixels.
  const arrange = () => {
    const [w] = size();
    world.style.width = `${width}px`;
    world.style.height = `${height}px`;
    world.style.transform = `translate(${panX}px,${panY}px) scale(${scale})`;
    world.classList.toggle("near", scale * width / (overview.naturalWidth || width) > 3);
    const at = Math.min(width, Math.max(0, (divider * w - panX) / scale));
    const right = `inset(0 0 0 ${at}px)`, isHeat = shownLayer() === "heat";
    features.canvas.style.clipPath = heatLayer.canvas.style.clipPath = right;
    features.canvas.style.visibility = isHeat ? "hidden" : "visible";
    heatLayer.canvas.style.visibility = isHeat ? "visible" : "hidden";
    const handle = $("divider");
    handle.style.left = `${divider * w}px`;
    handle.setAttribute("aria-valuenow", Math.round(100 * divider));
    handle.setAttribute("aria-valuetext", `${Math.round(100 * divider)} % picture`);
    $("tag-left").classList.toggle("gone", divider * w < 100);
    $("tag-right").classList.toggle("gone", divider * w > w - 110);
    $("tag-right").textContent = isHeat ? "Similarity" : "Features";
    drawMarks();
    drawScalebar();
  };
  const shownLayer = () => document.querySelector("input[name=layer]:checked").value;

  const drawMarks = () => {
    const canvas = $("marks"), [w, h] = size(), ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(w * ratio)) canvas.width = Math.round(w * ratio);
    if (canvas.height !== Math.round(h * ratio)) canvas.height = Math.round(h * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    const box = (cell) => {
      const [x, y, cellWidth, cellHeight] = windowOf(cell);
      return [x * scale + panX, y * scale + panY, cellWidth * scale, cellHeight * scale];
    };
    const frame = (cell, colour, line) => {
      const [x, y, boxWidth, boxHeight] = box(cell), out = line / 2;
      const radius = Math.min(5, boxWidth / 4);
      for (const [style, thickness] of [["rgb(0 0 0 / 55%)", line + 2.5], [colour, line]]) {
        context.strokeStyle = style;
        context.lineWidth = thickness;
        context.beginPath();
        context.roundRect(x - out, y - out, boxWidth + line, boxHeight + line, radius);
        context.stroke();
      }
    };
    const badge = (cell, text) => {
      const [x, y, boxWidth] = box(cell);
      // Inside where there is room, else above.
      const radius = 9, inside = boxWidth > 44;
      const atX = inside ? x + radius + 4 : x + boxWidth / 2, atY = inside ? y + radius + 4 : y - radius - 4;
      context.beginPath();
      context.arc(atX, atY, radius, 0, 7);
      context.fillStyle = "#fff";
      context.shadowColor = "rgb(0 0 0 / 50%)";
      context.shadowBlur = 5;
      context.fill();
      context.shadowBlur = 0;
      context.fillStyle = "#1c1f24";
      context.font = "700 11px system-ui, 'DejaVu Sans', sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(text, atX, atY + 0.5);
    };
    for (let rank = similar.length - 1; rank >= 0; rank--) frame(similar[rank], "#fff", rank < 10 ? 2 : 1.25);
    for (let rank = Math.min(10, similar.length) - 1; rank >= 0; rank--) badge(similar[rank], String(rank + 1));
    if (near >= 0) frame(near, "#ffd84d", 3);
    if (cursor >= 0 && cursor !== chosen && document.activeElement === stage) {
      const [x, y, boxWidth, boxHeight] = box(cursor);
      context.setLineDash([5, 4]);
      context.strokeStyle = "#000";
      context.lineWidth = 3;
      context.strokeRect(x, y, boxWidth, boxHeight);
      context.strokeStyle = "#fff";
      context.lineWidth = 1.75;
      context.strokeRect(x, y, boxWidth, boxHeight);
      context.setLineDash([]);
    }
    if (chosen >= 0) frame(chosen, "#ff5470", 3);
  };

  const drawScalebar = () => {
    const bar = $("scalebar");
    bar.hidden = !head.gsd_metres;
    if (!head.gsd_metres) return;
    const perPixel = head.gsd_metres / scale, most = Math.min(130, size()[0] / 4) * perPixel;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = power * [5, 2, 1].find((step) => step * power <= most);
    bar.style.width = `${length / perPixel}px`;
    $("scalebar-text").textContent = metres(length);
  };

  // ---- Small pictures ------------------------------------------------------------------------------------------------

  // The picture, decoded once and for all.
  const decoded = document.createElement("canvas");
  const decode = () => {
    decoded.width = overview.naturalWidth;
    decoded.height = overview.naturalHeight;
    decoded.getContext("2d").drawImage(overview, 0, 0);
  };

  // A place and what is around it, from the picture of the scene.
  const portrait = (canvas, cell) => {
    const [x, y, w, h] = windowOf(cell), [centreX, centreY] = centreOf(cell);
    const side = Math.min(Math.max(w, h) * (Math.max(w, h) < 64 ? 7 : 1), Math.max(width, height));
    const context = canvas.getContext("2d"), ratio = decoded.width / width;
    const left = centreX - side / 2, top = centreY - side / 2, zoom = canvas.width / side;
    context.fillStyle = "#23262b";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    const from = [Math.max(0, left), Math.max(0, top), Math.min(width, left + side), Math.min(height, top + side)];
    context.drawImage(decoded, from[0] * ratio, from[1] * ratio, (from[2] - from[0]) * ratio, (from[3] - from[1]) * ratio,
      (from[0] - left) * zoom, (from[1] - top) * zoom, (from[2] - from[0]) * zoom, (from[3] - from[1]) * zoom);
    if (side > Math.max(w, h)) {
      context.strokeStyle = "rgb(0 0 0 / 60%)";
      context.lineWidth = canvas.width / 28;
      context.strokeRect((x - left) * zoom, (y - top) * zoom, w * zoom, h * zoom);
      context.strokeStyle = "#fff";
      context.lineWidth = canvas.width / 64;
      context.strokeRect((x - left) * zoom, (y - top) * zoom, w * zoom, h * zoom);
    }
  };

  // ---- Choosing ------------------------------------------------------------------------------------------------------

  const percentile = (sorted, part) => sorted[Math.round(part * (sorted.length - 1))];
  const heatColour = (t, alpha) => {
    const at = 3 * Math.round(255 * t);
    return rgba(heat[at], heat[at + 1], heat[at + 2], alpha);
  };

  const choose = (cell, { isQuiet = false } = {}) => {
    const start = performance.now();
    const isFirst = chosen < 0;
    chosen = cursor = cell;
    near = -1;
    compare(cell);
    similar = best(cell, Number($("count").value), $("apart").checked);
    const sorted = similarities.slice().sort();
    // Half of the places are the darkest: what is asked for are the others. The chosen place would leave no contrast.
    range = [percentile(sorted, 0.5), similar.length ? Math.min(percentile(sorted, 0.998), similarities[similar[0]]) : 1];
    if (!(range[1] > range[0])) range[0] = range[1] - 1e-6;
    const place = (score) => Math.min(1, Math.max(0, (score - range[0]) / (range[1] - range[0])));
    paint(heatLayer, (other) => heatColour(place(similarities[other]), 190));
    // Left of the divider, what is unlike steps back; what is listed stays bright.
    const dark = new Uint8Array(count);
    for (let other = 0; other < count; other++) dark[other] = Math.round(172 * (1 - place(similarities[other]) ** 1.5));
    for (const other of similar) dark[other] = 0;
    dark[cell] = 0;
    paint(veil, (other) => rgba(8, 10, 14, dark[other]));
    page.classList.add("lit");
    const radios = document.querySelectorAll("input[name=layer]");
    radios[1].disabled = false;
    if (isFirst) radios[1].checked = true;
    fillPanel();
    drawLegend(sorted);
    arrange();
    const took = performance.now() - start;
    document.documentElement.dataset.clickMs = took.toFixed(2);
    $("time").textContent = `${number(count)} compared in ${took < 10 ? took.toFixed(1) : Math.round(took)} ms`;
    if (!isQuiet) {
      say(`${placeText(cell, ", ")}. Most alike: ${similar.length ? placeText(similar[0], ", ") : "none"}`);
      try { history.replaceState(null, "", `#${encodeURIComponent(head.ids[cell])}`); } catch { /* not everywhere allowed */ }
    }
  };

  const clear = () => {
    chosen = near = -1;
    similar = [];
    page.classList.remove("lit");
    const radios = document.querySelectorAll("input[name=layer]");
    radios[0].checked = true;
    radios[1].disabled = true;
    $("chosen").hidden = $("found").hidden = true;
    $("start").hidden = false;
    $("list").replaceChildren();
    try { history.replaceState(null, "", location.pathname); } catch { /* not everywhere allowed */ }
    arrange();
  };

  const fillPanel = () => {
    $("start").hidden = true;
    $("chosen").hidden = $("found").hidden = false;
    const portraits = [[$("portrait"), chosen]];
    const [x, y, w, h] = windowOf(chosen);
    $("chosen-kind").textContent = `Chosen ${one}`;
    $("chosen-lonlat").textContent = placeText(chosen, "\n");
    $("chosen-pixels").textContent = `${w} × ${h} px at ${number(x)}, ${number(y)}`;
    $("list").replaceChildren(...similar.map((cell, index) => {
      const item = document.createElement("li"), button = document.createElement("button");
      const make = (name, className, text) => {
        const element = document.createElement(name);
        element.className = className;
        if (text !== undefined) element.textContent = text;
        return element;
      };
      const picture = document.createElement("canvas");
      picture.width = picture.height = 92;
      picture.setAttribute("aria-hidden", "true");
      portraits.push([picture, cell]);
      const where = make("span", "where", placeText(cell, " "));
      const meter = make("span", "meter"), fill = make("i", "");
      fill.style.width = `${100 * Math.min(1, Math.max(0, (similarities[cell] - range[0]) / (1 - range[0])))}%`;
      meter.append(fill);
      where.append(meter);
      button.type = "button";
      button.dataset.cell = cell;
      button.dataset.similarity = similarities[cell];
      button.title = idOf(cell);
      button.append(make("span", "rank", index + 1), picture, where, make("span", "score", similarities[cell].toFixed(3)));
      const hover = (other) => () => { near = other; drawMarks(); };
      button.addEventListener("pointerenter", hover(cell));
      button.addEventListener("pointerleave", hover(-1));
      button.addEventListener("focus", hover(cell));
      button.addEventListener("blur", hover(-1));
      button.addEventListener("click", () => { choose(cell); bringIntoView(cell); });
      item.append(button);
      return item;
    }));
    // First what lights up, then the small pictures.
    requestAnimationFrame(() => setTimeout(() => portraits.forEach(([canvas, cell]) => portrait(canvas, cell))));
  };

  const drawLegend = (sorted) => {
    $("low").textContent = `≤ ${range[0].toFixed(2)}`;
    $("high").textContent = range[1].toFixed(2);
    $("legend-name").textContent = "cosine similarity";
    const canvas = $("histogram"), context = canvas.getContext("2d"), bins = new Uint32Array(48);
    for (const score of sorted) {
      const t = (score - range[0]) / (range[1] - range[0]);
      if (t > 0) bins[Math.min(47, Math.floor(48 * t))]++;
    }
    const most = Math.sqrt(Math.max(1, ...bins)), step = canvas.width / 48;
    context.clearRect(0, 0, canvas.width, canvas.height);
    bins.forEach((bin, index) => {
      const tall = (canvas.height * Math.sqrt(bin)) / most, at = 3 * Math.round((255 * index) / 47);
      context.fillStyle = `rgb(${heat[at]},${heat[at + 1]},${heat[at + 2]})`;
      context.fillRect(index * step, canvas.height - tall, step - 0.6, tall);
    });
  };

  const say = (text) => { $("said").textContent = text; };

  // ---- Copying and downloading ---------------------------------------------------------------------------------------

  const copy = async (button, text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Older browsers, and pages from files.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const before = button.dataset.text || (button.dataset.text = button.textContent);
    button.textContent = "Copied";
    document.documentElement.dataset.copied = text;
    setTimeout(() => { button.textContent = before; }, 1200);
  };
  $("copy-id").addEventListener("click", (event) => copy(event.currentTarget, idOf(chosen)));
  $("copy-place").addEventListener("click", (event) => {
    const [lon, lat] = lonLatOf(chosen);
    copy(event.currentTarget, `${lat.toFixed(degreeDigits)}, ${lon.toFixed(degreeDigits)}`);
  });

  // Rings are cut at the antimeridian, and counterclockwise (RFC 7946).
  const geometryOf = (cell) => {
    const ring = [];
    for (let i = 0; i < 4; i++) {
      const lon = corners[8 * cell + 2 * i], first = corners[8 * cell];
      ring.push([first + ((lon - first + 540) % 360) - 180, corners[8 * cell + 2 * i + 1]]);
    }
    if (!ring.flat().every(Number.isFinite)) return null;
    const area = ring.reduce((sum, [x, y], i) => {
      const [nextX, nextY] = ring[(i + 1) % 4];
      return sum + x * nextY - nextX * y;
    }, 0);
    if (area < 0) ring.reverse();
    const cut = (points, limit, isKept) => points.flatMap(([x, y], i) => {
      const [nextX, nextY] = points[(i + 1) % points.length];
      const kept = isKept(x) ? [[x, y]] : [];
      if (isKept(x) !== isKept(nextX)) kept.push([limit, y + ((nextY - y) * (limit - x)) / (nextX - x)]);
      return kept;
    });
    const part = (points, shift) => [[...points, points[0]].map(([x, y]) => [+(x + shift).toFixed(9), +y.toFixed(9)])];
    const parts = [];
    for (const turn of [-360, 0, 360]) {
      const inside = cut(cut(ring, turn - 180, (x) => x >= turn - 180), turn + 180, (x) => x <= turn + 180);
      if (inside.length > 2 && inside.some(([x]) => x !== inside[0][0])) parts.push(part(inside, -turn));
    }
    return parts.length === 1 ? { type: "Polygon", coordinates: parts[0] } : { type: "MultiPolygon", coordinates: parts };
  };
  const geoJson = () => {
    const feature = (cell, rank) => {
      const [x_px, y_px, width_px, height_px] = windowOf(cell);
      return {
        type: "Feature", id: idOf(cell), geometry: geometryOf(cell),
        properties: { rank, similarity: +similarities[cell].toFixed(6), scene: head.scene, x_px, y_px, width_px, height_px },
      };
    };
    return JSON.stringify({
      type: "FeatureCollection",
      features: [feature(chosen, 0), ...similar.map((cell, index) => feature(cell, index + 1))],
    }, null, 1);
  };
  $("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([geoJson()], { type: "application/geo+json" }));
    link.download = "similar.geojson";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });

  // ---- Hands ---------------------------------------------------------------------------------------------------------

  const cellAt = (stageX, stageY) => {
    const [x, y] = toScene(stageX, stageY);
    for (let cell = 0; cell < count; cell++) {
      const left = shown[4 * cell], top = shown[4 * cell + 1];
      if (x >= left && y >= top && x < left + shown[4 * cell + 2] && y < top + shown[4 * cell + 3]) return cell;
    }
    return -1;
  };
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const pointers = new Map();
  let travelled = 0;
  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".divider, .zoom") || event.button > 0) return;
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    if (pointers.size === 1) travelled = 0;
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    pointers.set(event.pointerId, now);
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (others.length) {
      const gap = (point) => Math.hypot(point[0] - others[0][0], point[1] - others[0][1]) || 1;
      travelled = 99;
      zoomBy(gap(now) / gap(before), (now[0] + others[0][0]) / 2, (now[1] + others[0][1]) / 2);
    } else if (travelled > 5 && !fitted) {
      stage.classList.add("moving");
      panX += now[0] - before[0];
      panY += now[1] - before[1];
      clampPan();
      arrange();
    }
  });
  const release = (event) => {
    if (!pointers.delete(event.pointerId) || pointers.size) return;
    stage.classList.remove("moving");
    if (event.type === "pointercancel" || travelled > 5) return;
    const cell = cellAt(...at(event));
    if (cell >= 0) choose(cell);
  };
  stage.addEventListener("pointerup", release);
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...at(event));
  }, { passive: false });
  $("zoom-in").addEventListener("click", () => zoomBy(1.6));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.6));
  $("zoom-fit").addEventListener("click", fit);

  const handle = $("divider");
  const divide = (part) => {
    divider = Math.min(1, Math.max(0, part));
    arrange();
  };
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (handle.hasPointerCapture(event.pointerId)) divide(at(event)[0] / size()[0]);
  });
  handle.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const to = {
      ArrowLeft: divider - step, ArrowDown: divider - step, ArrowRight: divider + step, ArrowUp: divider + step,
      PageDown: divider - 0.1, PageUp: divider + 0.1, Home: 0, End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    divide(to);
  });

  // The nearest place whose middle lies in that direction, more forward than sideways.
  const step = (from, dx, dy) => {
    const [x, y] = centreOf(from);
    let found = from, least = Infinity;
    for (let cell = 0; cell < count; cell++) {
      const [otherX, otherY] = centreOf(cell);
      const forward = (otherX - x) * dx + (otherY - y) * dy;
      const aside = Math.abs((otherX - x) * dy) + Math.abs((otherY - y) * dx);
      if (forward > 0 && aside <= forward && forward + 3 * aside < least) {
        found = cell;
        least = forward + 3 * aside;
      }
    }
    return found;
  };
  const middle = () => {
    let found = 0, least = Infinity;
    for (let cell = 0; cell < count; cell++) {
      const [x, y] = centreOf(cell), away = Math.hypot(x - width / 2, y - height / 2);
      if (away < least) [found, least] = [cell, away];
    }
    return found;
  };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = arrows[event.key];
    if (arrow && event.target === stage) {
      cursor = cursor < 0 ? (chosen >= 0 ? chosen : middle()) : step(cursor, ...arrow);
      bringIntoView(cursor);
      say(placeText(cursor, ", "));
    } else if ((event.key === "Enter" || event.key === " ") && event.target === stage) {
      choose(cursor < 0 ? middle() : cursor);
    } else if (event.key === "Escape") clear();
    else if (event.key === "+" || event.key === "=") zoomBy(1.6);
    else if (event.key === "-") zoomBy(1 / 1.6);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  });
  stage.addEventListener("focus", drawMarks);
  stage.addEventListener("blur", drawMarks);
  for (const radio of document.querySelectorAll("input[name=layer]")) radio.addEventListener("change", arrange);
  for (const id of ["count", "apart"]) $(id).addEventListener("change", () => chosen >= 0 && choose(chosen, { isQuiet: true }));
  $("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  });
  new ResizeObserver(() => (fitted ? fit() : (clampPan(), arrange()))).observe(stage);

  // ---- Start ---------------------------------------------------------------------------------------------------------

  const start = () => {
    decode();
    fit();
    let asked = "";
    try { asked = decodeURIComponent(location.hash.slice(1)); } catch { /* no place of ours */ }
    const cell = asked ? head.ids.indexOf(asked) : -1;
    if (cell >= 0) choose(cell, { isQuiet: true });
    document.documentElement.dataset.ready = "yes";
    // Browsers compile a loop after it has run for a while: the first click should not wait for that.
    const warm = (rounds) => {
      if (rounds === 0 || chosen >= 0 || count === 0) return;
      compare(0);
      setTimeout(warm, 0, rounds - 1);
    };
    setTimeout(warm, 0, 4);
  };
  if (overview.complete) start();
  else overview.addEventListener("load", start, { once: true });
})();
