// The demo page. It uses the JavaScript client of clients/js, which the server serves as fdpush.js. It inserts text from
// peers as text nodes, never as markup.
// The sections of this script: bounds, connection, messages, presence, groups, sending, drawing, start.

import { Client } from "./fdpush.js";

const LOBBY = "lobby";           // every tab joins this group; its joined and left frames update the roster
const GRACE_MS = 3000;           // time for a uid that left to reconnect (a reload); then the page queries this uid
const CONFIRM_MS = 15000;        // interval of the query for all users on the roster
const ANSWER_MS_MAX = 10000;     // a server without an answer in this time counts as dead
const RETRY_MS_FIRST = 500;      // first maximum of the reconnect delay
const PEOPLE_MAX = 200;          // users on the roster; one `online` query covers all of them
const LOG_MAX = 500, FRAMES_MAX = 200, TEXT_MAX = 20000, FRAME_TEXT_MAX = 2000;

// Close codes: the text for the user.
const CLOSE_CODES = new Map([
  [1000, "The server closed the connection."],
  [1001, "The server is shutting down or restarting."],
  [1006, "The connection was lost."],
  [1008, "The server closed the connection: policy violation."],
  [1011, "The server had an internal error."],
  [1013, "The server is overloaded, or this tab read too slowly."],
  [4001, "The same uid connected elsewhere."],
  [4003, "The token has expired. Log in again for a new one."],
]);

// Codes of requests whose result is not known, because the connection ended.
const LOST = ["closed", "connection_lost", "not_connected"];

// A page that was loaded by https must connect by wss, because browsers refuse ws from such a page.
const SCHEME = location.protocol === "https:" ? "wss:" : "ws:";

const $ = (id) => document.getElementById(id);
const encoder = new TextEncoder();

const session = { uid: null, groups: [] };   // kept when the page reloads; uid is null before the login, and "" if anonymous
const people = new Map();                    // uid → { state, offlineTimer, item, … }
const groups = new Map();                    // name → { item, count, countTimer }
let client = null;                           // null before the login
let myFd = null;                             // null without a connection
let hasFailed = false;                       // whether a connection or an attempt of this client has ended
let confirmTimer;

/* Connection */

function connect() {
  disconnect();
  const url = new URL("./", location);
  url.protocol = SCHEME;
  const mine = client = new Client(url, { uid: session.uid, timeout: ANSWER_MS_MAX, retryFirst: RETRY_MS_FIRST });
  hasFailed = false;
  const handlers = {
    state: handleState, open: handleWelcome, close: handleEnd, message: handleMessage, joined: handleMembership, left: handleMembership,
    error: handleError, text: showText, frame: showFrame,
    binary: () => showError("The server sent a binary message. This page supports text only."),
  };
  for (const [type, handle] of Object.entries(handlers)) {
    mine.on(type, (event) => { if (mine === client) handle(event); });
  }
  mine.connect();
  for (const name of [LOBBY, ...session.groups]) join(name);
}

function disconnect() {
  const old = client;
  client = null;
  markDisconnected();
  old?.close();
}

// A closed client has rejected its joins, so a new client joins the groups of the session.
function retry() {
  if (client.state === "closed") connect();
  else client.connect();
}

function markDisconnected() {
  myFd = null;
  clearInterval(confirmTimer);
  $("send").disabled = true;
}

function handleState(state) {
  if (state === "connecting") showStatus("connecting", hasFailed ? "reconnecting…" : "connecting…");
}

function handleEnd({ code, reason, delay }) {
  const wasWelcomed = myFd !== null;
  markDisconnected();
  hasFailed = true;
  let text = CLOSE_CODES.get(code) ?? (code >= 4000 ? "The server ended this session." : "The connection was closed.");
  if (code === 1006 && !wasWelcomed) text = "No connection. The server is down, or it refused this uid.";
  $("notice-text").textContent = `${text} (${code}${reason ? `: ${reason}` : ""})`;
  $("notice").hidden = false;
  if (delay === null) showStatus("closed", "closed");
  else showStatus("waiting", `trying again in ${(delay / 1000).toFixed(1)} s`);
}

function handleError({ code, message, group }) {
  if (group === undefined) return showError(`${code}: ${message}`);
  refuseGroup(group, message);
}

