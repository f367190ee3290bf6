// The list of pairs: search, sort, filter, read side by side, decide, download. No library; text only ever goes in as
// textContent, never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const told = data.probable && data.estimated; // whether P(label right) can be told
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const PAGE = 50; // rows added at a time
  const MOST_CELLS = 4e6; // of the comparison of two answers, word by word
  const LEAST_COMMON = 0.3; // share of words in both answers, below which no difference is marked
  const PATHS = data.path.length > 2; // of two checkpoints, a path is no more than its end
  const ACTIONS = ["keep", "drop", "flip"];
  const count = (n) => n.toLocaleString("en-US");
  const percent = (share) => share > 0 && share < 0.001 ? "<0.1%" : (100 * share).toFixed(share < 0.1 ? 1 : 0) + "%";
  const digits = (value) => Math.abs(value).toFixed(Math.abs(value) >= 10 ? 1 : 2);
  const signed = (value) => (value < 0 ? "−" : value > 0 ? "+" : "") + digits(value);
  const points = (n) => count(n) + (n === 1 ? " point" : " points");
  const text = (i) => data.texts[i][0];

  function make(tag, className, content) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (content !== undefined) element.textContent = content;
    return element;
  }

  // ---- the command of the first screen

  $("copy").addEventListener("click", async () => {
    const command = $("command");
    try { await navigator.clipboard.writeText(command.textContent); }
    catch { // no clipboard here: select it, so that one key copies it
      getSelection().selectAllChildren(command);
      if (!document.execCommand("copy")) return;
    }
    $("copy").textContent = "Copied";
    setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
  });

  // ---- decisions: kept in this browser under the pairs' ids, so that a reload loses none

  const KEY = "rmo-decisions:" + data.name + ":" + data.pairs.length + ":" + (data.pairs[0] ? data.pairs[0].id : "");
  const decisions = new Map();
  try {
    for (const [id, action] of JSON.parse(localStorage.getItem(KEY) || "[]")) decisions.set(id, action);
  } catch { /* no storage: decisions last as long as the page */ }

  function decide(pair, action) {
    if (decisions.get(pair.id) === action) decisions.delete(pair.id);
    else decisions.set(pair.id, action);
    try { localStorage.setItem(KEY, JSON.stringify([...decisions])); } catch { /* as above */ }
    showDecisions();
    for (const row of document.querySelectorAll(".suspect")) if (row.pair === pair) showDecision(row);
  }

  function showDecision(row) {
    const action = decisions.get(row.pair.id);
    const mark = row.querySelector(".decided");
    mark.textContent = action || "";
    mark.className = "decided " + (action || "");
    for (const button of row.querySelectorAll(".actions button")) {
      button.setAttribute("aria-pressed", String(button.value === action));
    }
  }

  function showDecisions() {
    const n = decisions.size;
    $("download").disabled = n === 0;
    $("download").textContent = n ? `Download ${count(n)} decision${n > 1 ? "s" : ""}` : "Download decisions";
    $("forget").hidden = n === 0;
  }

  $("download").addEventListener("click", () => {
    const found = [...decisions].map(([id, action]) => ({ id, action }));
    const content = JSON.stringify({ schema: data.decisions, decisions: found }, null, 1) + "\n";
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
    link.download = "decisions.json";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  $("forget").addEventListener("click", () => {
    if (!confirm(`Forget all ${decisions.size} decisions made on this page?`)) return;
    decisions.clear();
    try { localStorage.removeItem(KEY); } catch { /* as above */ }
    showDecisions();
    document.querySelectorAll(".suspect").forEach(showDecision);
  });

  // ---- which pairs are shown

  const haystack = new Map();
  function words(pair) {
    if (!haystack.has(pair)) {
      const parts = [pair.id, pair.at || ""];
      for (const side of [pair.p, pair.c, pair.j]) for (const [, i] of side || []) parts.push(text(i));
      haystack.set(pair, parts.join("\n").toLowerCase());
    }
    return haystack.get(pair);
  }
  const end = (pair) => (pair.r ? pair.r[pair.r.length - 1] : Infinity);
  const difference = (pair) => pair.len[0] - pair.len[1];
  const ORDERS = {
    worst: null, // as they come
    points: (a, b) => (b.n || 0) - (a.n || 0),
    shorter: (a, b) => difference(a) - difference(b),
    longer: (a, b) => difference(b) - difference(a),
    margin: (a, b) => end(a) - end(b),
    undecided: (a, b) => decisions.has(a.id) - decisions.has(b.id),
  };

  data.pairs.forEach((pair, i) => { pair.rank = i + 1; });
  let shown = [];
  let drawn = 0;

  function choose() {
    const wanted = $("search").value.toLowerCase().trim();
    const finding = $("finding").value;
    const side = $("side").value;
    const [column, value] = $("slice").value ? JSON.parse($("slice").value) : [];
    const has = (pair) => {
      if (finding === "suspicion" && !(pair.s > 0)) return false;
      if (finding && finding !== "suspicion" && !(pair.f && pair.f[finding])) return false;
      if (side && !Object.entries(pair.f || {}).some(([name, at]) => at === side && (!finding || finding === name))) return false;
      if (column !== undefined && pair.v[column] !== value) return false;
      return !wanted || words(pair).includes(wanted);
    };
    shown = data.pairs.filter(has);
    const order = ORDERS[$("sort").value];
    if (order) shown.sort((a, b) => order(a, b) || a.rank - b.rank);
    drawn = 0;
    $("list").textContent = "";
    more();
    $("status").textContent = shown.length === data.pairs.length
      ? `${count(shown.length)} pairs` : `${count(shown.length)} of ${count(data.pairs.length)} pairs`;
  }

  function more() {
    const rows = document.createDocumentFragment();
    for (const pair of shown.slice(drawn, drawn + PAGE)) rows.append(row(pair));
    drawn = Math.min(shown.length, drawn + PAGE);
    $("list").append(rows);
    $("more").hidden = drawn >= shown.length;
    $("more").textContent = `Show ${count(Math.min(PAGE, shown.length - drawn))} more of ${count(shown.length - drawn)}`;
  }

  // ---- one pair

  function row(pair) {
    const element = make("details", "suspect");
    element.id = "pair-" + pair.rank;
    element.pair = pair;
    const summary = make("summary");
    summary.append(make("span", "rank", count(pair.rank)));
    const excerpt = make("span", "excerpt");
    const last = pair.p && pair.p.length ? text(pair.p[pair.p.length - 1][1]) : "";
    excerpt.append(make("bdi", "", last.replace(/\s+/g, " ").trim().slice(0, 160) || pair.id));
    const tags = make("span", "tags");
    for (const [name, at] of Object.entries(pair.f || {})) {
      tags.append(make("span", "badge", data.titles[name] + (at === "chosen" || at === "rejected" ? ": " + at : "")));
    }
    excerpt.append(tags);
    summary.append(excerpt, pair.r && PATHS ? spark(pair) : make("span", "spark"));
    const value = make("span", "number");
    if (pair.q !== undefined) {
      value.textContent = percent(pair.q);
      value.append(make("span", "unseen", " probability that the label is right"));
    } else if (data.kind === "run" && !data.probable) {
      value.textContent = pair.s > 0 ? digits(pair.s) : "–";
      value.append(make("span", "unseen", ` ${data.unit} of suspicion`));
    } else value.textContent = points(pair.n || 0);
    const tag = make("span", "tag");
    if (pair.d) tag.append(make("span", "swatch " + ink(pair.d)), pair.d.replaceAll("_", " "));
    tag.append(make("span", "decided"));
    summary.append(value, tag);
    element.append(summary);
    element.addEventListener("toggle", () => {
      if (element.open && element.childElementCount === 1) {
        element.append(inside(pair));
        showDecision(element);
      }
    });
    showDecision(element);
    return element;
  }

  const ink = (reason) => (["kept", "noisy", "ambiguous"].includes(reason) ? reason : "other");

  function spark(pair) {
    const width = 120, height = 32, edge = 4;
    const low = Math.min(0, ...pair.r), high = Math.max(0, ...pair.r);
    const y = (value) => edge + ((high - value) / (high - low || 1)) * (height - 2 * edge);
    const step = (width - 2 * edge) / Math.max(1, pair.r.length - 1);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "spark");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", "reward margins: " + pair.r.map(signed).join(", ") + " nats");
    const zero = document.createElementNS(SVG, "line");
    for (const [name, at] of [["x1", 0], ["x2", width], ["y1", y(0)], ["y2", y(0)]]) zero.setAttribute(name, at);
    zero.setAttribute("class", "stroke-soft");
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", pair.r.map((value, i) => (i ? "L" : "M") + (edge + i * step).toFixed(1) + "," + y(value).toFixed(1)).join(" "));
    path.setAttribute("class", "stroke-" + ink(pair.d || ""));
    svg.append(zero, path);
    return svg;
  }

  function inside(pair) {
    const body = make("div", "inside");
    const actions = make("div", "actions");
    actions.setAttribute("role", "group");
    actions.setAttribute("aria-label", "Decision");
    for (const action of ACTIONS) {
      const button = make("button", action, action);
      button.type = "button";
      button.value = action;
      button.title = { keep: "use it as it is", drop: "leave it out", flip: "swap chosen and rejected" }[action];
      button.addEventListener("click", () => decide(pair, action));
      actions.append(button);
    }
    const next = make("button", "", "next pair");
    next.type = "button";
    next.addEventListener("click", () => go(1));
    actions.append(next);
    const why = make("ul", "why");
    for (const sentence of pair.why || []) why.append(make("li", "", sentence));
    const evidence = pair.e ? [believed(pair)] : [];
    const asked = make("div", "prompt");
    asked.append(make("h4", "", "Prompt"), ...messages(pair.p || [], "Prompt"));
    const sides = make("div", "sides");
    const marks = compare(pair);
    [["Labelled chosen", pair.c, 0], ["Labelled rejected", pair.j, 1]].forEach(([title, side, k]) => {
      const box = make("div", "box side-" + k);
      const heading = make("h4", "", title);
      heading.append(make("span", "", ` · ${count(pair.len[k])} ${data.length}`));
      box.append(heading, ...messages(side || [], title + " answer", marks && marks[k]));
      sides.append(box);
    });
    body.append(actions, ...evidence, ...(pair.why ? [why] : []), asked, sides);
    if (!marks) body.append(make("p", "soft id", "Differences are not marked: the answers share few words, are too long, or have several messages."));
    if (pair.r) body.append(margins(pair));
    const footer = make("p", "soft id", "id ");
    const code = make("code");
    code.append(make("bdi", "", pair.id));
    footer.append(code);
    if (pair.at) footer.append(" · ", make("bdi", "at", pair.at));
    body.append(footer);
    return body;
  }

  // The log-odds that sources add, loudest against the label first; with the prior, which comes last, those of P(label right).
  function believed(pair) {
    const box = make("div", "believed");
    const rows = [...pair.e];
    if (pair.q === undefined) box.append(make("p", "", "Evidence for and against the label (its probability cannot be estimated here):"));
    else {
      box.append(make("p", "", `P(label right) is ${percent(pair.q)}:`));
      rows.push([`${percent(1 / (1 + Math.exp(-data.prior)))} of all labels are right, by the estimated noise rate`, data.prior]);
    }
    const table = make("table");
    table.setAttribute("aria-label", "Log-odds of a right label");
    const head = table.createTHead().insertRow();
    for (const title of ["Evidence", "Log-odds"]) {
      const cell = make("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const lines = table.createTBody();
    for (const [sentence, value] of rows) {
      const line = lines.insertRow();
      const cell = make("th", "", sentence[0].toUpperCase() + sentence.slice(1));
      cell.scope = "row";
      line.append(cell, make("td", value < 0 ? "against" : "", signed(value)));
    }
    box.append(table);
    return box;
  }

  function messages(list, name, marks) {
    const found = [];
    list.forEach(([role, i], k) => {
      if (list.length > 1 || !["user", "assistant", ""].includes(role)) found.push(make("span", "role", role));
      const [content, hidden] = data.texts[i];
      const box = make("div", "text-box");
      box.dir = "auto";
      if (content.length > 400 || content.split("\n").length > 10) {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", name);
      }
      if (marks && k === 0) box.append(...marks);
      else box.textContent = content;
      found.push(box);
      if (hidden) found.push(make("p", "hidden-note", `… ${count(hidden)} more characters are not shown here.`));
      if (!content && !hidden) found.push(make("p", "hidden-note", "(empty)"));
    });
    return found;
  }

  function margins(pair) {
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const title of ["Checkpoint", "Log-prob margin", "Reward margin"]) {
      const cell = make("th", "", title);
      cell.scope = "col";
      head.append(cell);
    }
    const rows = table.createTBody();
    data.path.forEach((name, i) => {
      const line = rows.insertRow();
      const cell = make("th", "", name);
      cell.scope = "row";
      line.append(cell, make("td", "", signed(pair.m[i])), make("td", "", signed(pair.r[i])));
    });
    const box = make("div", "table margins");
    box.append(table, make("p", "soft id", "margins in nats"));
    return box;
  }

  // ---- the words that one answer has and the other has not: longest common subsequence of words

  function compare(pair) {
    if (!pair.c || !pair.j || pair.c.length !== 1 || pair.j.length !== 1) return null;
    const [a, b] = [pair.c, pair.j].map((side) => text(side[0][1]).split(/(\s+)/));
    let start = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start++;
    let tail = 0;
    while (tail < a.length - start && tail < b.length - start && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
    const n = a.length - start - tail, m = b.length - start - tail;
    if (n * m > MOST_CELLS) return null;
    const best = new Uint16Array((n + 1) * (m + 1));
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        best[i * (m + 1) + j] = a[start + i] === b[start + j]
          ? best[(i + 1) * (m + 1) + j + 1] + 1
          : Math.max(best[(i + 1) * (m + 1) + j], best[i * (m + 1) + j + 1]);
      }
    }
    const own = [new Uint8Array(a.length), new Uint8Array(b.length)];
    let i = 0, j = 0;
    while (i < n || j < m) {
      if (i < n && j < m && a[start + i] === b[start + j]) { i++; j++; }
      else if (j >= m || (i < n && best[(i + 1) * (m + 1) + j] >= best[i * (m + 1) + j + 1])) own[0][start + i++] = 1;
      else own[1][start + j++] = 1;
    }
    const word = (w) => w.trim() !== "";
    const common = a.filter((w, k) => word(w) && !own[0][k]).length;
    const all = a.filter(word).length + b.filter(word).length;
    if (2 * common < LEAST_COMMON * all) return null; // everything would be marked
    return [a, b].map((words, k) => pieces(words, own[k]));
  }

  function pieces(words, own) {
    const found = [];
    for (let i = 0; i < words.length;) {
      let to = i;
      while (to < words.length && own[to] === own[i]) to++;
      const part = words.slice(i, to).join("");
      found.push(own[i] ? make("mark", "", part) : document.createTextNode(part));
      i = to;
    }
    return found;
  }

  // ---- the threshold

  const dropping = (threshold) => {
    if (told) return `With P(label right) at ${percent(1 / (1 + Math.exp(threshold)))} or below`;
    return `From ${data.kind === "run" ? `${digits(threshold)} ${data.unit}` : points(threshold)} up`;
  };

  function slide() {
    const at = Number($("threshold").value);
    const [threshold, dropped, share, precision, recall] = data.curve[at];
    const kind = data.kind === "run" ? "scored pairs" : "pairs";
    const of = `${count(data.valued)} ${kind}`;
    const pairs = dropped === 1 ? "1 pair" : `${count(dropped)} pairs`;
    let said = threshold === null
      ? "Nothing is dropped."
      : `${dropping(threshold)}, ${pairs} would be dropped: ${percent(share)} of the ${of}.`;
    if (at && at === data.start) said += data.cuts ? " This is the filter's own cut." : " These labels are more likely wrong than right.";
    const range = ([value, low, high]) => `${percent(value)} (${percent(low)} to ${percent(high)})`;
    const found = [];
    if (precision) found.push(`${range(precision)} of them are mislabelled`);
    if (recall) found.push(`${range(recall)} of all labels flipped at random in the ${count(data.judged)} ${kind} are among them`);
    if (found.length) said += ` According to swapped copies, ${found.join(", and ")}.`;
    if (threshold !== null && !precision && (data.kind === "run" || told)) said += " How many of them are mislabelled cannot be estimated.";
    $("cost").textContent = said;
    $("threshold").setAttribute("aria-valuetext", said);
    const mark = $("curve-mark");
    if (!mark) return;
    const left = Number(mark.dataset.left), right = Number(mark.dataset.right);
    const last = Math.max(1, data.curve[data.curve.length - 1][1]);
    const line = mark.querySelector("path") || mark;
    line.setAttribute("transform", `translate(${((dropped / last) * (right - left)).toFixed(2)} 0)`);
  }

  // ---- keys: n and p go from pair to pair; k, d, f decide on the open one; / searches; ? lists the keys

  function go(step) {
    const rows = [...document.querySelectorAll(".suspect")];
    const at = rows.indexOf(document.activeElement && document.activeElement.closest(".suspect"));
    if (at + step >= rows.length && !$("more").hidden) { more(); return go(step); }
    const to = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
    if (!to) return undefined;
    if (at >= 0 && rows[at] !== to) rows[at].open = false;
    to.open = true;
    to.querySelector("summary").focus();
    to.scrollIntoView({ block: "nearest" });
    return undefined;
  }

  document.addEventListener("keydown", (event) => {
    if ($("help").open || event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const here = document.activeElement && document.activeElement.closest(".suspect");
    const action = { k: "keep", d: "drop", f: "flip" }[event.key];
    if (event.key === "n") go(1);
    else if (event.key === "p") go(-1);
    else if (event.key === "/") $("search").focus();
    else if (event.key === "?") $("help").showModal();
    else if (action && here) decide(here.pair, action);
    else return;
    event.preventDefault();
  });

  // ---- start

  function options(select, entries) {
    for (const [value, label, n] of entries) {
      const option = make("option", "", n === undefined ? label : `${label} (${count(n)})`);
      option.value = value;
      select.append(option);
    }
  }

  if (data.pairs.length) {
    const tally = {};
    for (const pair of data.pairs) for (const name of Object.keys(pair.f || {})) tally[name] = (tally[name] || 0) + 1;
    const suspected = data.pairs.filter((pair) => pair.s > 0).length;
    if (suspected) options($("finding"), [["suspicion", told ? "Label more likely wrong than right" : "Margin against the label", suspected]]);
    options($("finding"), Object.keys(data.titles).filter((name) => tally[name]).map((name) => [name, data.titles[name], tally[name]]));
    for (const [column, values] of Object.entries(data.slices)) {
      if (values.length < 2) continue;
      const group = make("optgroup");
      group.label = column;
      options(group, values.map((value, i) => [JSON.stringify([column, i]), value.slice(0, 60)]));
      $("slice").append(group);
    }
    if (data.kind !== "run") $("sort").querySelector("[value=margin]").remove();
    let waiting;
    $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(choose, 150); });
    for (const id of ["finding", "side", "slice", "sort"]) $(id).addEventListener("change", choose);
    $("more").addEventListener("click", more);
    $("list").classList.add(data.kind);
    if (!PATHS) $("list").classList.add("flat");
    $("keys").addEventListener("click", () => $("help").showModal());
    $("close").addEventListener("click", () => $("help").close());
    for (const link of document.querySelectorAll("[data-rank]")) {
      link.addEventListener("click", (event) => {
        const pair = $("pair-" + link.dataset.rank); // there unless the list is narrowed or sorted otherwise
        if (!pair) return;
        event.preventDefault();
        for (const row of document.querySelectorAll(".suspect[open]")) row.open = false;
        pair.open = true;
        pair.querySelector("summary").focus();
        pair.scrollIntoView({ block: "start" });
      });
    }
    $("controls").hidden = false;
    showDecisions();
    choose();
    const first = document.querySelector(".suspect");
    if (first) first.open = true;
  }
  if ($("threshold")) {
    $("threshold").addEventListener("input", slide);
    slide();
  }
  // A link to a finding opens its explanation.
  const open = (hash) => {
    const target = hash && document.getElementById(decodeURIComponent(hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
    return target;
  };
  addEventListener("hashchange", () => open(location.hash));
  open(location.hash);
  // In a notebook's frame the page has no address of its own, and the browser follows none of its links.
  if (location.protocol === "about:") {
    addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      if (!link) return;
      event.preventDefault();
      const target = open(link.hash);
      if (target) target.scrollIntoView();
    });
  }
})();
