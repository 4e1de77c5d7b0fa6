// The verdict follows the hand: every change is asked at once, the latest wins; what takes longer (flips,
// probability) is asked when the hand rests. Without this script the page computes with its buttons.
const place = document.getElementById("decision");
const form = place.querySelector("form");
const part = (id) => document.getElementById(id);
let asking = null;      // the request under way
let wanted = false;     // something changed meanwhile
let resting = 0;        // timer of the deeper question
let round = 0;          // number of the last change

function fields() {
  return new URLSearchParams(new FormData(form));
}

function show(answer, deep) {
  part("problem").hidden = true;
  part("verdict").innerHTML = answer.verdict;
  part("details").innerHTML = answer.details;
  if (deep) part("depth").innerHTML = answer.depth;
  part("floating").textContent = answer.plain;
  const status = part("status");
  if (round > 0) { // until something is changed the server's own words stand
    status.textContent = answer.changed ? status.dataset.trial.replace("#", answer.changed) : status.dataset.saved;
  }
  status.classList.toggle("trial", answer.changed > 0);
  part("reset").hidden = answer.changed === 0;
  document.dispatchEvent(new CustomEvent("hauslm:answered", { detail: { deep, ms: answer.ms } }));
}

async function ask(deep) {
  const mine = round;
  asking = new AbortController();
  try {
    const response = await fetch(deep ? place.dataset.deep : place.dataset.try, {
      method: "POST", body: fields(), signal: asking.signal,
    });
    const answer = await response.json();
    if (answer.error) {
      part("problem").textContent = answer.error;
      part("problem").hidden = false;
    } else if (!deep || mine === round) {
      show(answer, deep);
      if (!deep) rest();
    }
  } catch (fault) {
    if (fault.name !== "AbortError") part("problem").hidden = false;
  } finally {
    asking = null;
    part("depth").classList.toggle("busy", resting > 0);
    if (wanted) { wanted = false; ask(false); }
  }
}

function rest() {
  clearTimeout(resting);
  part("depth").classList.add("busy");
  resting = setTimeout(() => { resting = 0; if (asking) { rest(); } else { ask(true); } }, 350);
}

function changed() {
  round += 1;
  clearTimeout(resting);
  if (asking) { wanted = true; return; }
  ask(false);
}

// Sliders beside number fields: equal factors where the range is wide, two or three significant digits.
function toPosition(slider, value) {
  const { low, high, log } = slider.dataset;
  const [a, b] = [Number(low), Number(high)];
  if (!(value > 0) && log) return 0;
  const share = log ? Math.log(value / a) / Math.log(b / a) : (value - a) / (b - a);
  return Math.round(1000 * Math.min(1, Math.max(0, share)));
}

function toValue(slider) {
  const { low, high, log, step } = slider.dataset;
  const [a, b, s] = [Number(low), Number(high), Number(step)];
  const share = slider.value / 1000;
  if (!log) return Number((Math.round((a + share * (b - a)) / s) * s).toPrecision(6));
  return Number((a * (b / a) ** share).toPrecision(2));
}

for (const slider of form.querySelectorAll("input[type=range]")) {
  const field = part(slider.dataset.for);
  const words = () => slider.setAttribute("aria-valuetext", field.value);
  slider.hidden = false;
  slider.value = toPosition(slider, Number(field.value));
  words();
  slider.addEventListener("input", () => { field.value = String(toValue(slider)); words(); changed(); });
  field.addEventListener("input", () => { slider.value = toPosition(slider, Number(field.value)); words(); });
}
form.addEventListener("input", (event) => {
  if (event.target.type !== "range") changed();
});
part("show").hidden = true;
part("reset").hidden = !part("status").textContent.match(/\d/);
if (!part("depth").querySelector("h3")) {
  part("depth").innerHTML = "";
  const waiting = document.createElement("p");
  waiting.className = "lead";
  waiting.textContent = part("depth").dataset.waiting;
  part("depth").append(waiting);
  ask(true);
}
// A printed page shows every table behind its drawing.
addEventListener("beforeprint", () => document.querySelectorAll("figure details").forEach((d) => { d.open = true; }));