// Shows the time until the answer. Without an answer, the returned promise ends as `request` does.
async function timed(request) {
  const sentAt = performance.now();
  const answer = await request;
  $("round-trip").textContent = `Last round trip: ${(performance.now() - sentAt).toFixed(1)} ms.`;
  return answer;
}

/* Messages */

// The client joins its groups again before it calls this function.
function handleWelcome({ fd, uid, heartbeat }) {
  myFd = fd;
  // The known fds are from the time before this connection. All members of the lobby answer the hello below with their fds.
  for (const person of people.values()) showFds(person, new Set());
  $("my-uid").textContent = uid ?? "anonymous";
  $("my-fd").textContent = `fd ${fd}`;
  $("notice").hidden = true;
  $("send").disabled = false;
  showStatus("online", "connected");
  showHeartbeat(heartbeat);
  if (uid !== null) markOnline(uid, fd);
  pushPresence({ group: LOBBY }, "hello").catch(() => {});
  confirm();
  confirmTimer = setInterval(confirm, CONFIRM_MS);
}

function handleMessage(frame) {
  if (frame.fd === myFd) return;   // this tab sent the message and has already shown it
  if (frame.from != null) markOnline(frame.from, frame.fd);
  if (handlePresence(frame)) return;
  const from = frame.from ?? (frame.fd === undefined ? "server" : "anonymous");
  const scope = frame.all ? "everyone" : frame.group !== undefined ? `# ${frame.group}` : "to you";
  showMessage({ direction: "in", from, fd: frame.fd, scope, data: frame.data ?? null });
}

function showText(data) {
  showMessage({ direction: "in", from: "server", scope: "text", data });
}

// A browser hides pings and pongs from scripts.
function showHeartbeat({ mode, every_ms } = {}) {
  const seconds = `${every_ms / 1000} s`;
  $("heartbeat").textContent = {
    ping: `The server pings every ${seconds}; the browser answers automatically.`,
    push: `The server pings every ${seconds}; an answer is optional.`,
    client: `This page sends a heartbeat every ${seconds}.`,
  }[mode] ?? "None.";
}

/* Presence */
//
// The lobby's `joined` and `left` frames report changes. For users who joined earlier, the page sends a hello to the
// lobby, and each member answers to this fd only. This suits small groups. A large site should query its back end.
//
// A user is `online`, `suspect` or `offline`. A suspect is shown as online. If the user is still missing GRACE_MS later,
// the user becomes offline. So a reload, and a query during a reload, do not change the display.

// Sends a frame of the presence protocol. The promise rejects if the connection ends first: the next welcome sends a hello.
function pushPresence(target, kind) {
  return timed(client.push(target, { kind }));
}

function handlePresence({ fd, group, all, data }) {
  if (data?.kind === "hello" && group === LOBBY) {
    if (fd !== undefined) pushPresence({ fd }, "here").catch(() => {});
    return true;
  }
  return data?.kind === "here" && group === undefined && !all;
}

// Removes closed fds of a user with several tabs. The server sends no frame when one tab of a uid closes and another stays
// open. So the page pushes to each fd: `matched` is 0 for a closed fd.
function probeFds(person) {
  if (person.fds.size < 2 || myFd === null) return;
  for (const fd of person.fds) {
    if (fd === myFd) continue;
    pushPresence({ fd }, "here").then(({ matched }) => {
      if (matched === 0 && person.fds.delete(fd)) showFds(person, person.fds);
    }, () => {});
  }
}

function markOnline(uid, fd) {
  const person = people.get(uid) ?? addPerson(uid);
  clearTimeout(person.offlineTimer);
  showPerson(person, "online");
  if (fd === undefined || person.fds.has(fd)) return;
  showFds(person, person.fds.add(fd));
  // The new fd may belong to a user whose old connection has ended, but the server has not detected this end yet.
  probeFds(person);
  clearTimeout(person.probeTimer);
  person.probeTimer = setTimeout(probeFds, GRACE_MS, person);
}

function markSuspect(uid) {
  const person = people.get(uid);
  if (person?.state !== "online") return;
  showPerson(person, "suspect");
  person.offlineTimer = setTimeout(() => askOnline([uid], () => showPerson(person, "offline")), GRACE_MS);
}

