// The listening test, one page after the other. What a listener does is kept in this browser at once, so that a
// reload loses nothing; at the end it goes to the server that showed the page, and nowhere else.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const PLAY = "M8 5v14l11-7z", PAUSE = "M6 5h4v14H6zm8 0h4v14h-4z";
const main = document.getElementById("main");
const status = document.getElementById("status");
const next = document.getElementById("next");

const test = await fetch("test.json", { cache: "no-cache" }).then((answer) => answer.json()).catch((error) => {
  main.textContent = "The test cannot be loaded. Check the connection and reload the page.";
  throw error;
});
const items = new Map([test.training, ...test.items].map((item) => [item.id, item]));
let state = load() ?? fresh();
let pages = listPages();
let players = [];

// -- the listener's state ---------------------------------------------------------------------------------------

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return {
    listener: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""),
    items: shuffled(test.items.map((item) => item.id)),
    samples: Object.fromEntries(Array.from(items, ([id, item]) => [id, shuffled(item.samples)])),
    page: 0, // of `pages`
    heard: {}, // sample: true once it was played to its end
    ratings: {}, // sample: {aspect: 1 to 5}
    saved: false,
  };
}

function load() {
  try {
    return JSON.parse(localStorage.getItem(test.id));
  } catch {
    return null; // a browser that keeps nothing, or what it kept is damaged: begin again
  }
}

function keep() {
  try {
    localStorage.setItem(test.id, JSON.stringify(state));
  } catch {
    document.getElementById("warning").hidden = false;
  }
}

function shuffled(list) { // Fisher and Yates
  const copy = [...list];
  for (let last = copy.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [copy[last], copy[other]] = [copy[other], copy[last]];
  }
  return copy;
}

function listPages() {
  const questions = (id, number) => test.aspects.map((aspect, index) => ({ show: showQuestion, id, number, aspect, index }));
  return [
    { show: showWelcome },
    { show: showVolume },
    ...questions(test.training.id, 0),
    ...state.items.flatMap((id, index) => questions(id, index + 1)),
    { show: showEnd },
  ];
}

// -- building blocks --------------------------------------------------------------------------------------------

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  svg.firstChild.setAttribute("d", path);
  return svg;
}

function announce(text) {
  status.textContent = text;
}

/** A sample's play button and position; `onheard` is called each time it was played to its end. */
function player(title, name, onheard = () => {}) {
  const audio = new Audio(`audio/${name}.wav`);
  audio.preload = "auto";
  const image = icon(PLAY);
  const button = element("button", { type: "button", class: "play", "aria-label": `Play ${title}` }, image);
  const position = element("input", { type: "range", min: 0, max: test.seconds, step: "any", value: 0, "aria-label": `Position in ${title}` });
  const heard = element("span", { class: "heard" });
  const box = element("div", { class: "player" }, button, element("h2", {}, title), heard, position);

  function refresh() {
    const done = Boolean(state.heard[name]);
    position.disabled = !done; // the first time is played through
    heard.classList.toggle("yes", done);
    heard.textContent = done ? "✓ heard" : `${Math.ceil(test.seconds - audio.currentTime)} s`;
    image.firstChild.setAttribute("d", audio.paused ? PLAY : PAUSE);
    button.setAttribute("aria-label", `${audio.paused ? "Play" : "Pause"} ${title}`);
    position.value = audio.currentTime;
    position.setAttribute("aria-valuetext", `${Math.round(audio.currentTime)} of ${Math.round(test.seconds)} seconds`);
  }
  button.addEventListener("click", () => {
    if (!audio.paused) return audio.pause();
    for (const other of players) if (other !== audio) other.pause();
    audio.play().catch(fail);
  });
  position.addEventListener("input", () => (audio.currentTime = position.value));
  for (const kind of ["play", "pause", "timeupdate"]) audio.addEventListener(kind, refresh);
  audio.addEventListener("ended", () => {
    state.heard[name] = true;
    keep();
    audio.currentTime = 0;
    refresh();
    onheard();
  });
  function fail() {
    if (!audio.error || box.querySelector(".error")) return; // pressing pause at once is no failure
    box.append(element("p", { class: "error" }, "This sample cannot be played. Check the connection and reload; your ratings stay."));
  }
  audio.addEventListener("error", fail);
  players.push(audio);
  refresh();
  return box;
}

