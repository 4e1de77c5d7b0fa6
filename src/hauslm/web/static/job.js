// Follows a running job: appends each line of its log, and says how it ended. The page works without it.
const log = document.getElementById("log");
const status = document.getElementById("status");
if (log && log.dataset.follow) {
  log.textContent = "";
  const source = new EventSource(log.dataset.follow);
  source.onmessage = (event) => {
    log.textContent += JSON.parse(event.data) + "\n";
    log.scrollTop = log.scrollHeight;
  };
  source.addEventListener("end", (event) => {
    source.close();
    const code = JSON.parse(event.data);
    status.textContent = code === 0 ? status.dataset.done : `${status.dataset.failed} ${code}`;
    document.querySelectorAll("button.quiet").forEach((b) => { b.disabled = true; });
  });
}
