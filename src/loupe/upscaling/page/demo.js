"use strict";
// A magnifying glass over a picture: half of it shows the plain enlargement, half the network's.
(() => {
  const ZOOMS = [1, 2, 3, 4, 6, 8, 12]; // shown pixels for one of the enlarged picture
  const MODES = ["both", "before", "after"];
  const LABELS = { both: "before | after", before: "before", after: "after" };
  const FINGER = 24; // pixels between a finger and the glass above it
  const named = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
  const { frame, lens, before, after } = named;
  const [width, height] = [before.width, before.height];
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const state = { at: [width / 2, height / 2], zoom: 3, mode: "both", shown: true, finger: false };

  const fit = () => {
    const room = frame.parentElement;
    const style = getComputedStyle(room);
    const across = room.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const factor = Math.min(across / width, room.clientHeight / height, 1);
    frame.style.width = `${width * factor}px`;
    frame.style.height = `${height * factor}px`;
    paint();
  };

  const paint = () => {
    const { at, zoom, mode, shown, finger } = state;
    named.zoom.textContent = `×${zoom}`;
    named.out.disabled = zoom === ZOOMS[0];
    named.in.disabled = zoom === ZOOMS.at(-1);
    document.querySelector(`#mode [value="${mode}"]`).checked = true;
    lens.hidden = !shown;
    lens.className = mode;
    if (!shown) return;
    const box = frame.getBoundingClientRect();
    const [x, y] = [box.left + (at[0] * box.width) / width, box.top + (at[1] * box.height) / height];
    const radius = lens.offsetWidth / 2;
    let [corner, top] = [x - radius, y - radius];
    if (finger) {
      corner = clamp(corner, 4, innerWidth - 2 * radius - 4);
      top = y - 2 * radius - FINGER;
      if (top < 4) top = y + FINGER; // no room above
    }
    lens.style.left = `${corner}px`;
    lens.style.top = `${top}px`;
    for (const [glass, image] of [[named.left, before], [named.right, after]]) {
      glass.hidden = mode !== "both" && image.id !== mode;
      if (!glass.style.backgroundImage) glass.style.backgroundImage = `url("${image.src}")`;
      glass.style.backgroundSize = `${width * zoom}px ${height * zoom}px`;
      glass.style.backgroundPosition = at.map((value) => `${Math.round(radius - value * zoom)}px`).join(" ");
    }
    named.label.textContent = `${LABELS[mode]} ×${zoom}`;
  };

  const moveTo = (x, y) => {
    state.at = [clamp(x, 0, width - 1), clamp(y, 0, height - 1)];
    state.shown = true;
    paint();
  };
  const zoomBy = (steps) => {
    state.zoom = ZOOMS[clamp(ZOOMS.indexOf(state.zoom) + steps, 0, ZOOMS.length - 1)];
    paint();
  };
  const point = (event) => {
    const box = frame.getBoundingClientRect();
    state.finger = event.pointerType === "touch";
    moveTo(((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height);
  };
  frame.addEventListener("pointerdown", (event) => {
    frame.setPointerCapture(event.pointerId);
    point(event);
  });
  frame.addEventListener("pointermove", point);
  let turned = 0;
  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    turned += event.deltaY;
    if (Math.abs(turned) < 40) return; // trackpads send many small turns
    zoomBy(turned < 0 ? 1 : -1);
    turned = 0;
  }, { passive: false });

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = event.target.type === "radio" ? undefined : ARROWS[event.key];
    if (arrow) {
      const step = Math.max(1, Math.round(24 / state.zoom)) * (event.shiftKey ? 8 : 1);
      state.finger = false;
      moveTo(state.at[0] + arrow[0] * step, state.at[1] + arrow[1] * step);
      named.said.textContent = `at ${state.at.map(Math.floor).join(", ")}`;
    } else if ("+=".includes(event.key)) zoomBy(1);
    else if ("-−_".includes(event.key)) zoomBy(-1);
    else if (event.key === " " && event.target.type !== "button") {
      state.mode = MODES[(MODES.indexOf(state.mode) + 1) % MODES.length];
      paint();
    } else return;
    event.preventDefault();
  });
  named.mode.addEventListener("change", (event) => {
    state.mode = event.target.value;
    paint();
  });
  named.in.addEventListener("click", () => zoomBy(1));
  named.out.addEventListener("click", () => zoomBy(-1));
  addEventListener("resize", fit);
  fit();
  frame.focus({ preventScroll: true });
})();
