// What a pointer does on a stage: a stroke is drawn, or a part is dragged by one of its handles.
// Positions are shares of the stage's width and height. A stroke's trail is drawn here, and goes
// when the server's answer replaces what is above the image; while the stroke goes on it comes back.
// A pointer that is taken away, by the system or another page, ends a stroke as its release does.
const MOST_POINTS = 4000; // of a stroke; of a longer one every other point goes
window.rnpPointer = (down, emit) => {
  const stage = down.currentTarget;
  const svg = stage.querySelector("svg");
  const handle = down.target.dataset?.handle;
  const pen = stage.dataset.pen; // the width and the colour of a stroke; none where parts are held
  if (down.button || stage.onpointermove || !(handle || pen)) return;
  down.preventDefault();
  stage.focus({ preventScroll: true });
  stage.setPointerCapture(down.pointerId);
  const box = svg.getBoundingClientRect();
  const at = (e) => [(e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height];
  let points = [at(down)];
  const add = (point) => {
    if (handle) points.length = 1;
    points.push(point);
    if (points.length > MOST_POINTS) points = points.filter((_, i) => i % 2 === 0);
  };
  const tell = (type) => emit({ type, handle, points });
  let trail = null;
  if (pen) {
    const [width, colour] = pen.split(" ");
    trail = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const style = "fill:none;stroke-linecap:round;stroke-linejoin:round;";
    trail.setAttribute("style", `${style}stroke:${colour};stroke-width:${width}`);
  }
  const draw = () => {
    const { width, height } = svg.viewBox.baseVal;
    if (trail && !trail.isConnected) svg.querySelector("g:last-of-type").append(trail);
    const ends = points.length > 1 ? points : [points[0], points[0]];
    trail?.setAttribute("points", ends.map(([x, y]) => `${x * width},${y * height}`).join(" "));
  };
  draw();
  let due = false;
  stage.onpointermove = (e) => {
    if (e.pointerId !== down.pointerId) return;
    const passed = e.getCoalescedEvents?.() ?? [];
    (passed.length ? passed : [e]).map(at).forEach(add);
    draw();
    if (handle && !due) {
      due = true;
      requestAnimationFrame(() => { due = false; if (stage.onpointermove) tell("drag"); });
    }
  };
  stage.onpointerup = stage.onpointercancel = stage.onlostpointercapture = (e) => {
    const other = e.type === "lostpointercapture" && e.target !== stage; // of a touch's first target
    if (e.pointerId !== down.pointerId || other) return;
    stage.onpointermove = stage.onpointerup = null;
    stage.onpointercancel = stage.onlostpointercapture = null;
    tell("up");
  };
};

// A file that is dropped anywhere is opened; without this the browser would leave the page.
window.rnpFile = () => document.querySelector(".rnp-upload input[type=file]");
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  const picker = kind === "drop" && rnpFile();
  if (!picker) return;
  picker.files = event.dataTransfer.files;
  picker.dispatchEvent(new Event("change"));
});
