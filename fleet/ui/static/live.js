// Keeps the parts of a page that are marked with data-live current, and counts devices
// while a filter is typed. Every page works without this.

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// parse makes a document of HTML that this server rendered.
const parse = (html) => new DOMParser().parseFromString(html, "text/html");

// refresh loads the page again and replaces the marked parts that differ, but none in which
// the user is doing something.
async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (response.redirected || !response.ok) {
    return;
  }
  const fresh = parse(await response.text());
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    const busy = part.contains(document.activeElement) || part.querySelector("details[open], form[data-touched]");
    if (other && !busy && part.innerHTML !== other.innerHTML) {
      part.replaceChildren(...other.childNodes);
    }
  }
}

// follow refreshes the page whenever the server says that something changed.
function follow(address) {
  const status = document.getElementById("live-status");
  const events = new EventSource(address);
  let running = false;
  let again = false;
  const change = async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await refresh();
      } catch {
        // The next event tries again.
      }
      await pause(1000);
    } while (again);
    running = false;
  };
  events.addEventListener("change", change);
  let lost = false;
  events.addEventListener("open", () => {
    status.textContent = "Live";
    if (lost) {
      change(); // what was missed
    }
    lost = false;
  });
  events.addEventListener("error", () => {
    status.textContent = "Connection lost: what is shown may be old";
    lost = true;
  });
}

// count shows how many devices the filter in a field selects.
function count(field) {
  const output = document.getElementById(field.dataset.count);
  let timer = 0;
  let latest = 0;
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      latest += 1;
      const mine = latest;
      const response = await fetch("/match?filter=" + encodeURIComponent(field.value));
      if (response.ok && !response.redirected) {
        const html = await response.text();
        if (mine === latest) {
          output.replaceChildren(...parse(html).body.childNodes);
        }
      }
    }, 300);
  });
}

const source = document.body.dataset.events;
if (source && document.querySelector("[data-live]")) {
  follow(source);
}
document.querySelectorAll("[data-count]").forEach(count);
document.addEventListener("input", (e) => e.target.form?.setAttribute("data-touched", ""));
