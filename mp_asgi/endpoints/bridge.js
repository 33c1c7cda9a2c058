// Carry choices between the server and what it cannot see: managers that keep them in the page's
// storage, and mixpanel-browser. Only documented signals of a visitor's own choice are carried.
(() => {
  "use strict";
  if (window.mpAsgiBridge) return;
  window.mpAsgiBridge = true;
  const script = findScript("@MOUNT@" + "/bridge.js");
  const endpoint = new URL("consent", script.src);
  const service = script.dataset.service || "Mixpanel"; // its name in Usercentrics
  const OPT_OUT = "__mp_opt_in_out_" + "@TOKEN@"; // where mixpanel-browser keeps "0" or "1"
  const TOLD = OPT_OUT + "_mp_asgi"; // the server knows of that "0"
  const UNASKED = ["no-choice", "opt-out-default", "cookieless"];
  const NOT_CHOSEN = [...UNASKED, "sec-gpc", "dnt", "policy-denied"];
  const tabs = window.mpAsgiTabs = window.mpAsgiTabs || new BroadcastChannel("mp-asgi");
  const AT_ONCE = 1000; // milliseconds between the two events of one click
  const PAUSE = 250;
  const TRIES = 40; // 10 seconds in all: managers and libraries come late

  let known = null; // the state, as a promise
  let queue = Promise.resolve();
  let hooks = [hearTermly, hearOsano, hearSourcepoint]; // each until it has found its manager
  let due = null; // what mixpanel-browser is still to be told
  let tries = 0;
  let timer = 0;

  function findScript(path) {
    // A module is no current script, and an element of the page's may take a property's name.
    const isOurs = (found) => found instanceof HTMLScriptElement
      && found.src.startsWith(`${location.origin}/`) && new URL(found.src).pathname.endsWith(path);
    return [document.currentScript, ...document.querySelectorAll("script")].find(isOurs)
      || { src: location.origin + path, dataset: {} };
  }

  // --- to the server ---------------------------------------------------------------------------

  // Fresh is what the visitor told the manager in this page view; a manager that only says again
  // what it was told once must not undo what they have told somebody else since.
  function report(manager, isGranted, isFresh) {
    queue = queue.then(() => carry(manager, isGranted, isFresh)).catch(() => { known = null; });
    return queue;
  }

  async function carry(manager, isGranted, isFresh) {
    const before = await ask();
    const analytics = isGranted ? "granted" : "denied";
    if (before.state === analytics && !NOT_CHOSEN.includes(before.reason)) return;
    if (isGranted && before.gpc) return; // only a banner that says so overrides the browser
    if (isGranted && !isFresh && !UNASKED.includes(before.reason)) return;
    const decision = { analytics, source: `cmp:${manager}` };
    if (isFresh) decision.fresh = true;
    const state = await call({
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(decision),
      keepalive: true,
    });
    document.dispatchEvent(new CustomEvent("mp-asgi:consent", { detail: { ...state, manager } }));
    tabs.postMessage(state);
  }

  function ask() {
    known = known || call({});
    return known;
  }

  async function call(options) {
    const signal = AbortSignal.timeout(10000);
    const response = await fetch(endpoint, { cache: "no-store", signal, ...options });
    if (!response.ok) throw new Error(`consent: ${response.status}`);
    return response.json();
  }

  // --- managers --------------------------------------------------------------------------------

  let said = null; // what Usercentrics said last, and when
  let pressed = -AT_ONCE; // when one of its buttons was

  // Version 3: `UC_CONSENT` carries every service with its consent and how it came about, when
  // the page loads and at each change.
  window.addEventListener("UC_CONSENT", (event) => {
    const services = Object.values((event.detail || {}).services || {});
    const { consent } = services.find((item) => item.name === service) || {};
    if (!consent) return;
    const isGranted = consent.type === "EXPLICIT" ? consent.given === true : null;
    const isChange = said !== null && said.isGranted !== isGranted;
    said = { isGranted, at: event.timeStamp };
    if (isGranted === null) return;
    report("usercentrics", isGranted, isChange || event.timeStamp - pressed < AT_ONCE);
  });

  // A button was pressed. Version 2 stores what it did after this event.
  window.addEventListener("UC_UI_CMP_EVENT", (event) => {
    const { type } = event.detail || {};
    if (!["ACCEPT_ALL", "DENY_ALL", "SAVE"].includes(type)) return;
    if (window.__ucCmp) hearPress(type, event.timeStamp);
    else setTimeout(hearOldUsercentrics);
  });

  function hearPress(type, at) {
    pressed = at;
    const isSame = said !== null && said.isGranted !== null && at - said.at < AT_ONCE;
    if (!isSame || type === (said.isGranted ? "DENY_ALL" : "ACCEPT_ALL")) return;
    report("usercentrics", said.isGranted, true);
  }

  function hearOldUsercentrics() {
    const ui = window.UC_UI;
    const services = ui && ui.getServicesBaseInfo ? ui.getServicesBaseInfo() : [];
    const found = services.find((item) => item.name === service);
    if (found) report("usercentrics", found.consent.status === true, true);
  }

  function hearTermly() {
    const termly = window.Termly;
    if (!termly || !termly.on) return false;
    termly.on("consent", () => {
      const isGranted = (termly.getConsentState() || {}).analytics;
      if (typeof isGranted === "boolean") report("termly", isGranted, true);
    });
    return true;
  }

  function hearOsano() {
    const manager = window.Osano && window.Osano.cm;
    if (!manager || !manager.addEventListener) return false;
    manager.addEventListener("osano-cm-consent-saved", (consent) => {
      const isGranted = { ACCEPT: true, DENY: false }[consent.ANALYTICS];
      if (isGranted !== undefined) report("osano", isGranted, true);
    });
    return true;
  }

  // Sourcepoint speaks the IAB's TCF: purpose 1 is storage, purpose 8 measurement of content.
  function hearSourcepoint() {
    if (!window._sp_ || !window.__tcfapi) return false;
    window.__tcfapi("addEventListener", 2, (tc, isGood) => {
      if (!isGood || tc.eventStatus !== "useractioncomplete" || !tc.gdprApplies) return;
      const consents = tc.purpose.consents;
      const isStored = consents[1] === true || tc.purposeOneTreatment === true;
      report("sourcepoint", isStored && consents[8] === true, true);
    });
    return true;
  }

  // --- mixpanel-browser ------------------------------------------------------------------------

  // An opt-out in the page's storage is news once: later choices with the server end it.
  async function hearMixpanel() {
    if (read(OPT_OUT) !== "0") keep(TOLD, null);
    else if (read(TOLD) === null && !isOptedOutByDefault()) {
      await report("mixpanel-browser", false, false);
      if ((await ask()).state === "denied") keep(TOLD, "1");
    }
  }

  // With this setting the library itself writes the opt-out, before anybody chose.
  function isOptedOutByDefault() {
    const { mixpanel } = window;
    const isLoaded = mixpanel && typeof mixpanel.get_config === "function";
    return isLoaded && Boolean(mixpanel.get_config("opt_out_tracking_by_default"));
  }

  function read(key) {
    try { return localStorage.getItem(key); } catch { return null; } // forbidden storage
  }

  function keep(key, value) {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch { /* nothing was there, and nothing can be */ }
  }

  function isOptedOut(mixpanel) {
    const says = mixpanel.has_opted_out_tracking;
    return read(OPT_OUT) === "0" || Boolean(says && says.call(mixpanel));
  }

  // Tells the library what the server knows. What no visitor chose grants nothing, and a grant
  // that is no news only ends an opt-out.
  function tell(state, isNews) {
    const isGrant = state.state === "granted" && !NOT_CHOSEN.includes(state.reason);
    due = null;
    if (isGrant) due = (mixpanel) => optIn(mixpanel, isNews);
    if (state.state === "denied") due = optOut;
    if (due === optOut) keep(TOLD, "1");
    tries = 0;
    look();
  }

  function optIn(mixpanel, isNews) {
    keep(TOLD, null);
    if (!isNews && !isOptedOut(mixpanel)) return;
    mixpanel.opt_in_tracking({ track() {} }); // opting in sends no event
  }

  function optOut(mixpanel) {
    // A refusal ends the tracking; it does not delete the person's profile.
    if (!isOptedOut(mixpanel)) mixpanel.opt_out_tracking({ delete_user: false });
  }

  // --- when ------------------------------------------------------------------------------------

  function look() {
    clearTimeout(timer);
    hooks = hooks.filter((hook) => !hook());
    const { mixpanel } = window;
    if (due && mixpanel && mixpanel.opt_in_tracking && mixpanel.opt_out_tracking) {
      due(mixpanel);
      due = null;
    }
    tries += 1;
    if ((hooks.length || due) && tries < TRIES) timer = setTimeout(look, PAUSE);
  }

  async function begin() {
    known = null;
    try {
      await hearMixpanel();
      tell(await ask(), false);
    } catch {
      known = null;
    }
  }

  document.addEventListener("mp-asgi:consent", ({ detail }) => {
    known = Promise.resolve(detail);
    if (detail.manager !== "mixpanel-browser") tell(detail, true); // it said so itself
  });
  tabs.addEventListener("message", ({ data }) => {
    known = Promise.resolve(data);
    tell(data, false);
  });

  look();
  window.addEventListener("pageshow", begin); // also when the page comes back as it was left
  if (document.readyState === "complete") begin();
})();