// Queries all users on the roster. Also runs at each welcome, to find out which suspects are online.
function confirm() {
  for (const person of people.values()) {
    if (person.state !== "suspect") continue;
    clearTimeout(person.offlineTimer);
    person.state = "online";
  }
  askOnline([...people.keys()], markSuspect);
  for (const person of people.values()) probeFds(person);
}

function askOnline(uids, onMissing) {
  if (myFd === null) return;
  timed(client.online(uids)).then((online) => {
    beat();
    for (const uid of uids) online.includes(uid) ? markOnline(uid) : onMissing(uid);
  }, () => {});   // the page asks again after the next welcome
}

// A notice has one user as `uid` and several as `uids`. A notice about very many users has only the current count.
function handleMembership({ type, group: name, uid, uids = uid === undefined ? [] : [uid], count }) {
  if (name === LOBBY) {
    for (const each of uids) type === "joined" ? markOnline(each) : markSuspect(each);
    // A page that joins the lobby sends a hello, so `joined` without uids needs no query. `left` without uids needs one.
    if (!uids.length && type === "left") confirm();
  }
  const group = groups.get(name);
  if (!group) return;
  clearTimeout(group.countTimer);
  group.hasCount = true;
  const settle = () => { group.count.textContent = count; };
  // A user who left is counted until GRACE_MS later, as on the roster.
  if (type === "joined") settle(); else group.countTimer = setTimeout(settle, GRACE_MS);
}

/* Groups */

// Adds a hidden group before the answer arrives, because a `joined` frame with the count may arrive before the answer.
async function join(name) {
  if (!groups.has(name)) addGroup(name);
  try {
    await timed(client.join(name));
    groups.get(name)?.item.removeAttribute("hidden");
  } catch ({ code, message }) {
    if (!LOST.includes(code)) refuseGroup(name, message);
  }
}

function refuseGroup(name, message) {
  showError(`Could not join ${name}: ${message}`);
  removeGroup(name);
}

async function leave(name) {
  try {
    await timed(client.leave(name));
  } catch ({ code, message }) {
    if (!LOST.includes(code)) return showError(`Could not leave ${name}: ${message}`);
  }
  removeGroup(name);
}

/* Sending */

// Returns the receiver, for the frame and for the display. If the form has no valid receiver, shows a message and returns null.
function target() {
  const kind = $("target-kind").value, field = $("target-name"), name = field.value;
  const fault = kind === "all" ? "" : !name ? "Enter a receiver."
    : kind === "fd" && !(Number.isSafeInteger(+name) && +name > 0) ? "An fd is an integer above 0." : "";
  field.setCustomValidity(fault);
  if (!field.reportValidity()) return null;
  switch (kind) {
    case "to": return { address: { to: name }, scope: `to ${name}` };
    case "group": return { address: { group: name }, scope: `# ${name}` };
    case "fd": return { address: { fd: +name }, scope: `to fd ${name}` };
    default: return { address: { all: true }, scope: "everyone" };
  }
}

function pushText() {
  const data = $("text").value;
  const to = data.trim() && myFd !== null ? target() : null;
  if (!to) return;
  const receipt = showMessage({ direction: "out", from: session.uid || "anonymous", fd: myFd, scope: to.scope, data });
  timed(client.push(to.address, data)).then((ack) => showReceipt(receipt, ack), (error) => showFailure(receipt, error));
  $("text").value = "";
}

function chooseTarget(kind, name = "") {
  const field = $("target-name");
  $("target-kind").value = kind;
  field.hidden = kind === "all";
  field.value = name;
  field.setCustomValidity("");
  field.placeholder = { to: "uid", group: "group", fd: "fd" }[kind] ?? "";
  if (name) {
    $("text").focus();
    showPanels(false);
  }
}

/* Drawing */

function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);   // strings become text nodes
  return element;
}

function clip(text, max) {
  return text.length > max ? `${text.slice(0, max)}… (${text.length} characters)` : text;
}

function avatar(name, className = "") {
  const element = make("span", `avatar ${className}`, [...name][0]?.toUpperCase() ?? "?");
  let hue = 0;
  for (const unit of encoder.encode(name)) hue = (hue + unit) * 137 % 360;
  element.style.setProperty("--hue", hue);
  element.ariaHidden = "true";
  return element;
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  // The roster is current only while the page is connected.
  $("people").classList.toggle("stale", state !== "online");
  $("status").textContent = text;
}

