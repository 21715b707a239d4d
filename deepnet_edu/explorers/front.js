// The page of one explorer: dials, a picture in two layers of SVG, and what both say. Python knows the numbers.

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  // In a notebook arrows and letters are for what has the focus: JupyterLab looks for this at each element by itself.
  if (["BUTTON", "INPUT", "SELECT", "SUMMARY"].includes(element.tagName)) element.dataset.lmSuppressShortcuts = "true";
  return element;
}

// JupyterLab and Voila say their theme; a page of explorers alone follows the reader's system.
const system = matchMedia("(prefers-color-scheme: dark)");
function pageIsDark() {
  const { jpThemeLight, voila, alone } = document.body.dataset;
  const asked = new URLSearchParams(location.search).has("theme");
  if (alone || (voila && !asked)) return system.matches;
  return jpThemeLight === "false" || document.body.classList.contains("vscode-dark");
}

function render({ model, el }) {
  const fixed = model.get("fixed");
  const id = `deepnet-edu-${fixed.name}-${Math.random().toString(36).slice(2)}`; // of one of many on a page
  const root = make("section", { class: "deepnet-edu-explorer", "aria-label": fixed.title });

  // --- asking Python: one question at a time, and of those that wait the newest of each kind

  const waiting = new Map();
  let sent = 0;
  let late = Infinity; // a kernel that was restarted never answers
  const answered = () => model.get("shown").answered;
  const free = () => sent <= answered() || Date.now() > late;
  function ask(content) {
    waiting.set(`${content.do} ${content.name ?? ""}`, content);
    if (free()) next();
  }
  function next() {
    const [first] = waiting;
    if (!first) return;
    waiting.delete(first[0]);
    sent = Math.max(sent, answered()) + 1;
    late = Date.now() + 10_000;
    model.send({ ...first[1], number: sent });
  }

  // --- dials

  const dials = new Map();
  const controls = make("div", { class: "dials" });
  for (const { name, kind, label, stops } of fixed.dials) {
    const labelled = `${id}-${name}`;
    const box = make("div", { class: `dial ${kind}` }, make("label", { for: labelled }, label));
    if (kind === "choice") {
      const list = make("select", { id: labelled }, ...stops.map((stop) => make("option", {}, stop)));
      list.addEventListener("change", () => ask({ do: "slide", name, stop: list.selectedIndex }));
      box.append(list);
      dials.set(name, (now) => {
        list.disabled = now.disabled;
        list.selectedIndex = now.at;
      });
    } else {
      const slider = make("input", { type: "range", id: labelled, min: 0, max: stops.length - 1, step: 1 });
      const field = make("input", { type: "text", "aria-label": `${label}, typed`, inputmode: "decimal" });
      const say = (text) => {
        slider.setAttribute("aria-valuetext", text);
        field.value = text;
      };
      slider.addEventListener("input", () => {
        say(stops[slider.value]);
        ask({ do: "slide", name, stop: Number(slider.value) });
      });
      let known = "";
      const type = () => {
        if (field.value === known) return;
        known = field.value;
        ask({ do: "type", name, text: known });
      };
      field.addEventListener("change", type);
      field.addEventListener("keydown", ({ key }) => key === "Enter" && type()); // JupyterLab keeps its change event
      box.append(slider, field);
      dials.set(name, (now) => {
        slider.disabled = field.disabled = now.disabled;
        slider.value = now.at;
        say((known = now.text));
      });
    }
    controls.append(box);
  }

  // --- presets and tools

  const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);
  const presets = make("div", { class: "bar", role: "group", "aria-label": "Settings to try" });
  for (const name of fixed.presets) presets.append(button(name, () => ask({ do: "preset", name })));
  for (const { name, label, about } of fixed.buttons)
    presets.append(button(label, () => ask({ do: "press", name }), { class: "action", title: about }));
  const large = button("Lecture size", () => enlarge(!root.classList.contains("large")), {
    class: "tool", "aria-pressed": "false", title: "Larger text, for a room",
  });
  const tools = [
    button("Reset", () => ask({ do: "reset" }), { class: "tool", title: "Back to the settings of the beginning" }),
    button("Copy as code", copy, { class: "tool", title: "A line that shows this again in a notebook" }),
    large,
  ];
  presets.append(make("span", { class: "tools" }, ...tools));

  // --- the picture and its words

  const line = make("div", { class: "line", role: "status" });
  const title = make("strong", { class: "title" });
  const said = make("p", { class: "said", role: "status" });
  const picture = make("div", { class: "picture", role: "img" });
  const note = make("p", { class: "note" });
  const extra = make("div", { class: "extra" });
  const code = make("code");
  const source = make("details", { class: "source" }, make("summary", {}, "As a line of code"), code);
  const what = make("details", { class: "what" }, make("summary", {}, "What you see"));
  what.append(make("ul", {}, ...fixed.what.map((sentence) => make("li", {}, sentence))));
  root.append(presets, controls, line, title, said, picture, extra, note, what, source);
  el.append(root);

  async function copy() {
    source.open = true;
    try {
      await navigator.clipboard.writeText(code.textContent);
      line.textContent = "Copied: paste it into a notebook.";
    } catch {
      getSelection().selectAllChildren(code); // where pages may not copy
    }
  }

  // One frame for the whole picture; in a narrow page one for each panel, below each other, so that letters stay large.
  let frames = [];
  const isNarrow = () => picture.clientWidth > 0 && picture.clientWidth < 480;
  let narrow = false;
  function cut() {
    narrow = isNarrow();
    frames = (narrow ? model.get("panels") : [{}]).map(({ box, key }) => {
      const layers = [make("div"), make("div")];
      const width = key && `width: ${1.2 * box[2]}px`;
      return { box, layers, element: make("div", { class: `frame${key ? " key" : ""}`, style: width ?? false }, ...layers) };
    });
    picture.replaceChildren(...frames.map((frame) => frame.element));
  }
  function put(layer, svg) {
    for (const { box, layers } of frames)
      layers[layer].innerHTML = box ? svg.replace(/viewBox="[^"]*"/, `viewBox="${box.join(" ")}"`) : svg;
  }
  function drawBackdrop() {
    cut();
    put(0, model.get("backdrop"));
    put(1, model.get("shown").svg);
  }
  function drawLine() {
    line.innerHTML = model.get("value"); // escaped by Python
  }
  function draw() {
    const shown = model.get("shown");
    if (free() && !waiting.size) for (const [name, set] of dials) set(shown.dials[name]);
    if (picture.dataset.drawn !== String(shown.drawn)) {
      put(1, shown.svg);
      picture.setAttribute("aria-label", shown.alt);
      title.textContent = shown.title;
      note.textContent = shown.note;
      extra.innerHTML = shown.extra; // escaped by Python
      code.textContent = shown.code;
      if (said.textContent !== shown.said) said.textContent = shown.said;
      picture.dataset.drawn = shown.drawn;
      if (fixed.address && (answered() || !kept.length)) keep(shown.state); // not before it has been restored
    }
    if (free()) next();
  }

  // --- the address keeps what is set: #signal.depth=400&race.residual=post_ln

  const own = (name) => name.startsWith(`${fixed.name}.`);
  let keeping;
  function keep(state) {
    clearTimeout(keeping);
    keeping = setTimeout(() => write(state), 300); // browsers allow an address few changes a second
  }
  function write(state) {
    const address = new URLSearchParams(location.hash.slice(1));
    for (const name of [...address.keys()].filter(own)) address.delete(name);
    for (const [name, value] of Object.entries(state)) address.set(`${fixed.name}.${name}`, value);
    history.replaceState(null, "", `#${address}`);
  }
  const kept = [...new URLSearchParams(location.hash.slice(1))].filter(([name]) => own(name));
  function restore() {
    const state = Object.fromEntries(kept.map(([name, value]) => [name.slice(fixed.name.length + 1), value]));
    if (kept.length) ask({ do: "restore", state });
  }

  // --- size and theme

  let room = [0, 0];
  function fit() {
    const width = picture.clientWidth;
    if (!width) return;
    if (narrow !== isNarrow()) drawBackdrop();
    // Inches of matplotlib: 9 points are 14 px, or 19 px in a lecture; more of them where there is much room.
    const inches = Math.min(10.5, Math.max(6.4, width / (root.classList.contains("large") ? 150 : 112)));
    const above = picture.offsetTop - presets.offsetTop;
    const left = innerHeight - 110 - above - extra.offsetHeight;
    const height = inches * Math.min(0.6, Math.max(0.38, left / width));
    if (Math.abs(inches - room[0]) < 0.3 && Math.abs(height - room[1]) < 0.3) return;
    room = [inches, height];
    ask({ do: "fit", width: inches, height });
  }
  function enlarge(on) {
    root.classList.toggle("large", on);
    large.setAttribute("aria-pressed", on);
    fit();
  }
  function theme() {
    root.classList.toggle("dark", pageIsDark());
    const { voila, alone } = document.body.dataset;
    if (voila || alone) document.body.classList.toggle("deepnet-edu-dark", pageIsDark());
  }

  drawBackdrop();
  drawLine();
  draw();
  theme();
  if (fixed.address) restore();
  model.on("change:backdrop", drawBackdrop);
  model.on("change:value", drawLine);
  model.on("change:shown", draw);
  let soon;
  const sizes = new ResizeObserver(() => {
    clearTimeout(soon);
    soon = setTimeout(fit, 60);
  });
  sizes.observe(root);
  const themes = new MutationObserver(theme);
  themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  system.addEventListener("change", theme);
  return () => {
    model.off("change:backdrop", drawBackdrop);
    model.off("change:value", drawLine);
    model.off("change:shown", draw);
    sizes.disconnect();
    themes.disconnect();
    system.removeEventListener("change", theme);
  };
}

export default { render };
