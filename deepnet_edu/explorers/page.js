// In place of a kernel: what packing.py has packed, looked up. It is to front.js what a widget's model is.

async function unpacked() {
  const packed = Uint8Array.from(atob(document.getElementById("answers").textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const block = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = new DataView(block.buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(block.subarray(4, 4 + size)));
  let at = 4 + size;
  const next = () => {
    let value = 0, unit = 1, byte;
    do {
      byte = block[at++];
      value += (byte & 127) * unit;
      unit *= 128;
    } while (byte > 127);
    return value % 2 ? -(value + 1) / 2 : value / 2;
  };
  const joined = (between, number) => between.reduce((text, rest, i) => text + number(i - 1) + rest);

  const texts = {};
  for (const [name, [forms, which, columns]] of Object.entries(head.texts)) {
    const between = forms.map((form) => form.split("\0"));
    const taken = columns.map((own) => own.map((column) => column.split(" ")));
    const row = forms.map(() => 0);
    texts[name] = which.map((form) => {
      const now = row[form]++;
      return joined(between[form], (i) => taken[form][i][now]);
    });
  }
  const pieces = [];
  for (const [form, numbers] of head.forms) {
    const between = form.split("\0");
    const steps = new Array(between.length - 1).fill(0);
    for (const number of numbers) {
      for (let i = 0; i < steps.length; i++) steps[i] += next();
      const placed = [...steps];
      for (let i = 2; i < placed.length; i++) placed[i] += placed[i - 2];
      pieces[number] = () => joined(between, (i) => placed[i] / 10); // of many, few are looked at
    }
  }
  const pictures = [];
  for (let last = []; pictures.length < head.answers; ) {
    last = Array.from({ length: next() }, (_, i) => next() + (last[i] ?? 0));
    pictures.push(last);
  }
  return { ...head, texts, picture: (i) => pictures[i].map((number) => pieces[number]()).join("") };
}

const NO_SUCH = "This page has nothing there, and shows what is nearest. In the course the dials move freely.";

function modelOf(answers) {
  const { names, stops, fixed } = answers;
  const listeners = {};
  let root = 0;
  let at; // of each dial, its stop
  let drawn = 0;
  const values = { fixed, backdrop: answers.backdrop, panels: answers.panels, value: "" };

  const dialsOf = (answer) => JSON.parse(answers.texts.dials[answer]);
  // Where a page has no such stop, the nearest; of the dial that moves, the next on its way, or keys would not get past.
  function nearest(branches, wanted, way) {
    const there = branches.map((_, i) => i).filter((i) => branches[i] !== null);
    const ahead = there.filter((i) => (i - wanted) * way >= 0);
    const away = (i) => Math.abs(i - wanted);
    return (ahead.length ? ahead : there).reduce((best, i) => (away(i) < away(best) ? i : best));
  }
  function found(places, before = places) {
    let node = answers.roots[root];
    while (Array.isArray(node)) {
      const [dial, branches] = node;
      node = branches[nearest(branches, places[dial], Math.sign(places[dial] - before[dial]))];
    }
    return node;
  }
  function show(answer, number = 0) {
    const text = Object.fromEntries(Object.entries(answers.texts).map(([name, own]) => [name, own[answer]]));
    const dials = dialsOf(answer).map(([at, text, disabled]) => ({ at, text, disabled }));
    at = dials.map((dial) => dial.at);
    values.answer = answer;
    values.shown = {
      drawn: ++drawn, answered: number, svg: answers.picture(answer), title: text.title, said: text.said,
      note: text.note, extra: text.extra, code: text.code, state: JSON.parse(text.state),
      alt: `${text.title.replace(/\.+$/, "")}. ${text.moved} ${text.said} ${text.note}`,
      dials: Object.fromEntries(dials.map((dial, i) => [names[i], dial])),
    };
  }
  function say(sentence, kind = "say") {
    const line = make("span", { class: kind }, sentence);
    values.value = sentence ? line.outerHTML : "";
  }

  // The stop that is nearest to a number, by ratio; -1 where there is none.
  function stopFor(dial, text) {
    const own = stops[dial];
    if (own.includes(text)) return own.indexOf(text);
    const number = Number(text.replaceAll(",", "").replace("−", "-") || NaN);
    if (!(number >= Number(own[0]) && number <= Number(own.at(-1)))) return -1;
    const away = own.map((stop) => Math.abs(Math.log(Math.max(stop, 1e-9) / Math.max(number, 1e-9))));
    return away.indexOf(Math.min(...away));
  }
  function typed(name, text) {
    const dial = names.indexOf(name);
    const { label, stops: shown } = fixed.dials.find((one) => one.name === name) ?? {};
    const stop = label === undefined ? -1 : stopFor(dial, text);
    if (stop < 0) {
      if (label === undefined) say(`This page has no dial ${name}.`, "refuse");
      else say(`${label} = ${text || "nothing"} cannot be: type a number from ${shown[0]} to ${shown.at(-1)}.`, "refuse");
      return false;
    }
    at[dial] = stop;
    const exact = stops[dial][stop] === text || Number(stops[dial][stop]) === Number(text.replaceAll(",", ""));
    if (!exact) say(`This page has ${stops[dial].length} stops of ${label}; ${shown[stop]} is the nearest to ${text}.`);
    return true;
  }
  function answer({ do: what, name, stop, text, state }) {
    if (what === "fit") return values.answer;
    say("");
    if (what === "preset") {
      root = 0;
      return answers.presets[fixed.presets.indexOf(name)];
    }
    if (what === "reset") {
      root = 0;
      return answers.opening;
    }
    if (what === "press") {
      root = answers.presses[name][values.answer];
      return found(at);
    }
    const before = [...at];
    if (what === "slide") at[names.indexOf(name)] = stop;
    else if (what === "type") typed(name, text.trim());
    else if (what === "restore") {
      if (!Object.entries(state).every(([dial, value]) => typed(dial, value))) at = before;
    }
    const next = found(at, before);
    const asked = names.indexOf(name);
    if (what === "slide" && dialsOf(next)[asked][0] !== stop) say(NO_SUCH);
    return next;
  }

  show(answers.opening);
  return {
    get: (name) => values[name],
    on: (event, listener) => (listeners[event] ??= new Set()).add(listener),
    off: (event, listener) => listeners[event]?.delete(listener),
    send(content) {
      show(answer(content), content.number);
      for (const event of ["change:value", "change:shown"]) for (const listener of listeners[event] ?? []) listener();
    },
  };
}

unpacked().then((answers) => render({ model: modelOf(answers), el: document.getElementById("explorer") }));