function beat() {
  $("heart").classList.remove("beat");
  void $("heart").offsetWidth;   // restarts the animation
  $("heart").classList.add("beat");
}

function addPerson(uid) {
  if (people.size >= PEOPLE_MAX) removePerson([...people].find(([, person]) => person.state === "offline") ?? [...people][0]);
  const state = make("span", "unseen");
  const fd = make("span", "fd");
  const button = make("button", "grow", avatar(uid), make("span", "cut grow", uid), state, fd);
  const item = make("li", "", button);
  item.dataset.uid = button.title = uid;
  button.type = "button";
  button.addEventListener("click", () => chooseTarget("to", uid));
  $("roster").insertBefore(item, [...$("roster").children].find((other) => other.dataset.uid.localeCompare(uid) > 0) ?? null);
  const person = { state: "", offlineTimer: undefined, probeTimer: undefined, item, fds: new Set(), fd, stateText: state };
  people.set(uid, person);
  return person;
}

function removePerson([uid, person]) {
  clearTimeout(person.offlineTimer);
  clearTimeout(person.probeTimer);
  person.item.remove();
  people.delete(uid);
}

function showFds(person, fds) {
  person.fds = fds;
  person.item.dataset.fd = [...fds].join(" ");
  person.fd.textContent = fds.size ? `fd ${[...fds].join(", ")}` : "";
}

function showPerson(person, state) {
  person.state = person.item.dataset.state = state;
  person.stateText.textContent = state === "offline" ? "offline" : "online";
  if (state === "offline") showFds(person, new Set());
  $("people-count").textContent = [...people.values()].filter((other) => other.state !== "offline").length;
  showLobbyCount();
}

// A second tab of a uid causes no `joined` frame, so this page may not know the count of the lobby. Until the first `joined`
// frame, the lobby shows the number of online users on the roster.
function showLobbyCount() {
  const lobby = groups.get(LOBBY);
  if (lobby && !lobby.hasCount) lobby.count.textContent = $("people-count").textContent;
}

function addGroup(name) {
  const count = make("span");
  const choose = make("button", "grow", avatar(name, "square"), make("span", "cut grow", name), make("span", "fd", count));
  choose.title = `Send to ${name}`;
  choose.addEventListener("click", () => chooseTarget("group", name));
  const item = make("li", "", choose);
  item.dataset.group = name;
  item.hidden = true;
  if (name !== LOBBY) {
    const out = make("button", "faint", "leave");
    out.ariaLabel = `Leave ${name}`;
    out.addEventListener("click", () => leave(name));
    item.append(out);
  }
  $("groups").append(item);
  groups.set(name, { item, count, countTimer: undefined, hasCount: false });
  if (name === LOBBY) {
    choose.title = "Every tab joins the lobby. Its frames update the roster.";
    showLobbyCount();
  }
  if (name !== LOBBY && !session.groups.includes(name)) session.groups.push(name);
  keepSession();
}

function removeGroup(name) {
  clearTimeout(groups.get(name)?.countTimer);
  groups.get(name)?.item.remove();
  groups.delete(name);
  session.groups = session.groups.filter((other) => other !== name);
  keepSession();
}