/** The five answers for a sample, locked until it was heard; `onrate` is called with each choice. */
function answers(title, sample, aspect, onrate) {
  const hint = element("p", { class: "hint" });
  const fields = element("fieldset", {}, element("legend", {}, `${title}: ${aspect.question}`));
  aspect.labels.forEach((label, worse) => {
    const value = 5 - worse;
    const input = element("input", { type: "radio", name: sample, value, checked: state.ratings[sample]?.[aspect.name] === value });
    input.addEventListener("change", () => {
      state.ratings[sample] = { ...state.ratings[sample], [aspect.name]: value };
      keep();
      onrate();
    });
    fields.append(element("label", { class: "answer" }, input, element("b", {}, value), element("span", {}, label)));
  });
  function unlock() {
    fields.disabled = !state.heard[sample];
    hint.textContent = fields.disabled ? "Play it to the end to rate it." : "Choose one answer.";
  }
  unlock();
  return { parts: [hint, fields], unlock };
}

// -- the pages --------------------------------------------------------------------------------------------------

function showWelcome() {
  const minutes = Math.ceil(((test.items.length + 1) * (test.training.samples.length + 2) * test.seconds * 1.3) / 60);
  const agree = element("input", { type: "checkbox", id: "agree" });
  main.append(
    element("div", { class: "prose" },
      element("h1", { tabindex: -1 }, "How good are separated voices?"),
      element("p", { class: "lead" }, `You hear ${test.items.length} short pieces of songs, and for each what ${test.training.samples.length} computer programs made of it: the singing voice alone. You say how well they did.`),
      element("ul", {},
        element("li", {}, `It takes about ${minutes} minute${minutes > 1 ? "s" : ""}.`),
        element("li", {}, "Please wear headphones and sit in a quiet room."),
        element("li", {}, "There is no right answer: what counts is what you hear."),
        element("li", {}, "You may take breaks, and even close or reload the page: this browser keeps your place and your ratings.")),
      element("p", {}, "Your ratings are kept under a random number, with nothing else about you. They are sent once, at the end. If you stop before, nothing is sent."),
      element("label", { class: "card consent" }, agree, element("span", {}, "I have read this and take part of my own free will."))),
  );
  return { go: "Begin", ready: () => agree.checked || (agree.focus(), "Please tick the box if you want to take part.") };
}

function showVolume() {
  main.append(
    element("h1", { tabindex: -1 }, "Set the volume"),
    element("p", { class: "lead" }, "Play this song and set your device to a volume at which you hear everything well and comfortably. Then leave it there until the end."),
    element("div", { class: "card reference" }, player("A song", test.training.reference)),
  );
  return { go: "The volume is right", ready: () => players[0].played.length > 0 || "Please play the song first." };
}

function showQuestion({ id, number, aspect, index }) {
  const samples = state.samples[id];
  const rated = () => samples.filter((sample) => state.ratings[sample]?.[aspect.name]);
  const tell = () => announce(`${rated().length} of ${samples.length} samples rated.`);
  const cards = samples.map((sample, place) => {
    const title = `Sample ${LETTERS[place]}`;
    const scale = answers(title, sample, aspect, () => { card.classList.remove("missing"); tell(); });
    const card = element("section", { class: "card", "aria-label": title, onkeydown: rateByDigit },
      player(title, sample, () => { scale.unlock(); announce(`${title} was played to the end: you can rate it.`); }),
      ...scale.parts);
    return card;
  });
  if (number === 0) main.append(element("p", { class: "note" }, "Practice: these ratings do not count"));
  const help = number || index ? [] : [
    " Play each sample to its end, then choose one answer.",
    element("span", { class: "keys" }, " Keys: Tab moves, Space plays, 1 to 5 rate the sample you are in."),
  ];
  main.append(
    element("h1", { tabindex: -1 }, aspect.question),
    element("p", { class: "lead" }, aspect.hint, ...help),
    element("div", { class: "card reference" }, player("The song itself", items.get(id).reference)),
    element("div", { class: "samples" }, ...cards),
  );
  tell();
  return {
    place: `${number ? `Song ${number} of ${test.items.length}` : "Practice"} · question ${index + 1} of ${test.aspects.length}`,
    go: state.page === pages.length - 2 ? "Finish and send" : "Next",
    ready: () => {
      const missing = samples.flatMap((sample, place) => (rated().includes(sample) ? [] : [place]));
      for (const place of missing) cards[place].classList.add("missing");
      if (!missing.length) return true;
      cards[missing[0]].querySelector(state.heard[samples[missing[0]]] ? "input[type=radio]" : "button").focus();
      return `Still to be rated: ${missing.map((place) => LETTERS[place]).join(", ")}.`;
    },
  };
}

