// Live parts by server-sent events: a running job's log, the training's state; and tables that load late.
function follow(log) {
  const status = document.getElementById("status");
  const result = document.getElementById("result");
  const source = new EventSource(log.dataset.follow);
  log.textContent = "";
  source.onmessage = (event) => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 40;
    log.textContent += JSON.parse(event.data) + "\n";
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  source.addEventListener("end", (event) => {
    source.close();
    const code = JSON.parse(event.data);
    if (log.dataset.then) { location.assign(log.dataset.then); return; }
    if (status) status.textContent = code === 0 ? status.dataset.done : `${status.dataset.failed} ${code}`;
    if (result && code === 0) result.hidden = false;
    document.querySelectorAll("form[action='/job/stop'] button").forEach((b) => { b.disabled = true; });
    document.querySelectorAll(".ribbon").forEach((r) => r.remove());
  });
}

function watch(place) {
  const source = new EventSource(place.dataset.events);
  source.onmessage = (event) => {
    const piece = JSON.parse(event.data);
    const open = [...place.querySelectorAll("details")].map((d) => d.open);
    place.innerHTML = piece.html;
    place.querySelectorAll("details").forEach((d, i) => { d.open = open[i] || false; });
    const log = document.getElementById(place.dataset.log);
    if (log) log.textContent = piece.log.join("\n");
  };
  // The buttons change with the end: the page is asked for anew.
  source.addEventListener("end", () => { source.close(); location.reload(); });
}

async function load(place) {
  place.textContent = place.dataset.waiting;
  const answer = await fetch(place.dataset.load);
  place.innerHTML = await answer.text();
}

document.querySelectorAll("[data-follow]").forEach(follow);
document.querySelectorAll("[data-events]").forEach(watch);
document.querySelectorAll("[data-load]").forEach(load);
addEventListener("beforeprint", () => document.querySelectorAll("figure details").forEach((d) => { d.open = true; }));
