// The script of the demo page. The script uses the JavaScript client of clients/js, which the server serves as
// fdpush.js. The script inserts text from other users as text nodes, never as markup. The sections of this script:
// bounds, connection, messages, presence, groups, sending, drawing, start.

import { Client } from "./fdpush.js";

const LOBBY = "lobby";           // the group that every tab joins; the `joined` and `left` frames of the lobby update the roster
const GRACE_MS = 3000;           // a user who left has this time to reconnect, for example after a page reload
const CONFIRM_MS = 15000;        // interval of the `online` query about all users on the roster
const ANSWER_MS_MAX = 10000;     // maximum time that the client waits for an answer of the server
const RETRY_MS_FIRST = 500;      // maximum of the first reconnect delay
const PEOPLE_MAX = 200;          // maximum number of users on the roster; one `online` query covers all users on the roster
const LOG_MAX = 500, FRAMES_MAX = 200, TEXT_MAX = 20000, FRAME_TEXT_MAX = 2000;

// The text that the page shows for each close code.
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

// The error codes of requests whose result is unknown, because the connection ended before the answer.
const LOST = ["closed", "connection_lost", "not_connected"];

// A page that was loaded by https must connect by wss, because browsers block ws connections of an https page.
const SCHEME = location.protocol === "https:" ? "wss:" : "ws:";

const $ = (id) => document.getElementById(id);
const encoder = new TextEncoder();

const session = { uid: null, groups: [] };   // kept when the page reloads; uid is null before the login, and "" for an anonymous user
const people = new Map();                    // uid → { state, offlineTimer, item, … }
const groups = new Map();                    // name → { item, count, countTimer }
let client = null;                           // null before the login
let myFd = null;                             // null while the page is not connected
let hasFailed = false;                       // whether this client has lost a connection or failed to connect
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

// Connects again. A client object in the state `closed` has rejected all its join requests, and does not send them
// again. So `connect` creates a new client object, which joins the groups of the session.
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

// Shows the round-trip time of a request. If the request fails, the returned promise rejects with the error of the
// request.
async function timed(request) {
  const sentAt = performance.now();
  const answer = await request;
  $("round-trip").textContent = `Last round trip: ${(performance.now() - sentAt).toFixed(1)} ms.`;
  return answer;
}

/* Messages */

// The client sends its join requests before the client calls this function.
function handleWelcome({ fd, uid, heartbeat }) {
  myFd = fd;
  // The page learned the fds on the roster during an earlier connection, and these fds may be closed now. So the page
  // removes all fds from the roster. The page then sends a hello to the lobby, and each member of the lobby answers
  // with its fd.
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
// The `joined` and `left` frames of the lobby report changes of the roster. To find users who joined earlier, the page
// sends a hello to the lobby, and each member of the lobby answers to the fd of this page only. The hello suits small
// groups, because each member answers every hello. A site with many users should query its back end for the users who
// are online.
//
// A user is `online`, `suspect` or `offline`. The roster shows a suspect as online. A suspect who is still missing
// after GRACE_MS becomes offline. So the roster does not change if another user reloads their page.

// Pushes a presence message (`hello` or `here`) to other pages. The promise rejects if the connection ends before the
// ack. The caller ignores this error, because `handleWelcome` pushes a `hello` after each reconnection.
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

// Removes closed fds of a user who has several fds. If a uid has several connections, the server sends no frame when
// one of the connections closes. So the page pushes a message to each fd of the user. In the ack of a push to a closed
// fd, `matched` is 0.
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
  // An older connection of this user may have ended, but the server may not have detected the end yet. So the page
  // probes the fds of the user now and after GRACE_MS.
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

// Asks the server which users on the roster are online. The page also calls this function at each welcome, because a
// suspect may be online again.
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
  }, () => {});   // after a failed query, the page repeats the query at the next welcome
}

// A `joined` or `left` frame names one user in `uid`, or several users in `uids`. A frame about very many users names
// no user. Each frame has `count`, the number of users in the group.
function handleMembership({ type, group: name, uid, uids = uid === undefined ? [] : [uid], count }) {
  if (name === LOBBY) {
    for (const each of uids) type === "joined" ? markOnline(each) : markSuspect(each);
    // A page that joins the lobby sends a hello, so a `joined` frame without uids needs no query. A `left` frame
    // without uids needs a query.
    if (!uids.length && type === "left") confirm();
  }
  const group = groups.get(name);
  if (!group) return;
  clearTimeout(group.countTimer);
  group.hasCount = true;
  const settle = () => { group.count.textContent = count; };
  // If a user leaves, the page shows the smaller count GRACE_MS later, because the roster also shows the user as online
  // for GRACE_MS.
  if (type === "joined") settle(); else group.countTimer = setTimeout(settle, GRACE_MS);
}

/* Groups */

// Adds the group to the page before the server acknowledges the join, because a `joined` frame with the count may
// arrive before the acknowledgement. The group is hidden until the acknowledgement.
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

// Returns the target of the message: `address` is the target in the push frame, and `scope` is the text about the
// target in the message log. If the form has no valid receiver, shows an error and returns null.
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

// A second tab of a uid causes no `joined` frame, so this page may not know how many users are in the lobby. Until the
// first `joined` or `left` frame of the lobby, the lobby shows the number of online users on the roster.
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
    choose.title = "Every tab joins the lobby. The frames of the lobby update the roster.";
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

// Returns whether a frame is a presence frame that updates the roster, and not a message of a user.
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

// A URL with `#uid=alice` or `?uid=alice` connects immediately. The page moves the name from the URL to the session, so
// a user who logged out stays logged out after a reload.
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
