"use strict";
(() => {
  const EVERY = 5000;
  const by = (id) => document.getElementById(id);
  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

  const count = (value) => [whole.format(value), ""];
  const perMinute = (value) => [(value < 10 ? short : whole).format(value), "per minute"];
  const bytes = (value) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let at = 0;
    while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
    return [(at && value < 100 ? short : whole).format(value), units[at]];
  };
  const span = (seconds) => {
    const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
    const [name, size] = units.find(([, size]) => seconds >= size) || units[3];
    const number = Math.floor(seconds / size);
    return `${number} ${name}${number === 1 ? "" : "s"}`;
  };
  const words = (name) => name.replaceAll("_", " ");

  // What a tile shows: a number of each sample, or by how much a counter grew in the minute before it.
  const level = (key) => (history) => history.map((sample) => [sample.at, sample[key]]);
  const rate = (key) => (history) => {
    let first = 0;
    return history.slice(1).flatMap((sample, index) => {
      while (first < index && history[first].at < sample.at - 60) first += 1;
      const seconds = sample.at - history[first].at;
      return seconds > 0 ? [[sample.at, (sample[key] - history[first][key]) * 60 / seconds]] : [];
    });
  };
  const tiles = [
    ["Live sessions", level("live"), count, "teal"],
    ["Dark sessions (held)", level("dark"), count, "slate"],
    ["Messages to clients", rate("messages_out"), perMinute, "teal"],
    ["Notifications accepted", rate("published"), perMinute, "teal"],
    ["Suspect: ack overdue", level("suspect"), count, "amber"],
    ["Waiting on disk", level("spool_bytes"), bytes, "slate"],
    ["Logins", rate("logins"), perMinute, "teal"],
    ["Notifications failed", rate("publish_failed"), perMinute, "red"],
  ].map(([name, series, format, colour]) => tile(name, series, format, colour));

  function element(name, attributes, ...children) {
    const made = name === "svg" || name === "path" || name === "line" || name === "rect"
      ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function tile(name, series, format, colour) {
    const value = document.createTextNode("");
    const unit = element("span");
    const reading = element("div", { class: "reading" });
    const area = element("path", { class: `plot-area ${colour}` });
    const line = element("path", { class: `plot-line ${colour}` });
    const mark = element("line", { class: "plot-mark", y1: 0, y2: 100, visibility: "hidden" });
    const svg = element("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img" }, area, line, mark);
    by("tiles").append(element("div", { class: "tile" }, element("h3", {}, name), element("p", {}, value, unit), reading, svg));
    let points = [], from = 0, to = 1, most = 0, pointed = null;

    const told = (number) => format(number).filter(Boolean).join(" ");
    function read() {
      if (pointed === null || points.length === 0) {
        mark.setAttribute("visibility", "hidden");
        reading.textContent = points.length ? `highest ${told(most)}` : "";
        return;
      }
      const at = from + pointed * (to - from);
      const near = points.reduce((best, point) => Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best);
      const x = (near[0] - from) / (to - from) * 1000;
      mark.setAttribute("x1", x);
      mark.setAttribute("x2", x);
      mark.setAttribute("visibility", "visible");
      reading.textContent = `${told(near[1])} at ${new Date(near[0] * 1000).toLocaleTimeString()}`;
    }
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      pointed = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      read();
    });
    svg.addEventListener("pointerleave", () => { pointed = null; read(); });

    return (history, [start, end]) => {
      [from, to] = [start, end];
      points = series(history).filter(([at]) => at >= from);
      const now = points.length ? points[points.length - 1][1] : 0;
      most = Math.max(0, ...points.map(([, number]) => number));
      [value.data, unit.textContent] = format(now);
      const top = most || 1;
      const place = ([at, number]) =>
        `${((at - from) / (to - from) * 1000).toFixed(1)} ${(96 - number / top * 88).toFixed(1)}`;
      const path = points.map(place).join("L");
      line.setAttribute("d", path ? `M${path}` : "");
      const x = (point) => ((point[0] - from) / (to - from) * 1000).toFixed(1);
      area.setAttribute("d", path ? `M${x(points[0])} 100L${path}L${x(points[points.length - 1])} 100Z` : "");
      svg.setAttribute("aria-label", `${name}, last ${span(to - from)}: now ${told(now)}, highest ${told(most)}`);
      read();
    };
  }

  const row = (name, ...cells) => element("tr", {}, element("th", { scope: "row" }, name), ...cells);
  const cell = (text) => element("td", {}, text);
  const nothing = (text) => element("tr", {}, element("td", { class: "none" }, text));

  function bars(entries, colour) {
    const most = Math.max(1, ...entries.map(([, number]) => number));
    return entries.map(([name, number]) => {
      const bar = element("rect", { width: (number / most * 100).toFixed(2), height: 6, rx: 1, class: colour(name) });
      const plot = element("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, bar);
      return row(words(name), element("td", { class: "bar" }, plot), cell(whole.format(number)));
    });
  }

  function show(status) {
    by("about").textContent = `${status.version}, up ${span(status.uptime)}, ${whole.format(status.connections)} connected`;
    by("state").dataset.state = status.draining ? "draining" : "up";
    say(status.draining ? "Draining: no new connections" : "Running");
    const history = status.history;
    const last = history[history.length - 1].at;
    const length = Math.min(3600, Math.max(300, last - history[0].at));
    by("span").textContent = length >= 3590 ? "The last hour" : `The last ${span(length)}`;
    for (const update of tiles) update(history, [last - length, last]);

    by("hosts").replaceChildren(...status.hosts.map((host) =>
      row(host.host, ...[host.live, host.suspect, host.dark].map((number) => cell(whole.format(number))))));
    const outcomes = ["accepted", "wait", "refused", "unknown", "not_sent"].map((name) => [name, status.publishes[name] || 0]);
    const good = { accepted: "teal", refused: "red", not_sent: "red", wait: "amber" };
    by("publishes").replaceChildren(...bars(outcomes, (name) => good[name] || ""));
    const verdicts = Object.entries(status.verdicts).sort((one, other) => other[1] - one[1]).slice(0, 12);
    by("verdicts").replaceChildren(...(verdicts.length
      ? bars(verdicts, (name) => name === "push" || name === "ring" ? "teal" : "") : [nothing("No verdicts yet.")]));
    const disk = status.disk;
    const kept = [["Stanzas in memory", `${whole.format(status.queued)}, ${bytes(status.queue_bytes).join(" ")}`]].concat(disk ? [
      ["Stanzas on disk", `${whole.format(disk.spooled)}, ${bytes(disk.spool_bytes).join(" ")}`],
      ["Accounts", whole.format(disk.accounts)],
      ["Wake pushes waiting", whole.format(disk.wakes_waiting)],
      ["Database file", bytes(disk.store_bytes).join(" ")],
    ] : [["Database", "unreadable; see the log"]]);
    by("kept").replaceChildren(...kept.map(([name, text]) => row(name, cell(text))));
    by("main").hidden = false;
    by("main").classList.remove("stale");
  }

  // Screen readers read a live region again whenever it is written.
  function say(text) {
    if (by("state").textContent !== text) by("state").textContent = text;
  }

  let seen = null;
  async function poll() {
    try {
      const response = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(4 * EVERY) });
      if (!response.ok) throw new Error(response.status);
      const status = await response.json();
      seen = new Date();
      show(status);
    } catch {
      by("state").dataset.state = "lost";
      say(seen ? `No answer since ${seen.toLocaleTimeString()}` : "No answer");
      by("main").classList.add("stale");
    }
    setTimeout(poll, EVERY);
  }
  poll();
})();