function rateByDigit(event) { // only while the focus is in that sample's card
  const choice = event.currentTarget.querySelector(`input[type=radio][value="${event.key}"]:enabled`);
  if (/^[1-5]$/.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey && choice) {
    choice.focus();
    choice.click();
  }
}

function showEnd() {
  const outcome = element("p", { class: "outcome", role: "status" });
  const again = element("button", { type: "button", class: "secondary", hidden: true, onclick: send }, "Try again");
  const other = element("button", { type: "button", class: "secondary", hidden: true, onclick: restart }, "Another listener begins");
  main.append(
    element("div", { class: "prose" },
      element("h1", { tabindex: -1 }, "Thank you for listening"),
      outcome,
      element("p", {}, "If you like, keep a copy of your ratings."),
      element("div", { class: "actions" }, again, element("button", { type: "button", class: "secondary", id: "download", onclick: download }, "Download my ratings (CSV)"), other)),
  );

  function tell(good, text) {
    outcome.className = `outcome ${good ? "good" : "bad"}`;
    outcome.textContent = text;
    again.hidden = good;
    other.hidden = !good;
  }
  async function send() {
    outcome.textContent = "Sending your ratings ...";
    try {
      const answer = await fetch("results", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ test: test.id, listener: state.listener, ratings: ratings() }),
      });
      const { saved, error } = await answer.json().catch(() => ({}));
      if (saved) {
        state.saved = true;
        keep();
        return tell(true, "Your ratings are saved. You can close this page.");
      }
      tell(false, `${error ?? "This server takes no ratings."} Please download them and send the file to whoever asked you to take part.`);
    } catch {
      tell(false, "The server cannot be reached. Your ratings are still in this browser: try again later, or download them and send the file to whoever asked you to take part.");
    }
  }
  if (state.saved) tell(true, "Your ratings are saved. You can close this page.");
  else send();
  return {};
}

/** What counts: every rating but those of the practice. */
function ratings() {
  return test.items.flatMap((item) => item.samples).flatMap((sample) =>
    test.aspects.map(({ name }) => ({ sample, aspect: name, rating: state.ratings[sample][name] })));
}

function download() {
  const lines = ratings().map(({ sample, aspect, rating }) => [test.id, state.listener, sample, aspect, rating].join(","));
  const file = new Blob([["test,listener,sample,aspect,rating", ...lines, ""].join("\n")], { type: "text/csv" });
  const link = element("a", { href: URL.createObjectURL(file), download: `${state.listener}.csv` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // some browsers read it later
}

function restart() {
  state = fresh();
  pages = listPages();
  keep();
  show();
}

// -- from page to page ------------------------------------------------------------------------------------------

let current = {};

function show() {
  for (const audio of players) audio.pause();
  players = [];
  main.replaceChildren();
  announce("");
  const page = pages[state.page];
  current = page.show(page);
  next.hidden = !current.go;
  next.textContent = current.go ?? "";
  document.querySelector(".progress").hidden = !current.place;
  document.getElementById("place").textContent = current.place ?? "";
  document.getElementById("progress").value = (state.page - 1) / (pages.length - 2);
  scrollTo(0, 0);
  main.querySelector("h1").focus();
}

next.addEventListener("click", () => {
  const ready = current.ready();
  if (ready !== true) return announce(ready);
  state.page += 1;
  keep();
  show();
});

show();
