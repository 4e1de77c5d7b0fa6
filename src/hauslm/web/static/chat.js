// One question, several answers: both sides are asked together and written as they come.
const loading = document.getElementById("loading");
if (loading) {
  const source = new EventSource(loading.dataset.events);
  source.onmessage = (event) => {
    const state = JSON.parse(event.data);
    if (state.text) document.getElementById("loading-text").textContent = state.text;
  };
  source.addEventListener("end", () => { source.close(); location.reload(); });
}

const chat = document.getElementById("chat");
if (chat) {
  const form = document.getElementById("question");
  const text = document.getElementById("text");
  const halt = document.getElementById("halt");
  const sides = new Map([...chat.querySelectorAll(".talk")].map((t) => [t.dataset.side, { place: t, turns: [] }]));
  let asking = null;

  const turn = (side, kind, words) => {
    const line = document.createElement("p");
    line.className = kind;
    line.textContent = words;
    side.place.append(line);
    side.place.scrollTop = side.place.scrollHeight;
    return line;
  };

  const take = (event, open) => {
    const side = sides.get(event.side);
    if (!side) { // told to everybody: the process has ended
      sides.forEach((s) => turn(s, "turn fault", event.error));
      return;
    }
    const line = open.get(event.side);
    if (event.text) {
      line.textContent += event.text;
      side.place.scrollTop = side.place.scrollHeight;
    } else if (event.error) {
      line.remove();
      side.turns.pop();
      turn(side, "turn fault", event.error);
    } else if (event.done) {
      side.turns.push({ role: "assistant", content: line.textContent });
      const seconds = event.seconds.toLocaleString(document.documentElement.lang, { maximumFractionDigits: 1 });
      let count = chat.dataset.tokens.replace("#", event.tokens).replace("%", seconds);
      if (event.finish === "length") count += "; " + chat.dataset.cut;
      turn(side, "count", count);
    }
  };

  const ask = async (question) => {
    const open = new Map();
    const body = { sides: {}, max_new_tokens: Number(document.getElementById("tokens").value),
      temperature: Number(document.getElementById("temperature").value) };
    sides.forEach((side, name) => {
      side.place.querySelectorAll(".hint").forEach((h) => h.remove());
      turn(side, "turn you", question);
      side.turns.push({ role: "user", content: question });
      body.sides[name] = side.turns;
      open.set(name, turn(side, "turn", ""));
    });
    asking = new AbortController();
    halt.hidden = false;
    form.querySelector("button").disabled = true;
    try {
      const answer = await fetch(chat.dataset.ask, {
        method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body), signal: asking.signal,
      });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || chat.dataset.lost);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n\n");
        rest = lines.pop();
        lines.forEach((l) => take(JSON.parse(l.replace(/^data: /, "")), open));
      }
    } catch (fault) {
      sides.forEach((side) => {
        if (side.turns.at(-1)?.role === "user") { // what was written so far stays part of the conversation
          const written = open.get(side.place.dataset.side).textContent;
          if (written) side.turns.push({ role: "assistant", content: written }); else side.turns.pop();
        }
        if (fault.name !== "AbortError") turn(side, "turn fault", fault.message || chat.dataset.lost);
      });
    } finally {
      asking = null;
      halt.hidden = true;
      form.querySelector("button").disabled = false;
      text.focus();
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const question = text.value.trim();
    if (!question || asking) return;
    text.value = "";
    ask(question);
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  halt.addEventListener("click", () => asking?.abort());
  document.getElementById("clear").addEventListener("click", () => {
    asking?.abort();
    sides.forEach((side) => { side.turns = []; side.place.textContent = ""; });
    text.focus();
  });
}
