"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  // Text of a model is put into the page by this function only, as text and never as markup.
  const el = (tag, kind, text) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined && text !== null) node.textContent = visible(String(text));
    return node;
  };
  // Control characters are shown as what they are rather than acted upon; so are marks that turn
  // the direction of writing.
  const visible = (text) =>
    text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
      .replace(/[\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  const store = (key, value) => {
    try {
      if (value === undefined) return localStorage.getItem(key);
      localStorage.setItem(key, value);
    } catch { /* a file opened from disk may have no storage */ }
    return null;
  };

  // ---- theme -------------------------------------------------------------------------------
  const root = document.documentElement;
  const asked = new URLSearchParams(location.search).get("theme") || store("himac-theme");
  if (asked === "light" || asked === "dark") root.dataset.theme = asked;
  $("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store("himac-theme", root.dataset.theme);
  });

  // ---- charts: which lines are shown ---------------------------------------------------------
  for (const key of document.querySelectorAll(".key")) {
    key.addEventListener("click", () => {
      const on = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(on));
      for (const series of key.closest(".family").querySelectorAll(`.hc-series[data-colour="${key.dataset.colour}"]`))
        series.classList.toggle("off", !on);
    });
  }

  // ---- episodes --------------------------------------------------------------------------------
  if (!$("viewer")) return;
  const runs = JSON.parse($("data").textContent);
  const all = runs.flatMap((run, r) => run.episodes.map((episode) => ({ run: r, episode })));
  all.forEach((entry, index) => { entry.index = index; });
  const state = { shown: all, at: null, steps: [], step: 0, timer: null };

  const counted = (n) => `${n} step${n === 1 ? "" : "s"}`;
  const signed = (value, digits = 2) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
  const adv = (value) => {
    const chip = el("span", "adv", signed(value));
    chip.title = "advantage";
    const share = Math.min(34, Math.round(Math.abs(value) * 22));
    if (value) chip.style.background = `color-mix(in srgb,var(${value > 0 ? "--good" : "--bad"}) ${share}%,transparent)`;
    return chip;
  };

  // An episode as a line of steps, with what was seen before each of them.
  const stepsOf = (episode) => {
    const steps = [];
    if (episode.candidates) steps.push({ kind: "candidates", place: "plan" });
    let seen = episode.first, frame = episode.frame;
    for (const segment of episode.segments || []) {
      for (const turn of segment.turns || []) {
        const planner = segment.role === "planner";
        steps.push({ kind: planner ? "planner" : "turn", segment, turn, seen, frame, place: planner ? "plan" : String(segment.index ?? segment.subgoal) });
        if (turn.observation !== undefined) seen = turn.observation;
        if (turn.frame !== undefined) frame = turn.frame;
      }
    }
    return steps;
  };
  // Lines of old runs have no indices: a sub-goal is then known by its text.
  const optionOf = (episode, place) =>
    (episode.options || []).find((o) => String(o.index) === place) || (episode.options || []).find((o) => o.subgoal === place);

  const haystack = (episode) => {
    const parts = [episode.task_id, episode.goal, ...(episode.blueprint || [])];
    for (const segment of episode.segments || [])
      for (const turn of segment.turns || []) parts.push(turn.action, turn.text, turn.observation);
    return parts.filter(Boolean).join("\n").toLowerCase();
  };
  for (const entry of all) entry.text = haystack(entry.episode);

  const option = (value, text) => { const node = el("option", "", text); node.value = value; return node; };
  $("f-run").append(option("", "all runs"), ...runs.map((run, r) => option(String(r), run.label)));
  const phases = [...new Set(all.map((e) => e.episode.phase))];
  $("f-phase").append(option("", "all"), ...phases.map((p) => option(p, p.replace("evaluation/", "evaluation: ").replace(/_/g, " "))));

  const kinds = [...new Set(all.map((e) => e.episode.task_type).filter(Boolean))].sort();
  $("f-kind").append(option("", "all"), ...kinds.map((kind) => option(kind, kind.replace(/_/g, " "))));
  $("l-kind").hidden = kinds.length < 2;
  const solvedLast = (a, b) => Number(Boolean(a.episode.success)) - Number(Boolean(b.episode.success)) || a.index - b.index;

  const filter = () => {
    const run = $("f-run").value, phase = $("f-phase").value, kind = $("f-kind").value;
    const outcome = document.querySelector("input[name=outcome]:checked").value;
    const words = $("f-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    state.shown = all.filter((entry) =>
      (run === "" || entry.run === Number(run)) &&
      (phase === "" || entry.episode.phase === phase) &&
      (kind === "" || entry.episode.task_type === kind) &&
      (outcome === "all" || Boolean(entry.episode.success) === (outcome === "solved")) &&
      words.every((word) => entry.text.includes(word)));
    if ($("f-order").value === "failed") state.shown.sort(solvedLast);
    const hidden = runs.reduce((sum, r, i) => sum + (run === "" || Number(run) === i ? r.hidden : 0), 0);
    $("f-count").textContent = `${state.shown.length} of ${all.length} episodes` + (hidden ? `; ${hidden} more in the files` : "");
    const list = $("list");
    list.replaceChildren();
    for (const entry of state.shown) list.append(row(entry));
    if (!state.shown.length) list.append(el("p", "none", "No episode is like that."));
    if (state.shown.length && !state.shown.includes(state.at)) open(state.shown[0], 0);
    else mark();
  };
  const row = (entry) => {
    const { episode } = entry;
    const node = el("button", "row");
    node.type = "button";
    node.append(el("span", "what", episode.goal || episode.task_id));
    const meta = el("span", "meta");
    meta.append(
      el("span", episode.success ? "mark yes" : "mark no", episode.error ? "crashed" : episode.success ? "✓ solved" : "✗ failed"),
      el("span", "", counted(episode.env_steps ?? "?")),
      el("span", "when", episode.phase.startsWith("evaluation") ? episode.phase.replace("evaluation/", "").replace(/_/g, " ").replace("warm start", "start").replace("final", "end").replace("temperature 1", "T=1") : `iteration ${episode.step}`));
    node.append(meta, el("span", "id", episode.task_id));
    node.addEventListener("click", () => open(entry, 0));
    entry.row = node;
    return node;
  };
  const mark = () => {
    for (const entry of state.shown) if (entry.row) entry.row.setAttribute("aria-current", String(entry === state.at));
    const current = state.at && state.at.row;
    if (current && current.parentNode) within($("list"), current);
  };
  // Scrolls a box, never the page.
  const within = (box, node) => {
    const top = node.offsetTop - box.offsetTop;
    if (top - 60 < box.scrollTop) box.scrollTop = Math.max(0, top - 60);
    else if (top + node.offsetHeight + 24 > box.scrollTop + box.clientHeight) box.scrollTop = top + node.offsetHeight + 24 - box.clientHeight;
  };

  const open = (entry, step) => {
    stop();
    state.at = entry;
    state.steps = stepsOf(entry.episode);
    drawGoal(entry);
    drawTree(entry.episode);
    drawScrub();
    mark();
    show(Math.min(step, Math.max(0, state.steps.length - 1)));
  };

  const drawGoal = ({ episode, run }) => {
    const goal = $("goal");
    goal.replaceChildren(document.createTextNode(visible(episode.goal || "")));
    const meta = el("div", "meta");
    meta.append(el("span", `chip ${episode.success ? "up" : "down"}`, episode.error ? "crashed" : episode.success ? "solved" : "failed"));
    meta.append(el("span", "chip", `return ${Number(episode.return ?? 0).toFixed(2)}`), el("span", "chip", counted(episode.env_steps)));
    if (episode.score !== undefined && !episode.success && episode.score > 0) meta.append(el("span", "chip", `score ${Number(episode.score).toFixed(2)}`));
    if (episode.task_type) meta.append(el("span", "chip", episode.task_type));
    if (episode.blueprint_valid === false) meta.append(el("span", "chip warn", "unreadable blueprint"));
    if (episode.cut) meta.append(el("span", "chip warn", `cut: ${episode.cut.left_out} observations or pictures left out, ${episode.cut.shortened} texts shortened`));
    meta.append(el("span", "id", `${episode.task_id} · ${runs[run].label}`));
    goal.append(meta);
  };

  const drawTree = (episode) => {
    const tree = $("tree");
    tree.replaceChildren();
    const blueprint = episode.blueprint || [];
    const places = [...new Set(state.steps.map((s) => s.place))];
    // Sub-goals in order, those that were never reached included; then whatever else ran.
    const wanted = places.includes("plan") ? ["plan"] : [];
    blueprint.forEach((text, i) => wanted.push(places.includes(text) && !places.includes(String(i)) ? text : String(i)));
    for (const place of places) if (!wanted.includes(place)) wanted.push(place);
    let number = 0;
    for (const place of wanted) {
      const own = state.steps.map((s, i) => [s, i]).filter(([s]) => s.place === place);
      const ended = optionOf(episode, place);
      const index = blueprint[Number(place)] !== undefined ? Number(place) : blueprint.indexOf(place);
      const head = el("div", "sub");
      const name = el("div", "name");
      if (place === "plan") {
        name.append(el("span", "n", "◆"), el("span", "", "Planner"));
        head.append(name);
      } else {
        const achieved = ended ? ended.achieved : undefined;
        if (achieved === true) head.classList.add("yes");
        if (achieved === false) head.classList.add("no");
        if (!own.length) head.classList.add("later");
        const text = index >= 0 ? blueprint[index] : own[0][0].segment.subgoal || (blueprint.length ? place : "The whole task");
        name.append(el("span", "n", index >= 0 ? index + 1 : "•"), el("span", "", text));
        head.append(name);
        const reasons = { done: "ended by <sub_done>", budget: "ended by its budget", terminated: "ended with the task", truncated: "out of steps" };
        const told = [];
        if (ended) {
          told.push(achieved === true ? "achieved" : achieved === false ? "not achieved" : "not judged", counted(ended.steps), reasons[ended.reason] || ended.reason);
          if (ended.reward) told.push(`reward ${signed(ended.reward)}`);
        } else told.push(own.length ? "" : "not reached");
        head.append(el("div", "meta", told.filter(Boolean).join(" · ")));
      }
      tree.append(head);
      for (const [step, i] of own) {
        const node = el("button", "turn");
        node.type = "button";
        if (step.kind === "candidates") {
          node.append(el("span", "i", ""), el("span", "a say", `${episode.candidates.length} blueprints compared`));
        } else {
          const { turn } = step;
          const planner = step.kind === "planner";
          if (!planner) number += 1;
          const action = planner ? "wrote a blueprint" : turn.action;
          const kind = turn.invalid ? "a bad" : planner || turn.action === "<sub_done>" ? "a say" : "a";
          node.append(el("span", "i", planner ? "" : number), el("span", kind, action));
          if (turn.reward) node.append(el("span", turn.reward > 0 ? "pay" : "pay neg", signed(turn.reward).replace(/0$/, "")));
          if (typeof turn.advantage === "number") node.append(adv(turn.advantage));
        }
        node.addEventListener("click", () => { stop(); show(i); });
        step.node = node;
        tree.append(node);
      }
    }
    if (episode.error) tree.append(el("p", "none", "The environment broke here; see the last step."));
  };

  const drawScrub = () => {
    const scrub = $("scrub");
    scrub.replaceChildren();
    state.steps.forEach((step, i) => {
      const bar = el("i");
      const value = step.turn && step.turn.advantage;
      if (typeof value === "number" && value) bar.style.background = `color-mix(in srgb,var(${value > 0 ? "--good" : "--bad"}) ${Math.min(80, 20 + Math.abs(value) * 35)}%,var(--fill))`;
      else if (step.turn && step.turn.invalid) bar.style.background = "var(--warn)";
      bar.addEventListener("click", () => { stop(); show(i); });
      scrub.append(bar);
    });
  };

  const section = (box, title, ...nodes) => { box.append(el("h5", "", title), ...nodes); return box; };
  const show = (index) => {
    const { episode } = state.at;
    const step = state.steps[index];
    state.step = index;
    state.steps.forEach((s, i) => {
      if (s.node) s.node.setAttribute("aria-current", String(i === index));
      $("scrub").children[i].className = i === index ? "now" : "";
    });
    if (step && step.node) within($("tree"), step.node);
    history.replaceState(null, "", `#episode=${state.at.index}&step=${index}`);
    const box = $("step");
    box.replaceChildren();
    box.scrollTop = 0;
    if (!step) box.append(el("p", "none", "This episode has no steps."));
    else if (step.kind === "candidates") drawCandidates(box, episode);
    else drawTurn(box, step, index, episode);
    if (episode.error && index === state.steps.length - 1) section(box, "What broke", el("pre", "text", episode.error));
  };

  // A button that puts a text on the clipboard, and says so.
  const copier = (label, text, node = el("button", "copy", label)) => {
    node.type = "button";
    node.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text());
      } catch { // a page that may not use it: the old way
        const area = el("textarea");
        area.value = text();
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      node.textContent = "Copied";
      setTimeout(() => { node.textContent = label; }, 1500);
    });
    return node;
  };
  copier("Copy link", () => location.href, $("p-link"));

  const drawTurn = (box, { kind, segment, turn, seen, frame }, index, episode) => {
    const chips = el("div", "chips");
    chips.append(el("span", "chip", `step ${index + 1} of ${state.steps.length}`), el("span", "chip", kind === "planner" ? "planner" : (episode.blueprint ? "executor" : "agent")));
    if (typeof turn.advantage === "number") chips.append(el("span", `chip ${turn.advantage > 0 ? "up" : turn.advantage < 0 ? "down" : ""}`, `advantage ${signed(turn.advantage)}`));
    if (turn.reward) chips.append(el("span", "chip", `reward ${signed(turn.reward)}`));
    if (typeof turn.logprob === "number") chips.append(el("span", "chip", `log-probability ${turn.logprob.toFixed(3)} a free token`));
    if (turn.tokens) chips.append(el("span", "chip", `${turn.tokens} tokens`));
    if (turn.invalid) chips.append(el("span", "chip down", "not understood by the environment"));
    box.append(chips);
    if (frame || turn.frame) {
      const frames = el("div", "frames");
      if (frame) frames.append(picture(frame, "before"));
      if (frame && turn.frame) frames.append(el("span", "arrow", "→"));
      if (turn.frame) frames.append(picture(turn.frame, "after"));
      box.append(frames);
    }
    if (seen !== undefined) section(box, "What it saw", observed(seen, turn.action));
    const read = promptOf(segment, turn);
    if (read.length) {
      const whole = el("details", "prompt");
      whole.append(el("summary", "", `The whole prompt, ${read.length} message${read.length > 1 ? "s" : ""}`));
      // To the letter, in the form that an endpoint takes; nothing of it is replaced for showing.
      const exact = read.map(({ role, content }) => ({ role, content }));
      whole.append(copier("Copy as JSON", () => JSON.stringify(exact, null, 2)));
      for (const message of read) {
        whole.append(el("h6", "", message.role + (message.images ? `, ${message.images} pictures` : "")), el("pre", "text", message.content));
      }
      box.append(whole);
    }
    if (turn.text !== undefined && turn.text !== turn.action) {
      const two = el("div", "two");
      two.append(section(el("div"), "What it wrote", el("pre", "text wrote", turn.text)), section(el("div"), "What was sent", el("pre", "text sent", turn.action)));
      box.append(two);
    } else section(box, "What it wrote and what was sent", el("pre", "text wrote", turn.action));
    if (turn.observation !== undefined) section(box, "What came back", observed(turn.observation));
    if (seen === undefined && turn.observation === undefined) box.append(el("p", "fine", "Observations were not kept in this run."));
  };

  // What a turn answered: the messages before its own answer, where an evaluation kept them.
  const promptOf = (segment, turn) => {
    const messages = segment.messages || [];
    const answers = messages.map((m, i) => (m.role === "assistant" ? i : -1)).filter((i) => i >= 0);
    const place = answers.length - segment.turns.length + segment.turns.indexOf(turn);
    return place >= 0 && place < answers.length ? messages.slice(0, answers[place]) : [];
  };

  // A web shop's page, whose parts are joined by [SEP], is laid out; what was clicked is marked.
  // Everything else is shown as it was read.
  const observed = (text, action) => {
    const parts = text.split(/ ?\[SEP\] ?/);
    if (parts.length < 4) return el("pre", "text", text);
    const clicked = (/^click\[(.*)\]$/i.exec((action || "").trim()) || [])[1];
    const is = (part) => clicked !== undefined && part.trim().toLowerCase() === clicked.trim().toLowerCase();
    const page = el("div", "text shop");
    for (let i = 0; i < parts.length; i++) {
      const mark = is(parts[i]) ? " hit" : "";
      if (/^B[0-9A-Z]{9}$/.test(parts[i]) && i + 2 < parts.length && parts[i + 2].startsWith("$")) {
        const item = el("div", `item${mark}`);
        item.append(el("code", "", parts[i]), el("span", "", parts[i + 1]), el("b", "", parts[i + 2]));
        page.append(item);
        i += 2;
      } else if (/^instruction:?$/i.test(parts[i]) && i + 1 < parts.length) {
        page.append(el("div", "wish", parts[i + 1]));
        i += 1;
      } else if (parts[i].length > 60) page.append(el("div", "wish", parts[i]));
      else if (parts[i]) page.append(el("span", `bit${mark}`, parts[i]));
    }
    return page;
  };

  const drawCandidates = (box, episode) => {
    box.append(el("p", "fine", "The planner's blueprints for this task, compared by what the executor made of them. The marked one was executed here."));
    const plans = el("div", "plans");
    const seen = new Map();
    for (const plan of episode.candidates) {
      // The same blueprint proposed twice is one entry, counted.
      const key = JSON.stringify([plan.subgoals, plan.return, plan.valid]);
      if (seen.has(key)) {
        const known = seen.get(key);
        known.count += 1;
        known.label.textContent = `${known.count} times`;
        if (plan.chosen) known.node.classList.add("star");
        continue;
      }
      const node = el("div", plan.chosen ? "plan star" : "plan");
      const meta = el("div", "meta");
      const label = el("span", "", "once");
      meta.append(adv(plan.advantage), el("span", "", `return ${Number(plan.return).toFixed(2)}`), label);
      if (!plan.valid) meta.append(el("span", "chip warn", "unreadable"));
      const steps = el("ol");
      for (const text of plan.subgoals) steps.append(el("li", "", text));
      node.append(meta, steps);
      if (!plan.valid) node.append(el("pre", "text", plan.text));
      plans.append(node);
      seen.set(key, { node, label, count: 1 });
    }
    box.append(plans);
  };

  const picture = (frame, caption) => {
    const figure = el("figure");
    if (frame.startsWith("data:image/png;base64,")) {
      const image = el("img");
      image.src = frame;
      image.alt = `the scene ${caption} the step`;
      figure.append(image);
    } else figure.append(board(frame, caption));
    figure.append(el("figcaption", "", caption));
    return figure;
  };
  const svgNode = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    return node;
  };
  const board = (xsb, caption) => {
    const rows = xsb.split("\n").slice(0, 60);
    const wide = Math.max(...rows.map((r) => r.length)), size = 24;
    const svg = svgNode("svg", { viewBox: `0 0 ${wide * size} ${rows.length * size}`, role: "img", "aria-label": `the room ${caption} the step` });
    rows.forEach((line, y) => [...line].forEach((cell, x) => {
      const left = x * size, top = y * size, mid = `translate(${left + size / 2},${top + size / 2})`;
      const add = (tag, attributes) => svg.append(svgNode(tag, attributes));
      if (cell === "#") {
        add("rect", { class: "x-wall", x: left, y: top, width: size, height: size });
        add("path", { class: "x-wall2", d: `M${left},${top + 11}h24v2h-24zM${left},${top + 22}h24v2h-24zM${left + 6},${top}h2v11h-2zM${left + 17},${top + 13}h2v9h-2z` });
        return;
      }
      add("rect", { class: "x-floor", x: left, y: top, width: size, height: size });
      if (".+*".includes(cell)) add("path", { class: "x-target", transform: mid, d: "M0,-6L6,0L0,6L-6,0Z" });
      if ("$*".includes(cell)) {
        const kind = cell === "*" ? "x-home" : "x-box";
        add("rect", { class: kind, x: left + 3.5, y: top + 3.5, width: 17, height: 17, rx: 3 });
        add("path", { class: kind, transform: mid, d: "M-4.5,-4.5L4.5,4.5M4.5,-4.5L-4.5,4.5" });
      }
      if ("@+".includes(cell)) {
        add("circle", { class: "x-me", transform: mid, r: 7.5 });
        add("circle", { class: "x-eye", transform: mid, cx: -2.6, cy: -1.2, r: 1.5 });
        add("circle", { class: "x-eye", transform: mid, cx: 2.6, cy: -1.2, r: 1.5 });
      }
    }));
    return svg;
  };

  // ---- stepping --------------------------------------------------------------------------------
  const go = (by) => {
    const next = Math.max(0, Math.min(state.steps.length - 1, state.step + by));
    if (next !== state.step) show(next);
    return next < state.steps.length - 1;
  };
  const turnTo = (by) => {
    const place = state.shown.indexOf(state.at);
    const next = state.shown[Math.max(0, Math.min(state.shown.length - 1, place + by))];
    if (next && next !== state.at) open(next, 0);
  };
  const stop = () => {
    clearInterval(state.timer);
    state.timer = null;
    $("p-play").classList.remove("on");
    $("p-play").setAttribute("aria-label", "Play");
  };
  const play = () => {
    if (state.timer) return stop();
    if (state.step === state.steps.length - 1) show(0);
    state.timer = setInterval(() => { if (!go(1)) stop(); }, 500);
    $("p-play").setAttribute("aria-label", "Pause");
  };
  $("p-first").addEventListener("click", () => { stop(); show(0); });
  $("p-back").addEventListener("click", () => { stop(); go(-1); });
  $("p-next").addEventListener("click", () => { stop(); go(1); });
  $("p-play").addEventListener("click", play);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input,select,textarea,summary")) return;
    const box = $("viewer").getBoundingClientRect();
    if (box.top > innerHeight * 0.75 || box.bottom < innerHeight * 0.25) return;
    if (event.key === " " && event.target.closest("button,a")) return;
    const keys = {
      ArrowRight: () => { stop(); go(1); }, ArrowLeft: () => { stop(); go(-1); },
      ArrowDown: () => turnTo(1), ArrowUp: () => turnTo(-1),
      Home: () => { stop(); show(0); }, End: () => { stop(); show(state.steps.length - 1); }, " ": play,
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  for (const id of ["f-run", "f-phase", "f-kind", "f-order"]) $(id).addEventListener("change", filter);
  for (const radio of document.querySelectorAll("input[name=outcome]")) radio.addEventListener("change", filter);
  $("f-text").addEventListener("input", filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());

  const wanted = /episode=(\d+)(?:&step=(\d+))?/.exec(location.hash);
  if (wanted && all[Number(wanted[1])]) {
    state.at = all[Number(wanted[1])];
    filter();
    open(state.at, Number(wanted[2] || 0));
    $("episodes").scrollIntoView({ behavior: "instant" });
  } else filter();
})();
