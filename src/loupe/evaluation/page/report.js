
"use strict";
// The page works without this script but for the theme, the order of pictures, and the viewer. The viewer follows the
// address: #picture-7 opens picture 7, #picture-7@120,40 with the magnifying glass at x = 120, y = 40. So links, the
// back button and bookmarks need nothing more.
(() => {
  const ZOOMS = [2, 3, 4, 6, 8, 12, 16]; // shown pixels for one of the picture
  const FINGER = 24; // pixels between a finger and the lens above it
  const WHEEL = 40; // turned so far, the wheel takes a step: trackpads send many small turns

  const { views, pictures, scale } = JSON.parse(document.getElementById("data").textContent);
  const byId = new Map(pictures.map((picture) => [picture.id, picture]));
  const named = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
  const { viewer, stage, frame, handle, lens, spot, strip, left, right, said } = named;

  const create = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const known = Object.fromEntries(views.map((view) => [view.key, view]));
  const file = (picture, view) => `${picture.path}/${known[view].file}`;
  const labelOf = (view) => known[view].label;

  // ------------------------------------------------------------------------------------------------------- theme

  const THEMES = ["auto", "light", "dark"];
  const remembered = (value) => {
    try { // storage is refused to pages on disk in some browsers
      if (value) localStorage.setItem("loupe-theme", value);
      return localStorage.getItem("loupe-theme");
    } catch {
      return value;
    }
  };
  let theme = "auto";
  const setTheme = (name) => {
    theme = THEMES.includes(name) ? name : "auto";
    document.documentElement.dataset.theme = theme;
    named.theme.textContent = `Theme: ${theme}`;
  };
  setTheme(remembered());
  named.theme.addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
    remembered(theme);
  });

  // ----------------------------------------------------------------------------------------------- list of pictures

  const cards = () => [...document.querySelectorAll(".grid a")];
  const figure = (link, place) => {
    const value = Number(byId.get(Number(link.dataset.id)).order[place].replace("inf", "Infinity"));
    return Number.isNaN(value) ? undefined : value;
  };
  const rising = (place, sign) => (a, b) => {
    const [x, y] = [figure(a, place), figure(b, place)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // the unknown last
    return x === y ? 0 : sign * (x < y ? -1 : 1);
  };
  const listed = new Map(cards().map((link, place) => [link, place]));
  const ORDERS = {
    listed: (a, b) => listed.get(a) - listed.get(b),
    gain: rising(0, -1),
    loss: rising(0, 1),
    worst: rising(1, 1),
    name: (a, b) => a.querySelector(".name").textContent.localeCompare(b.querySelector(".name").textContent, undefined, { numeric: true }),
  };
  if (named.order) {
    named.order.addEventListener("change", () => {
      for (const list of document.querySelectorAll(".grid")) {
        const links = [...list.querySelectorAll("a")].sort(ORDERS[named.order.value]);
        list.append(...links.map((link) => link.parentElement));
      }
    });
  }

  // ------------------------------------------------------------------------------------------------------- viewer

  const state = { picture: null, split: 0.5, zoom: 6, view: "sr", mode: "one", at: [0, 0], shown: false, finger: false };
  let fromPage = false; // whether closing is going back
  let held = []; // files of the opened picture, so that changing the view does not wait for the disk

  for (const { key, label } of views) {
    for (const select of [left, right]) create("option", label, select).value = key;
    const choice = create("label", undefined, named.glass);
    const input = create("input", undefined, choice);
    Object.assign(input, { type: "radio", name: "view", value: key });
    create("span", `${named.glass.children.length}  ${label}`, choice);
    const cell = create("figure", undefined, strip);
    create("div", undefined, cell).className = "glass";
    cell.firstChild.dataset.view = key;
    create("figcaption", label, cell);
  }
  left.value = "bicubic";
  right.value = "sr";

  const fillTable = (table, rows) => {
    const body = table.tBodies[0];
    body.replaceChildren();
    rows.forEach((cells, number) => {
      const row = create("tr", undefined, body);
      if (table === named["viewer-scores"] && number === 0) row.className = "model";
      cells.forEach((text, place) => create(place ? "td" : "th", text, row));
      row.firstChild.scope = "row";
    });
  };

  const show = (picture, at) => {
    state.picture = picture;
    state.at = at || [picture.width / 2, picture.height / 2];
    state.shown = Boolean(at);
    state.finger = false;
    named["viewer-name"].textContent = picture.name;
    named["viewer-facts"].textContent =
      `${picture.set} · ${picture.width} × ${picture.height} pixels from ` +
      `${Math.floor(picture.width / scale)} × ${Math.floor(picture.height / scale)} · gain ${picture.gain} dB · ` +
      `consistency ${picture.consistency} dB`;
    fillTable(named["viewer-scores"], picture.scores);
    fillTable(named["viewer-kinds"], picture.kinds);
    if (!viewer.open) viewer.showModal();
    named["viewer-name"].focus();
    held = views.map(({ key }) => Object.assign(new Image(), { src: file(picture, key) }));
    const order = cards();
    const place = order.findIndex((link) => Number(link.dataset.id) === picture.id);
    for (const [button, step] of [[named.previous, -1], [named.next, 1]]) {
      button.disabled = !order[place + step];
      button.dataset.id = order[place + step] ? order[place + step].dataset.id : "";
    }
    fit();
  };

  const hide = () => {
    if (!viewer.open) return;
    const { id } = state.picture;
    viewer.close();
    state.picture = null;
    held = [];
    for (const image of frame.querySelectorAll("img")) image.removeAttribute("src");
    for (const glass of document.querySelectorAll(".glass")) glass.style.backgroundImage = "";
    document.querySelector(`.grid a[data-id="${id}"]`).focus();
  };

  const follow = () => {
    const match = /^#picture-(\d+)(?:@(\d+),(\d+))?$/.exec(location.hash);
    const picture = match && byId.get(Number(match[1]));
    if (picture) show(picture, match[2] && [Number(match[2]), Number(match[3])]);
    else hide();
  };
  const close = () => {
    if (fromPage) history.back();
    else {
      history.replaceState(null, "", "#pictures");
      follow();
    }
  };
  const step = (button) => {
    if (button.disabled) return;
    history.replaceState(null, "", `#picture-${button.dataset.id}`); // so that back leaves the viewer
    follow();
  };

  // The largest size that fits, in whole steps of the screen's pixels where the picture is enlarged.
  const fit = () => {
    const { picture } = state;
    if (!picture) return;
    const style = getComputedStyle(stage);
    const room = [stage.clientWidth - 2 * parseFloat(style.paddingLeft), stage.clientHeight - 2 * parseFloat(style.paddingTop)];
    const factor = Math.min(room[0] / picture.width, room[1] / picture.height);
    const shown = factor > 1 ? Math.floor(factor * devicePixelRatio) / devicePixelRatio : factor;
    frame.classList.toggle("enlarged", factor >= 1);
    frame.style.width = `${picture.width * shown}px`;
    frame.style.height = `${picture.height * shown}px`;
    paint();
  };

  // Draw `view` into a round glass so that the spot lies in its middle.
  const magnify = (glass, view) => {
    const { picture, zoom, at } = state;
    const middle = glass.offsetWidth / 2;
    glass.style.backgroundImage = `url("${file(picture, view)}")`;
    glass.style.backgroundSize = `${picture.width * zoom}px ${picture.height * zoom}px`;
    glass.style.backgroundPosition = at.map((value) => `${Math.round(middle - value * zoom)}px`).join(" ");
  };

  const paint = () => {
    const { picture, split, zoom, view, mode, at, finger } = state;
    if (!picture) return;
    for (const [side, select] of [["left", left], ["right", right]]) {
      const image = named[`${side}-picture`];
      const source = file(picture, select.value);
      if (image.getAttribute("src") !== source) image.src = source;
      image.alt = `${labelOf(select.value)} of ${picture.name}`;
      named[`${side}-tag`].textContent = labelOf(select.value);
    }
    named["left-picture"].style.clipPath = `inset(0 ${100 * (1 - split)}% 0 0)`;
    handle.style.left = `${100 * split}%`;
    handle.setAttribute("aria-valuenow", Math.round(100 * split));
    handle.setAttribute("aria-valuetext", `${Math.round(100 * split)} % ${labelOf(left.value)}`);

    named.zoom.textContent = `×${zoom}`;
    named["zoom-out"].disabled = zoom === ZOOMS[0];
    named["zoom-in"].disabled = zoom === ZOOMS.at(-1);
    named.place.textContent = `at ${at.map(Math.floor).join(", ")}`;
    named.glass.hidden = mode !== "one";
    named.glass.querySelector(`[value="${view}"]`).checked = true;

    if (strip.hidden !== (mode !== "all")) {
      strip.hidden = mode !== "all";
      fit(); // the stage has another size now
      return;
    }
    lens.hidden = mode !== "one" || !state.shown;
    spot.hidden = mode === "off" || (mode === "one" && !(state.shown && finger)); // else the glass itself marks it
    const box = frame.getBoundingClientRect();
    const shown = box.width / picture.width;
    const [x, y] = [box.left + at[0] * shown, box.top + at[1] * shown];
    if (!lens.hidden) {
      const radius = lens.offsetWidth / 2;
      let [corner, top] = [x - radius, y - radius]; // with a pointer always right under it, even across the edge
      if (finger) {
        corner = clamp(corner, 0, innerWidth - 2 * radius);
        top = y - 2 * radius - FINGER;
        if (top < 0) top = y + FINGER; // no room above
      }
      lens.style.left = `${corner}px`;
      lens.style.top = `${top}px`;
      lens.lastElementChild.textContent = `${labelOf(view)} ×${zoom}`;
      magnify(lens.firstElementChild, view);
    }
    const glasses = [...strip.querySelectorAll(".glass")];
    if (!strip.hidden) for (const glass of glasses) magnify(glass, glass.dataset.view);
    if (!spot.hidden) {
      const glass = strip.hidden ? lens : glasses[0];
      const side = Math.max(12, (glass.offsetWidth / zoom) * shown);
      Object.assign(spot.style, {
        width: `${side}px`, height: `${side}px`,
        left: `${at[0] * shown - side / 2}px`, top: `${at[1] * shown - side / 2}px`,
      });
    }
  };

  const moveTo = (x, y) => {
    state.at = [clamp(x, 0, state.picture.width - 1), clamp(y, 0, state.picture.height - 1)];
    state.shown = true;
    paint();
  };
  const zoomBy = (steps) => {
    state.zoom = ZOOMS[clamp(ZOOMS.indexOf(state.zoom) + steps, 0, ZOOMS.length - 1)];
    paint();
  };
  const say = () => {
    said.textContent = `${labelOf(state.view)}, ${state.zoom} times, at ${state.at.map(Math.floor).join(", ")}`;
  };

  const under = (event) => {
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((value) => (value * state.picture.width) / box.width);
  };
  const point = (event) => {
    state.finger = event.pointerType === "touch";
    moveTo(...under(event));
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") return;
    frame.setPointerCapture(event.pointerId);
    point(event);
  });
  frame.addEventListener("pointermove", point);
  frame.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "mouse") return; // a finger lifts to let its owner look
    state.shown = false;
    paint();
  });
  let turned = 0;
  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    turned += event.deltaY;
    if (Math.abs(turned) < WHEEL) return;
    zoomBy(turned < 0 ? 1 : -1);
    turned = 0;
  }, { passive: false });

  let dragging = false;
  const slide = (split) => {
    state.split = clamp(split, 0, 1);
    paint();
  };
  handle.addEventListener("pointerdown", (event) => {
    dragging = true;
    handle.setPointerCapture(event.pointerId);
    state.shown = false;
    event.stopPropagation();
    paint();
  });
  handle.addEventListener("pointermove", (event) => {
    if (dragging) slide(under(event)[0] / state.picture.width);
    if (dragging || event.pointerType === "touch") event.stopPropagation();
  });
  for (const kind of ["pointerup", "pointercancel"]) handle.addEventListener(kind, () => { dragging = false; });

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const slideByKey = (event) => {
    const by = event.shiftKey ? 0.1 : 0.01;
    const target = {
      ArrowLeft: state.split - by, ArrowDown: state.split - by, ArrowRight: state.split + by,
      ArrowUp: state.split + by, Home: 0, End: 1,
    }[event.key];
    if (target !== undefined) slide(target);
    return target !== undefined;
  };
  const moveByKey = (event) => {
    const direction = ARROWS[event.key];
    if (!direction) return false;
    const pixels = Math.max(1, Math.round(24 / state.zoom)) * (event.shiftKey ? 8 : 1);
    state.finger = false;
    moveTo(state.at[0] + direction[0] * pixels, state.at[1] + direction[1] * pixels);
    say();
    return true;
  };
  const command = (event) => {
    const digit = /^[1-9]$/.test(event.key) && views[Number(event.key) - 1];
    if (digit) {
      state.view = digit.key;
      paint();
      say();
    } else if ("+=".includes(event.key)) zoomBy(1);
    else if ("-−_".includes(event.key)) zoomBy(-1);
    else return false;
    return true;
  };
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    let done = event.key.length === 1 && command(event);
    if (event.target === handle) done ||= slideByKey(event);
    else if (event.target === frame) done ||= moveByKey(event);
    else if (event.target.type !== "radio" && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      step(event.key === "ArrowLeft" ? named.previous : named.next);
      done = true;
    }
    if (done) event.preventDefault();
  });

  for (const select of [left, right]) select.addEventListener("change", paint);
  named.mode.addEventListener("change", (event) => {
    state.mode = event.target.value;
    paint();
  });
  named.glass.addEventListener("change", (event) => {
    state.view = event.target.value;
    paint();
  });
  named["zoom-in"].addEventListener("click", () => zoomBy(1));
  named["zoom-out"].addEventListener("click", () => zoomBy(-1));
  named.previous.addEventListener("click", () => step(named.previous));
  named.next.addEventListener("click", () => step(named.next));
  named.close.addEventListener("click", close);
  viewer.addEventListener("cancel", (event) => {
    event.preventDefault();
    close();
  });
  viewer.addEventListener("scroll", paint);
  viewer.addEventListener("close", () => { if (state.picture) close(); }); // browsers let a second Esc through
  new ResizeObserver(fit).observe(stage);
  addEventListener("hashchange", (event) => {
    fromPage = !new URL(event.oldURL).hash.startsWith("#picture-");
    follow();
  });
  follow();
})();