function appendToLog(item, follow = false) {
  const log = $("log");
  const atEnd = follow || log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  log.append(item);
  while (log.children.length > LOG_MAX) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function showMessage({ direction, from, fd, scope, data }) {
  const plain = typeof data === "string";
  const text = plain ? data : JSON.stringify(data);
  const receipt = make("div", "receipt", direction === "out" ? "sending…" : "");
  const about = make("div", "about", make("b", "cut", from), make("span", "scope cut", scope));
  if (fd !== undefined) about.append(make("span", "fd", `fd ${fd}`));
  about.append(make("time", "", new Date().toLocaleTimeString()));
  const item = make("li", `message ${direction}`, avatar(from), make("div", "bubble", about, make("div", plain ? "text" : "text json", clip(text, TEXT_MAX)), receipt));
  item.dataset.from = from;
  item.dataset.scope = scope;
  appendToLog(item, direction === "out");
  return receipt;
}

function showReceipt(receipt, { matched, queued, dropped }) {
  receipt.textContent = matched === 0 ? "offline" : `queued for ${queued} of ${matched}${dropped ? `, dropped ${dropped}` : ""}`;
  receipt.classList.toggle("bad", matched === 0 || dropped > 0);
}

function showFailure(receipt, { code, message }) {
  receipt.textContent = LOST.includes(code) ? "no answer: the connection ended" : `${code}: ${message}`;
  receipt.classList.add("bad");
}

// Shows an error in the message log.
function showError(text) {
  appendToLog(make("li", "log-error", text));
}

function showFrame({ direction, text }) {
  const time = new Date().toLocaleTimeString();
  const arrow = direction === "out" ? "↑ out" : "↓ in";
  const note = isPresenceFrame(text) ? make("span", "note", "roster") : "";
  $("frames").prepend(make("li", direction, make("span", "faint", `${time} `), make("b", "", arrow), " ", note, ` ${clip(text, FRAME_TEXT_MAX)}`));
  while ($("frames").children.length > FRAMES_MAX) $("frames").lastChild.remove();
}

// Returns whether the frame belongs to the page's presence protocol and is not a message of a user.
function isPresenceFrame(text) {
  return /"kind":"(hello|here)"|"type":"online"|"group":"lobby"/.test(text);
}

function showPanels(open) {
  $("panels").classList.toggle("open", open);
  $("panels-toggle").ariaExpanded = open;
}

function showApp(inside) {
  $("login").hidden = inside;
  $("app").hidden = $("me").hidden = !inside;
}

/* Start */

function keepSession() {
  sessionStorage.setItem("fdpush", JSON.stringify(session));
}

function logIn(uid) {
  session.uid = uid;
  keepSession();
  $("my-uid").textContent = uid || "anonymous";
  showApp(true);
  $("text").focus();
  connect();
}

function logOut() {
  disconnect();
  session.uid = null;
  for (const entry of people) removePerson(entry);
  for (const name of [...groups.keys(), ...session.groups]) removeGroup(name);
  $("my-fd").textContent = "";
  $("notice").hidden = true;
  showStatus("idle", "not connected");
  showApp(false);
  $("uid").select();
}

// `#uid=alice` or `?uid=alice` connects at once. The page moves the name from the URL to the session, so a user who logged
// out stays logged out after a reload.
function start() {
  const named = [location.hash.slice(1), location.search].map((part) => new URLSearchParams(part).get("uid"));
  const uid = named[0] ?? named[1] ?? session.uid;
  if (named.some((name) => name !== null)) history.replaceState(null, "", location.pathname);
  if (uid === null) return;
  $("uid").value = uid;
  if (uidFits()) logIn(uid);
}

function uidFits() {
  $("uid").setCustomValidity(encoder.encode($("uid").value).length > 128 ? "The name has more than 128 bytes." : "");
  return $("uid").reportValidity();
}

function onSubmit(id, act) {
  $(id).addEventListener("submit", (event) => { event.preventDefault(); act(); });
}

$("scheme").textContent = SCHEME === "wss:" ? "wss: encrypted" : "ws: not encrypted";
Object.assign(session, JSON.parse(sessionStorage.getItem("fdpush")));
onSubmit("login", () => { if (uidFits()) logIn($("uid").value); });
onSubmit("composer", pushText);
onSubmit("join", () => { join($("join-name").value); $("join-name").value = ""; });
$("uid").addEventListener("input", () => $("uid").setCustomValidity(""));
$("target-name").addEventListener("input", () => $("target-name").setCustomValidity(""));
$("target-kind").addEventListener("change", () => chooseTarget($("target-kind").value));
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  pushText();
});
$("retry").addEventListener("click", retry);
$("disconnect").addEventListener("click", logOut);
$("panels-toggle").addEventListener("click", () => showPanels(!$("panels").classList.contains("open")));
$("frames-toggle").addEventListener("click", () => {
  const open = $("frames-panel").hidden;
  $("frames-panel").hidden = !open;
  $("frames-toggle").ariaExpanded = open;
});
$("frames-clear").addEventListener("click", () => $("frames").replaceChildren());
addEventListener("hashchange", start);
start();
