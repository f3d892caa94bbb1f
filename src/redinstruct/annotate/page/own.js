// What every page of our own server needs: its token, and the one way to ask. Text only ever enters a document as text
// (textContent); every request goes to the page's own server. Loaded before the page's own script, which may set
// `own.restart` (what to do when nobody answers), and `own.onToken` before taking a token.
"use strict";

const $ = (id) => document.getElementById(id);
const kept = window.sessionStorage;

const own = { restart: "", onToken: () => {} };

// The token comes in the fragment, which browsers send to nobody, and leaves the address bar at once.
function takeToken() {
  if (location.hash.length < 20) return false;   // a place in the page, no token
  own.onToken(location.hash.slice(1), kept.getItem("token"));
  kept.setItem("token", location.hash.slice(1));
  history.replaceState(null, "", "/");
  return true;
}

// Take the token of the address; a new one, opened in an old tab of the same port, changes the fragment only.
function startPage(settings) {
  Object.assign(own, settings);
  takeToken();
  window.addEventListener("hashchange", () => { if (takeToken()) location.reload(); });
}

async function ask(path, body) {
  let reply;
  try {
    reply = await fetch("/api/" + path, {
      method: "POST", mode: "same-origin", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer",
      headers: { "Content-Type": "application/json", "Authorization": "Bearer " + (kept.getItem("token") || "") },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The server does not answer. " + own.restart);
  }
  let told = null;
  try { told = await reply.json(); } catch { /* said below */ }
  if (!reply.ok) {
    const error = new Error((told && told.error) || "The server refused (" + reply.status + ").");
    error.status = reply.status;
    throw error;
  }
  return told;
}
